"""A process's Signals in memory: made once, kept in the ledger, and given again as long as nothing has changed.

What is given is checked each time: by the marks of the market and of those whose bars it looks at beside, which move
with bars, promotions and pause, and by the time from which on its newest bar is too old. While the database is away, what
is known goes on to be given, and says so; what is answered anew then waits in the journal for the ledger.
"""

import hashlib
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import msgspec
import polars as pl

import model.predictions
import store.database
import store.forecasts
import store.markets
import store.predictions
from model.bars import Market
from model.errors import Unreachable
from model.predictions import Abstention, Signal
from store.changes import Watch
from store.database import Engine
from store.forecasts import Said
from store.journal import Journal
from store.loaded import Versions
from store.markets import Marks
from store.predictions import Made
from store.recent import Recent
from store.settings import Settings

log = logging.getLogger(__name__)

# A process keeps the newest Signal of so many markets.
MOST = 20_000
# How long a Signal waits for another writer of its database (SQLite has one at a time) before it goes into the journal.
PATIENCE_SECONDS = 2.0
# How often it is asked whether the database is back, while rows wait for it.
DELIVERED_EVERY_SECONDS = 0.5


@dataclass(frozen=True)
class Answered:
    """A Signal, and its document as it is sent."""

    id: int | None  # in the ledger; None: it waits in the journal
    market_id: int
    signal: Signal
    served_at: datetime
    document: dict[str, Any]
    body: bytes
    etag: bytes
    marks: Marks  # under which it is good
    good_until: datetime | None
    row: Mapping[str, Any]  # of the ledger, where that has yet to get it


