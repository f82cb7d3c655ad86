"""The forward pass and the losses a second time: from the formulas, in plain NumPy, and from nothing that trains.

A part is told by its kind, so that a subclass of it is held to what it says that it is. Rows n, inputs I, outputs O; all
in float64.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from model.errors import BadInput
from model.network.activations import LEAK
from model.network.gates import Activate, Dropout
from model.network.layers import Conv1d, Dense
from model.network.losses import (
    Absolute,
    BinaryCrossEntropy,
    CategoricalCrossEntropy,
    GaussianLikelihood,
    Huber,
    LogCosh,
    Loss,
    Quantile,
    Squared,
)
from model.network.network import Residual
from model.network.normalisation import EPSILON, BatchNorm, LayerNorm
from model.network.wires import Part

Float64 = NDArray[np.float64]

KINDS: tuple[type[Part], ...] = (Dense, Conv1d, Activate, Dropout, LayerNorm, BatchNorm, Residual)

ACTIVATIONS: dict[str, Callable[[Float64], Float64]] = {
    "identity": lambda z: z,
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
    "tanh": lambda z: 1 - 2 / (np.exp(2 * z) + 1),
    "relu": lambda z: np.where(z > 0, z, 0.0),
    "leaky_relu": lambda z: np.where(z > 0, z, LEAK * z),
    "elu": lambda z: np.where(z > 0, z, np.exp(z) - 1),
    "softplus": lambda z: np.logaddexp(0, z),
    "silu": lambda z: z / (1 + np.exp(-z)),
    "gelu": lambda z: z / (1 + np.exp(-2 * math.sqrt(2 / math.pi) * (z + 0.044715 * z**3))),
}


def kind_of(part: Part) -> type[Part]:
    """What a part says that it is. Raises BadInput for a part of none of the known kinds."""
    for kind in KINDS:
        if isinstance(part, kind):
            return kind
    raise BadInput(f"{type(part).__name__} is none of the parts that the doctor knows")


def value(
    part: Part, x: Float64, parameters: Float64, statistics: Float64, training: bool, kept: NDArray[np.bool_]
) -> Float64:
    """What a part makes of x (n, I); `kept` (n, O) says what dropout in training lets through."""
    if isinstance(part, Dense):
        W = parameters.reshape(-1, part.units)
        y = x @ W[:-1] + W[-1]
    elif isinstance(part, Conv1d):
        y = _convolved(part, x, parameters)
    elif isinstance(part, Activate):
        y = ACTIVATIONS[part.name](x)
    elif isinstance(part, Dropout):
        y = np.where(kept, x / (1 - part.rate), 0.0) if training else x
    elif isinstance(part, LayerNorm | BatchNorm):
        scale, shift = parameters.reshape(2, -1)
        if isinstance(part, LayerNorm):
            mean, var = x.mean(axis=1, keepdims=True), x.var(axis=1, keepdims=True)
        elif training:
            mean, var = x.mean(axis=0), x.var(axis=0)
        else:
            mean, var = statistics.reshape(2, -1)
        y = scale * (x - mean) / np.sqrt(var + EPSILON) + shift
    elif isinstance(part, Residual):
        y = x + chain(part.parts, x, parameters, statistics)
    else:
        raise BadInput(f"{type(part).__name__} is none of the parts that the doctor knows")
    return np.asarray(y, np.float64)


def _convolved(part: Conv1d, x: Float64, parameters: Float64) -> Float64:
    W = parameters.reshape(-1, part.channels)
    by_bar = x.reshape(len(x), part.bars, -1)
    taps = np.split(W[:-1], part.kernel)
    y = np.tile(W[-1], (len(x), part.bars, 1))
    for bar in range(part.bars):
        for tap, weights in enumerate(taps):
            sees = bar - (part.kernel - 1 - tap)
            if sees >= 0:
                y[:, bar] += by_bar[:, sees] @ weights
    return y.reshape(len(x), -1)


def chain(parts: Sequence[Part], x: Float64, parameters: Float64, statistics: Float64) -> Float64:
    """What a chain of parts answers to x (n, I), given its flat parameters and statistics."""
    learned = kept = 0
    for part in parts:
        inputs = x.shape[1]
        learns, keeps = part.parameters(inputs), part.statistics(inputs)
        own, noted = parameters[learned : learned + learns], statistics[kept : kept + keeps]
        x = value(part, x, own, noted, False, np.ones(x.shape, bool))
        learned, kept = learned + learns, kept + keeps
    return x


def leaves(parts: Sequence[Part], inputs: int) -> Iterator[tuple[Part, int]]:
    """Every part with the width of its input, those within residual connections before the connection."""
    for part in parts:
        if isinstance(part, Residual):
            yield from leaves(part.parts, inputs)
        yield part, inputs
        inputs = part.width(inputs)


def without_dropout(parts: Sequence[Part]) -> tuple[Part, ...]:
    """The same parts but dropout, which learns nothing, so that parameters fit as they are."""
    return tuple(
        replace(part, parts=without_dropout(part.parts)) if isinstance(part, Residual) else part
        for part in parts
        if not isinstance(part, Dropout)
    )


def loss(loss: Loss, outputs: Float64, target: NDArray[np.generic]) -> Float64:
    """Each row's loss (n,) for outputs (n, loss.outputs) and targets (n,)."""
    z = outputs[:, 0]
    if isinstance(loss, BinaryCrossEntropy | CategoricalCrossEntropy):
        return _cross_entropy(loss, outputs, target)
    t = target.astype(np.float64)
    e = z - t
    if isinstance(loss, Squared):
        return e**2
    if isinstance(loss, Absolute):
        return np.abs(e)
    if isinstance(loss, Huber):
        return np.where(np.abs(e) <= loss.delta, e**2 / 2, loss.delta * np.abs(e) - loss.delta**2 / 2)
    if isinstance(loss, LogCosh):
        return np.logaddexp(e, -e) - math.log(2)
    if isinstance(loss, Quantile):
        return np.where(e > 0, (1 - loss.level) * e, -loss.level * e)
    if isinstance(loss, GaussianLikelihood):
        s, floor = outputs[:, 1], math.log(loss.least_variance)
        precision = np.where(s > floor, np.exp(-s), (1 + floor - s) / loss.least_variance)
        return (s + e**2 * precision) / 2
    raise BadInput(f"{type(loss).__name__} is none of the losses that the doctor knows")


def _cross_entropy(
    loss: BinaryCrossEntropy | CategoricalCrossEntropy, outputs: Float64, target: NDArray[np.generic]
) -> Float64:
    """Over probabilities; those of two classes are the softmax of 0 and z, that is, 1 - sigmoid(z) and sigmoid(z)."""
    if isinstance(loss, BinaryCrossEntropy):
        outputs = np.column_stack((np.zeros(len(outputs)), outputs))
        classes, weights = 2, np.array([1.0, loss.up_weight])
    else:
        classes = loss.classes
        weights = np.array(loss.class_weights or np.ones(classes))
    e = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    p = e / e.sum(axis=1, keepdims=True)
    y = np.eye(classes)[target.astype(np.intp)] * (1 - loss.smoothing) + loss.smoothing / classes
    rows: Float64 = -(y * weights * (1 - p) ** loss.focal * np.log(p)).sum(axis=1)
    return rows
