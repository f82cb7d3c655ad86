"""What a single row costs: the log loss of its probability, the pinball loss of an end of its interval."""

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

# A probability nearer to 0 or 1 than this is scored as this: one wrong certainty must not be an infinite loss.
CERTAINTY = 1e-7


def log_losses(p: Float64, up: NDArray[np.floating]) -> Float64:
    """Each row's log loss in nats."""
    p = np.clip(p, CERTAINTY, 1 - CERTAINTY)
    return -np.where(up > 0.5, np.log(p), np.log1p(-p))


def pinball_losses(quantile: Float64, outcome: Float64, level: float) -> Float64:
    """Each row's loss of a stated quantile at this level (Koenker & Bassett 1978), in the unit of the outcome."""
    above = outcome - quantile
    losses: Float64 = np.maximum(level * above, (level - 1) * above)
    return losses
