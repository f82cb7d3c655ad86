"""What only the order of forecasts decides, and how forecasts and outcomes move together."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Order:
    """How n values are ordered, so that the ranks of any resample of them need no sorting."""

    ascending: Int64  # (n,) the rows by their value, equal ones in the order that they came in
    first: Int64  # (g,) where in `ascending` each of the g distinct values begins
    value: Int64  # (n,) which of the distinct values a row has


def order(x: NDArray[np.floating]) -> Order:
    """The order of x (n,), one row or more."""
    ascending = np.argsort(x, kind="stable")
    ordered = x[ascending]
    new = np.concatenate(([True], ordered[1:] != ordered[:-1]))
    value = np.empty(len(x), np.int64)
    value[ascending] = np.cumsum(new) - 1
    return Order(ascending, np.flatnonzero(new), value)


def counted_ranks(order: Order, times: Int64) -> Float64:
    """The mid-rank (g,) of each distinct value among rows that are there so many `times` (n,): ties share the mean."""
    rows = np.add.reduceat(times[order.ascending], order.first)
    ranks: Float64 = np.cumsum(rows) - (rows - 1) / 2
    return ranks


def mid_ranks(x: NDArray[np.floating]) -> Float64:
    """Ranks from 1 along the last axis of x (..., n); ties share the mean of theirs."""
    ascending = np.argsort(x, axis=-1)
    ordered = np.take_along_axis(x, ascending, -1)
    new = np.ones(x.shape, bool)
    new[..., 1:] = ordered[..., 1:] != ordered[..., :-1]
    tie = np.cumsum(new) - 1  # every line begins a new one
    places = np.broadcast_to(np.arange(1.0, x.shape[-1] + 1), x.shape).ravel()
    shared = np.bincount(tie, places) / np.bincount(tie)
    ranks = np.empty(x.shape)
    np.put_along_axis(ranks, ascending, shared[tie].reshape(x.shape), -1)
    return ranks


def auc(p: NDArray[np.floating], up: NDArray[np.floating]) -> float | None:
    """Area under the ROC curve: how often an up row was given the higher probability, ties counted half."""
    return counted_auc(order(p), up > 0.5, np.ones(len(p), np.int64)) if len(p) else None


def counted_auc(order: Order, positive: NDArray[np.bool_], times: Int64) -> float | None:
    """The AUC among rows that are there so many `times`, from the rank sum of the positive ones (Mann & Whitney 1947)."""
    of_positive = np.where(positive, times, 0)
    ups = int(of_positive.sum())
    downs = int(times.sum()) - ups
    if ups == 0 or downs == 0:
        return None
    rank_sum = counted_ranks(order, times) @ np.add.reduceat(of_positive[order.ascending], order.first)
    return float((rank_sum - ups * (ups + 1) / 2) / (ups * downs))


def correlation(a: Float64, b: Float64) -> float | None:
    """Pearson correlation, or None where one of them does not move."""
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return float(np.corrcoef(a, b)[0, 1])


def correlations(a: Float64, b: Float64) -> Float64:
    """Pearson correlations along the last axis of a and b (k, n); NaN where one of the two does not move."""
    a = a - a.mean(axis=-1, keepdims=True)
    b = b - b.mean(axis=-1, keepdims=True)
    spread = np.sqrt(np.einsum("kn,kn->k", a, a) * np.einsum("kn,kn->k", b, b))
    together = np.einsum("kn,kn->k", a, b)
    found: Float64 = np.divide(together, spread, out=np.full(len(a), np.nan), where=spread > 0)
    return found
