"""Counts that only watching needs: what `/metrics`, `/readyz` and the page say beside the nouns' own files."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, func, select

from store import tables
from store.tables import EPOCH, MICROSECOND, bars, predictions


@dataclass(frozen=True)
class Unscored:
    """Predictions whose outcome's bar is stored but which have no score yet, and the `as_of` of the oldest."""

    rows: int
    oldest: datetime | None


def jobs(conn: Connection) -> dict[tuple[str, str], int]:
    """How many jobs there are of each kind and state."""
    table = tables.jobs
    counts = select(table.c.kind, table.c.state, func.count()).group_by(table.c.kind, table.c.state)
    return {(kind, state): rows for kind, state, rows in conn.execute(counts)}


def unscored(conn: Connection, market_id: int) -> Unscored:
    """What waits to be scored in a market. An outcome is the close `horizon` bars after `as_of`."""
    waiting = (
        predictions.c.market_id == market_id,
        predictions.c.kind == "prediction",
        predictions.c.scored_at.is_(None),
    )
    rows, oldest = 0, None
    for horizon in conn.scalars(select(predictions.c.horizon).where(*waiting).distinct()).all():
        # at least `horizon` bars opened at or after the close on which a matured prediction stands
        newest_mature = conn.scalar(
            select(bars.c.ts)
            .where(bars.c.market_id == market_id)
            .distinct()
            .order_by(bars.c.ts.desc())
            .offset(horizon - 1)
            .limit(1)
        )
        if newest_mature is None:
            continue
        mature = (
            *waiting,
            predictions.c.horizon == horizon,
            predictions.c.as_of <= EPOCH + newest_mature * MICROSECOND,
        )
        count, first = conn.execute(select(func.count(), func.min(predictions.c.as_of)).where(*mature)).one()
        rows += count
        oldest = first if oldest is None or (first is not None and first < oldest) else oldest
    return Unscored(rows, oldest)


def replay(conn: Connection) -> datetime | None:
    """The time of a demo that replays the past; None where the time is the machine's."""
    return conn.scalar(select(tables.clock.c.now))
