"""Elementwise activations. Add one by adding a row to ACTIVATIONS; the gradient tests pick it up by themselves.

z is the pre-activation, a = f(z). Rows write into arrays that the caller owns, all of one shape and one of float32 or
float64, and allocate none; every z is allowed, however large, without overflow.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
Bools = NDArray[np.bool_]
Slopes = NDArray[Any]  # floating, or bool where the gate is binary


@dataclass(frozen=True)
class Activation:
    """A gate: its value and its slope, which stands beside it so that one cannot change without the other.

    `value(z, out, scratch)` writes f(z) into `out`, which may be z itself unless the gate keeps z.
    `slope(z, a, out, scratch)` writes f'(z) into `out`. Only a gate that keeps z reads z: for all others z may be
    long overwritten by a. `out` and `scratch` are other arrays than z, a and each other; `scratch` is nobody else's, and
    zero at first.

    `gain` is the factor by which initial weights make up for what the gate takes from the signal's spread
    (Glorot & Bengio 2010; He et al. 2015). It passes next to no gradient at or below the first of `flat` and at or above
    the second, of `watched`; `flat_means` whether such units are called dead (shut on one side) or saturated (at
    the ends of a range).
    """

    value: Callable[[Array, Array, Array], None]
    slope: Callable[[Array, Array, Slopes, Array], None]
    gain: float
    flat: tuple[float, float]
    flat_means: str
    keeps_z: bool = False  # the slope needs z, so a must be written elsewhere
    binary: bool = (
        False  # the slope is 0 or 1: the `out` of slope is an array of bool, a quarter of the memory
    )

    def watched(self, z: Array, a: Array) -> Array:
        """What `flat` is about: a, or z where the gate keeps it."""
        return z if self.keeps_z else a

    def is_flat(self, z: Array, a: Array) -> Bools:
        """Where it passes next to no gradient."""
        low, high = self.flat
        seen = self.watched(z, a)
        found: Bools = (seen <= low) | (seen >= high)
        return found


INF = float("inf")


def sigmoid(z: Array) -> Array:
    """1 / (1 + exp(-z)) without overflow: exp is only ever taken of a number that is not positive.

    For probabilities: exact to the last bits far out, where the gate of the same name is only close to 0 or 1.
    """
    e = np.exp(-np.abs(z))
    return np.where(z >= 0, 1, e) / (1 + e)  # type: ignore[no-any-return]


def _identity(z: Array, out: Array, scratch: Array) -> None:
    if out is not z:
        np.copyto(out, z)


def _identity_slope(z: Array, a: Array, out: Slopes, scratch: Array) -> None:
    out.fill(1)


def _sigmoid(z: Array, out: Array, scratch: Array) -> None:
    """(1 + tanh(z/2)) / 2: one call of tanh, which cannot overflow, for an exp and a division."""
    np.multiply(z, 0.5, out=out)
    np.tanh(out, out=out)
    np.multiply(out, 0.5, out=out)
    np.add(out, 0.5, out=out)


def _sigmoid_slope(z: Array, a: Array, out: Slopes, scratch: Array) -> None:
    np.subtract(1, a, out=out)
    np.multiply(out, a, out=out)


def _tanh(z: Array, out: Array, scratch: Array) -> None:
    np.tanh(z, out=out)


def _tanh_slope(z: Array, a: Array, out: Slopes, scratch: Array) -> None:
    np.multiply(a, a, out=out)
    np.subtract(1, out, out=out)


def _relu(z: Array, out: Array, scratch: Array) -> None:
    np.maximum(z, scratch, out=out)  # twice as quick as with a number: two arrays are compared in vectors


def _relu_slope(z: Array, a: Array, out: Slopes, scratch: Array) -> None:
    np.greater(a, scratch, out=out)


LEAK = 0.01  # the slope below zero (Maas, Hannun & Ng 2013)


def _leaky_relu(z: Array, out: Array, scratch: Array) -> None:
    np.multiply(z, LEAK, out=scratch)
    np.maximum(z, scratch, out=out)


def _leaky_relu_slope(z: Array, a: Array, out: Slopes, scratch: Array) -> None:
    np.sign(a, out=out)  # -1, 0 or 1, of which all but the last become the leak
    np.maximum(out, LEAK, out=out)


def _elu(z: Array, out: Array, scratch: Array) -> None:
    """z above zero, exp(z) - 1 below (Clevert, Unterthiner & Hochreiter 2016, alpha = 1)."""
    np.minimum(z, 0, out=scratch)
    np.expm1(scratch, out=scratch)
    np.maximum(z, scratch, out=out)  # exp(z) - 1 >= z below zero, and is 0 above


def _elu_slope(z: Array, a: Array, out: Slopes, scratch: Array) -> None:
    np.minimum(a, 0, out=out)
    np.add(out, 1, out=out)


def _softplus(z: Array, out: Array, scratch: Array) -> None:
    """log(1 + exp(z)) as max(z, 0) + log(1 + exp(-|z|)): six vectorised calls, where logaddexp is scalar."""
    np.abs(z, out=scratch)
    np.negative(scratch, out=scratch)
    np.exp(scratch, out=scratch)
    np.log1p(scratch, out=scratch)
    np.maximum(z, 0, out=out)
    np.add(out, scratch, out=out)


def _softplus_slope(z: Array, a: Array, out: Slopes, scratch: Array) -> None:
    """sigmoid(z) = 1 - exp(-a), as exp(a) = 1 + exp(z)."""
    np.negative(a, out=scratch)
    np.expm1(scratch, out=scratch)
    np.negative(scratch, out=out)


def _silu(z: Array, out: Array, scratch: Array) -> None:
    """z sigmoid(z) = h + h tanh(h) at h = z/2 (Hendrycks & Gimpel 2016; Ramachandran, Zoph & Le 2017)."""
    np.multiply(z, 0.5, out=out)
    np.tanh(out, out=scratch)
    np.multiply(scratch, out, out=scratch)
    np.add(out, scratch, out=out)


def _silu_slope(z: Array, a: Array, out: Slopes, scratch: Array) -> None:
    """s + a (1 - s) at s = sigmoid(z)."""
    _sigmoid(z, out, scratch)
    np.subtract(1, out, out=scratch)
    np.multiply(scratch, a, out=scratch)
    np.add(out, scratch, out=out)


# tanh(u) at u = A z + B z³ (A and B below) stands for the error function of z / sqrt(2) (Hendrycks & Gimpel 2016, section 2). Beyond
# |z| = 10 it is 1 to the last bit, so z is cut there and its powers cannot overflow.
GELU_A = float(np.sqrt(2 / np.pi))
GELU_B = 0.044715 * GELU_A
GELU_END = 10.0


def _gelu_argument(z: Array, out: Array, scratch: Array) -> None:
    """u into `out`; z, cut at the gate's ends, stays in `scratch`."""
    np.minimum(z, GELU_END, out=scratch)
    np.maximum(scratch, -GELU_END, out=scratch)
    np.multiply(scratch, scratch, out=out)
    np.multiply(out, GELU_B, out=out)
    np.add(out, GELU_A, out=out)
    np.multiply(out, scratch, out=out)


