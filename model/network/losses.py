"""Losses: each gives its value and its gradient together. Add one by adding a row to LOSSES."""

from collections.abc import Callable

import numpy as np

from model.network.activations import Array, sigmoid

# A row takes outputs (B,) and targets (B,) and gives each row's loss (B,) and its derivative by the output (B,).
Loss = Callable[[Array, Array], tuple[Array, Array]]

HUBER_DELTA = 1.0  # in units of the target: beyond one volatility an error counts linearly


def cross_entropy(logit: Array, up: Array) -> tuple[Array, Array]:
    """Binary cross-entropy of the probability sigmoid(logit), in nats; `up` is 0 or 1.

    Written as softplus(logit) - up * logit, which neither overflows nor takes the logarithm of zero.
    """
    return np.logaddexp(0, logit) - up * logit, sigmoid(logit) - up


def huber(predicted: Array, target: Array) -> tuple[Array, Array]:
    """Squared near the target, linear beyond HUBER_DELTA (Huber 1964)."""
    error = predicted - target
    inner = np.clip(error, -HUBER_DELTA, HUBER_DELTA)
    return inner * (error - 0.5 * inner), inner


LOSSES: dict[str, Loss] = {"cross_entropy": cross_entropy, "huber": huber}


def joint(outputs: Array, up: Array, target: Array, return_weight: float) -> tuple[float, Array]:
    """The two heads' mean loss over a batch and its gradient (B, 2) by the outputs (B, 2): logit and scaled return."""
    up_loss, d_logit = cross_entropy(outputs[:, 0], up)
    return_loss, d_return = huber(outputs[:, 1], target)
    rows = len(outputs)
    d_out = np.empty_like(outputs)
    d_out[:, 0] = d_logit / rows
    d_out[:, 1] = d_return * (return_weight / rows)
    return float(np.mean(up_loss) + return_weight * np.mean(return_loss)), d_out
