"""How things stand: each market's state, read in one view and shared by `/metrics` and `/readyz`; the page reads its own."""

import threading
import time
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

import model.bars
import store.backtests
import store.bars
import store.database
import store.figures
import store.jobs
import store.markets
import store.outcomes
import store.predictions
import store.runs
import store.schedules
import store.versions
import store.workers
from model.bars import Market, iso
from model.features import HISTORY
from service.deps import machine_now
from store.database import Connection, Engine
from store.figures import Unscored
from store.jobs import Job
from store.markets import MarketRow
from store.outcomes import LiveScore
from store.runs import TrainingRun

KEPT_SECONDS = 5.0
# A worker looks every few seconds which schedules fired: one that is due for longer than this did not, or failed.
OVERDUE_AFTER = timedelta(minutes=1)


@dataclass(frozen=True)
class MarketState:
    """What is known of one market."""

    id: int
    market: Market
    paused: bool
    bars: int
    last_close: datetime | None  # of the newest stored bar
    stale_from: datetime | None  # when that bar is too old to answer from
    champion: int | None
    champion_since: datetime | None
    live: LiveScore | None  # of the champion
    unscored: Unscored
    last_run: TrainingRun | None
    last_retrain: Job | None
    last_backtest: dict[str, Any] | None


def market_state(conn: Connection, row: MarketRow, stale_after_timeframes: float) -> MarketState:
    """The state of one market."""
    timeframe = model.bars.timeframe(row.market.timeframe)
    opens = store.bars.open_times(conn, row.id, HISTORY)  # as many as an answer looks at
    crowned = store.versions.crowned(conn, row.id)
    return MarketState(
        id=row.id,
        market=row.market,
        paused=row.paused,
        bars=store.bars.count(conn, row.id),
        last_close=None if opens.is_empty() else timeframe.close_of(opens[-1]),
        stale_from=None
        if opens.is_empty()
        else model.bars.stale_from(opens, timeframe, stale_after_timeframes),
        champion=None if crowned is None else crowned.version,
        champion_since=None if crowned is None else crowned.effective_from,
        live=None if crowned is None else store.outcomes.live(conn, crowned.version),
        unscored=store.figures.unscored(conn, row),
        last_run=store.runs.last(conn, row.id),
        last_retrain=store.jobs.last(conn, row.id, "retrain"),
        last_backtest=store.backtests.last(conn, row.id),
    )


@dataclass(frozen=True)
class View:
    """All that is watched, as it stood at one moment."""

    markets: list[MarketState]
    jobs: dict[tuple[str, str], int]  # by kind and state
    replay: bool  # whether a demo's clock tells the time
    worker_seen: datetime | None  # when one last gave a sign of life, by the machine's clock
    overdue: dict[str, datetime]  # kinds of scheduled work, and when each should have been asked for


class Overview:
    """The newest view, read at most once in KEPT_SECONDS, whoever asks and however many ask at once."""

    def __init__(self, engine: Engine, stale_after_timeframes: float) -> None:
        self._engine = engine
        self._stale_after_timeframes = stale_after_timeframes
        self._lock = threading.Lock()
        self._kept: View | None = None
        self._kept_until = 0.0

    def view(self) -> View:
        """The view. Raises Unreachable, which is not kept."""
        with self._lock:
            if self._kept is None or time.monotonic() >= self._kept_until:
                self._kept = self._read()
                self._kept_until = time.monotonic() + KEPT_SECONDS
            return self._kept

    def _read(self) -> View:
        with store.database.read(self._engine) as conn:
            rows = store.markets.all(conn)
            return View(
                [market_state(conn, row, self._stale_after_timeframes) for row in rows],
                store.figures.jobs(conn),
                store.figures.replay(conn) is not None,
                store.workers.seen(conn),
                store.schedules.overdue(conn, machine_now() - OVERDUE_AFTER),
            )


def document(conn: Connection, row: MarketRow) -> dict[str, Any]:
    """The market as lists of markets show it, the same from a command and from a route."""
    newest = store.bars.newest(conn, row.id)
    close = None if newest is None else model.bars.timeframe(row.market.timeframe).close_of(newest)
    return {
        "market": asdict(row.market),
        "paused": row.paused,
        "created_at": iso(row.created_at),
        "bars": store.bars.count(conn, row.id),
        "last_close": None if close is None else iso(close),
        "champion": store.versions.champion(conn, row.id),
    }
