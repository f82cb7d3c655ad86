"""Frames: the stretches of bars that features are computed in, so that the same bar always gives the same bits.

The last bits of a rolling kernel depend on where its frame starts. So there is one rule for that: bars belong
to blocks of BLOCK timeframes, anchored in absolute time, and a block's frame starts WARMUP bars before the
block's first bar. Where the data ends moves no bit, whoever asks, for one row or for a whole history.
Blocks of a long history are computed many at a time, and what has the same bits without frames (`parts`) without.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from datetime import timedelta
from itertools import pairwise

import numpy as np
import polars as pl
from numpy.typing import NDArray

from model.bars import Bars, Timeframe, as_micros
from model.errors import BadBars
from model.features.columns import BASE, REACHES, WARMUP, Feature, with_base
from model.features.parts import in_turn, parted
from model.features.table import DEFAULT, FeatureSet

BLOCK = 512  # bars of a block, where they follow each other without gaps
HISTORY = WARMUP + BLOCK  # the newest bars that suffice for the newest row

# Polars works outside the interpreter's lock, and one call is too short to keep two cores busy.
_THREADS = 2
# So few rows are sooner taken number by number than column by column.
FEW = 8
# Blocks that go in one call: what a call costs beside its work is shared, and 64 blocks of 60 columns are 16 MiB.
_TOGETHER = 64

# To look for a better plan takes longer than a few rows do.
_AS_IT_STANDS = pl.QueryOptFlags.none()

_FRAME = "_frame"  # which frame a row is of, where many are computed at a time

# What every row has beside its features.
_BESIDE = (
    pl.col("ts").dt.epoch("us").alias("_ts"),
    pl.col("closed_at").dt.epoch("us").alias("_closed_at"),
    pl.col("volatility").alias("_scale"),
    pl.col("close").alias("_close"),
)
# Of BASE what is not computed of a bar alone, which is the same in every frame.
_BASE_PARTS = tuple(
    {name: parted(expr, REACHES, WARMUP) for name, expr in step.items() if REACHES.get(name) != 0}
    for step in BASE
)

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
    found = _empty(max(0, len(bars) - WARMUP), feature_set)

    def fill(blocks: Sequence[tuple[int, int]]) -> None:
        _fill(
            found, max(blocks[0][0], WARMUP) - WARMUP, together(bars, timeframe, features, blocks, pl.Float32)
        )

    blocks = [block for block in pairwise(edges(bars, timeframe)) if block[1] > WARMUP]
    # Polars has no window within a window
    size = 1 if any(feature.windowed for feature in features) else _TOGETHER
    with ThreadPoolExecutor(_THREADS) as pool:
        for _ in pool.map(fill, [blocks[at : at + size] for at in range(0, len(blocks), size)]):
            pass  # raises what was raised there
    return _frozen(found)


def last_row(bars: Bars, timeframe: Timeframe, feature_set: FeatureSet = DEFAULT) -> FeatureRows:
    """The newest bar's row, to the bit as `rows` has it; none where it has fewer than WARMUP bars before it.

    `bars` are the whole history, or at least its newest HISTORY bars. Raises BadBars where bars overlap.
    """
    newest = bars.tail(HISTORY)
    if len(newest) <= WARMUP:
        return _frozen(_empty(0, feature_set))
    first, end = edges(newest, timeframe)[-2:]
    found = _empty(1, feature_set)
    _fill_last(found, 0, newest, timeframe, feature_set, (first, end), 1)
    return _frozen(found)


def last_rows(bars: Bars, timeframe: Timeframe, feature_set: FeatureSet, count: int) -> FeatureRows:
    """The rows of the newest `count` bars, to the bit as `rows` has them; fewer where there are no more.

    For a few of them, block by block. Of a history that is cut, its newest HISTORY + count - 1 bars are needed. Raises
    BadBars where bars overlap.
    """
    newest = bars.tail(HISTORY + count - 1)
    n = min(count, max(0, len(newest) - WARMUP))
    found, since = _empty(n, feature_set), len(newest) - n
    if n:
        for first, end in pairwise(edges(newest, timeframe)):
            if end > since:
                at = max(first, since)
                _fill_last(found, at - since, newest, timeframe, feature_set, (first, end), end - at)
    return _frozen(found)


def edges(bars: Bars, timeframe: Timeframe) -> list[int]:
    """Where blocks begin, then the number of bars.

    A block with more than BLOCK bars (daily stamps that follow summer time) is cut after each BLOCK of them.
    """
    block = as_micros(bars["ts"]) // (BLOCK * (timeframe.length // timedelta(microseconds=1)))
    bounds = [0, *(np.flatnonzero(np.diff(block)) + 1).tolist(), len(bars)]
    if any(end - first >= HISTORY for first, end in pairwise(bounds)):
        raise BadBars(f"bars overlap: {HISTORY} or more of {timeframe.name} within the time of {BLOCK}")
    return [*(cut for first, end in pairwise(bounds) for cut in range(first, end, BLOCK)), len(bars)]


def compute(
    bars: Bars, timeframe: Timeframe, features: Sequence[Feature], first: int, end: int
) -> pl.DataFrame:
    """All rows of the frame whose block is [first, end)."""
    frame = with_base(_frame(bars, first, end), timeframe)
    return frame.select_seq(*(feature.expr.alias(feature.name) for feature in features), *_BESIDE)


def _frame(bars: Bars, first: int, end: int) -> Bars:
    begin = max(0, first - WARMUP)
    # one chunk, so that no kernel sees where a frame was glued together
    return bars.slice(begin, end - begin).rechunk()


def together(
    bars: Bars,
    timeframe: Timeframe,
    features: Sequence[Feature],
    blocks: Sequence[tuple[int, int]],
    dtype: type[pl.DataType] = pl.Float64,
) -> pl.DataFrame:
    """The rows of blocks [first, end) that follow each other, to the bit as `compute` has them, without their warm-up,
    the features as `dtype`."""
    (first, end), last = blocks[0], blocks[-1][1]
    if len(blocks) == 1:
        alone = compute(bars, timeframe, features, first, end).tail(end - max(first, WARMUP))
        return alone.cast({feature.name: dtype for feature in features})
    begin = max(0, first - WARMUP)
    history = bars.slice(begin, last - begin).rechunk().with_columns(closed_at=timeframe.closes(pl.col("ts")))
    history = _with_exact_base(history, reaching=0)
    frames = [(max(0, first - WARMUP), max(first, WARMUP), end) for first, end in blocks]
    running = _running(history, features, np.array(frames) - begin)
    history = _with_exact_base(history, reaching=WARMUP)
    parts = [feature.parts for feature in features]
    exact = {name: expr for each in parts for name, expr in each.exact.items()}
    extremes = {extreme for each in parts for extreme in each.extremes}
    for columns in (exact, *in_turn(extremes)):
        history = history.with_columns_seq(**columns)
    rest = (feature.parts.rest.cast(dtype).alias(feature.name) for feature in features)
    return history.slice(max(first, WARMUP) - begin).hstack(running).select_seq(*rest, *_BESIDE)


def _with_exact_base(history: pl.DataFrame, reaching: int) -> pl.DataFrame:
    """With those columns of BASE whose exact windows look at no more earlier bars than `reaching`."""
    for step in BASE:
        near = {name: expr for name, expr in step.items() if REACHES.get(name, WARMUP + 1) <= reaching}
        history = history.with_columns_seq(**near)
    return history


def _running(history: pl.DataFrame, features: Sequence[Feature], frames: NDArray[np.int64]) -> pl.DataFrame:
    """What stands on running sums in some features, in frames (m, 3) that begin, are asked for, and end at a row."""
    begins, ends = frames[:, 0], frames[:, 2]
    frame = pl.concat([history.slice(a, b - a) for a, b in zip(begins, ends, strict=True)], rechunk=True)
    of_frame = pl.Series(np.repeat(np.arange(len(frames)), ends - begins)).set_sorted()
    frame = frame.with_columns(of_frame.alias(_FRAME))
    for step in _BASE_PARTS:
        windows = {name: expr for parts in step.values() for name, expr in parts.windows.items()}
        frame = frame.with_columns_seq(**_in_frames(windows))
        frame = frame.with_columns_seq(**{name: parts.rest for name, parts in step.items()})
    sums = {name: expr for feature in features for name, expr in feature.parts.running.items()}
    shared = [name for step in BASE for name in step if name not in REACHES]
    asked = np.concatenate([np.arange(begin, end) >= first for begin, first, end in frames])
    return frame.select_seq(*shared, **_in_frames(sums)).filter(pl.Series(asked))


def _in_frames(columns: Mapping[str, pl.Expr]) -> dict[str, pl.Expr]:
    return {name: expr.over(_FRAME) for name, expr in columns.items()}


def _empty(n: int, feature_set: FeatureSet) -> FeatureRows:
    """Room for n rows."""
    return FeatureRows(
        ts=np.empty(n, np.int64),
        closed_at=np.empty(n, np.int64),
        X=np.empty((n, len(feature_set.names)), np.float32),
        scale=np.empty(n),
        close=np.empty(n),
        inputs=np.empty((n, 0), np.int8),
    )


def _fill_last(
    found: FeatureRows,
    at: int,
    bars: Bars,
    timeframe: Timeframe,
    feature_set: FeatureSet,
    block: tuple[int, int],
    count: int,
) -> None:
    """Writes the last `count` rows of a block from row `at` on."""
    if count <= FEW:
        frame = with_base(_frame(bars, *block).lazy(), timeframe)
        columns = frame.select_seq(*feature_set.few.columns, *_BESIDE).tail(count)
        rows = columns.collect(engine="in-memory", optimizations=_AS_IT_STANDS).rows()
        values = feature_set.few.values(rows)
        if values is not None:
            for i, (x, (*_, ts, closed_at, scale, close)) in enumerate(zip(values, rows, strict=True), at):
                found.X[i] = x
                found.ts[i], found.closed_at[i], found.scale[i], found.close[i] = ts, closed_at, scale, close
            return
    _fill(found, at, compute(bars, timeframe, feature_set.features, *block).tail(count))


def _fill(found: FeatureRows, at: int, part: pl.DataFrame) -> None:
    """Writes what was computed from row `at` on, each part as it comes: a million wide rows need no second copy."""
    to = at + len(part)
    *names, ts, closed_at, scale, close = part.columns
    found.X[at:to] = part.select(pl.col(names).cast(pl.Float32)).to_numpy()
    for array, column in (
        (found.ts, ts),
        (found.closed_at, closed_at),
        (found.scale, scale),
        (found.close, close),
    ):
        array[at:to] = part[column].to_numpy()


def _frozen(found: FeatureRows) -> FeatureRows:
    for each in fields(found):
        getattr(found, each.name).flags.writeable = False
    return found
