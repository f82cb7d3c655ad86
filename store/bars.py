"""Bars: kept once they are sound, each change of one a further revision, the newest of which serves.

Rows go from and to the database's cursor directly, without an object for each: a million bars are an ordinary file.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from itertools import repeat
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from sqlalchemy import BigInteger, Connection, Select, bindparam, column, func, select, update, values

import model.bars
import store.markets
import store.recent
from model.bars import TS, Bars, Market, Rejection, Timeframe, iso
from model.errors import BadBars
from store import database
from store.database import Engine
from store.recent import Recent
from store.tables import EPOCH, MICROSECOND, bars, markets, micros

# Rows of one transaction: a kill loses at most those, and nobody else waits long.
CHUNK_ROWS = 50_000
# A chunk of so few rows asks for the kept bars one by one: two that lie years apart must not read what lies between.
FEW_ROWS = 500

Rows = NDArray[np.void]  # of the columns asked for, by name
Noted = Callable[[Connection, dict[str, int]], None]

VALUES = ("open", "high", "low", "close", "volume")
_INSERTED = ("market_id", "ts", "revision", *VALUES, "recorded_at")
_MARK = {"sqlite": "?", "postgresql": "%s"}


@dataclass(frozen=True)
class IngestReport:
    """What became of the rows of one file or call; `first` and `last` are open times of those accepted."""

    market: Market
    added: int
    repeated: int
    corrected: int
    rejected: tuple[Rejection, ...]
    gaps: int  # within these rows
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
                {"reason": found.reason, "rows": found.rows, "first": found.first and iso(found.first)}
                for found in self.rejected
            ],
            "gaps": self.gaps,
            "first": iso(self.first),
            "last": iso(self.last),
        }


def add(
    engine: Engine,
    market: Market,
    frame: pl.DataFrame,
    now: datetime,
    noted: Noted | None = None,
    recent: Recent | None = None,
) -> IngestReport:
    """Keeps the bars of `frame` (BAR_SCHEMA, any order) that are sound and closed by `now`; twice is once.

    `noted` is called in each transaction that changes something, with how many rows it adds and corrects. Newest bars
    that `recent` has need not be read, and it learns of those that come after them.

    All rows are judged before the first is kept; then they are committed in chunks of CHUNK_ROWS, less those that
    `overlap` a kept bar. Raises BadBars where there is nothing to keep, and leaves nothing then, not even the market.
    """
    timeframe = model.bars.timeframe(market.timeframe)
    sound, rejected = model.bars.check(frame, timeframe, now)
    if sound.is_empty():
        raise BadBars(_refusal(rejected))
    chunks = []
    for chunk in sound.iter_slices(CHUNK_ROWS):
        mark = None if recent is None else store.recent.mark_before(recent, market, chunk, timeframe.length)
        with database.write(engine) as conn:
            kept = None if mark is None else _add_later(conn, market, mark, chunk, now, noted)
            if kept is None:
                row = store.markets.ensure(conn, market, now)
                kept = _add(conn, row.id, chunk, timeframe, now, noted)
        if recent is not None and kept.added == len(chunk):
            store.recent.grew(recent, market, kept.changes, chunk)
        chunks.append(kept)
    refused = pl.concat([kept.overlapping for kept in chunks])
    if len(refused):
        rejected = _with_overlaps(rejected, len(refused), refused[0])
        sound = sound.join(refused.to_frame(), on="ts", how="anti", maintain_order="left")
        if sound.is_empty():
            raise BadBars(_refusal(rejected))
    added, repeated, corrected = (
        sum(counted) for counted in zip(*((c.added, c.repeated, c.corrected) for c in chunks), strict=True)
    )
    gaps = model.bars.gaps(sound, timeframe)
    return IngestReport(market, added, repeated, corrected, rejected, gaps, sound["ts"][0], sound["ts"][-1])


@dataclass(frozen=True)
class _Chunk:
    """What became of a chunk's rows, the open times of those that overlap kept bars, and the market's mark after it."""

    added: int
    repeated: int
    corrected: int
    overlapping: pl.Series
    changes: int


def _add_later(
    conn: Connection, market: Market, mark: int, chunk: Bars, now: datetime, noted: Noted | None
) -> _Chunk | None:
    """Adds a chunk that comes after all that the market has at that mark; None where it has another by now."""
    asked = {"named": market.symbol, "length": market.timeframe, "mark": mark, "added": len(chunk)}
    moved = conn.execute(_GREW, asked).one_or_none()
    return None if moved is None else _all_new(conn, moved.id, chunk, moved.changes, now, noted)


def _add(
    conn: Connection, market_id: int, chunk: Bars, timeframe: Timeframe, now: datetime, noted: Noted | None
) -> _Chunk:
    """Adds a chunk (sorted) to what the market has, whose row this transaction holds."""
    ts = model.bars.as_micros(chunk["ts"])
    near = _near(conn, market_id, ts, timeframe)
    if len(near) == 0:  # nearly always so
        changes = conn.execute(_COUNTED, {"market": market_id, "added": len(chunk)}).scalar_one()
        return _all_new(conn, market_id, chunk, changes, now, noted)
    judged, overlapping = _beside_kept(chunk, ts, near, timeframe)
    known, same = pl.col("revision").is_not_null(), _same()
    added, repeated, corrected = judged.select(
        (~known).sum().alias("added"), same.sum().alias("repeated"), (known & ~same).sum().alias("corrected")
    ).row(0)
    others = judged.filter(~same)
    revisions = (others["revision"] + 1).fill_null(0).to_list()
    _insert(conn, market_id, others["ts"].to_list(), others, revisions, now)
    changes = 0
    if added or corrected:
        changes = conn.execute(_COUNTED, {"market": market_id, "added": added}).scalar_one()
        if noted is not None:
            noted(conn, {"added": added, "corrected": corrected})
    return _Chunk(added, repeated, corrected, overlapping, changes)


def _all_new(
    conn: Connection, market_id: int, chunk: Bars, changes: int, now: datetime, noted: Noted | None
) -> _Chunk:
    ts = model.bars.as_micros(chunk["ts"]).tolist()
    _insert(conn, market_id, ts, chunk, [0] * len(chunk), now)
    if noted is not None:
        noted(conn, {"added": len(chunk), "corrected": 0})
    return _Chunk(len(chunk), 0, 0, chunk["ts"].clear(), changes)


def _refusal(rejected: tuple[Rejection, ...]) -> str:
    if not rejected:
        return "no rows"
    said = (
        f"{found.rows} {found.reason}" + (f" (first {iso(found.first)})" if found.first else "")
        for found in rejected
    )
    return f"not one row can be kept: {', '.join(said)}"


def _with_overlaps(rejected: tuple[Rejection, ...], rows: int, first: datetime) -> tuple[Rejection, ...]:
    """The rejections, with so many further rows that overlap kept bars beside those that overlap within the file."""
    by_reason = {found.reason: found for found in rejected}
    within = by_reason.get("overlap", Rejection("overlap", 0, None))
    earliest = first if within.first is None else min(first, within.first)
    by_reason["overlap"] = Rejection("overlap", rows + within.rows, earliest)
    return tuple(by_reason[reason] for reason in sorted(by_reason))


def _near(conn: Connection, market_id: int, ts: NDArray[np.int64], timeframe: Timeframe) -> Rows:
    """Every revision of the kept bars that some open times are near to, as VALUES with ts and revision."""
    columns = ("ts", "revision", *VALUES)
    # a table of stretches, since SQLite takes one of `or` for a reason to read the whole market
    around = _around(ts, timeframe)
    if len(around) == 1:
        first, last = around[0]
        return _rows(conn, _WITHIN, columns, {"market_id": market_id, "first": first, "last": last})
    named = values(column("first", BigInteger), column("last", BigInteger), name="stretches")
    stretches = named.data(around).cte("around")
    these = bars.c.ts.between(stretches.c.first, stretches.c.last)
    return _rows(conn, _select(market_id, columns).join_from(stretches, bars, these), columns)


def _beside_kept(
    chunk: Bars, ts: NDArray[np.int64], near: Rows, timeframe: Timeframe
) -> tuple[pl.DataFrame, pl.Series]:
    """The rows of a chunk that overlap no kept bar, with `ts` in microseconds and beside each the kept `revision` and
    `kept_…` values; and the open times of those that do."""
    found = _newest_revisions(near[np.lexsort((near["revision"], near["ts"]))])
    overlaps = pl.Series(model.bars.overlap(ts, found["ts"], timeframe))
    kept = _frame(found).rename({name: f"kept_{name}" for name in VALUES})
    rows = chunk.filter(~overlaps).with_columns(pl.col("ts").dt.epoch("us"))
    return rows.join(kept, on="ts", how="left", maintain_order="left"), chunk["ts"].filter(overlaps)


_WITHIN = select(*(bars.c[name] for name in ("ts", "revision", *VALUES))).where(
    bars.c.market_id == bindparam("market_id"), bars.c.ts.between(bindparam("first"), bindparam("last"))
)


def _around(ts: NDArray[np.int64], timeframe: Timeframe) -> list[tuple[int, int]]:
    """Stretches of time in microseconds that hold each of `ts` and what is closer to it than half a timeframe: one
    for many, and for few one for each that stands alone."""
    half = timeframe.length // MICROSECOND // 2
    furthest = 4 * half if len(ts) <= FEW_ROWS else np.inf
    parts = np.split(ts, np.flatnonzero(np.diff(ts) > furthest) + 1)
    return [(int(part[0]) - half, int(part[-1]) + half) for part in parts]


def _same() -> pl.Expr:
    """Whether a row says what is kept already."""
    return pl.all_horizontal(pl.col(name).eq_missing(pl.col(f"kept_{name}")) for name in VALUES)


def _insert(
    conn: Connection,
    market_id: int,
    ts: Sequence[int],
    rows: pl.DataFrame,
    revisions: Sequence[int],
    now: datetime,
) -> None:
    if rows.is_empty():
        return
    columns = (rows[name].to_list() for name in VALUES)
    tuples = list(zip(repeat(market_id), ts, revisions, *columns, repeat(micros(now)), strict=False))
    marks = ", ".join([_MARK[conn.dialect.name]] * len(_INSERTED))
    given = tuples if len(tuples) > 1 else tuples[0]  # many at once is a way of its own
    conn.exec_driver_sql(f"INSERT INTO bars ({', '.join(_INSERTED)}) VALUES ({marks})", given)  # noqa: S608


# Counts bars in and moves the market's mark; made once, as making it takes longer than carrying it out.
_COUNTED = (
    update(markets)
    .where(markets.c.id == bindparam("market"))
    .values(bars=markets.c.bars + bindparam("added"), changes=markets.c.changes + 1)
    .returning(markets.c.changes)
)
_GREW = (
    update(markets)
    .where(
        markets.c.symbol == bindparam("named"),
        markets.c.timeframe == bindparam("length"),
        markets.c.changes == bindparam("mark"),
    )
    .values(bars=markets.c.bars + bindparam("added"), changes=markets.c.changes + 1)
    .returning(markets.c.id, markets.c.changes)
)


def read(
    conn: Connection,
    market_id: int,
    timeframe: Timeframe,
    *,
    closed_by: datetime | None = None,
    closed_from: datetime | None = None,
    opened_before: datetime | None = None,
    last: int | None = None,
    recorded_by: datetime | None = None,
) -> Bars:
    """The newest revision of each bar, sorted; of those that closed within `closed_from` … `closed_by`, ends included.

    `opened_before` leaves out the bar that opened then, `last` gives only that many of the newest, `recorded_by` what
    was known by then.
    """
    columns = ("ts", *VALUES)
    statement = _select(market_id, columns)
    shortest, longest = _lengths(timeframe)
    if closed_by is not None:
        statement = statement.where(bars.c.ts <= micros(closed_by) - shortest)
    if closed_from is not None:
        statement = statement.where(bars.c.ts >= micros(closed_from) - longest)
    if opened_before is not None:
        statement = statement.where(bars.c.ts < micros(opened_before))
    if recorded_by is not None:
        statement = statement.where(bars.c.recorded_at <= micros(recorded_by))
    if last is not None and shortest == longest:
        return _bars(_last(conn, statement, columns, last))
    found = _bars(_newest_revisions(_rows(conn, statement.order_by(bars.c.ts, bars.c.revision), columns)))
    if shortest != longest:  # the bounds let bars through that are longer or shorter than the calendar's
        close = timeframe.closes(pl.col("ts"))
        found = found.filter(
            pl.lit(True) if closed_by is None else close <= closed_by,
            pl.lit(True) if closed_from is None else close >= closed_from,
        )
    return found if last is None else found.tail(last)


def _last(conn: Connection, statement: Select[tuple[Any, ...]], columns: tuple[str, ...], last: int) -> Rows:
    """The newest `last` bars of a selection, sorted."""
    ordered = statement.order_by(bars.c.ts.desc(), bars.c.revision.desc())
    limit = last
    while True:
        found = _rows(conn, ordered.limit(limit), columns)[::-1]
        distinct = _newest_revisions(found)
        if len(found) < limit or len(distinct) >= last:
            return distinct[len(distinct) - min(last, len(distinct)) :]
        limit *= 2  # revisions took the places of bars


def _newest_revisions(rows: Rows) -> Rows:
    """Of rows sorted by time and revision, the last of each time."""
    newest = np.ones(len(rows), dtype=bool)
    newest[:-1] = rows["ts"][1:] != rows["ts"][:-1]
    return rows if newest.all() else rows[newest]


def _lengths(timeframe: Timeframe) -> tuple[int, int]:
    """The shortest and the longest bar in microseconds. They differ for a month alone, where an open cannot be told
    from a close: bars of 29 to 31 January all close on the last of February."""
    if timeframe.every.endswith("mo"):
        return timedelta(days=28) // MICROSECOND, timedelta(days=31) // MICROSECOND
    return (length := timeframe.length // MICROSECOND), length


def _select(market_id: int, columns: tuple[str, ...]) -> Select[tuple[Any, ...]]:
    return select(*(bars.c[name] for name in columns)).where(bars.c.market_id == market_id)


def _rows(
    conn: Connection,
    statement: Select[tuple[Any, ...]],
    columns: tuple[str, ...],
    asked: Mapping[str, int] | None = None,
) -> Rows:
    """What the statement finds; times and revisions as integers, the rest as floats."""
    kinds = [(name, "i8" if name in ("ts", "revision") else "f8") for name in columns]
    with conn.execute(statement, asked) as result:
        cursor: Any = result.cursor  # rows as plain tuples
        return np.fromiter(cursor, dtype=np.dtype(kinds))


def _frame(rows: Rows) -> pl.DataFrame:
    return pl.DataFrame(
        [pl.Series(name, np.ascontiguousarray(rows[name])) for name in rows.dtype.names or ()]
    )


def _bars(rows: Rows) -> Bars:
    return _frame(rows).with_columns(pl.col("ts").cast(TS))


def open_times(conn: Connection, market_id: int, last: int) -> pl.Series:
    """The open times of the newest `last` bars, sorted."""
    first_revisions = _select(market_id, ("ts",)).where(bars.c.revision == 0)
    found = _rows(conn, first_revisions.order_by(bars.c.ts.desc()).limit(last), ("ts",))
    return _frame(found[::-1])["ts"].cast(TS)


def opened_after(conn: Connection, market_id: int, opened: datetime, steps: int) -> datetime | None:
    """The open time of the bar that many bars after the one that opened then; None where it is yet to come."""
    later = _select(market_id, ("ts",)).where(bars.c.revision == 0, bars.c.ts > micros(opened))
    ts = conn.scalar(later.order_by(bars.c.ts).offset(steps - 1).limit(1))
    return None if ts is None else EPOCH + ts * MICROSECOND


def newest(conn: Connection, market_id: int) -> datetime | None:
    """The open time of the market's newest bar; None where it has none."""
    ts = conn.scalar(select(func.max(bars.c.ts)).where(bars.c.market_id == market_id))
    return None if ts is None else EPOCH + ts * MICROSECOND


def count(conn: Connection, market_id: int) -> int:
    """How many bars the market has."""
    return conn.scalar(select(markets.c.bars).where(markets.c.id == market_id)) or 0


def count_after(conn: Connection, market_id: int, opened: datetime, limit: int) -> int:
    """How many bars opened later than that, counted up to `limit`."""
    later = select(bars.c.ts).where(
        bars.c.market_id == market_id, bars.c.revision == 0, bars.c.ts > micros(opened)
    )
    return conn.scalar(select(func.count()).select_from(later.limit(limit).subquery())) or 0
