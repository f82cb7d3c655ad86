"""What came of the answers in the ledger: outcomes, once they are known, and the evidence of skill that they add up to."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import polars as pl
from sqlalchemy import Connection, Row, case, func, select, update

import store.bars
import store.markets
import store.versions
from model import scores, significance
from model.bars import Timeframe, timeframe
from model.significance import Gain
from store import database
from store.database import Engine
from store.markets import MarketRow
from store.tables import predictions

# Live evidence of skill: at most so many of a version's newest scored answers.
LIVE_ROWS = 5_000
# Outcomes are looked up for so many answers of a market at a time.
SCORED_AT_ONCE = 2_000
# Where bars are missing before an outcome, a late one is waited for so long; then the market was closed.
HOLE_TIMEFRAMES = 3


@dataclass(frozen=True)
class LiveScore:
    """How a version's scored answers did beside the base rate, over the same rows; None while there are none."""

    rows: int
    log_loss: float | None
    base_log_loss: float | None
    accuracy: float | None


def score(engine: Engine, now: datetime) -> int:
    """Gives every prediction whose outcome is known by now that outcome, once; says how many those were."""
    with database.read(engine) as conn:
        rows = store.markets.all(conn)
    return sum(_score_market(engine, row, now) for row in rows)


def _score_market(engine: Engine, row: MarketRow, now: datetime) -> int:
    kept = timeframe(row.market.timeframe)
    waiting = (
        select(*(predictions.c[name] for name in ("id", "as_of", "horizon", "close", "p_up", "base_rate")))
        .where(
            predictions.c.market_id == row.id,
            predictions.c.scored_at.is_(None),
            predictions.c.kind == "prediction",
        )
        .order_by(predictions.c.as_of)
        .limit(SCORED_AT_ONCE)
    )
    with database.read(engine) as conn:
        said = conn.execute(waiting).all()
        if not said:
            return 0
        since = store.bars.read(conn, row.id, kept, closed_by=now, closed_from=said[0].as_of)
    closed_at = since.select(kept.closes(pl.col("ts"))).to_series()
    place = {close: row for row, close in enumerate(closed_at)}
    closes = since["close"].to_list()
    outcomes = []
    for answered in said:
        i = place.get(answered.as_of)
        if i is None or i + answered.horizon >= len(closes):
            continue
        known_at = closed_at[i + answered.horizon]
        if known_at != _contiguous(kept, answered) and now < known_at + HOLE_TIMEFRAMES * kept.length:
            continue  # a bar may be late, and an outcome is said once
        log_return = float(np.log(closes[i + answered.horizon] / answered.close))
        up = np.array([float(log_return > 0)])
        losses = [float(scores.log_losses(np.array([p]), up)[0]) for p in (answered.p_up, answered.base_rate)]
        outcomes.append((answered.id, log_return, *losses))
    if not outcomes:
        return 0
    with database.write(engine) as conn:
        for ident, log_return, own, base in outcomes:
            conn.execute(
                update(predictions)
                .where(predictions.c.id == ident, predictions.c.scored_at.is_(None))
                .values(
                    {
                        "up": log_return > 0,
                        "return": log_return,
                        "log_loss": own,
                        "base_log_loss": base,
                        "scored_at": now,
                    }
                )
            )
    return len(outcomes)


def _contiguous(kept: Timeframe, answered: Row[Any]) -> datetime:
    """When the outcome is known where no bar is missing between the answer and it."""
    close: datetime = answered.as_of
    for _ in range(answered.horizon):
        close = kept.close_of(close)
    return close


def live(conn: Connection, version_id: int) -> LiveScore:
    """How that version's scored answers did."""
    right = case(((predictions.c.p_up > 0.5) == predictions.c.up, 1.0), else_=0.0)
    rows, own, base, accuracy = conn.execute(
        select(
            func.count(),
            func.avg(predictions.c.log_loss),
            func.avg(predictions.c.base_log_loss),
            func.avg(right),
        ).where(predictions.c.version_id == version_id, predictions.c.scored_at.is_not(None))
    ).one()
    return LiveScore(rows, own, base, None if accuracy is None else float(accuracy))


def evidence(conn: Connection, version: int) -> Gain:
    """By how much that version beat the base rate on bars it had not learned from: the held-back ones, and live."""
    held = store.versions.get(conn, version).manifest["held"]
    live = conn.execute(
        select(predictions.c.base_log_loss, predictions.c.log_loss, predictions.c.horizon)
        .where(predictions.c.version_id == version, predictions.c.scored_at.is_not(None))
        .order_by(predictions.c.as_of.desc())
        .limit(LIVE_ROWS)
    ).all()
    before = Gain(held["rows"], held["gain"], held["gain_error"])
    if not live:
        return before
    base, own, horizons = zip(*reversed(live), strict=True)
    return significance.pooled(before, significance.gain(np.array(base), np.array(own), max(horizons)))
