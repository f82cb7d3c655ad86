"""Inputs: features of other bars beside a market's own, joined by the time at which they were known.

An input's rows are computed in frames of its own timeframe, by the same rule as a market's own, so that their bits
depend on nothing but its bars. A row sees the newest of them that had closed when it closed itself; one that closed
later, or has not closed yet, might as well not exist. Letters: n rows, F features.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray

from model import breaks, resample
from model.bars import BAR_SCHEMA, Bars, Market, Timeframe, stale_from, timeframe
from model.errors import BadInput
from model.features import frames
from model.features.frames import GIVEN, HISTORY, JUMPED, SHORT, STALE, FeatureRows
from model.features.table import DEFAULT, FeatureSet, Input

Others = Mapping[Market, Bars]  # the bars of each input that is another market

# Another market's newest bar counts for so many of its timeframes after its close; longer where it usually closes then.
STALE_AFTER = 2.0
# An answer reads a market's own bars for HISTORY bars of a longer timeframe each time: some 100,000 at most.
MOST_BARS_IN_ONE = 168

_MICROSECOND = timedelta(microseconds=1)
NO_OTHERS: Others = {}
_NO_BARS: Bars = BAR_SCHEMA.to_frame()


def rows(
    bars: Bars,
    bars_timeframe: Timeframe,
    feature_set: FeatureSet = DEFAULT,
    others: Others = NO_OTHERS,
    newest: int | None = None,
    jump_z: float | None = None,
) -> FeatureRows:
    """The feature rows of a market's whole history, with their inputs; or as if only the `newest` bars were its own,
    and the older ones there for longer timeframes. `jump_z` is where a move of an input is a break, as in `breaks`.
    Raises BadBars where bars overlap, BadInput where an input cannot be made of these bars.

    Of a history that is cut at its front, the rows from its `reach`-th bar on keep their bits, as long as of `others`
    the HISTORY newest bars by then are there.
    """
    own = frames.rows(bars if newest is None else bars.tail(newest), bars_timeframe, feature_set)
    return _beside(own, bars, bars_timeframe, feature_set, others, frames.rows, jump_z)


def last_row(
    bars: Bars,
    bars_timeframe: Timeframe,
    feature_set: FeatureSet = DEFAULT,
    others: Others = NO_OTHERS,
    jump_z: float | None = None,
) -> FeatureRows:
    """The newest bar's row, to the bit as `rows` has it; none where it has fewer than WARMUP bars before it.

    `bars` are the whole history, or at least its newest `reach` bars; `others` at least the HISTORY newest bars of each
    that had closed by then. Raises as `rows` does.
    """
    own = frames.last_row(bars, bars_timeframe, feature_set)
    now = int(own.closed_at.max(initial=0))
    known = {
        market: of.filter(timeframe(market.timeframe).closes(pl.col("ts")).dt.epoch("us") <= now)
        for market, of in others.items()
    }
    return _beside(own, bars, bars_timeframe, feature_set, known, frames.last_row, jump_z)


def reach(feature_set: FeatureSet, bars_timeframe: Timeframe) -> int:
    """How many of a market's newest bars always suffice for the newest row. Raises BadInput where an input cannot be
    made of a market's own bars."""
    own = [_bars_in_one(each, bars_timeframe) for each in feature_set.inputs if each.symbol is None]
    # one bar more than HISTORY, since the first may begin within what is read
    return (HISTORY + 1) * max(own) if own else HISTORY


def _bars_in_one(each: Input, bars_timeframe: Timeframe) -> int:
    count = resample.most_bars_in_one(bars_timeframe, timeframe(each.timeframe))
    if count > MOST_BARS_IN_ONE:
        raise BadInput(
            f"the input {each} would need {count} bars of {bars_timeframe.name} for each of its own, and "
            f"{MOST_BARS_IN_ONE} are the most: keep bars of {each.timeframe} as a market, and name its symbol"
        )
    return count


def _beside(
    own: FeatureRows,
    bars: Bars,
    bars_timeframe: Timeframe,
    feature_set: FeatureSet,
    others: Others,
    compute: Callable[[Bars, Timeframe, FeatureSet], FeatureRows],
    jump_z: float | None,
) -> FeatureRows:
    """`own` rows, and beside them the columns of each input."""
    if not feature_set.inputs:
        return own
    columns, standing = [own.X], []
    for each in feature_set.inputs:
        length = timeframe(each.timeframe)
        if each.market is None:
            _bars_in_one(each, bars_timeframe)
            source = resample.resample(bars, bars_timeframe, length)
        else:
            source = others.get(each.market, _NO_BARS)
        found = compute(source, length, each.feature_set)
        at = as_of(own.closed_at, found.closed_at)
        seen = np.flatnonzero(at >= 0)
        stands = np.where(at < 0, SHORT, GIVEN).astype(np.int8)
        jumped = breaks.after_jump(source["close"], breaks.JUMP_Z if jump_z is None else jump_z)
        stands[seen[jumped[len(source) - len(found) :][at[seen]]]] = JUMPED
        if each.market is not None:
            # of a market's own bars none is late: what is missing of them is missing from its own rows too
            stands[_stale(own.closed_at, at, found.closed_at, source["ts"], length)] = STALE
        X = np.full((len(own), found.X.shape[1]), np.nan, np.float32)
        X[seen] = found.X[at[seen]]
        columns.append(X)
        standing.append(stands)
    X, inputs = np.hstack(columns), np.column_stack(standing)
    for array in (X, inputs):
        array.flags.writeable = False
    return replace(own, X=X, inputs=inputs)


def as_of(closed_at: NDArray[np.int64], known_at: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each close (n,) the place of the newest of some moments (m,), ascending, that is no later; -1 where none is."""
    return np.searchsorted(known_at, closed_at, side="right") - 1


def _stale(
    closed_at: NDArray[np.int64],
    at: NDArray[np.int64],
    known_at: NDArray[np.int64],
    opens: pl.Series,
    length: Timeframe,
) -> NDArray[np.bool_]:
    """Which rows come too late for the input's row that they see. How late is too late is measured at that bar, by the
    gaps before it, as for a market's own bars; `opens` are the input's, its rows are known at `known_at` (m,)."""
    late = np.zeros(len(closed_at), bool)
    seen = np.flatnonzero(at >= 0)
    old = seen[closed_at[seen] - known_at[at[seen]] > STALE_AFTER * (length.length // _MICROSECOND)]
    for place in np.unique(at[old]).tolist():
        end = len(opens) - len(known_at) + place + 1
        until = stale_from(opens[max(0, end - HISTORY) : end], length, STALE_AFTER)
        rows_there = slice(*np.searchsorted(at, [place, place + 1]))
        late[rows_there] = closed_at[rows_there] > pl.Series([until]).dt.epoch("us")[0]
    return late
