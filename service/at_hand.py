"""The short way of what bots send all day: a Signal that is at hand is sent as it lies in memory, and bars are taken as
they come.

A request that is anything but plain goes the usual way, where everything is checked and every fault has its name. Both
ways give the same bytes.
"""

from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import msgspec
import polars as pl
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

import model.bars
from model.bars import BAR_SCHEMA, TS, Market
from model.errors import BadInput, Unreachable
from service.answers import Answered, Answers

_EPOCH, _MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class Named(msgspec.Struct, forbid_unknown_fields=True):
    """A market, and nothing else."""

    symbol: str
    timeframe: str


class Pushed(msgspec.Struct, forbid_unknown_fields=True):
    """A market, and bars to keep."""

    symbol: str
    timeframe: str
    bars: list["Brought"]


class OfBars(msgspec.Struct, forbid_unknown_fields=True):
    """A market, and bars to answer from."""

    symbol: str
    timeframe: str
    bars: list["Brought"]
    at: datetime | None = None
    version: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)] | None = None


class Brought(msgspec.Struct, forbid_unknown_fields=True):
    """A bar of a request."""

    ts: datetime
    open: float
    high: float
    low: float
    close: float
    volume: float


class Many(msgspec.Struct, forbid_unknown_fields=True):
    """Markets, and nothing else."""

    markets: list[Named]


# UnicodeDecodeError: bytes that are no text
_NOT_READ = (msgspec.MsgspecError, UnicodeDecodeError)
_ONE = msgspec.json.Decoder(Named)
_PUSHED = msgspec.json.Decoder(Pushed)
_OF_BARS = msgspec.json.Decoder(OfBars)
_MANY = msgspec.json.Decoder(Many)


def is_json(request: Request) -> bool:
    """Whether a request says that it brings JSON, as most say it."""
    for name, value in request.scope["headers"]:
        if name == b"content-type":
            return bool(value.partition(b";")[0] == b"application/json")
    return False


def response(found: Answered) -> Response:
    """A Signal as it is sent."""
    sent = Response(found.body, media_type="application/json")
    sent.raw_headers.append((b"etag", found.etag))
    return sent


def together(bodies: list[bytes]) -> Response:
    """Items as one page."""
    return Response(b'{"items":[%s]}' % b",".join(bodies), media_type="application/json")


class One(APIRoute):
    """The route of one market's Signal."""

    def get_route_handler(self) -> Handler:
        """The short way, else the usual one."""
        usual = super().get_route_handler()

        async def handle(request: Request) -> Response:
            if not is_json(request):
                return await usual(request)
            answers: Answers = request.app.state.answers
            body = await request.body()
            if b'"bars"' in body:
                return await _of_bars(request, body) or await usual(request)
            try:
                asked = _ONE.decode(body)
            except _NOT_READ:
                return await usual(request)
            found = answers.at_hand(asked.symbol, asked.timeframe, await _moment(answers))
            return await usual(request) if found is None else response(found)

        return handle


async def _moment(answers: Answers) -> datetime | None:
    """The time that Signals at hand are for; where something was committed, once what that moved is known."""
    now = answers.moment()
    if now is None:
        with suppress(Unreachable):
            await run_in_threadpool(answers.marks)
            now = answers.moment()
    return now


async def _of_bars(request: Request, body: bytes) -> Response | None:
    """The answer to bars that the request brings; None where it is not quite as such requests are."""
    state = request.app.state
    try:
        asked = _OF_BARS.decode(body)
        market, frame = _market_and_bars(asked, body, state.settings.service.max_bars_per_request)
        at = None if asked.at is None else model.bars.utc(asked.at)
        if at is not None and not _whole_seconds(body, [at]):
            return None
    except _NOT_PLAIN:
        return None
    document = await run_in_threadpool(state.answers.of_bars, market, frame, at, asked.version)
    return Response(msgspec.json.encode(document), media_type="application/json")


def pushed(body: bytes, most: int) -> tuple[Market, pl.DataFrame] | None:
    """The market and the bars (BAR_SCHEMA) of a request to keep them, no more than `most`; None where it is not quite
    as such requests are."""
    try:
        return _market_and_bars(_PUSHED.decode(body), body, most)
    except _NOT_PLAIN:
        return None


# OverflowError: a time that is out of range
_NOT_PLAIN = (*_NOT_READ, BadInput, OverflowError)


def _whole_seconds(body: bytes, times: Iterable[datetime]) -> bool:
    """Whether these times, of that body, are surely those that it states: of more digits than a microsecond has one way
    rounds and the other cuts."""
    return _NEARLY not in body and not any(each.microsecond for each in times)


_NEARLY = b".999999"  # of which rounding may have made a second


def _market_and_bars(asked: Pushed | OfBars, body: bytes, most: int) -> tuple[Market, pl.DataFrame]:
    brought = asked.bars
    if not 0 < len(brought) <= most or not _whole_seconds(body, (bar.ts for bar in brought)):
        raise BadInput("too many bars, or none, or times that are not told to the second")
    opened = [(model.bars.utc(bar.ts) - _EPOCH) // _MICROSECOND for bar in brought]
    values = [[getattr(bar, name) for bar in brought] for name in ("open", "high", "low", "close", "volume")]
    frame = pl.DataFrame(
        [pl.Series("ts", opened, pl.Int64).cast(TS), *(pl.Series(v, dtype=pl.Float64) for v in values)],
        schema=BAR_SCHEMA,
    )
    return model.bars.market(asked.symbol, asked.timeframe), frame


class Batch(APIRoute):
    """The route of many markets' Signals."""

    def get_route_handler(self) -> Handler:
        """The short way where all are at hand, else the usual one."""
        usual = super().get_route_handler()

        async def handle(request: Request) -> Response:
            if not is_json(request):
                return await usual(request)
            answers: Answers = request.app.state.answers
            try:
                asked = _MANY.decode(await request.body()).markets
            except _NOT_READ:
                return await usual(request)
            if 0 < len(asked) <= request.app.state.settings.service.max_batch_markets:
                now = await _moment(answers)
                found = [answers.at_hand(each.symbol, each.timeframe, now) for each in asked]
                bodies = [each.body for each in found if each is not None]
                if len(bodies) == len(found):
                    return together(bodies)
            return await usual(request)

        return handle
