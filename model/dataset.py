"""A dataset is features and labels, row by row, with the times at which each became known; and its honest splits."""

from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from model import breaks, features
from model.bars import Bars, Timeframe
from model.breaks import LOOKBACK, Breaks
from model.config import TrainConfig
from model.errors import TrainingFailed
from model.features import (
    BLOCK,
    GIVEN,
    HISTORY,
    NO_OTHERS,
    SHORT,
    WARMUP,
    FeatureRows,
    FeatureSet,
    Others,
)
from model.labels import horizon_scale, labels

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

# Fewer rows than this in any part of a split make its figures noise.
SMALLEST_PART = 20


@dataclass(frozen=True)
class Dataset:
    """n rows in order of time, each standing on one closed bar. Arrays are read-only.

    `closed_at` (microseconds) is when a row's features are known, `known_at` when its label is.
    `scale` is the size that the log return over the horizon is expected to have: `target` = log_return / scale.
    """

    features: FeatureSet
    horizon: int  # bars
    closed_at: Int64
    known_at: Int64
    X: Float32  # (n, F)
    up: Float32  # 1 where the close `horizon` bars on is above this close, else 0
    log_return: Float64
    scale: Float64
    close: Float64

    def __len__(self) -> int:
        return len(self.closed_at)

    def part(self, rows: slice | NDArray[np.bool_]) -> "Dataset":
        """These rows alone: of a slice views, of a choice copies, read-only too."""
        chosen = {
            name: getattr(self, name)[rows]
            for name in ("closed_at", "known_at", "X", "up", "log_return", "scale", "close")
        }
        for array in chosen.values():
            array.flags.writeable = False
        return replace(self, **chosen)

    @property
    def target(self) -> Float32:
        """The log return over the horizon in units of the size that it is expected to have."""
        return (self.log_return / self.scale).astype(np.float32)

    @property
    def closes(self) -> Float64:
        """Each row's close, and the one at which its label is known, (n, 2): what the labels say again, in other
        words. NaN where no row stands on that bar."""
        at = np.searchsorted(self.closed_at, self.known_at)
        there = at < len(self)
        there[there] = self.closed_at[at[there]] == self.known_at[there]
        then = np.full(len(self), np.nan)
        then[there] = self.close[at[there]]
        return np.stack((self.close, then), axis=1)


def build(rows: FeatureRows, feature_set: FeatureSet, horizon: int) -> Dataset:
    """The rows whose label is known, i.e. all but the newest `horizon`."""
    known = labels(rows, horizon)
    n = len(known.up)
    return Dataset(
        features=feature_set,
        horizon=horizon,
        closed_at=rows.closed_at[:n],
        known_at=known.known_at,
        X=rows.X[:n],
        up=known.up,
        log_return=known.log_return,
        scale=horizon_scale(rows.scale[:n], horizon),
        close=rows.close[:n],
    )


def from_bars(
    history: Bars,
    timeframe: Timeframe,
    config: TrainConfig,
    wanted: int | None = None,
    others: Others = NO_OTHERS,
) -> Dataset:
    """The rows of a market's bars as trainings and backtests see them: with a known label, all inputs, and on no break.

    All of them, or no more than are needed for the newest `wanted`; with `bars_for(config, timeframe, wanted)` of the
    newest bars these are what the whole history gives, to the bit. `others` are the bars of the markets that are inputs.
    Raises TrainingFailed where no row has all inputs.
    """
    feature_set = config.feature_set
    found = breaks.find(history, timeframe, config.jump_z)
    missing = 0
    while True:
        used = len(history) if wanted is None else wanted + missing + config.horizon + HISTORY
        tail = history.tail(used)
        rows = features.rows(history, timeframe, feature_set, others, used, config.jump_z)
        _need_inputs(rows, feature_set)
        data = build(rows, feature_set, config.horizon)
        data = unbroken(data, rows, found)
        if wanted is None or len(tail) == len(history):
            return data
        # the first rows of a history that was cut have not their own bits
        data = data.part(slice(int(np.searchsorted(data.closed_at, rows.closed_at[BLOCK])), None))
        if len(data) >= wanted:
            return data
        missing += wanted - len(data)


