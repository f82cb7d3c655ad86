"""Signals as they come: the ledger's tail as server-sent events, and a market's newest by GET.

A row of the ledger is an event, whoever asked for it. Its id is the event's, so that a reader who comes back with the
last one it saw misses none and sees none twice.
"""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Callable
from functools import partial
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BeforeValidator, Field, JsonValue
from starlette.types import Message, Receive, Scope, Send

import model.bars
import store.database
import store.markets
import store.predictions
from model.bars import Market
from model.errors import BadInput, Unreachable
from service import predictions, problems, security
from service.answers import Answers
from service.broadcast import AGAIN_SECONDS, Broadcaster, Subscriber
from service.deps import Actor, AnyMarket, EngineDep, SettingsDep
from service.keyring import Keyring
from store.database import Engine

log = logging.getLogger(__name__)

STALLED_SECONDS = 60.0  # a reader that takes nothing for so long is gone, whatever its connection says
RETRY_MILLISECONDS = 2_000  # after which a reader whose stream ended comes back
TOO_MANY_SECONDS = 10  # after which one that was refused may
BATCH = 64  # events in one write: what a reader does not take waits in a buffer of about that size

EVENT: dict[str, JsonValue] = {**predictions.PREDICTION, "id": 4711, "served_at": "2024-07-01T00:00:01Z"}
EXAMPLE = f": open\nretry: {RETRY_MILLISECONDS}\nid: 4710\n\nid: 4711\nevent: signal\ndata: {json.dumps(EVENT)}\n\n: heartbeat\n"
MEDIA_TYPE = "text/event-stream"
# As OpenAPI 3.2 has it: the schema of one event of a stream, whose data is a document of its own.
EVENT_SCHEMA: dict[str, JsonValue] = {
    "type": "object",
    "required": ["event", "id", "data"],
    "properties": {
        "event": {"const": "signal"},
        "id": {"type": "string", "pattern": "^[0-9]+$"},
        "data": {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": {
                "oneOf": [
                    {"$ref": "#/components/schemas/Prediction"},
                    {"$ref": "#/components/schemas/Abstention"},
                ]
            },
        },
    },
}
AWAY = b": the database does not answer; the stream goes on when it does\n"
HEARTBEAT = b": heartbeat\n"


