"""Faults of the forward pass."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from benchmarks.faults.injection import (
    DROPPING,
    EQUAL,
    GATES,
    Fault,
    Summed,
    fault,
    head,
    tampered,
    weights_of,
)
from benchmarks.faults.trainings import Rng
from model.doctor import Patient
from model.network.activations import Array
from model.network.gates import Activate, Dropout
from model.network.layers import Dense
from model.network.losses import BinaryCrossEntropy, Call, Target
from model.network.network import Residual
from model.network.normalisation import EPSILON, BatchNorm, LayerNorm
from model.network.wires import Bound, Share, Wire


def no_bias(part: Any, bound: Bound, x: Wire, share: Share) -> Bound:
    def forward() -> None:
        bound.forward()
        bound.out.value[..., :-1] -= weights_of(part, share.parameters)[:, -1:]

    return replace(bound, forward=forward)


def transposed_weights(part: Any, bound: Bound, x: Wire, share: Share) -> Bound:
    def forward() -> None:
        W = weights_of(part, share.parameters)
        bound.out.value[..., :-1] = x.value @ W.reshape(len(W), W.shape[2], -1).swapaxes(1, 2)

    return replace(bound, forward=forward)


def bias_column_forgotten(part: Any, bound: Bound, x: Wire, share: Share) -> Bound:
    def forward() -> None:
        np.matmul(x.value[..., :-1], weights_of(part, share.parameters), out=bound.out.value[..., :-1])

    return replace(bound, forward=forward)


def no_activation(part: Any, bound: Bound, x: Wire, share: Share) -> Bound:
    return Bound(Wire(x.value, x.gradient), lambda: None, lambda: None)


def dropped_not_scaled(part: Any, bound: Bound, x: Wire, share: Share) -> Bound:
    if share.rngs is None:
        return bound
    keep = 1 - part.rate

    def forward() -> None:
        bound.forward()
        bound.out.value[..., :-1] *= keep

    def backward() -> None:
        bound.backward()
        if x.gradient is not None:
            x.gradient[...] *= keep

    return replace(bound, forward=forward, backward=backward)


def drops_when_answering(part: Any, bound: Bound, x: Wire, share: Share) -> Bound:
    if share.rngs is not None:
        return bound
    own, value = np.random.default_rng(0), x.value.copy()

    def forward() -> None:
        value[...] = x.value * (own.random(value.shape) < 1 - part.rate) / (1 - part.rate)
        value[..., -1] = 1

    return Bound(Wire(value, None), forward, lambda: None)


def drops_too_many(part: Any, bound: Bound, x: Wire, share: Share) -> Bound:
    """Takes the share to drop for the share to keep."""
    return Dropout(1 - part.rate).bind(x, share)


def batch_when_answering(part: Any, bound: Bound, x: Wire, share: Share) -> Bound:
    if share.rngs is not None:
        return bound
    return BatchNorm().bind(x, replace(share, rngs=(np.random.default_rng(0),)))


def norm_without_root(part: Any, bound: Bound, x: Wire, share: Share) -> Bound:
    axis = 2 if isinstance(part, LayerNorm) else 1

    def forward() -> None:
        spread = np.sqrt(x.value[..., :-1].var(axis=axis, keepdims=True) + EPSILON)
        bound.forward()
        bound.out.value[..., :-1] /= spread

    return replace(bound, forward=forward)


def no_way_around(part: Any, bound: Bound, x: Wire, share: Share) -> Bound:
    def forward() -> None:
        bound.forward()
        bound.out.value[..., :-1] -= x.value[..., :-1]

    return replace(bound, forward=forward)


def squashed_outputs(p: Patient, rng: Rng) -> Patient:
    """An activation behind the last layer, where the loss has one of its own."""
    name = str(rng.choice(["sigmoid", "tanh"]))
    return replace(p, architecture=replace(p.architecture, parts=(*p.architecture.parts, Activate(name))))


@dataclass(frozen=True)
class OfLogits(BinaryCrossEntropy):
    """Takes the outputs themselves for probabilities: the sigmoid is forgotten."""

    def bind(self, outputs: Array, target: Target, weight: Array, losses: Array, d_outputs: Array) -> Call:
        """Its gradient goes with it."""

        def call() -> None:
            p = np.clip(outputs[..., 0], 1e-7, 1 - 1e-7)
            losses[...] = -weight * np.where(target > 0.5, np.log(p), np.log1p(-p))
            d_outputs[..., 0] = weight * (p - target) / (p * (1 - p))

        return call


FAULTS: dict[str, Fault] = {
    "bias left out of the forward pass": fault(tampered(no_bias, Dense)),
    "weights transposed": fault(tampered(transposed_weights, Dense)),
    "shapes that do not fit": fault(tampered(bias_column_forgotten, Dense)),
    "forgotten hidden activation": fault(tampered(no_activation, Activate), activation=GATES),
    "forgotten last activation": fault(head(OfLogits())),
    "one activation too many at the end": fault(squashed_outputs),
    "sum of losses for their mean": fault(head(Summed())),
    "no 1/(1-p) in dropout": fault(tampered(dropped_not_scaled, Dropout), **DROPPING),
    "dropout active when answering": fault(tampered(drops_when_answering, Dropout), **DROPPING),
    "dropout keeps what it should drop": fault(tampered(drops_too_many, Dropout), dropout=(0.1, 0.3)),
    "batch statistics when answering": fault(
        tampered(batch_when_answering, BatchNorm), normalisation=("batch",)
    ),
    "variance for deviation": fault(
        tampered(norm_without_root, LayerNorm, BatchNorm), normalisation=("layer", "batch")
    ),
    "residual without its way around": fault(tampered(no_way_around, Residual), **EQUAL),
}
