"""Optimisers: how a gradient moves the parameters. Add one by adding a row to OPTIMISERS.

Each works in place on the training loop's flat buffers, which never leave it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from model.network.activations import Array

# (params, grads, moments, step number from 1, learning rate, weight decay)
Step = Callable[[Array, Array, tuple[Array, ...], int, float, float], None]


@dataclass(frozen=True)
class Optimiser:
    """`step` moves the parameters; it keeps `moments` buffers of their shape, zero at first."""

    moments: int
    step: Step


def sgd(
    params: Array, grads: Array, moments: tuple[Array, ...], step: int, rate: float, decay: float
) -> None:
    """Gradient descent with decoupled weight decay."""
    params *= 1 - rate * decay
    params -= rate * grads


def momentum(
    params: Array, grads: Array, moments: tuple[Array, ...], step: int, rate: float, decay: float
) -> None:
    """Heavy ball (Polyak 1964): v = 0.9 v + g."""
    (v,) = moments
    v *= 0.9
    v += grads
    params *= 1 - rate * decay
    params -= rate * v


def adamw(
    params: Array, grads: Array, moments: tuple[Array, ...], step: int, rate: float, decay: float
) -> None:
    """AdamW (Loshchilov & Hutter 2019, algorithm 2) with the usual 0.9, 0.999 and 1e-8."""
    m, v = moments
    m *= 0.9
    m += 0.1 * grads
    v *= 0.999
    v += 0.001 * (grads * grads)
    params *= 1 - rate * decay
    # the two bias corrections, folded into the step's length
    params -= (rate / (1 - 0.9**step)) * m / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)


OPTIMISERS: dict[str, Optimiser] = {
    "sgd": Optimiser(0, sgd),
    "momentum": Optimiser(1, momentum),
    "adamw": Optimiser(2, adamw),
}
