"""Markets, timeframes and bars: what a bar is, when it is known, and which bars are refused.

A bar is named by its open time `ts`; it is known at its close, `ts + timeframe`, never before.
`Bars` is a Polars frame of closed bars in BAR_SCHEMA, sorted by `ts`, one row a bar.
"""

import math
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from model.errors import BadBars, BadInput

Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]
Bars = pl.DataFrame  # BAR_SCHEMA, sorted by ts, closed bars only

TS = pl.Datetime("us", "UTC")
PRICES = ("open", "high", "low", "close")
BAR_SCHEMA = pl.Schema({"ts": TS, **dict.fromkeys((*PRICES, "volume"), pl.Float64())})

# Rounding in the last place of a price must not make a high lie below a close.
OHLC_TOLERANCE = 1e-9
# From this many steps on, a file's most common step tells its timeframe.
STEPS_TO_JUDGE_TIMEFRAME = 8
# A step that came so often is a habit of the market: a night, a weekend, a holiday, but not two outages.
HABIT = 3
WEEK = timedelta(weeks=1) // timedelta(microseconds=1)
# A session's end moves by so much in UTC when clocks change.
CLOCK_CHANGE = timedelta(hours=1) // timedelta(microseconds=1)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_SYMBOL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}")
_TIMEFRAME = re.compile(r"([1-9][0-9]{0,3})([smhdwM])")
_UNIT = {
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
}


@dataclass(frozen=True)
class Timeframe:
    """A bar's length. `60m` and `1h` are one duration, so both are kept as `1h`; a month follows the calendar."""

    name: str
    every: str  # Polars' spelling: month is "mo"
    length: timedelta  # nominal: a month counts 30 days, for gaps and staleness only

    def close_of(self, ts: datetime) -> datetime:
        """The close of the bar that opened at `ts`."""
        if not self.every.endswith("mo"):
            return ts + self.length
        return pl.Series([ts], dtype=TS).dt.offset_by(self.every).item()  # type: ignore[no-any-return]

    def closes(self, ts: pl.Expr) -> pl.Expr:
        """The close times of the bars that opened at `ts`."""
        return ts.dt.offset_by(self.every) if self.every.endswith("mo") else ts + self.length


@lru_cache(maxsize=256)
def timeframe(text: str) -> Timeframe:
    """The timeframe that `text` names, from `1s` to `1M`. Raises BadInput."""
    match = _TIMEFRAME.fullmatch(text)
    if match is None:
        raise BadInput(
            f"unknown timeframe {text!r}: a number and one of s, m, h, d, w, M, for example 1m, 4h, 1d"
        )
    count, unit = int(match[1]), match[2]
    if unit == "M":
        if count != 1:
            raise BadInput(f"unknown timeframe {text!r}: the longest timeframe is 1M")
        return Timeframe("1M", "1mo", timedelta(days=30))
    length = count * _UNIT[unit]
    if length > timedelta(days=30):
        raise BadInput(f"unknown timeframe {text!r}: the longest timeframe is 1M")
    unit, size = next((u, s) for u, s in reversed(_UNIT.items()) if length % s == timedelta(0))
    name = f"{length // size}{unit}"
    return Timeframe(name, name, length)


@dataclass(frozen=True)
class Market:
    """A symbol and a timeframe, e.g. `ETHUSDT` `1h`. Always two fields, never glued."""

    symbol: str
    timeframe: str

    def __str__(self) -> str:
        return f"{self.symbol} {self.timeframe}"


def market(symbol: str, timeframe_text: str) -> Market:
    """The market of that symbol and timeframe, spelled in the one right way. Raises BadInput."""
    if _SYMBOL.fullmatch(symbol) is None:
        suggestion = re.sub(r"[^A-Za-z0-9._-]", "", symbol).lstrip("._-")[:32]
        raise BadInput(
            f"symbol {symbol!r} is not usable: letters, digits, '.', '_' and '-', at most 32"
            + (f"; try {suggestion!r}" if suggestion else "")
        )
    return Market(symbol, timeframe(timeframe_text).name)


@dataclass(frozen=True)
class Rejection:
    """Rows that were refused for one reason; `first` is the open time of the earliest of them."""

    reason: str
    rows: int
    first: datetime | None


class _Rows(NamedTuple):
    """Bars as they come, (n,) each; a missing number is NaN, a missing time `NO_TIME`."""

    opened: Int64  # microseconds
    closed: Int64
    open: Float64
    high: Float64
    low: Float64
    close: Float64
    volume: Float64


NO_TIME = np.iinfo(np.int64).min

