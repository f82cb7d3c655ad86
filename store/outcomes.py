"""What came of the answers in the ledger: outcomes, once they are known, and the evidence of skill that they add up to."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from sqlalchemy import Connection, Row, bindparam, case, func, select, update

import store.bars
import store.markets
from model import scores, significance
from model.bars import Timeframe, timeframe
from model.significance import Gain
from store import database
from store.database import Engine
from store.markets import MarketRow
from store.tables import EPOCH, micros, predictions

# Live evidence of skill: at most so many of a version's newest scored answers.
LIVE_ROWS = 5_000
# Outcomes are looked up for so many answers of a market at a time.
SCORED_AT_ONCE = 2_000
# A row of `Evidence`.
LOSSES = np.dtype([("id", "i8"), ("as_of", "i8"), ("base", "f8"), ("own", "f8"), ("horizon", "i8")])
Losses = NDArray[np.void]
COMMITTED_WITHIN = timedelta(minutes=1)
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


@dataclass(frozen=True)
class Evidence:
    """What a version's scored answers add up to, and the newest `rows` of them that it is made of, by bar: (id, as_of in
    microseconds, the base rate's log loss, its own, horizon)."""

    gain: Gain  # over the base rate, on bars it had not learned from: the held-back ones, and live
    rows: Losses
    scored_until: datetime | None  # when the newest of them was scored
    scored_last: int  # how many were scored then


# Made once, as making it takes longer than carrying it out.
_SCORED_SINCE = select(func.count(), func.max(predictions.c.scored_at)).where(
    predictions.c.version_id == bindparam("version"), predictions.c.scored_at >= bindparam("since")
)


def evidence(conn: Connection, version: int, held: Gain, before: Evidence | None = None) -> Evidence:
    """By how much that version beat the base rate on bars it had not learned from; on from what was known `before`."""
    of_version = (predictions.c.version_id == version, predictions.c.scored_at.is_not(None))
    since = None if before is None else before.scored_until
    asked = {"version": version, "since": since or EPOCH}
    count, until = conn.execute(_SCORED_SINCE, asked).one()
    if before is not None and (until, count) == (since, before.scored_last):
        return before
    fresh = select(*(predictions.c[name] for name in ("id", "as_of", "base_log_loss", "log_loss", "horizon")))
    if before is None or since is None:
        fresh = fresh.where(*of_version).order_by(predictions.c.as_of.desc()).limit(LIVE_ROWS)
    else:  # a transaction that was open longer than this before it was committed may be missed until a restart
        fresh = fresh.where(*of_version, predictions.c.scored_at >= since - COMMITTED_WITHIN)
    found = np.array([(i, micros(at), *rest) for i, at, *rest in conn.execute(fresh)], LOSSES)
    if before is not None:
        found = np.concatenate([before.rows, found])
        found = found[np.unique(found["id"], return_index=True)[1]]
    rows = found[np.argsort(found["as_of"], kind="stable")][-LIVE_ROWS:]
    gain = held
    if len(rows):
        live = significance.gain(rows["base"], rows["own"], int(rows["horizon"].max()))
        gain = significance.pooled(held, live)
    last = select(func.count()).where(*of_version, predictions.c.scored_at == until)
    return Evidence(gain, rows, until, conn.scalar(last) or 0 if until is not None else 0)
