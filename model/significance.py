"""Whether one forecaster's losses are lower than another's by more than chance explains."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

# One-sided 5 %: what a claim of skill has to exceed.
Z_CLAIM = 1.645
# Fewer paired rows than this say nothing either way.
ROWS_TO_CLAIM = 200


@dataclass(frozen=True)
class Gain:
    """By how much the losses fell, per row and on average, with the standard error of that mean."""

    rows: int
    mean: float
    error: float

    @property
    def z(self) -> float:
        """The mean in units of its standard error; 0 where there is no spread to judge by."""
        return self.mean / self.error if self.error > 0 else 0.0

    @property
    def skill(self) -> bool | None:
        """True: better than chance explains. False: not shown. None: too few rows to say."""
        return None if self.rows < ROWS_TO_CLAIM else self.z > Z_CLAIM


def gain(baseline: Float64, losses: Float64, horizon: int) -> Gain:
    """The mean of baseline - losses over paired rows, with a standard error that allows for autocorrelation.

    The Diebold-Mariano comparison (1995) with Bartlett weights (Newey & West 1987) over the larger of horizon - 1
    lags, since labels of overlapping horizons share bars, and the usual 4 (n / 100)^(2/9).
    """
    d = baseline - losses
    n = len(d)
    if n < 2:
        return Gain(n, float(d.mean()) if n else 0.0, 0.0)
    lags = min(n - 1, max(horizon - 1, int(4 * (n / 100) ** (2 / 9))))
    e = d - d.mean()
    variance = float(e @ e) / n
    for lag in range(1, lags + 1):
        variance += 2 * (1 - lag / (lags + 1)) * float(e[lag:] @ e[:-lag]) / n
    return Gain(n, float(d.mean()), float(np.sqrt(max(variance, 0.0) / n)))


def pooled(first: Gain, second: Gain) -> Gain:
    """The gain over the rows of both, which must not overlap."""
    rows = first.rows + second.rows
    if rows == 0:
        return first
    total = first.mean * first.rows + second.mean * second.rows
    error = np.hypot(first.error * first.rows, second.error * second.rows)
    return Gain(rows, total / rows, float(error) / rows)