class Stream(StreamingResponse):
    """An answer that lasts as long as its reader; `closed` is called when it has ended, however it did."""

    def __init__(self, content: AsyncGenerator[bytes], closed: Callable[[], None]) -> None:
        # a proxy must hand on each event at once, and nobody may keep any
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        super().__init__(content, headers=headers, media_type=MEDIA_TYPE)
        self._content, self._closed = content, closed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends until the reader goes, takes nothing for too long, or the service stops."""

        async def patient(message: Message) -> None:
            async with asyncio.timeout(STALLED_SECONDS):
                await send(message)

        try:
            await super().__call__(scope, receive, patient)
        except TimeoutError:
            log.info("a stream is closed: its reader took nothing for %g s", STALLED_SECONDS)
        finally:
            self._closed()
            await self._content.aclose()


EventId = Annotated[int, Field(ge=0, le=2**31 - 1)]
# one who has no last id need not send any, but some send it empty
LastEventId = Annotated[EventId | None, BeforeValidator(lambda sent: sent or None)]

router = APIRouter(prefix="/v1", tags=["predictions"])


@router.get(
    "/signals",
    status_code=200,
    response_class=Stream,
    responses={
        200: {
            "description": "A stream that does not end by itself; each `signal` event's data is a Signal with its `id` and `served_at`.",
            "content": {MEDIA_TYPE: {"itemSchema": EVENT_SCHEMA, "example": EXAMPLE}},
        },
        **problems.responses("not-found", "invalid-request", "bad-input", "too-many-streams", "unreachable"),
    },
)
async def signals(
    request: Request,
    market: AnyMarket,
    engine: EngineDep,
    settings: SettingsDep,
    actor: Actor,
    after: Annotated[
        EventId | None, Query(description="Begin after this event; `Last-Event-ID` counts more.")
    ] = None,
    last_event_id: Annotated[
        LastEventId, Header(description="The last event seen: those after it are sent first. Empty: none.")
    ] = None,
) -> Response:
    """Every Signal as it is put into the ledger, of one market or of all, as server-sent events.

    A new bar is answered and sent by itself. Without `Last-Event-ID` or `after` the stream begins now; with one it
    first sends all that came since, then goes on without a gap or a repetition. A comment comes every
    `service.heartbeat_seconds` when nothing else does. A reader that is slow loses nothing: it reads from the ledger.
    """
    broadcaster: Broadcaster = request.app.state.broadcaster
    market_id, newest = await to_thread.run_sync(_place, engine, market)
    given = after if last_event_id is None else last_event_id
    if given is not None and given > newest:
        raise BadInput(f"no event {given} yet, the newest is {newest}: that id is of another database")
    keyring: Keyring = request.app.state.keyring
    allowed = partial(keyring.admits, actor) if security.keys_required(settings) else lambda: True
    subscriber = await broadcaster.subscribe(actor, market, allowed)
    limits = settings.service
    for most, open_now, whose in (
        (limits.max_streams, broadcaster.streams(), "this process"),
        (limits.max_streams_per_key, broadcaster.streams(actor), actor),
    ):
        if open_now > most:
            broadcaster.unsubscribe(subscriber)
            return problems.answer(
                "too-many-streams",
                f"{whose} has {most} streams open, the most that it may",
                headers={"retry-after": str(TOO_MANY_SECONDS)},
            )
    frames = _frames(broadcaster, subscriber, given, market_id, limits.heartbeat_seconds)
    return Stream(frames, lambda: broadcaster.unsubscribe(subscriber))


def _place(engine: Engine, market: Market | None) -> tuple[int | None, int]:
    """The market's id and the ledger's newest. Raises NotFound, Unreachable."""
    with store.database.read(engine) as conn:
        market_id = None if market is None else store.markets.need(conn, market).id
        rows = store.predictions.page(conn, limit=1)
    return market_id, rows[0].id if rows else 0


async def _frames(
    broadcaster: Broadcaster,
    subscriber: Subscriber,
    given: int | None,
    market_id: int | None,
    heartbeat_seconds: float,
) -> AsyncGenerator[bytes]:
    """What goes over the wire. From `given` on it replays the ledger, and again whenever its reader was too slow."""
    sent = subscriber.since if given is None else given
    # an id without data is where a reader is that has seen no event yet
    yield f": open\nretry: {RETRY_MILLISECONDS}\nid: {sent}\n\n".encode()
    replaying, told_away = sent < subscriber.since, False
    while subscriber.ended is None:
        if broadcaster.away and not told_away:
            yield AWAY
        told_away = broadcaster.away
        replaying |= subscriber.overrun()
        if replaying:
            try:
                events = await broadcaster.replay(sent, market_id)
            except Unreachable:
                await subscriber.news(AGAIN_SECONDS)
                continue
            replaying = bool(events)
        else:
            events = [event for event in subscriber.take(BATCH) if event.id > sent]
        for begin in range(0, len(events), BATCH):
            batch = events[begin : begin + BATCH]
            yield b"".join(event.frame for event in batch)
            sent = batch[-1].id
            broadcaster.sent(len(batch))
        if not (events or replaying or subscriber.waiting or await subscriber.news(heartbeat_seconds)):
            yield HEARTBEAT
    yield f": {subscriber.ended}\n".encode()


@router.get(
    "/signals/{symbol}/{timeframe}",
    response_model=predictions.Signal,
    responses={
        304: {"description": "It is still the one whose `ETag` was given."},
        **problems.responses("not-found", "invalid-request", "bad-input", "unreachable"),
    },
)
def newest_signal(
    request: Request,
    symbol: Annotated[str, Path(examples=["ETHUSDT"])],
    timeframe: Annotated[str, Path(examples=["1h"])],
    if_none_match: Annotated[str | None, Header(description="ETags of answers that are known.")] = None,
) -> Response:
    """The market's Signal for its newest closed bar, the same as `POST /v1/predict` gives, with an ETag to ask by again."""
    answers: Answers = request.app.state.answers
    answered = answers.signal(model.bars.market(symbol, timeframe))
    etag = answered.etag.decode()
    headers = {"etag": etag, "cache-control": "no-cache"}
    if _known(etag, if_none_match):
        return Response(status_code=304, headers=headers)
    return Response(answered.body, headers=headers, media_type="application/json")


def _known(etag: str, if_none_match: str | None) -> bool:
    """Whether `If-None-Match` names that ETag; a weak one of the same text is as good here."""
    named = [] if if_none_match is None else [each.strip() for each in if_none_match.split(",")]
    return "*" in named or etag in [each.removeprefix("W/") for each in named]
