"""What is added to the ledger, told to every open stream of this process.

One task follows the ledger for all streams: it looks when anything was committed, by whatever process, has the markets
answered whose bars or champion moved, and hands each new row, encoded once, to whoever wants it. Rows become visible in
the order of their ids, so that the newest id that was told is all that has to be kept. Without streams it does not run.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

import msgspec
from anyio import CapacityLimiter, to_thread

import model.predictions
import store.database
import store.markets
import store.predictions
from model.bars import Market, iso
from model.errors import NotFound, Unreachable
from model.predictions import Signal
from service.answers import Answered, Answers
from service.metrics import StreamMetrics
from store.changes import Watch
from store.database import Engine
from store.markets import Marks

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.01  # how often it is asked whether anything was committed
ASKED_SECONDS = 0.05  # how long it is put off while markets are being answered
GUARD_SECONDS = 0.1  # how often it is asked whether a stream must end
AGAIN_SECONDS = 0.5  # the pause where the database does not answer
PAGE = 500  # rows that are read at a time
MOST_WAITING = 1_000  # events for one reader; one that is further behind reads them from the ledger
MOST_ANSWERS = 4  # markets that are answered at once
MOST_REPLAYS = 4  # readers that read the ledger at once: a database has so many connections


@dataclass(frozen=True, slots=True)
class Event:
    """A row of the ledger as it goes over the wire."""

    id: int
    market: Market
    frame: bytes


def _event(ident: int, signal: Signal, served_at: datetime) -> Event:
    document = {**model.predictions.document(signal), "id": ident, "served_at": iso(served_at)}
    frame = b"id: %d\nevent: signal\ndata: %s\n\n" % (ident, msgspec.json.encode(document))
    return Event(ident, signal.market, frame)


class Subscriber:
    """What one stream has yet to send. One that falls too far behind keeps nothing but that."""

    def __init__(self, actor: str, allowed: Callable[[], bool], market: Market | None, since: int) -> None:
        self.actor, self.allowed = actor, allowed
        self.market = market  # None: every one
        self.since = since  # the newest id that was told before
        self.ended: str | None = None  # why it must end
        self._waiting: deque[Event] = deque()
        self._overrun = False
        self._news = asyncio.Event()

    def offer(self, events: Sequence[Event]) -> None:
        """Adds what it wants of that."""
        wanted = [event for event in events if self.market is None or event.market == self.market]
        if self._overrun or not wanted:
            return
        self._waiting.extend(wanted)
        if len(self._waiting) > MOST_WAITING:
            self._waiting.clear()
            self._overrun = True
        self.wake()

    def take(self, most: int) -> list[Event]:
        """Up to so many events, oldest first."""
        return [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]

    @property
    def waiting(self) -> bool:
        """Whether there is anything to take."""
        return bool(self._waiting)

    def overrun(self) -> bool:
        """Whether events were dropped since this was last asked. Those that follow are kept again from here on."""
        was, self._overrun = self._overrun, False
        return was

    def end(self, why: str) -> None:
        """Makes it end."""
        self.ended = why
        self.wake()

    def wake(self) -> None:
        """Makes it look."""
        self._news.set()

    async def news(self, seconds: float) -> bool:
        """Waits for something new, but no longer than that; whether there is."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._news.wait()
        came = self._news.is_set()
        self._news.clear()
        return came


