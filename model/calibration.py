"""Calibration: a temperature for the probability, and a split-conformal half-width for the price."""

import numpy as np
from numpy.typing import NDArray

from model.network.losses import cross_entropy

Float64 = NDArray[np.float64]

# A temperature outside of this says that the slice is too small or the network broken, not how to repair it.
COOLEST, HOTTEST = 0.5, 5.0
# How far from 1 the temperature of a network that stopped early is expected to lie, as the standard deviation of its
# logarithm. A slice of 1,000 rows with little signal moves it by as much from noise alone.
PRIOR_SPREAD = 0.15


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


def conformal_width(residuals: Float64, level: float) -> float:
    """The half-width, in units of the residuals, that covers a new row with probability `level` or more.

    Split conformal with its small-sample correction: the ceil((n + 1) level)-th smallest absolute residual
    (Lei et al. 2018). Too few rows for that rank give the widest one seen.
    """
    ordered = np.sort(np.abs(residuals))
    rank = int(np.ceil((len(ordered) + 1) * level))
    return float(ordered[min(rank, len(ordered)) - 1])
