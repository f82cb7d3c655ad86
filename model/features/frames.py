"""Frames: the stretches of bars that features are computed in, so that the same bar always gives the same bits.

The last bits of a rolling kernel depend on where its frame starts. So there is one rule for that: bars belong
to blocks of BLOCK timeframes, anchored in absolute time, and a block's frame starts WARMUP bars before the
block's first bar. Where the data ends moves no bit, whoever asks, for one row or for a whole history.
"""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise

import numpy as np
import polars as pl
from numpy.typing import NDArray

from model.bars import Bars, Timeframe
from model.errors import BadBars
from model.features.table import BASE, DEFAULT, WARMUP, Feature, FeatureSet

BLOCK = 512  # bars of a block, where they follow each other without gaps
HISTORY = WARMUP + BLOCK  # the newest bars that suffice for the newest row

# Polars works outside the interpreter's lock, and one frame is too short to keep two cores busy.
_THREADS = 2


@dataclass(frozen=True)
class FeatureRows:
    """One row for each bar that has WARMUP bars before it; the arrays are read-only.

    ts, closed_at (n,) int64 microseconds UTC; X (n, F) float32; scale (n,) float64, the volatility of one
    bar's log return as known at that close, never below 1e-6; close (n,) float64, the price.
    """

    ts: NDArray[np.int64]
    closed_at: NDArray[np.int64]
    X: NDArray[np.float32]
    scale: NDArray[np.float64]
    close: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.ts)


def rows(bars: Bars, timeframe: Timeframe, feature_set: FeatureSet = DEFAULT) -> FeatureRows:
    """The feature rows of a market's whole history. Raises BadBars where bars overlap.

    Of a history that is cut at its front, the rows from its HISTORY-th bar on keep their bits.
    """
    features = feature_set.features

    def of_block(block: tuple[int, int]) -> pl.DataFrame:
        first, end = block
        return compute(bars, timeframe, features, first, end).tail(end - max(first, WARMUP))

    blocks = [block for block in pairwise(edges(bars, timeframe)) if block[1] > WARMUP]
    with ThreadPoolExecutor(_THREADS) as pool:
        return _packed(max(0, len(bars) - WARMUP), pool.map(of_block, blocks), feature_set)


def last_row(bars: Bars, timeframe: Timeframe, feature_set: FeatureSet = DEFAULT) -> FeatureRows:
    """The newest bar's row, to the bit as `rows` has it; none where it has fewer than WARMUP bars before it.

    `bars` are the whole history, or at least its newest HISTORY bars. Raises BadBars where bars overlap.
    """
    newest = bars.tail(HISTORY)
    if len(newest) <= WARMUP:
        return _packed(0, [], feature_set)
    first, end = edges(newest, timeframe)[-2:]
    row = compute(newest, timeframe, feature_set.features, first, end).tail(1)
    return _packed(1, [row], feature_set)


def with_base(bars: Bars, timeframe: Timeframe) -> pl.DataFrame:
    """`bars` with closed_at and the columns of BASE."""
    frame = bars.with_columns(closed_at=timeframe.closes(pl.col("ts")))
    for step in BASE:
        frame = frame.with_columns(**step)
    return frame


def edges(bars: Bars, timeframe: Timeframe) -> list[int]:
    """Where blocks begin, then the number of bars.

    A block with more than BLOCK bars (daily stamps that follow summer time) is cut after each BLOCK of them.
    """
    block = bars["ts"].dt.epoch("us").to_numpy() // (BLOCK * (timeframe.length // timedelta(microseconds=1)))
    bounds = [0, *(np.flatnonzero(np.diff(block)) + 1).tolist(), len(bars)]
    if any(end - first >= HISTORY for first, end in pairwise(bounds)):
        raise BadBars(f"bars overlap: {HISTORY} or more of {timeframe.name} within the time of {BLOCK}")
    return [*(cut for first, end in pairwise(bounds) for cut in range(first, end, BLOCK)), len(bars)]


def compute(
    bars: Bars, timeframe: Timeframe, features: Sequence[Feature], first: int, end: int
) -> pl.DataFrame:
    """All rows of the frame whose block is [first, end)."""
    begin = max(0, first - WARMUP)
    # one chunk, so that no kernel sees where a frame was glued together
    frame = with_base(bars.slice(begin, end - begin).rechunk(), timeframe)
    return frame.select(
        *(feature.expr.alias(feature.name) for feature in features),
        pl.col("ts").dt.epoch("us").alias("_ts"),
        pl.col("closed_at").dt.epoch("us").alias("_closed_at"),
        pl.col("volatility").alias("_scale"),
        pl.col("close").alias("_close"),
    )


def _packed(n: int, parts: Iterable[pl.DataFrame], feature_set: FeatureSet) -> FeatureRows:
    """The n rows of `parts`, each taken up and let go as it comes: a million wide rows need no second copy."""
    ts, closed_at = np.empty(n, np.int64), np.empty(n, np.int64)
    X = np.empty((n, len(feature_set.names)), np.float32)
    scale, close = np.empty(n), np.empty(n)
    at = 0
    for part in parts:
        to = at + len(part)
        X[at:to] = part.select(feature_set.names).to_numpy()
        ts[at:to], closed_at[at:to] = part["_ts"].to_numpy(), part["_closed_at"].to_numpy()
        scale[at:to], close[at:to] = part["_scale"].to_numpy(), part["_close"].to_numpy()
        at = to
    for array in (ts, closed_at, X, scale, close):
        array.flags.writeable = False
    return FeatureRows(ts, closed_at, X, scale, close)