# Row rules in the order in which they are asked, each with the moment until which bars may be known; a row is counted
# under the first that it breaks.
_RULES: dict[str, Callable[[_Rows, int], NDArray[np.bool_]]] = {
    "no_time": lambda rows, now: rows.opened == NO_TIME,
    "not_finite": lambda rows, now: ~np.logical_and.reduce([np.isfinite(each) for each in rows[2:]]),
    "not_positive": lambda rows, now: (np.minimum.reduce(rows[2:6]) <= 0) | (rows.volume < 0),
    "high_low_contradiction": lambda rows, now: (
        (rows.high < np.maximum.reduce((rows.open, rows.low, rows.close)) * (1 - OHLC_TOLERANCE))
        | (rows.low > np.minimum.reduce((rows.open, rows.high, rows.close)) * (1 + OHLC_TOLERANCE))
    ),
    "future": lambda rows, now: rows.opened > now,
    "unclosed": lambda rows, now: rows.closed > now,
}


def _rows(frame: pl.DataFrame, frame_timeframe: Timeframe) -> _Rows:
    ts = frame["ts"]
    opened = ts.to_physical().fill_null(NO_TIME).to_numpy() if ts.null_count() else as_micros(ts)
    if frame_timeframe.every.endswith("mo"):
        closes = frame.select(frame_timeframe.closes(pl.col("ts")).dt.epoch("us").fill_null(0)).to_series()
        closed = closes.to_numpy()
    else:
        closed = opened + frame_timeframe.length // _MICROSECOND
    return _Rows(opened, closed, *(frame[name].to_numpy() for name in (*PRICES, "volume")))


