"""A dataset is features and labels, row by row, with the times at which each became known; and its honest splits."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from model.errors import TrainingFailed
from model.features import FeatureRows, FeatureSet
from model.labels import labels

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

    def part(self, rows: slice) -> "Dataset":
        """These rows alone, as views."""
        return replace(
            self,
            closed_at=self.closed_at[rows],
            known_at=self.known_at[rows],
            X=self.X[rows],
            up=self.up[rows],
            log_return=self.log_return[rows],
            scale=self.scale[rows],
            close=self.close[rows],
        )

    @property
    def target(self) -> Float32:
        """The log return over the horizon in units of the size that it is expected to have."""
        return (self.log_return / self.scale).astype(np.float32)


def build(rows: FeatureRows, features: FeatureSet, horizon: int) -> Dataset:
    """The rows whose label is known, i.e. all but the newest `horizon`."""
    known = labels(rows, horizon)
    n = len(known.up)
    return Dataset(
        features=features,
        horizon=horizon,
        closed_at=rows.closed_at[:n],
        known_at=known.known_at,
        X=rows.X[:n],
        up=known.up,
        log_return=known.log_return,
        scale=horizon_scale(rows.scale[:n], horizon),
        close=rows.close[:n],
    )


def horizon_scale(scale: Float64, horizon: int) -> Float64:
    """The expected size of a log return over `horizon` bars, from that of one bar: a random walk's square root."""
    scaled: Float64 = scale * np.sqrt(float(horizon))
    scaled.flags.writeable = False
    return scaled


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
    """How many rows have a label that is known when the features of `row` are: label spans purge, not a typed gap."""
    if row >= len(dataset):
        return len(dataset)
    return int(np.searchsorted(dataset.known_at, dataset.closed_at[row], side="right"))


@dataclass(frozen=True)
class Scaler:
    """Standardises features, (F,) each: x -> (x - mean) / scale. Fitted on the rows that weights learn from, only."""

    mean: Float32
    scale: Float32

    def apply(self, X: Float32) -> Float32:
        """X (n, F), standardised."""
        return (X - self.mean) / self.scale


def fit_scaler(X: Float32) -> Scaler:
    """The scaler of X (n, F). A feature that never moves is left at zero instead of being divided by nothing."""
    mean = X.mean(axis=0, dtype=np.float64)
    spread = X.std(axis=0, dtype=np.float64)
    scale = np.where(spread > 1e-6, spread, 1.0)
    return Scaler(mean.astype(np.float32), scale.astype(np.float32))


def recency(rows: int, half_life: int | None) -> Float32:
    """How much each of so many rows counts, oldest first (rows,): half as much for every `half_life` rows that it is
    older than the newest, and 1 on average. All alike where there is no half-life."""
    if half_life is None:
        return np.ones(rows, np.float32)
    weight = 0.5 ** (np.arange(rows - 1, -1, -1) / half_life)
    counts: Float32 = (weight / weight.mean()).astype(np.float32)
    return counts
