"""Whether one forecaster's losses are lower than another's by more than chance explains.

Letters: d (n,) are the differences of two losses over paired rows, e the same about their mean, w (lags,) the weights
of their autocovariances from lag 1 on.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.significance.distributions import student_t_upper

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


@dataclass(frozen=True)
class Comparison:
    """Two forecasters over the same rows: by how much the first's loss exceeds the second's, and what that is worth."""

    rows: int
    gain: float  # mean loss of the first minus that of the second, above 0 where the second is better
    error: float  # of that mean, corrected for few rows; 0 where there is no spread to judge by

    @property
    def z(self) -> float | None:
        """The gain in units of its error: a draw of Student's t with rows - 1 degrees of freedom if both are as good."""
        return self.gain / self.error if self.error > 0 else None

    @property
    def p(self) -> float | None:
        """How often a gain as large comes by chance, one-sided: near 0 the second is better, near 1 it is worse."""
        return None if self.z is None else student_t_upper(self.z, self.rows - 1)

    def document(self) -> dict[str, float | int | None]:
        """As JSON has it."""
        return {"rows": self.rows, "gain": self.gain, "error": self.error, "z": self.z, "p": self.p}


def gain(baseline: Float64, losses: Float64, horizon: int) -> Gain:
    """The mean of baseline - losses over paired rows, and its standard error, as `compare` has them."""
    found = compare(baseline, losses, horizon)
    return Gain(found.rows, found.gain, found.error)


def pooled(first: Gain, second: Gain) -> Gain:
    """The gain over the rows of both, which must not overlap."""
    rows = first.rows + second.rows
    if rows == 0:
        return first
    total = first.mean * first.rows + second.mean * second.rows
    error = np.hypot(first.error * first.rows, second.error * second.rows)
    return Gain(rows, total / rows, float(error) / rows)


def compare(baseline: Float64, losses: Float64, horizon: int) -> Comparison:
    """The Diebold-Mariano test (1995) with the correction of Harvey, Leybourne & Newbold (1997) and their Student's t.

    The lags that overlapping horizons share bars over, horizon - 1 of them, count in full, as both papers have it; the
    usual lags after them with falling weights (Newey & West 1987), in case the losses hang together for longer. Full
    weights may find too little, even less than nothing: then weights that fall from the first lag on, which cannot, are
    taken. Weights that fall at once would find two thirds of the variance at long horizons, and claim too much.

    Of fewer rows than some fifty horizons no such test knows enough: it then claims more often than its p says.
    """
    d = baseline - losses
    n = len(d)
    if n < 2:
        return Comparison(n, float(d.mean()) if n else 0.0, 0.0)
    overlap = min(horizon - 1, n - 1)
    lags = min(overlap + usual_lags(n), n - 1)
    weights = (np.concatenate((np.ones(overlap), bartlett(lags - overlap))), bartlett(lags))
    seen = [(long_run_variance(d, w), expected_share(n, w)) for w in weights]
    variance = max(found / share if share > 0 else 0.0 for found, share in seen)
    return Comparison(n, float(d.mean()), float(np.sqrt(max(variance, 0.0) / n)))


def usual_lags(n: int) -> int:
    """The rule of thumb for n rows, 4 (n / 100)^(2/9) (Newey & West 1994)."""
    return int(4 * (n / 100) ** (2 / 9))


def bartlett(lags: int) -> Float64:
    """Weights (lags,) that fall in even steps to 0 at the lag after the last."""
    w: Float64 = 1 - np.arange(1, lags + 1) / (lags + 1)
    return w


def long_run_variance(d: Float64, w: Float64) -> float:
    """n times the variance of the mean of d (n,), two rows or more: the autocovariances of d with weights w."""
    n, e = len(d), d - d.mean()
    variance = float(e @ e) / n
    for lag, weight in enumerate(w.tolist(), start=1):
        variance += 2 * weight * float(e[lag:] @ e[:-lag]) / n
    return variance


def expected_share(n: int, w: Float64) -> float:
    """What `long_run_variance` finds of the truth on average where rows are independent: less than 1, since e is about
    the mean of its own rows.

    With full weights over horizon - 1 lags it is (n + 1 - 2 h + h (h - 1) / n) / n, whose root is the correction of
    Harvey, Leybourne & Newbold (1997); this is their derivation for any weights.
    """
    lags = np.arange(1, len(w) + 1)
    return float(1 - 1 / n - 2 * (w @ (n - lags)) / n**2)
