"""The curves of a report's charts: what is drawn of up to a million rows, so that nothing high or low gets lost.

Times are microseconds since 1970, (n,) and ascending.
"""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

POINTS = 2_000  # of a line, at most
STRETCHES = 300  # that a chart's width is cut into to say where nothing was held
GAP = 3  # times the usual distance of rows, and more: rows are missing
USUAL = 0.99  # this share of the distances is usual: nights and weekends are


def thinned(values: Float64) -> Int64:
    """The places, ascending, of at most POINTS values that draw the same line as all (n,), which must be finite: the first,
    the last, and of each bucket of neighbours the lowest and the highest."""
    n = len(values)
    if n <= POINTS:
        return np.arange(n)
    edges = np.linspace(0, n, POINTS // 2).astype(np.int64)
    buckets = [(int(first), values[first:end]) for first, end in pairwise(edges)]
    extremes = [first + int(place) for first, part in buckets for place in (part.argmin(), part.argmax())]
    places: Int64 = np.unique(np.array([0, *extremes, n - 1], np.int64))
    return places


def equity(returns: Float64) -> Float64:
    """What 1 became (n + 1,), by simple returns (n,) of step after step."""
    return np.concatenate([[1.0], np.cumprod(1 + np.maximum(returns, -1.0))])


def drawdown(equity: Float64) -> Float64:
    """How far below its highest so far it was, as a share of that: 0 or less."""
    return equity / np.maximum.accumulate(equity) - 1


def rolling_mean(values: Float64, window: int) -> Float64:
    """The means of so many values up to each, (n - window + 1,)."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    means: Float64 = (sums[window:] - sums[:-window]) / window
    return means


def stretches(times: Int64, on: NDArray[np.bool_], end: int) -> list[tuple[int, int]]:
    """From when to when most rows are `on`, looked at in STRETCHES of equally many rows; `end` is when the last row's step ends."""
    n = len(times)
    edges = np.unique(np.linspace(0, n, min(n, STRETCHES) + 1).astype(np.int64))
    shares = np.add.reduceat(on.astype(np.int64), edges[:-1]) / np.diff(edges)
    bounds = np.append(times, end)[edges]
    return [(int(bounds[first]), int(bounds[last])) for first, last in _runs(shares > 0.5)]


def gaps(times: Int64) -> list[tuple[int, int]]:
    """From which row to which rows are missing: those farther apart than GAP times what is usual, the STRETCHES longest."""
    distances = np.diff(times)
    if len(distances) == 0:
        return []
    found = np.flatnonzero(distances > GAP * np.quantile(distances, USUAL, method="inverted_cdf"))
    longest = np.sort(found[np.argsort(-distances[found], kind="stable")[:STRETCHES]])
    return [(int(times[i]), int(times[i + 1])) for i in longest]


def _runs(on: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """First place and end of each run of what is true."""
    turns = np.flatnonzero(np.diff(on.astype(np.int8), prepend=0, append=0))
    return zip(turns[::2].tolist(), turns[1::2].tolist(), strict=True)
