"""Frames: the stretches of bars that features are computed in, so that the same bar always gives the same bits.

The last bits of a rolling kernel depend on where its frame starts. So there is one rule for that: bars belong
to blocks of BLOCK timeframes, anchored in absolute time, and a block's frame starts WARMUP bars before the
block's first bar. Where the data ends moves no bit, whoever asks, for one row or for a whole history.
Blocks of a long history are computed many at a time, each still in its own frame: a group of rows to Polars.
"""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from model.bars import Bars, Timeframe
from model.errors import BadBars
from model.features.columns import BASE, WARMUP, Feature
from model.features.table import DEFAULT, FeatureSet

BLOCK = 512  # bars of a block, where they follow each other without gaps
HISTORY = WARMUP + BLOCK  # the newest bars that suffice for the newest row

# Polars works outside the interpreter's lock, and one frame is too short to keep two cores busy.
_THREADS = 2
# Blocks that go in one call: what a call costs beside its work is shared, and 32 frames of 60 columns are 12 MiB.
_TOGETHER = 32

# How an input stands at a row: it counts; fewer than WARMUP + 1 of its bars had closed; the newest of them is too old;
# its features stand on a jump of its price.
GIVEN, SHORT, STALE, JUMPED = 0, 1, 2, 3


@dataclass(frozen=True)
class FeatureRows:
    """One row for each bar that has WARMUP bars before it; the arrays are read-only.

    ts, closed_at (n,) int64 microseconds UTC; X (n, F) float32; scale (n,) float64, the volatility of one
    bar's log return as known at that close, never below 1e-6; close (n,) float64, the price; inputs (n, I) int8, how
    each input of the feature set stands there: GIVEN, SHORT, STALE or JUMPED. X is NaN where an input is short.
    """

    ts: NDArray[np.int64]
    closed_at: NDArray[np.int64]
    X: NDArray[np.float32]
    scale: NDArray[np.float64]
    close: NDArray[np.float64]
    inputs: NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.ts)

    @property
    def usable(self) -> NDArray[np.bool_]:
        """Whether each row has all its inputs."""
        given: NDArray[np.bool_] = (self.inputs == GIVEN).all(axis=1)
        return given


def rows(bars: Bars, timeframe: Timeframe, feature_set: FeatureSet = DEFAULT) -> FeatureRows:
    """The feature rows of a market's whole history. Raises BadBars where bars overlap.

    Of a history that is cut at its front, the rows from its HISTORY-th bar on keep their bits.
    """
    features = feature_set.features

    def of_blocks(blocks: Sequence[tuple[int, int]]) -> pl.DataFrame:
        return together(bars, timeframe, features, blocks)

    blocks = [block for block in pairwise(edges(bars, timeframe)) if block[1] > WARMUP]
    # Polars has no window within a window
    size = 1 if any(feature.windowed for feature in features) else _TOGETHER
    groups = [blocks[at : at + size] for at in range(0, len(blocks), size)]
    with ThreadPoolExecutor(_THREADS) as pool:
        return _packed(max(0, len(bars) - WARMUP), pool.map(of_blocks, groups), feature_set)


def last_row(bars: Bars, timeframe: Timeframe, feature_set: FeatureSet = DEFAULT) -> FeatureRows:
    """The newest bar's row, to the bit as `rows` has it; none where it has fewer than WARMUP bars before it.

    `bars` are the whole history, or at least its newest HISTORY bars. Raises BadBars where bars overlap.
    """
    newest = bars.tail(HISTORY)
    if len(newest) <= WARMUP:
        return _packed(0, [], feature_set)
    first, end = edges(newest, timeframe)[-2:]
    *x, ts, closed_at, scale, close = compute(newest, timeframe, feature_set.features, first, end).row(-1)
    return _frozen(
        np.array([ts]),
        np.array([closed_at]),
        np.array([x], np.float32),
        np.array([scale]),
        np.array([close]),
        np.empty((1, 0), np.int8),
    )


def with_base(bars: Bars, timeframe: Timeframe) -> pl.DataFrame:
    """`bars` with closed_at and the columns of BASE."""
    frame = bars.with_columns(closed_at=timeframe.closes(pl.col("ts")))
    for step in BASE:
        # one frame is too short for threads to share its columns
        frame = frame.with_columns_seq(**step)
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
    return frame.select_seq(*_columns(features))


def _columns(features: Sequence[Feature]) -> list[pl.Expr]:
    """What is computed of each bar: the features by name, and what every row has beside them."""
    return [
        *(feature.expr.alias(feature.name) for feature in features),
        pl.col("ts").dt.epoch("us").alias("_ts"),
        pl.col("closed_at").dt.epoch("us").alias("_closed_at"),
        pl.col("volatility").alias("_scale"),
        pl.col("close").alias("_close"),
    ]


def together(
    bars: Bars, timeframe: Timeframe, features: Sequence[Feature], blocks: Sequence[tuple[int, int]]
) -> pl.DataFrame:
    """The rows of some blocks [first, end), to the bit as `compute` has them, without their warm-up."""
    if len(blocks) == 1:
        first, end = blocks[0]
        return compute(bars, timeframe, features, first, end).tail(end - max(first, WARMUP))
    begins = [max(0, first - WARMUP) for first, _ in blocks]
    lengths = [end - begin for begin, (_, end) in zip(begins, blocks, strict=True)]
    frame = pl.concat(
        [bars.slice(begin, length) for begin, length in zip(begins, lengths, strict=True)], rechunk=True
    ).with_columns(
        _frame=pl.Series(np.repeat(np.arange(len(blocks)), lengths)).set_sorted(),
        closed_at=timeframe.closes(pl.col("ts")),
    )
    for step in BASE:
        frame = frame.with_columns(**{name: expr.over("_frame") for name, expr in step.items()})
    warm = [max(first, WARMUP) - begin for begin, (first, _) in zip(begins, blocks, strict=True)]
    asked = np.concatenate([np.arange(n) >= start for n, start in zip(lengths, warm, strict=True)])
    return frame.select(expr.over("_frame") for expr in _columns(features)).filter(pl.Series(asked))


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
    return _frozen(ts, closed_at, X, scale, close, np.empty((n, 0), np.int8))


def _frozen(*arrays: NDArray[Any]) -> FeatureRows:
    for array in arrays:
        array.flags.writeable = False
    return FeatureRows(*arrays)
