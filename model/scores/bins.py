"""Calibration over BINS bins of equally many rows, by ascending probability; equal probabilities share a bin.

Letters: of each bin f is the mean probability, o the share of ups, and w its share of the rows.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

BINS = 20


@dataclass(frozen=True, eq=False)
class Bins:
    """What is in each bin, (bins,) each."""

    rows: Float64
    f: Float64
    o: Float64
    variance: Float64  # of the probabilities within the bin
    covariance: Float64  # of probabilities and outcomes within it

    @property
    def w(self) -> Float64:
        """The bins' shares of all rows."""
        shares: Float64 = self.rows / self.rows.sum()
        return shares


def bins(p: Float64, up: Float64) -> Bins:
    """The bins of rows that ascend by p; fewer than BINS where there are fewer rows, or fewer values. Takes a row or more.

    Where rows of one probability lie on both sides of a cut, it is made before them: a bin is what can be told apart.
    """
    n, many = len(p), min(BINS, len(p))
    even = np.full(many, n // many)
    even[: n % many] += 1
    alike_since = np.maximum.accumulate(np.where(np.diff(p, prepend=np.nan) != 0, np.arange(n), 0))
    first = np.unique(alike_since[np.concatenate(([0], np.cumsum(even)[:-1]))])
    size = np.diff(first, append=n).astype(np.float64)
    f, o, ff, fo = (np.add.reduceat(x, first) / size for x in (p, up, p * p, p * up))
    return Bins(size, f, o, np.maximum(ff - f * f, 0.0), fo - f * o)


def ascending(p: Float64, up: Float64) -> Bins:
    """The bins of rows in any order."""
    order = np.argsort(p, kind="stable")
    return bins(p[order], up[order])


def ece(found: Bins) -> float:
    """Expected calibration error: how far f lies from o on average (Naeini et al. 2015).

    Noise alone makes it larger than zero: by about √(2 p (1 - p) BINS / (π n)).
    """
    return float(found.w @ np.abs(found.f - found.o))


def calibration_error(p: Float64, up: Float64) -> float:
    """The expected calibration error of rows in any order."""
    return ece(ascending(p, up))


def reliability(p: Float64, up: Float64) -> list[dict[str, float | int]]:
    """The reliability curve as JSON has it: of each bin the mean probability, the share of ups, and how many rows."""
    found = ascending(p, up)
    return [
        {"p": f, "up": o, "rows": int(rows)}
        for f, o, rows in zip(found.f.tolist(), found.o.tolist(), found.rows.tolist(), strict=True)
    ]


def brier_parts(found: Bins) -> dict[str, float]:
    """The parts of a Brier score (Murphy 1973), with those within bins that make the sum exact (Stephenson, Coelho &
    Jolliffe 2008): brier = reliability - resolution + uncertainty + within_variance - within_covariance."""
    w, mean = found.w, found.w @ found.o
    return {
        "brier_reliability": float(w @ (found.f - found.o) ** 2),
        "brier_resolution": float(w @ (found.o - mean) ** 2),
        "brier_uncertainty": float(mean * (1 - mean)),
        "brier_within_variance": float(w @ found.variance),
        "brier_within_covariance": float(2 * w @ found.covariance),
    }