def bars_for(config: TrainConfig, timeframe: Timeframe, wanted: int) -> int:
    """How many of the newest bars give so many rows, and tell what is usual in this market, if no more than one row in
    five is broken."""
    room = wanted + wanted // 4
    return room + config.horizon + features.reach(config.feature_set, timeframe) + LOOKBACK


def left_out(history: Bars, timeframe: Timeframe, config: TrainConfig, data: Dataset) -> dict[str, int]:
    """How many breaks lie among the bars that the rows of `data` span, and how many of these bars have no row."""
    if len(data) == 0:
        return {"gaps": 0, "jumps": 0, "rows_left_out": 0}
    found = breaks.find(history, timeframe, config.jump_z)
    closed_at = history.select(timeframe.closes(pl.col("ts")).dt.epoch("us")).to_series().to_numpy()
    first, last = (int(np.searchsorted(closed_at, data.closed_at[end])) for end in (0, -1))
    return {
        "gaps": int(np.count_nonzero(found.missing[first : last + 1])),
        "jumps": int(np.count_nonzero(found.jump[first : last + 1])),
        "rows_left_out": last + 1 - first - len(data),
    }


def _need_inputs(rows: FeatureRows, feature_set: FeatureSet) -> None:
    """Raises TrainingFailed, naming an input, where there are rows and none of them has it."""
    for each, stands in zip(feature_set.inputs, rows.inputs.T, strict=True):
        if len(rows) and not (stands == GIVEN).any():
            raise TrainingFailed(
                f"no row has its input {each}: "
                + (
                    f"of {each} fewer than {WARMUP + 1} bars are known by then"
                    if (stands == SHORT).any()
                    else "its newest bars were too old each time, or stood on a jump"
                )
            )


def unbroken(data: Dataset, rows: FeatureRows, found: Breaks) -> Dataset:
    """Those of `data` that have all inputs and stand on unbroken bars, up to the bar that their label is known at.

    `found` are the breaks of the bars that `rows` are the newest of, and data the first of.
    """
    # a row may stand on a break at a bar that is too old to have a row of its own
    broken, clean = (each[len(each) - len(rows) :] for each in (found.broken, found.clean))
    so_far = np.concatenate(([0], np.cumsum(broken)))
    start = np.searchsorted(rows.closed_at, data.closed_at, side="right")
    end = np.searchsorted(rows.closed_at, data.known_at, side="right")
    sound = clean[: len(data)] & rows.usable[: len(data)] & (so_far[end] == so_far[start])
    return data if sound.all() else data.part(sound)


@dataclass(frozen=True)
class Split:
    """A chronological split: the weights learn from `fit`, their best epoch is chosen on `stop`, and `held` is kept
    back from both. Purged: no label of an earlier part is known later than a later part's first features."""

    fit: slice
    stop: slice
    held: slice


def split(dataset: Dataset, stop_fraction: float, held_fraction: float) -> Split:
    """Splits by time, the newest rows held back. Raises TrainingFailed where a part would be too small to mean much."""
    n = len(dataset)
    held_from = n - round(n * held_fraction)
    stop_from = held_from - round(n * stop_fraction)
    parts = Split(
        fit=slice(0, known_by(dataset, stop_from)),
        stop=slice(stop_from, known_by(dataset, held_from)),
        held=slice(held_from, n),
    )
    sizes = [part.stop - part.start for part in (parts.fit, parts.stop, parts.held)]
    if min(sizes) < SMALLEST_PART:
        raise TrainingFailed(
            f"{n} rows with features and a known label are too few to fit, stop and judge on (parts of {sizes} rows, "
            f"at least {SMALLEST_PART} each): more bars or a wider window are needed"
        )
    return parts


def known_by(dataset: Dataset, row: int) -> int:
    """How many rows from the first on have a label that is known when the features of `row` are: label spans purge, not
    a typed gap."""
    if row >= len(dataset):
        return len(dataset)
    return int(np.searchsorted(np.maximum.accumulate(dataset.known_at), dataset.closed_at[row], side="right"))
