"""Bars as they are kept: validated whole, then committed in chunks; a bar that comes again otherwise is a revision.

The newest revision of a bar serves. None is ever changed or removed.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import polars as pl
from sqlalchemy import Connection, func, select

import store.markets
from model import bars as rules
from model.bars import BAR_SCHEMA, Bars, Market, Rejection, Timeframe, iso, timeframe
from model.errors import BadBars
from store import database
from store.database import Engine
from store.tables import EPOCH, MICROSECOND, bars, markets, micros

CHUNK_ROWS = 50_000
VALUES = ("open", "high", "low", "close", "volume")
_READ = ("ts", "revision", *VALUES)
_COLUMNS = ("market_id", "ts", "revision", *VALUES, "recorded_at")


@dataclass(frozen=True)
class IngestReport:
    """What became of the rows of one file or call; `first` and `last` are open times of the accepted ones."""

    market: Market
    added: int
    repeated: int
    corrected: int
    rejected: tuple[Rejection, ...]
    gaps: int
    first: datetime
    last: datetime

    def document(self) -> dict[str, Any]:
        """As JSON has it, the same from a command and from a route."""
        return {
            "market": asdict(self.market),
            "added": self.added,
            "repeated": self.repeated,
            "corrected": self.corrected,
            "rejected": [
                {"reason": r.reason, "rows": r.rows, "first": None if r.first is None else iso(r.first)}
                for r in self.rejected
            ],
            "gaps": self.gaps,
            "first": iso(self.first),
            "last": iso(self.last),
        }


def add(engine: Engine, market: Market, frame: pl.DataFrame, now: datetime) -> IngestReport:
    """Keeps the acceptable bars of `frame` (BAR_SCHEMA, any order); keeping them twice is keeping them once.

    Raises BadBars, and stores nothing, where no row is acceptable or the rows do not fit the timeframe.
    """
    kept = timeframe(market.timeframe)
    accepted, rejected = rules.check(frame, kept, now)
    if accepted.is_empty():
        why = ", ".join(f"{r.reason} ({r.rows} rows)" for r in rejected) or "there are none"
        raise BadBars(f"no acceptable bar for {market}: {why}")
    added = repeated = corrected = 0
    for chunk in accepted.iter_slices(CHUNK_ROWS):
        with database.write(engine) as conn:
            new, again, changed = _add_chunk(conn, market, chunk, now)
        added, repeated, corrected = added + new, repeated + again, corrected + changed
    first, last = accepted["ts"][0], accepted["ts"][-1]
    return IngestReport(market, added, repeated, corrected, rejected, rules.gaps(accepted, kept), first, last)


def _add_chunk(conn: Connection, market: Market, chunk: Bars, now: datetime) -> tuple[int, int, int]:
    market_id = store.markets.ensure(conn, market, now).id
    if conn.dialect.name != "sqlite":  # SQLite has one writer anyway
        conn.execute(select(markets.c.id).where(markets.c.id == market_id).with_for_update())
    there = _newest(conn, market_id, micros(chunk["ts"][0]), micros(chunk["ts"][-1]))
    joined = chunk.with_columns(pl.col("ts").dt.epoch("us")).join(there, on="ts", how="left", suffix="_there")
    known = pl.col("revision").is_not_null()
    same = pl.all_horizontal(pl.col(name) == pl.col(f"{name}_there") for name in VALUES)
    fresh = joined.filter(~(known & same)).select(
        pl.lit(market_id).alias("market_id"),
        "ts",
        (pl.col("revision") + 1).fill_null(0).alias("revision"),
        *VALUES,
        pl.lit(micros(now)).alias("recorded_at"),
    )
    if len(fresh):
        mark = "?" if conn.dialect.paramstyle == "qmark" else "%s"
        statement = f"INSERT INTO bars ({', '.join(_COLUMNS)}) VALUES ({', '.join([mark] * len(_COLUMNS))})"  # noqa: S608
        conn.exec_driver_sql(statement, fresh.rows())
    changed = int((fresh["revision"] > 0).sum())
    return len(fresh) - changed, len(chunk) - len(fresh), changed


def _newest(conn: Connection, market_id: int, first: int, last: int) -> pl.DataFrame:
    """The newest revisions of the bars that opened from `first` to `last` (microseconds)."""
    statement = (
        select(*(bars.c[name] for name in _READ))
        .where(bars.c.market_id == market_id, bars.c.ts >= first, bars.c.ts <= last)
        .order_by(bars.c.ts, bars.c.revision)
    )
    return _frame(conn.execute(statement).all())


def _frame(rows: Sequence[Any]) -> pl.DataFrame:
    columns = list(zip(*rows, strict=True)) or [()] * 7
    kinds = (pl.Int64, pl.Int64, *[pl.Float64] * 5)
    names = ("ts", "revision", *VALUES)
    frame = pl.DataFrame(
        [pl.Series(name, column, kind) for name, column, kind in zip(names, columns, kinds, strict=True)]
    )
    return frame.unique("ts", keep="last", maintain_order=True)


def read(
    conn: Connection,
    market_id: int,
    kept: Timeframe,
    *,
    closed_by: datetime | None = None,
    closed_from: datetime | None = None,
    last: int | None = None,
    recorded_by: datetime | None = None,
) -> Bars:
    """The newest revision of each bar, sorted: of those closed by, or from, a moment, or the `last` so many.

    `recorded_by` shows the bars as they were known then.
    """
    statement = select(*(bars.c[name] for name in _READ)).where(bars.c.market_id == market_id)
    if closed_by is not None:
        # the close is monotone in the open, so the newest that had closed bounds the rest
        statement = statement.where(bars.c.ts <= micros(closed_by))
    if closed_from is not None:
        statement = statement.where(bars.c.ts >= micros(closed_from - 2 * kept.length))
    if recorded_by is not None:
        statement = statement.where(bars.c.recorded_at <= micros(recorded_by))
    if last is not None:
        opens = (
            select(bars.c.ts)
            .where(*statement.whereclause.clauses if statement.whereclause is not None else ())  # type: ignore[attr-defined]
            .distinct()
            .order_by(bars.c.ts.desc())
            .limit(last + 1)  # one may not have closed by then
            .subquery()
        )
        oldest = select(func.min(opens.c.ts)).scalar_subquery()
        statement = statement.where(bars.c.ts >= oldest)
    frame = _frame(conn.execute(statement.order_by(bars.c.ts, bars.c.revision)).all())
    found = frame.select(pl.from_epoch("ts", "us").dt.replace_time_zone("UTC").alias("ts"), *VALUES)
    closes = kept.closes(pl.col("ts"))
    if closed_by is not None:
        found = found.filter(closes <= closed_by)
    if closed_from is not None:
        found = found.filter(closes >= closed_from)
    return (found if last is None else found.tail(last)).match_to_schema(BAR_SCHEMA)


def open_times(conn: Connection, market_id: int, last: int) -> pl.Series:
    """The open times of the newest `last` bars, sorted."""
    statement = (
        select(bars.c.ts)
        .where(bars.c.market_id == market_id)
        .distinct()
        .order_by(bars.c.ts.desc())
        .limit(last)
    )
    found = pl.Series("ts", list(conn.scalars(statement))[::-1], pl.Int64)
    return pl.from_epoch(found, "us").dt.replace_time_zone("UTC")


def newest(conn: Connection, market_id: int) -> datetime | None:
    """The open time of the newest bar."""
    found = conn.scalar(select(func.max(bars.c.ts)).where(bars.c.market_id == market_id))
    return None if found is None else EPOCH + found * MICROSECOND


def count(conn: Connection, market_id: int, after: datetime | None = None) -> int:
    """How many bars there are, or opened after that moment; a bar's revisions count once."""
    statement = select(func.count()).where(bars.c.market_id == market_id, bars.c.revision == 0)
    if after is not None:
        statement = statement.where(bars.c.ts > micros(after))
    return conn.scalar(statement) or 0
