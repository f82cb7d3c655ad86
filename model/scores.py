"""Forecast scores: how good stated probabilities and returns were, once the outcomes are known.

p (n,) are probabilities of up, `up` (n,) is 0 or 1, returns are log returns over the horizon.
"""

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

# A probability nearer to 0 or 1 than this is scored as this: one wrong certainty must not be an infinite loss.
CERTAINTY = 1e-7
BINS = 20


@dataclass(frozen=True)
class Scores:
    """Scores over the same rows; None where a score has no meaning there, e.g. an AUC of one class."""

    rows: int
    log_loss: float  # nats, lower is better
    brier: float
    accuracy: float
    auc: float | None
    ic: float | None  # Pearson correlation of the expected with the realised return
    ece: float
    coverage_90: float | None  # share of outcomes inside the 90 % interval

    def document(self) -> dict[str, float | int | None]:
        """As JSON has it."""
        return asdict(self)


def log_losses(p: Float64, up: NDArray[np.floating]) -> Float64:
    """Each row's log loss in nats."""
    p = np.clip(p, CERTAINTY, 1 - CERTAINTY)
    return -np.where(up > 0.5, np.log(p), np.log1p(-p))


def auc(p: Float64, up: Float64) -> float | None:
    """Area under the ROC curve: how often an up row was given the higher probability, ties counted half."""
    positive = up > 0.5
    ups, downs = int(positive.sum()), int((~positive).sum())
    if ups == 0 or downs == 0:
        return None
    _, where, counts = np.unique(p, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[where]
    return float((ranks[positive].sum() - ups * (ups + 1) / 2) / (ups * downs))


def correlation(a: Float64, b: Float64) -> float | None:
    """Pearson correlation, or None where one of them does not move."""
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return float(np.corrcoef(a, b)[0, 1])


def calibration_error(p: Float64, up: Float64) -> float:
    """Expected calibration error over BINS bins of equally many rows (Naeini et al. 2015)."""
    order = np.argsort(p, kind="stable")
    bins = [rows for rows in np.array_split(order, BINS) if len(rows)]
    return float(sum(abs(p[rows].mean() - up[rows].mean()) * len(rows) for rows in bins) / len(p))


def score(
    p: Float64, up: Float64, expected: Float64, realised: Float64, inside: NDArray[np.bool_] | None
) -> Scores:
    """All scores of one forecaster; `inside` says of each row whether the outcome fell into its interval."""
    return Scores(
        rows=len(p),
        log_loss=float(log_losses(p, up).mean()),
        brier=float(np.mean((p - up) ** 2)),
        accuracy=float(np.mean((p > 0.5) == (up > 0.5))),
        auc=auc(p, up),
        ic=correlation(expected, realised),
        ece=calibration_error(p, up),
        coverage_90=None if inside is None else float(inside.mean()),
    )
