"""Counts that only watching needs: what `/metrics`, `/readyz` and the page say beside the nouns' own files."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, func, select

from model.bars import timeframe
from store import tables
from store.markets import MarketRow
from store.tables import EPOCH, MICROSECOND, bars, markets, micros, predictions


@dataclass(frozen=True)
class Unscored:
    """Predictions whose outcome's bar is stored but which have no score yet, and the first close of such a bar."""

    rows: int
    since: datetime | None


def jobs(conn: Connection) -> dict[tuple[str, str], int]:
    """How many jobs there are of each kind and state."""
    table = tables.jobs
    counts = select(table.c.kind, table.c.state, func.count()).group_by(table.c.kind, table.c.state)
    return {(kind, state): rows for kind, state, rows in conn.execute(counts)}


def unscored(conn: Connection, row: MarketRow) -> Unscored:
    """What waits to be scored in a market. An outcome is the close `horizon` bars after `as_of`."""
    stored = select(bars.c.ts).where(bars.c.market_id == row.id).distinct()
    waiting = (
        predictions.c.market_id == row.id,
        predictions.c.kind == "prediction",
        predictions.c.scored_at.is_(None),
    )
    rows, outcomes = 0, []
    for horizon in conn.scalars(select(predictions.c.horizon).where(*waiting).distinct()).all():
        # at least `horizon` bars opened at or after the close on which a matured prediction stands
        newest_mature = conn.scalar(stored.order_by(bars.c.ts.desc()).offset(horizon - 1).limit(1))
        if newest_mature is None:
            continue
        mature = (
            *waiting,
            predictions.c.horizon == horizon,
            predictions.c.as_of <= EPOCH + newest_mature * MICROSECOND,
        )
        count, first = conn.execute(select(func.count(), func.min(predictions.c.as_of)).where(*mature)).one()
        if first is None:
            continue
        rows += count
        after = stored.where(bars.c.ts >= micros(first)).order_by(bars.c.ts)
        outcomes.append(conn.scalars(after.offset(horizon - 1).limit(1)).one())
    if not outcomes:
        return Unscored(0, None)
    return Unscored(rows, timeframe(row.market.timeframe).close_of(EPOCH + min(outcomes) * MICROSECOND))


def newest_opens(conn: Connection) -> dict[int, datetime]:
    """When each market's newest bar opened, by the market's id; without those that have none."""
    newest = select(func.max(bars.c.ts)).where(bars.c.market_id == markets.c.id).scalar_subquery()
    rows = conn.execute(
        select(markets.c.id, newest)
    )  # a look into an index each, however many bars there are
    return {ident: EPOCH + ts * MICROSECOND for ident, ts in rows if ts is not None}


def replay(conn: Connection) -> datetime | None:
    """The time of a demo that replays the past; None where the time is the machine's."""
    return conn.scalar(select(tables.clock.c.now))
