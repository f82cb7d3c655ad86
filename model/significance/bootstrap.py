"""How far a figure could be off, from blocks of rows that follow each other, drawn with repetition.

The stationary bootstrap (Politis & Romano 1994): blocks of random, geometric length begin at random rows, and the last
row is followed by the first. `rows` are its draws for whoever computes from rows, `interval` resamples columns for any
statistic, and `interval_of_means` is for what follows from means, which needs no resampled columns at all.

Letters: n rows, k columns, m figures of a statistic.
"""

import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

# So many autocorrelations in a row that look like noise end the search for the last that does not: Politis & White's
# max(5, √log10 n), which is 5 for all n that fit into memory.
QUIET = 5


def block_length(x: Float64) -> float:
    """The mean length of blocks that suits the mean of x (n,) best, 1 or more.

    Politis & White (2004) as corrected by Patton, Politis & White (2009), with the bounds of Patton's own programme: at
    most 3 √n and n / 3 rows, and lag 1 counted among those that matter.
    """
    n = len(x)
    bound = math.ceil(min(3 * math.sqrt(n), n / 3))
    most = min(math.ceil(math.sqrt(n)) + QUIET, n - 1)
    e = x - x.mean() if n else x
    variance = float(e @ e)
    if n < 2 or variance == 0:
        return 1.0
    covariance = np.array([float(e[lag:] @ e[: n - lag]) for lag in range(most + 1)]) / n
    loud = np.abs(covariance[1:]) * n / variance >= 2 * math.sqrt(math.log10(n) / n)
    lags = np.arange(1, min(2 * _first_quiet(loud), most) + 1)
    w = np.minimum(1.0, 2 * (1 - lags / lags[-1])) * covariance[1 : len(lags) + 1]
    spectrum, slope = covariance[0] + 2 * w.sum(), 2 * (lags * w).sum()
    if spectrum == 0:
        return float(max(bound, 1))
    return float(np.clip((slope / spectrum) ** 2 * n, 1.0, max(bound, 1) ** 3) ** (1 / 3))


def rows(n: int, length: float, resamples: int, seed: int) -> Iterator[Int64]:
    """Draws of n rows each, (n,) row numbers in the order that they are to stand in, from blocks of this mean length."""
    rng = np.random.default_rng(seed)
    steps = np.arange(n)
    for _ in range(resamples):
        begins = rng.random(n) * length < 1
        begins[0] = True
        first = np.flatnonzero(begins)
        shift = rng.integers(n, size=len(first)) - first
        yield (steps + np.repeat(shift, np.diff(first, append=n))) % n


def interval(
    statistic: Callable[[Float64], Float64],
    columns: Float64,
    length: float,
    level: float,
    resamples: int,
    seed: int,
) -> Float64:
    """Percentile intervals (m, 2) of a statistic, which takes columns (k, n) to figures (m,); NaN where one was NaN."""
    drawn = [statistic(columns[:, each]) for each in rows(columns.shape[1], length, resamples, seed)]
    return _ends(np.array(drawn), level)


def interval_of_means(
    statistic: Callable[[Float64], Float64],
    columns: Float64,
    length: float,
    level: float,
    resamples: int,
    seed: int,
) -> Float64:
    """As `interval`, with a statistic that takes the means (resamples, k) of columns to figures (resamples, m): a loss, a
    root of one, a variance from the means of x and x². One call serves all resamples."""
    n = columns.shape[1]
    drawn = np.empty((resamples, len(columns)))
    for i, each in enumerate(rows(n, length, resamples, seed)):
        # no product of matrices: its last bits depend on the threads of a BLAS
        drawn[i] = np.einsum("kn,n->k", columns, np.bincount(each, minlength=n).astype(np.float64)) / n
    return _ends(statistic(drawn), level)


def _first_quiet(loud: NDArray[np.bool_]) -> int:
    """The lag, from 1, at which QUIET lags in a row begin that are not loud; that of the last where there are none."""
    for lag in range(1, len(loud) - QUIET + 2):
        if not loud[lag - 1 : lag - 1 + QUIET].any():
            return lag
    return len(loud)


def _ends(drawn: Float64, level: float) -> Float64:
    """The ends (m, 2) of the middle share `level` of what was drawn (resamples, m)."""
    ends: Float64 = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return ends.T
