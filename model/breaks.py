"""Breaks: places where a market's bars do not follow each other as they should, and the rows that stand on them.

A gap is a step longer than usual, a jump a price that no longer has to do with the one before: an outage, a wrong unit,
a split that nobody told of. What is found at a bar depends on it and on bars before it alone, and on no more than
LOOKBACK of those, so that live and in a backtest the same bars are told apart. Letters: n bars.
"""

import math
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from model.bars import CLOCK_CHANGE, HABIT, WEEK, Bars, Timeframe, as_micros, iso
from model.features.columns import LEAST_VOLATILITY, LONG_WINDOW, SCALE_WINDOW, WARMUP

Bools = NDArray[np.bool_]
Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]

# A step that came HABIT times among so many bars, anywhere, is how this market trades: nights, minutes without a trade.
NEAR = 1_000
# So is one that came HABIT times to the same place in the week among so many: weekends of one-minute bars.
LOOKBACK = 40_000
# Steps are alike up to an eighth: weekends over which clocks change. One is usual too where some that are up to a third
# longer are, so that a market of few trades is not all gaps; an outage is told by being longer than what is usual.
EIGHTHS, LONGER = 8, 2
# Of moves that are real, the largest among 160,000 bars of coins, currencies and stocks had 51; a price in another unit
# has hundreds.
JUMP_Z = 60.0
# Nothing is said of the first bars, before as many moves are known as are compared with.
SETTLED = LONG_WINDOW + 1
# Fewer moves than this among LONG_WINDOW bars do not tell how far a market moves; then it counts as so volatile.
LEAST_MOVES, UNTOLD = 24, 0.01
# After so many bars no feature sees a jump any more; nor does the volatility, whose floor is a share of its longer run.
AFTER_JUMP = WARMUP
# A gap's move is a real one, and stays for so many bars in the volatility that everything is measured in.
AFTER_GAP = SCALE_WINDOW
# The median of absolute values is this many standard deviations, where values are normal.
MEDIAN_OF_NORMAL = 0.6745


@dataclass(frozen=True)
class Break:
    """One break. `ts` is the open time of the first bar after it; `size` of a gap is the number of bars that are
    missing, of a jump its log return."""

    kind: str  # gap, jump
    ts: datetime
    size: float

    @property
    def told(self) -> str:
        """As one would say it."""
        if self.kind == "gap":
            many = "bar is" if self.size == 1 else "bars are"
            return f"{self.size:.0f} {many} missing before {iso(self.ts)}"
        return f"the price jumped by {math.expm1(self.size):+.0%} into the bar of {iso(self.ts)}"

    def document(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**asdict(self), "ts": iso(self.ts)}


@dataclass(frozen=True)
class Breaks:
    """What was found at each of n bars, read-only: how many bars are missing before it where that is unusual (else 0),
    and the log return into it where that is a jump (else 0)."""

    missing: Int64
    jump: Float64

    @property
    def broken(self) -> Bools:
        """Whether the step into each bar is a break."""
        found: Bools = (self.missing > 0) | (self.jump != 0)
        return found

    @property
    def ends(self) -> Int64:
        """The place from which on the bars after the break at each bar are sound again, 0 where there is none:
        AFTER_JUMP bars after a jump, after a gap as many as are missing, at most AFTER_GAP."""
        shadow = np.where(self.jump != 0, AFTER_JUMP, np.minimum(self.missing, AFTER_GAP))
        ends: Int64 = np.where(shadow > 0, np.arange(len(shadow)) + shadow, 0)
        return ends

    @property
    def clean(self) -> Bools:
        """Whether the features of each bar stand on unbroken bars."""
        free: Bools = np.arange(len(self.missing)) >= np.maximum.accumulate(self.ends)
        return free

    def listed(self, ts: pl.Series) -> tuple[Break, ...]:
        """Each break, oldest first, at one bar the gap first; `ts` are the n bars' open times."""
        found = []
        for place in np.flatnonzero(self.broken).tolist():
            opened = ts[place].astimezone(UTC)
            if self.missing[place]:
                found.append(Break("gap", opened, float(self.missing[place])))
            if self.jump[place]:
                found.append(Break("jump", opened, float(self.jump[place])))
        return tuple(found)

    def under(self, ts: pl.Series) -> Break | None:
        """The newest break that the newest bar's features stand on, if any; `ts` are the n bars' open times."""
        standing = np.flatnonzero(self.ends >= len(ts))
        if len(standing) == 0:
            return None
        last = slice(int(standing[-1]), int(standing[-1]) + 1)
        return Breaks(self.missing[last], self.jump[last]).listed(ts[last])[-1]


