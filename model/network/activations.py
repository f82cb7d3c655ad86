"""Elementwise activations. Add one by adding a row to ACTIVATIONS; the gradient tests pick it up by themselves."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]


@dataclass(frozen=True)
class Activation:
    """A gate: `value(z)`, its slope `derivative(z, a)` at the pre-activation z, where a = value(z) is at hand.

    `gain` is the factor by which initial weights make up for what the gate takes from the signal's spread
    (Glorot & Bengio 2010; He et al. 2015). `flat(z, a)` says where the gate passes next to no gradient, and
    `flat_means` whether such units are called dead (zero on one side) or saturated (at the ends of a range).
    """

    value: Callable[[Array], Array]
    derivative: Callable[[Array, Array], Array]
    gain: float
    flat: Callable[[Array, Array], NDArray[np.bool_]]
    flat_means: str


def sigmoid(z: Array) -> Array:
    """1 / (1 + exp(-z)) without overflow: exp is only ever taken of a number that is not positive."""
    e = np.exp(-np.abs(z))
    return np.where(z >= 0, 1, e) / (1 + e)  # type: ignore[no-any-return]


ACTIVATIONS: dict[str, Activation] = {
    "relu": Activation(
        value=lambda z: np.maximum(z, 0),
        derivative=lambda z, a: (z > 0).astype(z.dtype),
        gain=float(np.sqrt(2.0)),
        flat=lambda z, a: z <= 0,
        flat_means="dead",
    ),
    "tanh": Activation(
        value=np.tanh,
        derivative=lambda z, a: 1 - a * a,
        gain=5.0 / 3.0,
        flat=lambda z, a: np.abs(a) > 0.99,
        flat_means="saturated",
    ),
    "sigmoid": Activation(
        value=sigmoid,
        derivative=lambda z, a: a * (1 - a),
        gain=1.0,
        flat=lambda z, a: np.abs(a - 0.5) > 0.49,
        flat_means="saturated",
    ),
}