def check(
    frame: pl.DataFrame, frame_timeframe: Timeframe, now: datetime
) -> tuple[Bars, tuple[Rejection, ...]]:
    """The bars of `frame` (BAR_SCHEMA, any order) that may be kept, sorted, and what was refused and why.

    Equal rows given twice are one bar; rows of one open time with different values are all refused
    (`conflicting_duplicate`), since nobody can tell which is right; of bars that `overlap` those stay whose
    place in the timeframe is the more usual one. Raises BadBars where the rows as a whole do not fit the timeframe.
    """
    rows = _rows(frame, frame_timeframe)
    until = (utc(now) - _EPOCH) // _MICROSECOND
    with np.errstate(over="ignore"):  # a price that is as large as can be breaks a rule all the same
        broken = {name: breaks(rows, until) for name, breaks in _RULES.items()}
    first = np.select([*broken.values()], np.arange(1, len(broken) + 1))
    steps = np.diff(rows.opened)
    if not first.any() and (2 * steps >= frame_timeframe.length // _MICROSECOND).all():  # nearly always so
        _fits(frame, frame_timeframe)
        return frame, ()
    names = pl.Series("reason", [None, *broken], pl.String)
    judged = frame.with_columns(names.gather(pl.Series(first)))
    sound = judged.filter(pl.col("reason").is_null()).drop("reason").sort("ts")
    bars, conflicting = _told_apart(sound)
    _fits(bars, frame_timeframe)
    bars, overlapping = _side_by_side(bars, frame_timeframe)
    refused = pl.concat(
        [
            judged.select("ts", "reason").filter(pl.col("reason").is_not_null()),
            conflicting.select("ts", pl.lit("conflicting_duplicate").alias("reason")),
            overlapping.select("ts", pl.lit("overlap").alias("reason")),
        ]
    )
    counts = refused.group_by("reason").agg(rows=pl.len(), first=pl.col("ts").min()).sort("reason")
    return bars, tuple(Rejection(**row) for row in counts.iter_rows(named=True))


def _told_apart(sound: pl.DataFrame) -> tuple[Bars, pl.DataFrame]:
    """Of sorted rows, one of each that is there once or repeats itself, and those that contradict another."""
    shared = sound["ts"].is_duplicated()
    if not shared.any():
        return sound, sound.clear()
    again = sound.filter(shared).unique()
    differ = again["ts"].is_duplicated()
    return pl.concat([sound.filter(~shared), again.filter(~differ)]).sort("ts"), again.filter(differ)


def _fits(bars: Bars, stated: Timeframe) -> None:
    """Raises BadBars where the usual step between bars is not the stated timeframe.

    Scattered bars, as corrections are, have no usual step, none that is half of all: they fit where the timeframe is
    the greatest that all their steps are multiples of.
    """
    if len(bars) <= STEPS_TO_JUDGE_TIMEFRAME:
        return
    steps = bars["ts"].diff().drop_nulls()
    usual: timedelta = steps.mode().sort()[0]
    scattered = 2 * (steps == usual).sum() < len(steps)
    divisor = math.gcd(*steps.dt.total_microseconds().unique())
    if scattered and timedelta(microseconds=divisor) == stated.length:
        return
    near = abs(usual - stated.length) <= timedelta(days=2) if stated.name == "1M" else usual == stated.length
    if not near:
        raise BadBars(
            f"the usual step between these bars is {usual}, which is not the timeframe {stated.name}"
        )


def _side_by_side(bars: Bars, stated: Timeframe) -> tuple[Bars, Bars]:
    """Of sorted bars with distinct times, those that lie no closer than half a timeframe, and those that had to go.

    Of two that are closer the one goes whose place in the timeframe fewer bars share, and both where as many do. Days
    whose midnight moves by an hour are never so close.
    """
    closest = stated.length / 2
    if not (bars["ts"].diff() < closest).any():
        return bars, bars.clear()
    place = (
        pl.col("ts") - pl.col("ts").dt.truncate("1mo")
        if stated.every.endswith("mo")
        else pl.col("ts").dt.epoch("us") % (stated.length // timedelta(microseconds=1))
    )
    left = bars.with_columns(shared=pl.len().over(place))
    while (close := left["ts"].diff() < closest).any():
        before, own = close.fill_null(False), pl.col("shared")
        after = before.shift(-1, fill_value=False)
        loses = (pl.lit(before) & (own <= own.shift(1))) | (pl.lit(after) & (own <= own.shift(-1)))
        left = left.filter(~loses)
    kept = left.drop("shared")
    return kept, bars.join(kept, on="ts", how="anti", maintain_order="left")


def overlap(ts: NDArray[np.int64], kept: NDArray[np.int64], bars_timeframe: Timeframe) -> NDArray[np.bool_]:
    """Whether each of the open times `ts` (n,) is closer than half a timeframe to one of `kept`, and is itself none of
    these. Both are microseconds, `kept` sorted."""
    length = bars_timeframe.length // timedelta(microseconds=1)
    if len(kept) == 0:
        return np.zeros(len(ts), bool)
    at = np.searchsorted(kept, ts)  # of the first that is not before
    before, after = kept[np.maximum(at - 1, 0)], kept[np.minimum(at, len(kept) - 1)]
    near = np.minimum(np.abs(ts - before), np.abs(after - ts))
    found: NDArray[np.bool_] = (2 * near < length) & (after != ts)
    return found


def gaps(bars: Bars, bars_timeframe: Timeframe) -> int:
    """How many steps between neighbouring bars are longer than 1.5 timeframes."""
    if len(bars) < 2:
        return 0
    steps = np.diff(as_micros(bars["ts"]))
    return int(np.count_nonzero(steps > 1.5 * (bars_timeframe.length // _MICROSECOND)))


def as_micros(moments: pl.Series) -> Int64:
    """Moments (n,), of which none is missing, in microseconds since 1970 UTC."""
    counted: Int64 = moments.to_physical().to_numpy()  # what a `dt` would do first goes through an expression
    return counted


def utc(moment: datetime) -> datetime:
    """`moment` in UTC; one without a zone is taken as UTC."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def iso(moment: datetime) -> str:
    """ISO 8601 in UTC with a Z, as every document has it."""
    return utc(moment).isoformat().replace("+00:00", "Z")


def stale_from(opens: pl.Series, bars_timeframe: Timeframe, after_timeframes: float) -> datetime:
    """From when on the newest of these bars (open times, sorted, not empty) is too old to answer from.

    That is `after_timeframes` timeframes after its close, where the next close is expected one timeframe later. A
    market with sessions is measured by its own closing gaps: a step, in whole timeframes, that came at least HABIT
    times from this place in the week is a usual one, and a next close as far away as the longest of them is not late.
    A weekend excuses nothing on a Wednesday.
    """
    ts = as_micros(opens)
    apart = (ts[:-1] - ts[-1]) % WEEK
    here = np.minimum(apart, WEEK - apart) <= CLOCK_CHANGE
    length = bars_timeframe.length // timedelta(microseconds=1)
    steps = Counter(_in_whole(np.diff(ts)[here], length).tolist())
    usual = max((step for step, times in steps.items() if times >= HABIT), default=1)
    return bars_timeframe.close_of(opens[-1]) + (usual + after_timeframes - 1) * bars_timeframe.length


def _in_whole(steps: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """Steps (n,) in whole timeframes of that length."""
    return np.rint(steps / length).astype(np.int64)
