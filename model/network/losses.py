"""Losses: each gives its value and its gradient together. Add one by adding a class to LOSSES.

K members, B rows, C classes; z is an output, t its target, e = z - t, w a row's weight. A loss is bound once to the arrays
of a training and called at each step; what it then does is elementwise by member and row, and allocates nothing.
Constants are 0-d arrays of the outputs' type, as a Python number would be converted anew at each call.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from model.errors import BadInput
from model.network.activations import Array, sigmoid

HUBER_DELTA = 1.0  # in units of the target: beyond one volatility an error counts linearly

Target = NDArray[Any]  # of the outputs' type; int64 for classes
Call = Callable[[], None]


class Loss(Protocol):
    """What every loss is: frozen options, how many output columns it reads, and how it is bound."""

    @property
    def outputs(self) -> int:
        """The number of output columns that the loss reads."""

    def bind(self, outputs: Array, target: Target, weight: Array, losses: Array, d_outputs: Array) -> Call:
        """A call that writes each row's loss times its weight into `losses`, and their gradient into `d_outputs`.

        `outputs` and `d_outputs` are (K, B, self.outputs) and may be strided views; `target`, `weight` and `losses`
        are (K, B). The gradient is that of the weighted losses' sum: whoever wants a mean puts 1/B into the weights,
        as `bind` below does, and so divides by B and not by the weights' sum.
        """


def _constants(outputs: Array, *values: float) -> tuple[Array, ...]:
    return tuple(np.array(value, outputs.dtype) for value in values)


def _like(array: Array, number: int) -> tuple[Array, ...]:
    """Contiguous scratch arrays of one shape and type."""
    return tuple(np.empty(array.shape, array.dtype) for _ in range(number))


def check(name: str, value: float, fine: bool, wanted: str) -> None:
    if not (math.isfinite(value) and fine):
        raise BadInput(f"{name} is {value}, but has to be {wanted}")


def _check_cross_entropy(smoothing: float, focal: float) -> None:
    check("smoothing", smoothing, 0 <= smoothing < 1, "at least 0 and below 1")
    check("focal", focal, focal >= 0, "0 or more")


def _softplus_tail(q: Array, out: Array) -> None:
    """log(1 + exp(-|q|)), which softplus(q) exceeds by max(q, 0). Vectorised, where NumPy's logaddexp is not."""
    np.abs(q, out)
    np.negative(out, out)
    np.exp(out, out)
    np.log1p(out, out)


@dataclass(frozen=True)
class BinaryCrossEntropy:
    """Cross-entropy of the probability sigmoid(z) of up, in nats; a target is 0 or 1.

        y u (1 - p)^g (-log p) + (1 - y) p^g (-log(1 - p))   at p = sigmoid(z), y = t (1 - smoothing) + smoothing/2

    `smoothing` draws targets towards a half (Szegedy et al. 2016, section 7); `focal` is g, which lets rows that are
    right already count less (Lin et al. 2017, eq. 4); `up_weight` is u, PyTorch's `pos_weight`.
    """

    smoothing: float = 0.0
    focal: float = 0.0
    up_weight: float = 1.0
    outputs: ClassVar[int] = 1

    def __post_init__(self) -> None:
        _check_cross_entropy(self.smoothing, self.focal)
        check("up_weight", self.up_weight, self.up_weight > 0, "above 0")

    def bind(self, outputs: Array, target: Target, weight: Array, losses: Array, d_outputs: Array) -> Call:
        if self == BinaryCrossEntropy():
            return _bind_plain_cross_entropy(outputs, target, weight, losses, d_outputs)
        # sigmoid(z) is the softmax of 0 and z
        both, d_both = (np.zeros((*target.shape, 2), outputs.dtype) for _ in range(2))
        softmax = CategoricalCrossEntropy(2, self.smoothing, self.focal, (1.0, self.up_weight))
        inner = softmax.bind(both, target, weight, losses, d_both)

        def call() -> None:
            np.copyto(both[..., 1], outputs[..., 0])
            inner()
            np.copyto(d_outputs[..., 0], d_both[..., 1])

        return call


def _bind_plain_cross_entropy(z3: Array, target: Target, weight: Array, losses: Array, d_z3: Array) -> Call:
    """Without options it is softplus(-q) at q = ±z, signed by the target, and its slope by q is exp(-loss) - 1."""
    z, d_z = z3[..., 0], d_z3[..., 0]
    sign, q, s = _like(z, 3)
    zero, one, two = _constants(z, 0, 1, 2)

    def call() -> None:
        np.multiply(target, two, sign)
        np.subtract(sign, one, sign)
        np.multiply(z, sign, q)
        _softplus_tail(q, s)
        np.minimum(q, zero, out=q)
        np.subtract(s, q, q)
        np.multiply(q, weight, losses)
        np.negative(q, q)
        np.expm1(q, q)
        np.multiply(sign, weight, sign)
        np.multiply(q, sign, d_z)

    return call


