"""Sample weights: how much each row counts where weights of a network learn from it, 1 on average."""

import numpy as np
from numpy.typing import NDArray

from model import labels
from model.config import TrainConfig
from model.dataset import Dataset
from model.errors import TrainingFailed

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]


def of(data: Dataset, config: TrainConfig) -> Float32:
    """The weights (n,) of these rows, or with a dead zone (2, n), by head: a move within it says nothing of up, and
    counts for the return like any other.

    Only what is learned from is weighed. Stopping, calibration, gate and scores ask every row alike, so that a
    probability of up means the same whatever taught it. Raises TrainingFailed where no move left the dead zone.
    """
    counts = recency(len(data), config.half_life)
    if config.uniqueness:
        counts = _mean_one(counts * uniqueness(data.closed_at, data.known_at))
    if config.dead_zone == 0:
        return counts
    of_up = counts * labels.beyond(data.log_return, data.scale, config.dead_zone)
    if not of_up.any():
        raise TrainingFailed(f"of {len(data)} moves none left the dead zone of {config.dead_zone:g}")
    return np.stack((_mean_one(of_up), counts))


def recency(rows: int, half_life: int | None) -> Float32:
    """How much each of so many rows counts, oldest first (rows,): half as much for every `half_life` rows that it is
    older than the newest, and 1 on average. All alike where there is no half-life."""
    if half_life is None:
        return np.ones(rows, np.float32)
    return _mean_one(0.5 ** (np.arange(rows - 1, -1, -1) / half_life))


def uniqueness(closed_at: Int64, known_at: Int64) -> Float64:
    """The average uniqueness (n,) of labels (Lopez de Prado 2018, ch. 4.2 to 4.4), above 0 and at most 1.

    Labels are concurrent in the returns that they share: those of the steps after closed_at, up to known_at. In each
    step a label has one part of as many as there are labels there; its average over its steps is what it says alone.
    Steps lie between neighbouring times of these rows, so labels over one bar are unique.
    """
    times = np.unique(np.concatenate((closed_at, known_at)))
    begin, end = np.searchsorted(times, closed_at), np.searchsorted(times, known_at)
    places = len(times)
    change = np.bincount(begin, minlength=places) - np.bincount(end, minlength=places)
    concurrent = np.cumsum(change)  # labels in the step after each time
    share = np.where(concurrent > 0, 1 / np.maximum(concurrent, 1), 0.0)
    until = np.concatenate(([0.0], np.cumsum(share)))
    average: Float64 = (until[end] - until[begin]) / (end - begin)
    return average


def _mean_one(weight: NDArray[np.floating]) -> Float32:
    scaled: Float32 = (weight / weight.mean(dtype=np.float64)).astype(np.float32)
    return scaled