class Broadcaster:
    """Follows the ledger while somebody listens. All but `stir` belongs to the event loop."""

    def __init__(
        self,
        engine: Engine,
        watch: Watch,
        answers: Answers,
        stopping: Callable[[], bool],
        metrics: StreamMetrics,
    ) -> None:
        self._engine, self._watch, self._answers = engine, watch, answers
        self._stopping, self._metrics = stopping, metrics
        self._subscribers: set[Subscriber] = set()
        self._told = 0  # the newest id that was told
        self._answered: dict[Market, Marks] = {}  # the marks that a market's newest answer is of
        self._asking: dict[Market, asyncio.Task[None]] = {}
        self._answering = ThreadPoolExecutor(MOST_ANSWERS, "answers")
        self._replays = CapacityLimiter(MOST_REPLAYS)
        self._looks = CapacityLimiter(1)
        self._beginning = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stirred = asyncio.Event()
        self.away = False  # whether the database does not answer

    def sent(self, events: int) -> None:
        """Counts what a stream has sent."""
        self._metrics.events.inc(events)

    def streams(self, actor: str | None = None) -> int:
        """How many are open, of one actor or of all."""
        return sum(actor in (None, each.actor) for each in self._subscribers)

    async def subscribe(self, actor: str, market: Market | None, allowed: Callable[[], bool]) -> Subscriber:
        """A subscriber to all that is told from now on, as long as it is allowed. Raises Unreachable."""
        async with self._beginning:
            if not self._tasks:
                self._loop, self._stirred = asyncio.get_running_loop(), asyncio.Event()
                self._told = await to_thread.run_sync(self._newest)
                self.away = False
                self._tasks = [asyncio.create_task(self._follow()), asyncio.create_task(self._guard())]
            subscriber = Subscriber(actor, allowed, market, self._told)
            self._subscribers.add(subscriber)
        self._metrics.open.set(len(self._subscribers))
        self._stirred.set()  # its market may be one that nobody wanted so far
        return subscriber

    def unsubscribe(self, subscriber: Subscriber) -> None:
        """Forgets it; after the last one nothing is followed any more."""
        self._subscribers.discard(subscriber)
        self._metrics.open.set(len(self._subscribers))
        if not self._subscribers:
            self._cancel()

    def stir(self, market: Market) -> None:
        """Has a market answered at once; to be called by whoever has just moved its mark, from any thread. One that is
        being answered is asked again after that."""
        if self._loop is not None and market not in self._asking and self._wanted(market):
            with suppress(RuntimeError):  # the loop was closed meanwhile
                # begun before the loop hears of it, which is busy with the answer to the one that pushed
                begun = self._answering.submit(self._answers.anew, market)
                self._loop.call_soon_threadsafe(self._want, market, None, begun)

    async def replay(self, after: int, market_id: int | None) -> list[Event]:
        """The ledger's next page after that id. Raises Unreachable, and says so to all streams."""
        try:
            return await to_thread.run_sync(
                self._page, after, market_id, limiter=self._replays, abandon_on_cancel=True
            )
        except Unreachable as error:
            self._say(str(error))
            raise

    async def close(self) -> None:
        """Ends it, once what was begun has come to its end."""
        self._cancel()
        await asyncio.gather(*self._asking.values(), return_exceptions=True)
        self._answering.shutdown(wait=False, cancel_futures=True)

    def _cancel(self) -> None:
        for task in self._tasks:
            task.cancel()
        self._tasks = []

    async def _guard(self) -> None:
        """Ends the streams of a process that stops, and of a key that was revoked."""
        while True:
            stopping = self._stopping()
            for subscriber in self._subscribers:
                if stopping:
                    subscriber.end("the service is stopping; come back with Last-Event-ID")
                elif not subscriber.allowed():
                    subscriber.end("the key is no longer valid")
            await asyncio.sleep(GUARD_SECONDS)

    async def _follow(self) -> None:
        """Looks whenever something was committed, by whomever."""
        seen: object = None
        stirred = put_off = False
        while True:
            pause = LOOK_SECONDS
            # cleared each time: a wait for what is set already does not give way to anything else on the loop
            stirred |= self._stirred.is_set()
            self._stirred.clear()
            try:
                mark = self._watch.mark()
                if mark != seen or stirred or self.away:
                    # an answer under way moves the mark again, and needs the processor: it goes first, but not for long
                    put_off = bool(self._asking) and not put_off and not self.away
                    if put_off:
                        pause = ASKED_SECONDS
                    else:
                        stirred = False
                        await self._look()
                        seen = mark
                        self._say(None)
            except Unreachable as error:
                self._say(str(error))
                pause = AGAIN_SECONDS
            except Exception:
                log.exception("streams could not be told what is new; it is tried again")
                pause = AGAIN_SECONDS
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._stirred.wait()

    async def _look(self) -> None:
        """Has the markets answered that moved, and tells what is new."""
        while True:
            marks, events = await to_thread.run_sync(
                self._read, self._told, limiter=self._looks, abandon_on_cancel=True
            )
            for market, mark in marks.items():
                of = self._answered.get(market)
                if of is None or not store.markets.stand(of, marks):
                    self._want(market, mark)
            self._tell(events)
            if len(events) < PAGE:
                return

    def _tell(self, events: Sequence[Event]) -> None:
        """Hands on what was not told yet."""
        new = [event for event in events if event.id > self._told]
        if new:
            self._told = new[-1].id
            for subscriber in self._subscribers:
                subscriber.offer(new)

    def _wanted(self, market: Market) -> bool:
        """Whether anybody listens to it."""
        return any(each.market in (None, market) for each in tuple(self._subscribers))

    def _want(self, market: Market, mark: int | None = None, begun: Future[Answered] | None = None) -> None:
        """Has the market answered if anybody listens to it. `mark` is that which it is known to have reached, `begun` the
        answer where it is under way since the market moved."""
        if market not in self._asking and self._wanted(market):
            answer = begun or self._answering.submit(self._answers.signal, market)
            self._asking[market] = asyncio.create_task(self._ask(market, mark, answer))

    async def _ask(self, market: Market, mark: int | None, answer: Future[Answered]) -> None:
        """Waits for the market's Signal, which comes into the ledger; whatever fails, the others go on."""
        try:
            answered = await asyncio.wrap_future(answer)
        except Unreachable:  # it is asked again
            await asyncio.sleep(AGAIN_SECONDS)
        except Exception as error:  # it is asked again once its mark moves
            if not isinstance(error, NotFound):
                log.exception("%s could not be answered", market)
            if mark is not None:
                self._answered[market] = {market: mark}
        else:
            self._answered[market] = answered.marks
            if answered.id == self._told + 1:  # so there is nothing between
                self._tell([_event(answered.id, answered.signal, answered.served_at)])
        finally:
            del self._asking[market]
            self._stirred.set()  # its mark may have moved meanwhile

    def _say(self, trouble: str | None) -> None:
        """Tells the streams that the database does not answer, or that it does again."""
        away = trouble is not None
        if away != self.away:
            log.warning("streams wait: %s", trouble) if away else log.info("streams go on")
            self.away = away
            for subscriber in self._subscribers:
                subscriber.wake()

    def _newest(self) -> int:
        with store.database.read(self._engine) as conn:
            rows = store.predictions.page(conn, limit=1)
        return rows[0].id if rows else 0

    def _read(self, after: int) -> tuple[Marks, list[Event]]:
        return self._answers.marks(), self._page(after, None)

    def _page(self, after: int, market_id: int | None) -> list[Event]:
        with store.database.read(self._engine) as conn:
            entries = store.predictions.after(conn, after, PAGE, market_id)
        return [_event(entry.id, entry.signal, entry.served_at) for entry in entries]
