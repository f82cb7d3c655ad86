"""The state of each market, read once for `/metrics`, `/readyz` and the page."""

from dataclasses import dataclass
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
import store.versions
from model.bars import Market
from model.features import HISTORY
from store.database import Connection, Engine
from store.figures import Unscored
from store.jobs import Job
from store.markets import MarketRow
from store.outcomes import LiveScore
from store.versions import TrainingRun


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
    champion = store.versions.champion(conn, row.id)
    return MarketState(
        id=row.id,
        market=row.market,
        paused=row.paused,
        bars=store.bars.count(conn, row.id),
        last_close=None if opens.is_empty() else timeframe.close_of(opens[-1]),
        stale_from=None
        if opens.is_empty()
        else model.bars.stale_from(opens, timeframe, stale_after_timeframes),
        champion=champion,
        champion_since=_since(conn, row.id),
        live=None if champion is None else store.outcomes.live(conn, champion),
        unscored=store.figures.unscored(conn, row.id),
        last_run=store.versions.last_run(conn, row.id),
        last_retrain=store.jobs.last(conn, row.id, "retrain"),
        last_backtest=store.backtests.last(conn, row.id),
    )


def markets(engine: Engine, stale_after_timeframes: float) -> list[MarketState]:
    """The state of every market, in one consistent view."""
    with store.database.read(engine) as conn:
        return [market_state(conn, row, stale_after_timeframes) for row in store.markets.all(conn)]


def _since(conn: Connection, market_id: int) -> datetime | None:
    champions = [row for row in store.versions.history(conn, market_id) if row.role == "champion"]
    return champions[-1].effective_from if champions else None


def last_close(conn: Connection, row: MarketRow) -> datetime | None:
    """When the newest stored bar closed."""
    newest = store.bars.newest(conn, row.id)
    return None if newest is None else model.bars.timeframe(row.market.timeframe).close_of(newest)


def length(state: MarketState) -> timedelta:
    """The nominal length of the market's bars."""
    return model.bars.timeframe(state.market.timeframe).length
