"""The short way of a question that bots ask all day: a Signal that is at hand is sent as it lies in memory.

A request that is anything but a plain question for such a Signal goes the usual way, where everything is checked and
every fault has its name. Both ways give the same bytes.
"""

from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from service.answers import Answered, Answers

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class Named(msgspec.Struct, forbid_unknown_fields=True):
    """A market, and nothing else."""

    symbol: str
    timeframe: str


class Many(msgspec.Struct, forbid_unknown_fields=True):
    """Markets, and nothing else."""

    markets: list[Named]


_ONE, _MANY = msgspec.json.Decoder(Named), msgspec.json.Decoder(Many)


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
            answers: Answers = request.app.state.answers
            now = answers.moment()
            if now is not None:
                try:
                    asked = _ONE.decode(await request.body())
                except msgspec.MsgspecError:
                    return await usual(request)
                found = answers.at_hand(asked.symbol, asked.timeframe, now)
                if found is not None:
                    return response(found)
            return await usual(request)

        return handle


class Batch(APIRoute):
    """The route of many markets' Signals."""

    def get_route_handler(self) -> Handler:
        """The short way where all are at hand, else the usual one."""
        usual = super().get_route_handler()

        async def handle(request: Request) -> Response:
            answers: Answers = request.app.state.answers
            now = answers.moment()
            if now is not None:
                try:
                    asked = _MANY.decode(await request.body()).markets
                except msgspec.MsgspecError:
                    return await usual(request)
                if 0 < len(asked) <= request.app.state.settings.service.max_batch_markets:
                    found = [answers.at_hand(each.symbol, each.timeframe, now) for each in asked]
                    bodies = [each.body for each in found if each is not None]
                    if len(bodies) == len(found):
                        return together(bodies)
            return await usual(request)

        return handle