@dataclass(frozen=True)
class CategoricalCrossEntropy:
    """Cross-entropy of the probabilities softmax(z) of C classes, in nats; a target is a class, an int64 below C.

        sum over c of y_c v_c (1 - p_c)^g (-log p_c)   at y = one-hot (1 - smoothing) + smoothing / C

    `smoothing` and `focal` (g) as for two classes. `class_weights` are v: they weigh each class's share of the target,
    as in PyTorch, whose mean, however, is by the sum of the targets' weights; ours is by the number of rows B, so that
    a class counts the same in every batch.
    """

    classes: int = 2
    smoothing: float = 0.0
    focal: float = 0.0
    class_weights: tuple[float, ...] = ()  # all 1

    def __post_init__(self) -> None:
        check("classes", self.classes, self.classes >= 2, "2 or more")
        _check_cross_entropy(self.smoothing, self.focal)
        if self.class_weights and len(self.class_weights) != self.classes:
            raise BadInput(f"class_weights are {len(self.class_weights)}, but classes are {self.classes}")
        for weight in self.class_weights:
            check("a class weight", weight, weight >= 0, "0 or more")

    @property
    def outputs(self) -> int:
        """One column for each class."""
        return self.classes

    def bind(self, outputs: Array, target: Target, weight: Array, losses: Array, d_outputs: Array) -> Call:
        # (C, K, B), as sums over the first axis are swift
        z, d_z = (np.moveaxis(array, 2, 0) for array in (outputs, d_outputs))
        y, l, p, r, s = _like(z, 5)  # noqa: E741  l is -log p, r is 1 - p
        (row,) = _like(z[0], 1)
        is_target = np.empty(z.shape, np.bool_)
        classes = np.arange(self.classes, dtype=target.dtype)[:, np.newaxis, np.newaxis]
        v = np.array(self.class_weights or (1.0,) * self.classes, z.dtype)[:, np.newaxis, np.newaxis]
        keep, shift = _constants(z, 1 - self.smoothing, self.smoothing / self.classes)
        one, g, tiny = _constants(z, 1, self.focal, float(np.finfo(z.dtype).tiny))

        def call() -> None:
            np.equal(target, classes, out=is_target)
            np.copyto(y, is_target)
            np.multiply(y, keep, y)
            np.add(y, shift, y)
            np.multiply(y, v, y)
            np.multiply(y, weight, y)
            np.copyto(l, z)
            np.maximum.reduce(l, axis=0, out=row)
            np.subtract(row, l, l)
            np.negative(l, p)
            np.exp(p, p)
            np.add.reduce(p, axis=0, out=row)
            np.divide(p, row, p)
            np.log(row, row)
            np.add(l, row, l)
            if self.focal:
                np.negative(l, r)
                np.expm1(r, r)
                np.negative(r, r)
                np.power(r, g, s)
                np.multiply(y, s, y)
            np.multiply(y, l, s)
            np.add.reduce(s, axis=0, out=losses)
            if self.focal:
                # by -log p the slope of r^g l is r^g (1 + g p l/r), and l/r goes to 1 as both vanish
                np.maximum(r, tiny, out=r)
                np.divide(l, r, l)
                np.multiply(l, p, l)
                np.multiply(l, g, l)
                np.add(l, one, l)
                np.multiply(y, l, y)
            np.add.reduce(y, axis=0, out=row)
            np.multiply(p, row, p)
            np.subtract(p, y, d_z)

        return call


def _bind_error(rule: Callable[[Array, Array], object], *arrays: Array) -> Call:
    """A loss that is its slope times something: `rule(e, slope)` writes the slope, and into e that something."""
    outputs, target, weight, losses, d_outputs = arrays
    z, d_z = outputs[..., 0], d_outputs[..., 0]
    e, slope = _like(z, 2)

    def call() -> None:
        np.subtract(z, target, e)
        rule(e, slope)
        np.multiply(slope, weight, slope)
        np.multiply(e, slope, losses)
        np.copyto(d_z, slope)

    return call


@dataclass(frozen=True)
class Squared:
    """e²."""

    outputs: ClassVar[int] = 1

    def bind(self, outputs: Array, target: Target, weight: Array, losses: Array, d_outputs: Array) -> Call:
        (half,) = _constants(outputs, 0.5)

        def rule(e: Array, slope: Array) -> None:
            np.add(e, e, slope)
            np.multiply(e, half, e)

        return _bind_error(rule, outputs, target, weight, losses, d_outputs)


@dataclass(frozen=True)
class Absolute:
    """|e|, whose slope at e = 0 is taken as 0."""

    outputs: ClassVar[int] = 1

    def bind(self, outputs: Array, target: Target, weight: Array, losses: Array, d_outputs: Array) -> Call:
        return _bind_error(lambda e, slope: np.sign(e, slope), outputs, target, weight, losses, d_outputs)


