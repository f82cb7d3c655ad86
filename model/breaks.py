"""Breaks: places where a market's bars do not follow each other as they should, and the rows that stand on them.

A gap is a step longer than usual, a jump a price that no longer has to do with the one before: an outage, a wrong unit,
a split that nobody told of. What is found at a bar depends on it and on bars before it alone, and on no more than
LOOKBACK of those, so that live and in a backtest the same bars are told apart. Letters: n bars.
"""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from model.bars import CLOCK_CHANGE, HABIT, WEEK, Bars, Timeframe, iso
from model.features.table import LEAST_VOLATILITY, LONG_WINDOW, SCALE_WINDOW

Bools = NDArray[np.bool_]
Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]

# A step that came HABIT times among so many bars, anywhere, is how this market trades: nights, minutes without a trade.
NEAR = 1_000
# So did one that came HABIT times from the same place in the week among so many: weekends of one-minute bars.
LOOKBACK = 40_000
# Of moves that are real, the largest among 160,000 bars of coins, currencies and stocks had 51; a price in another unit
# has hundreds.
JUMP_Z = 60.0
# For so many bars after a break its move is part of the volatility that everything is measured in.
AFTER = SCALE_WINDOW
# The median of absolute values is this many standard deviations, where values are normal.
MEDIAN_OF_NORMAL = 0.6745


@dataclass(frozen=True)
class Break:
    """One break. `ts` is the open time of the first bar after it; `size` of a gap is the number of bars that are
    missing, of a jump its log return."""

    kind: str  # gap, jump
    ts: datetime
    size: float

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
    def clean(self) -> Bools:
        """Whether the features of each bar stand on unbroken bars: after a jump not for AFTER bars, after a gap not
        for as many as are missing, at most AFTER."""
        shadow = np.where(self.jump != 0, AFTER, np.minimum(self.missing, AFTER))
        places = np.arange(len(shadow))
        until = np.maximum.accumulate(np.where(shadow > 0, places + shadow, 0))
        free: Bools = places >= until
        return free

    def part(self, rows: slice) -> "Breaks":
        """Those of these bars, as views."""
        return Breaks(self.missing[rows], self.jump[rows])

    def listed(self, ts: pl.Series) -> tuple[Break, ...]:
        """Each break, oldest first; `ts` are the n bars' open times."""
        found = []
        for place in np.flatnonzero(self.broken).tolist():
            opened = ts[place].astimezone(UTC)
            if self.missing[place]:
                found.append(Break("gap", opened, float(self.missing[place])))
            if self.jump[place]:
                found.append(Break("jump", opened, float(self.jump[place])))
        return tuple(found)


def find(bars: Bars, timeframe: Timeframe, jump_z: float = JUMP_Z) -> Breaks:
    """The breaks of these bars. Of a history that is cut at its front, those behind its first LOOKBACK bars are the same."""
    ts = bars["ts"].dt.epoch("us").to_numpy()
    missing, jump = _gaps(ts, timeframe), _jumps(bars["close"], jump_z)
    for array in (missing, jump):
        array.flags.writeable = False
    return Breaks(missing, jump)


def _gaps(ts: Int64, timeframe: Timeframe) -> Int64:
    """How many bars are missing before each, where that is unusual."""
    length = timeframe.length // timedelta(microseconds=1)
    missing = np.zeros(len(ts), np.int64)
    steps = np.diff(ts)
    long = np.flatnonzero(steps > 1.5 * length) + 1  # the bars behind them
    counts = np.rint(steps[long - 1] / length).astype(np.int64)
    unusual = np.ones(len(long), bool)
    for count in np.unique(counts).tolist():
        alike = np.flatnonzero(counts == count)
        before = np.arange(len(alike)) - np.searchsorted(long[alike], long[alike] - NEAR)
        unusual[alike] = before < HABIT
    for i in np.flatnonzero(unusual).tolist():
        first = int(np.searchsorted(long, long[i] - LOOKBACK))
        apart = (ts[long[i]] - ts[long[first:i]]) % WEEK
        here = np.minimum(apart, WEEK - apart) <= CLOCK_CHANGE
        # its length moves by an hour too, when clocks change over the weekend
        same = np.abs(steps[long[first:i] - 1] - steps[long[i] - 1]) <= max(CLOCK_CHANGE, length // 2)
        unusual[i] = np.count_nonzero(here & same) < HABIT
    found = long[unusual]
    missing[found] = counts[unusual] - 1
    return missing


def _jumps(close: pl.Series, jump_z: float) -> Float64:
    """The log return into each bar, where it is more than `jump_z` robust standard deviations of those before it."""
    r = close.log().diff().fill_null(0.0)
    usual = (r.abs().rolling_median(LONG_WINDOW).shift(1) / MEDIAN_OF_NORMAL).fill_null(float("inf"))
    usual = usual.clip(lower_bound=LEAST_VOLATILITY)
    jumps: Float64 = np.where((r.abs() > jump_z * usual).to_numpy(), r.to_numpy(), 0.0)
    return jumps