class Answers:
    """The Signals of one process. Safe for threads."""

    def __init__(
        self,
        engine: Engine,
        settings: Settings,
        watch: Watch,
        clock: Callable[[], datetime],
        journal: Journal,
    ) -> None:
        self.versions: Versions = {}
        self.terms = store.forecasts.terms(settings)
        self.recent: Recent = {}
        self._engine, self._watch, self._clock, self._journal = engine, watch, clock, journal
        self._kept: dict[tuple[str, str], Answered] = {}
        self._away: dict[tuple[str, str], Answered] = {}  # made while the database was
        self._marks: Marks = {}
        self._marked: object = None  # the database's mark under which those were read
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._deliverer: threading.Thread | None = None

    def moment(self) -> datetime | None:
        """The time that Signals at hand are for; None where something was committed since the marks were read, or the
        database is away. Takes microseconds."""
        try:
            return self._clock() if self._watch.mark() == self._marked else None
        except Unreachable:
            return None

    def at_hand(self, symbol: str, timeframe: str, moment: datetime | None) -> Answered | None:
        """The market's Signal where it is in memory and good at a `moment()`; None where there is no such."""
        kept = self._kept.get((symbol, timeframe))
        return kept if kept is not None and moment is not None and self._good(kept, moment) else None

    def signal(self, market: Market) -> Answered:
        """The market's Signal, from memory, the ledger, or made now and put there. Raises NotFound; Unreachable where the
        database is away and nothing is known, or what has to be kept cannot be."""
        try:
            self._look()
            now = self._clock()
            kept = self._kept.get((market.symbol, market.timeframe))
            if kept is not None and self._good(kept, now):
                return kept
            waiting = self._away.get((market.symbol, market.timeframe))
            if waiting is not None and store.markets.stand(waiting.marks, self._marks):
                return self._known(market)  # what was given stands: it comes to the ledger first
        except Unreachable:
            return self._known(market)
        return self._made(market, now)

    def anew(self, market: Market) -> Answered:
        """As `signal`, of a market that has just moved: nothing in memory can be good."""
        return self._made(market, self._clock())

    def _made(self, market: Market, now: datetime) -> Answered:
        for anyway in store.predictions.TRIES:
            waiting = self._away.get((market.symbol, market.timeframe))
            row = None if waiting is None else waiting.row
            try:
                made = store.predictions.make(
                    self._engine, market, now, self.versions, self.terms, self.recent, row
                )
            except Unreachable:
                return self._known(market)
            if waiting is not None and _alike(waiting.signal, made.signal):
                return _degraded(waiting)  # what was given stands, though its bar was corrected since
            try:
                answer = made.answer or store.predictions.keep(
                    self._engine, made, PATIENCE_SECONDS, anyway=anyway
                )
            except Unreachable:
                return self._put_off(made)
            if answer is not None:
                break
            now = self._clock()  # a promotion that counts this time was decided before it
        assert answer is not None
        found = _answered(made, answer.id, answer.signal, answer.served_at)
        if len(self._kept) >= MOST:
            self._kept.pop(next(iter(self._kept)), None)
        self._kept[market.symbol, market.timeframe] = found
        return found

    def of_bars(
        self, market: Market, frame: pl.DataFrame, at: datetime | None, version: int | None
    ) -> dict[str, Any]:
        """The document of what is said of bars (BAR_SCHEMA) that a request brings. Raises as answer_bars does."""
        signal, in_sample = store.predictions.answer_bars(
            self._engine, market, frame, at, self._clock(), self.versions, version, self.terms
        )
        return {**model.predictions.document(signal), "in_sample": in_sample}

    def marks(self) -> Marks:
        """The mark of every market, as of now. Raises Unreachable."""
        self._look()
        return self._marks

    def holds_any(self) -> bool:
        """Whether there is anything to answer from while the database is away."""
        return bool(self._kept or self._away)

    def start(self) -> None:
        """Starts to deliver what waits in the journal, whenever the database can be reached."""
        self._deliverer = threading.Thread(target=self._deliver, name="journal", daemon=True)
        self._deliverer.start()

    def close(self) -> None:
        """Ends that; what could not be delivered is left for the next process."""
        self._stop.set()
        if self._deliverer is not None:
            self._deliverer.join()
        self._journal.close()

    def _good(self, kept: Answered, now: datetime) -> bool:
        in_time = kept.good_until is None or now <= kept.good_until
        return in_time and store.markets.stand(kept.marks, self._marks)

    def _look(self) -> None:
        """Reads the marks of the markets again, where anything was committed since."""
        if self._watch.mark() == self._marked:
            return
        with self._lock:
            mark = self._watch.mark()  # before reading: what is committed meanwhile moves it again
            if mark == self._marked:
                return
            with store.database.glance(self._engine) as conn:
                self._marks = store.markets.marks(conn)
            self._marked = mark

    def _known(self, market: Market) -> Answered:
        """What is known of the market without the database; that its bars are too old, too."""
        named = market.symbol, market.timeframe
        kept = self._away.get(named) or self._kept.get(named)
        if kept is None:
            raise Unreachable("the database does not answer, and nothing is known of this market")
        now = self._clock()
        if kept.good_until is None or now <= kept.good_until:
            return _degraded(kept)
        assert kept.signal.as_of is not None
        stale = store.predictions.stale(market, kept.signal.as_of, kept.signal.version, kept.good_until)
        row = store.predictions.ledger_row(kept.market_id, Said(stale), now)
        return self._put_off(Made(None, row, kept.market_id, stale, kept.marks, None))

    def _put_off(self, made: Made) -> Answered:
        """A Signal that the ledger cannot take now: it is in the journal before it is given. Of two for one bar the first
        stands, as in the ledger."""
        named = made.signal.market.symbol, made.signal.market.timeframe
        before = self._away.get(named)
        if before is not None and _alike(before.signal, made.signal):
            return _degraded(before)
        self._journal.append(made.row)
        found = _answered(made, None, made.signal, made.row["served_at"])
        self._away[named] = found
        return _degraded(found)

    def _deliver(self) -> None:
        while not self._stop.wait(DELIVERED_EVERY_SECONDS):
            try:
                self._watch.mark()
                before = dict(self._away)  # each is in the journal already, and hence delivered now
                self._journal.deliver()
                for named, each in before.items():
                    if self._away.get(named) is each:
                        del self._away[named]
            except Unreachable:
                continue
            except Exception:
                log.exception("the journal could not be delivered; it is tried again")


def _alike(one: Signal, other: Signal) -> bool:
    """Whether the ledger has but one place for both."""
    reasons = [signal.reason if isinstance(signal, Abstention) else None for signal in (one, other)]
    return one.as_of == other.as_of and reasons[0] == reasons[1]


def _answered(made: Made, ident: int | None, signal: Signal, served_at: datetime) -> Answered:
    document = model.predictions.document(signal)
    body, etag = _as_sent(document)
    return Answered(
        ident,
        made.market_id,
        signal,
        served_at,
        document,
        body,
        etag,
        made.marks,
        made.stale_from,
        made.row,
    )


def _degraded(known: Answered) -> Answered:
    """As it is sent while the database is away."""
    document = {**known.document, "degraded": True}
    body, etag = _as_sent(document)
    return replace(known, document=document, body=body, etag=etag)


def _as_sent(document: dict[str, Any]) -> tuple[bytes, bytes]:
    """The document's bytes, and their ETag."""
    body = msgspec.json.encode(document)
    return body, b'"%s"' % hashlib.sha256(body).hexdigest()[:32].encode()