@dataclass(frozen=True)
class Huber:
    """e²/2 near the target, delta (|e| - delta/2) beyond delta (Huber 1964)."""

    delta: float = HUBER_DELTA
    outputs: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check("delta", self.delta, self.delta > 0, "above 0")

    def bind(self, outputs: Array, target: Target, weight: Array, losses: Array, d_outputs: Array) -> Call:
        low, high, half = _constants(outputs, -self.delta, self.delta, 0.5)
        (s,) = _like(target, 1)

        def rule(e: Array, slope: Array) -> None:
            np.minimum(e, high, out=slope)
            np.maximum(slope, low, out=slope)
            np.multiply(slope, half, s)
            np.subtract(e, s, e)

        return _bind_error(rule, outputs, target, weight, losses, d_outputs)


@dataclass(frozen=True)
class Quantile:
    """(1 - level) e above the target, -level e below: least at the target's quantile (Koenker & Bassett 1978).

    The slope at e = 0 is taken as the mean of the slopes on both sides.
    """

    level: float = 0.5
    outputs: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check("level", self.level, 0 < self.level < 1, "above 0 and below 1")

    def bind(self, outputs: Array, target: Target, weight: Array, losses: Array, d_outputs: Array) -> Call:
        half, shift = _constants(outputs, 0.5, 0.5 - self.level)

        def rule(e: Array, slope: Array) -> None:
            np.sign(e, slope)
            np.multiply(slope, half, slope)
            np.add(slope, shift, slope)

        return _bind_error(rule, outputs, target, weight, losses, d_outputs)


@dataclass(frozen=True)
class LogCosh:
    """log(cosh(e)): e²/2 near the target, |e| - log 2 far from it, and smooth between."""

    outputs: ClassVar[int] = 1

    def bind(self, outputs: Array, target: Target, weight: Array, losses: Array, d_outputs: Array) -> Call:
        z, d_z = outputs[..., 0], d_outputs[..., 0]
        e, size, s = _like(z, 3)
        minus_two, log_two = _constants(z, -2, math.log(2))

        def call() -> None:
            np.subtract(z, target, e)
            np.abs(e, size)
            np.multiply(size, minus_two, s)
            np.exp(s, s)
            np.log1p(s, s)
            np.subtract(s, log_two, s)
            np.add(s, size, s)
            np.multiply(s, weight, losses)
            np.tanh(e, e)
            np.multiply(e, weight, d_z)

        return call


@dataclass(frozen=True)
class GaussianLikelihood:
    """Minus the log likelihood of the target under a normal distribution, without its constant: (s + e² exp(-s)) / 2.

    Two columns: the mean, whose error is e, and s, the log of the variance (Nix & Weigend 1994). Below `least_variance`
    exp(-s) goes on as its tangent, so that a variance that collapsed neither overflows nor loses its way back.
    """

    least_variance: float = 1e-6  # in squared units of the target
    outputs: ClassVar[int] = 2

    def __post_init__(self) -> None:
        check("least_variance", self.least_variance, self.least_variance > 0, "above 0")

    def bind(self, outputs: Array, target: Target, weight: Array, losses: Array, d_outputs: Array) -> Call:
        (mean, log_variance), (d_mean, d_s) = (np.moveaxis(array, 2, 0) for array in (outputs, d_outputs))
        e, s, floored, precision, half_weight = _like(mean, 5)
        floor, half, one = _constants(mean, math.log(self.least_variance), 0.5, 1)

        def call() -> None:
            np.multiply(weight, half, half_weight)
            np.subtract(mean, target, e)
            np.copyto(s, log_variance)
            np.maximum(s, floor, out=floored)
            np.negative(floored, precision)
            np.exp(precision, precision)
            np.subtract(floored, s, floored)  # how far below the floor
            np.add(floored, one, floored)
            np.multiply(floored, precision, floored)  # exp(-s), or its tangent
            np.multiply(floored, e, floored)
            np.multiply(floored, weight, d_mean)
            np.multiply(floored, e, floored)
            np.add(floored, s, floored)
            np.multiply(floored, half_weight, losses)
            np.multiply(e, e, e)
            np.multiply(e, precision, e)
            np.subtract(one, e, e)
            np.multiply(e, half_weight, d_s)

        return call


LOSSES: dict[str, type[Loss]] = {
    "binary_cross_entropy": BinaryCrossEntropy,
    "categorical_cross_entropy": CategoricalCrossEntropy,
    "squared": Squared,
    "absolute": Absolute,
    "huber": Huber,
    "log_cosh": LogCosh,
    "quantile": Quantile,
    "gaussian_likelihood": GaussianLikelihood,
}


def cross_entropy(logit: Array, up: Array) -> tuple[Array, Array]:
    """Binary cross-entropy of the probability sigmoid(logit), in nats, and its slope; `up` is 0 or 1.

    For scores and calibration. Written as softplus(logit) - up * logit, which neither overflows nor takes the logarithm
    of zero.
    """
    return np.logaddexp(0, logit) - up * logit, sigmoid(logit) - up