def _gelu(z: Array, out: Array, scratch: Array) -> None:
    """z (1 + tanh(u)) / 2."""
    _gelu_argument(z, out, scratch)
    np.tanh(out, out=out)
    np.add(out, 1, out=out)
    np.multiply(out, 0.5, out=out)
    np.multiply(out, z, out=out)


def _gelu_slope(z: Array, a: Array, out: Slopes, scratch: Array) -> None:
    """(1 + t) (1 + (1 - t) z u') / 2 at t = tanh(u), where z u' = A z + 3 B z³ = 3 u - 2 A z."""
    _gelu_argument(z, out, scratch)
    np.multiply(scratch, -2 / 3 * GELU_A, out=scratch)
    np.add(scratch, out, out=scratch)
    np.multiply(scratch, 3, out=scratch)  # z u'
    np.tanh(out, out=out)
    np.subtract(1, out, out=out)  # 1 - t
    np.multiply(scratch, out, out=scratch)
    np.add(scratch, 1, out=scratch)
    np.subtract(2, out, out=out)  # 1 + t
    np.multiply(out, scratch, out=out)
    np.multiply(out, 0.5, out=out)


# Gains without a tradition of their own are 1 / sqrt(E[f(z)²]) of a standard normal z, which keeps the second moment of
# pre-activations from layer to layer and gives the sqrt(2) of ReLU (He et al. 2015, eq. 7 to 10).
ACTIVATIONS: dict[str, Activation] = {
    "relu": Activation(
        _relu, _relu_slope, gain=float(np.sqrt(2)), flat=(0.0, INF), flat_means="dead", binary=True
    ),
    "tanh": Activation(_tanh, _tanh_slope, gain=5 / 3, flat=(-0.99, 0.99), flat_means="saturated"),
    "sigmoid": Activation(_sigmoid, _sigmoid_slope, gain=1.0, flat=(0.01, 0.99), flat_means="saturated"),
    "identity": Activation(_identity, _identity_slope, gain=1.0, flat=(-INF, INF), flat_means="saturated"),
    "leaky_relu": Activation(
        # the leak is there to bring units back, so none of them is dead
        _leaky_relu,
        _leaky_relu_slope,
        gain=float(np.sqrt(2 / (1 + LEAK**2))),
        flat=(-INF, INF),
        flat_means="dead",
    ),
    "elu": Activation(_elu, _elu_slope, gain=1.2452, flat=(-0.99, INF), flat_means="saturated"),
    "softplus": Activation(_softplus, _softplus_slope, gain=1.0419, flat=(0.01, INF), flat_means="dead"),
    # SiLU and GELU fall and rise again, so a does not tell where z was; beyond these z their slope stays below 0.013
    "silu": Activation(_silu, _silu_slope, gain=1.6765, flat=(-6.0, INF), flat_means="dead", keeps_z=True),
    "gelu": Activation(_gelu, _gelu_slope, gain=1.5336, flat=(-3.0, INF), flat_means="dead", keeps_z=True),
}