def find(bars: Bars, timeframe: Timeframe, jump_z: float = JUMP_Z) -> Breaks:
    """The breaks of these bars. Of a history that is cut at its front, those behind its first LOOKBACK bars are the same."""
    ts = as_micros(bars["ts"])
    missing, jump = _gaps(ts, timeframe), _jumps(bars["close"], jump_z)
    for array in (missing, jump):
        array.flags.writeable = False
    return Breaks(missing, jump)


def after_jump(close: pl.Series, jump_z: float = JUMP_Z) -> Bools:
    """Whether the features of each bar stand on a jump of its price, closes (n,). Of a history that is cut at its front,
    those behind its first SETTLED + AFTER_JUMP bars are the same."""
    jump = _jumps(close, jump_z)
    return ~Breaks(np.zeros(len(jump), np.int64), jump).clean


def _gaps(ts: Int64, timeframe: Timeframe) -> Int64:
    """How many bars are missing before each, where that is unusual."""
    length = timeframe.length // timedelta(microseconds=1)
    missing = np.zeros(len(ts), np.int64)
    steps = np.diff(ts)
    long = np.flatnonzero(steps > 1.5 * length) + 1  # the bars behind them
    counts = np.rint(steps[long - 1] / length).astype(np.int64)
    unusual = np.ones(len(long), bool)
    sizes = np.rint(EIGHTHS * np.log(counts))
    for size in np.unique(sizes).tolist():
        of_size, alike = sizes == size, long[(sizes >= size) & (sizes <= size + LONGER)]
        to, since = (np.searchsorted(alike, long[of_size] - ago) for ago in (0, NEAR))
        unusual[of_size] = to - since < HABIT
    for i in np.flatnonzero(unusual).tolist():
        # the step into the first of LOOKBACK bars before began one bar earlier
        first = int(np.searchsorted(long, long[i] - LOOKBACK, side="right"))
        apart = (ts[long[i]] - ts[long[first:i]]) % WEEK
        here = np.minimum(apart, WEEK - apart) <= CLOCK_CHANGE
        step = int(steps[long[i] - 1])
        longer = steps[long[first:i] - 1] - step
        alike = (longer >= -max(step // EIGHTHS, length // 2)) & (longer <= max(step // 3, length // 2))
        unusual[i] = np.count_nonzero(here & alike) < HABIT
    found = long[unusual]
    missing[found] = counts[unusual] - 1
    return missing


def _may_jump(close: Float64, jump_z: float) -> bool:
    """Whether any move may be a jump; where not, none is, which takes no medians to tell.

    A median is above a number that fewer than half are not above. So where that holds in all windows of moves, for the
    number that the largest move of all is `jump_z` robust standard deviations of, no move is that far from the usual.
    """
    moves = np.abs(np.diff(np.log(close)))
    largest = float(moves[LONG_WINDOW:].max(initial=0.0)) * (
        1 + 1e-9
    )  # a logarithm's last bit is its library's
    if not largest <= jump_z * UNTOLD:
        return True
    small = (moves > 0) & (moves <= largest * MEDIAN_OF_NORMAL / jump_z)
    of_window, small_ones = (_in_windows(which) for which in (moves > 0, small))
    return bool(((2 * small_ones >= of_window) & (of_window >= LEAST_MOVES)).any())


def _in_windows(which: Bools) -> Int64:
    """How many there are in each full window of LONG_WINDOW."""
    counted: Int64 = np.concatenate([[0], np.cumsum(which)])
    there: Int64 = counted[LONG_WINDOW:] - counted[:-LONG_WINDOW]
    return there


_MOVE = pl.col("close").log().diff().alias("r")
_USUAL = (
    pl.when(pl.col("r") != 0)
    .then(pl.col("r").abs())
    .rolling_median(LONG_WINDOW, min_samples=LEAST_MOVES)
    .shift(1)
    / MEDIAN_OF_NORMAL
).alias("usual")


def _jumps(close: pl.Series, jump_z: float) -> Float64:
    """The log return into each bar, where it is more than `jump_z` robust standard deviations of those before it.

    Bars that did not move tell nothing: in a market of seconds they are the most, and any move would be a jump.
    """
    if not _may_jump(close.to_numpy(), jump_z):  # nearly always so
        return np.zeros(len(close))
    moved = close.to_frame("close").select_seq(_MOVE).with_columns_seq(_USUAL)
    far = pl.col("r").abs() > jump_z * pl.col("usual").fill_null(UNTOLD).clip(lower_bound=LEAST_VOLATILITY)
    jumps: Float64 = moved.select_seq(pl.when(far).then("r").otherwise(0.0).fill_null(0.0))["r"].to_numpy(
        writable=True
    )
    jumps[:SETTLED] = 0.0
    return jumps
