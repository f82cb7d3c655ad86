"""Calibration: a temperature or a rising curve for the probability, and a split-conformal half-width for the price.

They are fitted once, when a version is made; model/recalibration.py moves them on as outcomes come in.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.network.losses import cross_entropy
from model.recalibration import COOLEST, HOTTEST, PRIOR_SPREAD

Float64 = NDArray[np.float64]


def temperature(logits: Float64, up: Float64) -> float:
    """The divisor of the logits that makes their probabilities fit the outcomes best (Guo et al. 2017).

    The most probable one, given the rows' cross-entropy and a log-normal prior around 1, by golden-section search over
    its logarithm.
    """

    def cost(log_t: float) -> float:
        return float(cross_entropy(logits * np.exp(-log_t), up)[0].sum() + 0.5 * (log_t / PRIOR_SPREAD) ** 2)

    low, high = float(np.log(COOLEST)), float(np.log(HOTTEST))
    ratio = (np.sqrt(5.0) - 1) / 2
    while high - low > 1e-4:
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if cost(left) < cost(right):
            high = right
        else:
            low = left
    return float(np.exp((low + high) / 2))


@dataclass(frozen=True)
class _Block:
    """Rows of neighbouring logits, from first to last, that share a probability."""

    first: float
    last: float
    rows: int
    up: float  # of them

    def with_next(self, other: "_Block") -> "_Block":
        return _Block(self.first, other.last, self.rows + other.rows, self.up + other.up)

    @property
    def p(self) -> float:
        return self.up / self.rows


def isotonic(logits: Float64, up: Float64) -> Float64:
    """Knots (2, n), logits ascending and a probability at each, of the rising curve that fits the outcomes best.

    Least squares by pooling adjacent violators (Barlow et al. 1972; for probabilities Zadrozny & Elkan 2002): going up
    the logits, rows whose share of ups falls behind that of the rows before are pooled with them. A block has a knot at
    each end; the curve is linear between knots and constant outside, as scikit-learn has it.

    A lowest block without one up would say 0, and a single up later would cost without bound. Its m rows are worth
    1 / (m + 2), Laplace's rule of succession, but not more than the block above it says; a highest block without one
    down likewise. Takes a row or more, and a thousand before its curve is worth more than a temperature (Niculescu-Mizil
    & Caruana 2005).
    """
    blocks: list[_Block] = []
    values, place = np.unique(logits, return_inverse=True)  # rows of one logit cannot be told apart
    rows, ups = np.bincount(place), np.bincount(place, weights=up)
    for value, count, of_them in zip(values.tolist(), rows.tolist(), ups.tolist(), strict=True):
        block = _Block(value, value, count, of_them)
        while blocks and block.p <= blocks[-1].p:
            block = blocks.pop().with_next(block)
        blocks.append(block)
    p = [block.p for block in blocks]
    lowest, highest = blocks[0], blocks[-1]
    if lowest.up == 0:
        p[0] = min([1 / (lowest.rows + 2), *p[1:2]])
    if highest.up == highest.rows:
        p[-1] = max([1 - 1 / (highest.rows + 2), *p[-2:-1]])
    knots = [
        (end, at) for block, at in zip(blocks, p, strict=True) for end in sorted({block.first, block.last})
    ]
    return np.array(knots).T.copy()


def conformal_width(residuals: Float64, level: float) -> float:
    """The half-width, in units of the residuals, that covers a new row with probability `level` or more.

    Split conformal with its small-sample correction: the ceil((n + 1) level)-th smallest absolute residual
    (Lei et al. 2018). Too few rows for that rank give the widest one seen.
    """
    ordered = np.sort(np.abs(residuals))
    rank = int(np.ceil((len(ordered) + 1) * level))
    return float(ordered[min(rank, len(ordered)) - 1])
