"""Faults of the backward pass."""

from collections.abc import Callable
from dataclasses import replace
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
from model.network.activations import Array
from model.network.gates import Activate, Dropout
from model.network.layers import Dense
from model.network.network import Residual
from model.network.normalisation import EPSILON, BatchNorm, LayerNorm
from model.network.wires import Bound, Share, Wire

# Whose slope at z is another than at f(z).
CURVED = ("tanh", "sigmoid", "elu", "softplus", "silu", "gelu")


def transposed_gradient(part: Any, bound: Bound, x: Wire, share: Share) -> Bound:
    return _after(bound, share, lambda g: _swap(weights_of(part, g)))


def _swap(W: Array) -> None:
    """Writes each member's weights in the order of their transpose."""
    W[:, :-1] = W[:, :-1].swapaxes(1, 2).reshape(W[:, :-1].shape)


def bias_over_batch_twice(part: Any, bound: Bound, x: Wire, share: Share) -> Bound:
    return _after(bound, share, lambda g: _scale(weights_of(part, g)[:, -1], 1 / x.value.shape[1]))


def no_bias_gradient(part: Any, bound: Bound, x: Wire, share: Share) -> Bound:
    return _after(bound, share, lambda g: _scale(weights_of(part, g)[:, -1], 0.0))


def sign_of_gradient(part: Any, bound: Bound, x: Wire, share: Share) -> Bound:
    return _after(bound, share, lambda g: _scale(g, -1.0))


def _scale(array: Array, by: float) -> None:
    array *= by


def _after(bound: Bound, share: Share, then: Callable[[Array], None]) -> Bound:
    """The part's own gradients changed after its way back."""
    gradients = share.gradients
    if gradients is None:
        return bound

    def backward() -> None:
        bound.backward()
        then(gradients)

    return replace(bound, backward=backward)


def gradients_pile_up(part: Any, bound: Bound, x: Wire, share: Share) -> Bound:
    gradients = share.gradients
    if gradients is None:
        return bound
    total = np.zeros_like(gradients)

    def backward() -> None:
        bound.backward()
        total[...] += gradients
        gradients[...] = total

    return replace(bound, backward=backward)


def stale_cache(part: Any, bound: Bound, x: Wire, share: Share) -> Bound:
    first: list[Array] = []

    def forward() -> None:
        bound.forward()
        if not first:
            first.append(x.value.copy())

    def backward() -> None:
        bound.backward()
        assert share.gradients is not None
        assert bound.out.gradient is not None
        into = weights_of(part, share.gradients)
        into[...] = first[0].swapaxes(1, 2) @ bound.out.gradient[..., :-1]

    return replace(bound, forward=forward, backward=backward)


def nothing_handed_back(part: Any, bound: Bound, x: Wire, share: Share) -> Bound:
    def backward() -> None:
        bound.backward()
        if x.gradient is not None:
            x.gradient.fill(0)

    return replace(bound, backward=backward)


def no_derivative(part: Any, bound: Bound, x: Wire, share: Share) -> Bound:
    return replace(bound, backward=lambda: None)


def derivative_at_output(part: Any, bound: Bound, x: Wire, share: Share) -> Bound:
    (gate,) = bound.gates

    def backward() -> None:
        assert x.gradient is not None
        z = gate.a.copy()
        a, slope, scratch = (np.empty_like(z) for _ in range(3))
        gate.activation.value(z.copy(), a, scratch)
        gate.activation.slope(z, a, slope, scratch)
        x.gradient[..., :-1] *= slope

    return replace(bound, backward=backward)


def another_mask(part: Any, bound: Bound, x: Wire, share: Share) -> Bound:
    if share.rngs is None:
        return bound
    own, keep = np.random.default_rng(1), 1 - part.rate

    def backward() -> None:
        if x.gradient is not None:
            x.gradient[...] *= (own.random(x.gradient.shape) < keep) / keep

    return replace(bound, backward=backward)


def mask_without_scale(part: Any, bound: Bound, x: Wire, share: Share) -> Bound:
    if share.rngs is None:
        return bound

    def backward() -> None:
        bound.backward()
        if x.gradient is not None:
            x.gradient[...] *= 1 - part.rate

    return replace(bound, backward=backward)


def statistics_as_constants(part: Any, bound: Bound, x: Wire, share: Share) -> Bound:
    axis = 2 if isinstance(part, LayerNorm) else 1

    def backward() -> None:
        assert bound.out.gradient is not None
        d_y, v = bound.out.gradient[..., :-1].copy(), x.value[..., :-1]
        bound.backward()
        if x.gradient is not None:
            gamma = share.parameters[:, None, : v.shape[2]]
            x.gradient[..., :-1] = d_y * gamma / np.sqrt(v.var(axis=axis, keepdims=True) + EPSILON)

    return replace(bound, backward=backward)


def only_through_the_parts(part: Any, bound: Bound, x: Wire, share: Share) -> Bound:
    def backward() -> None:
        bound.backward()
        if x.gradient is not None and bound.out.gradient is not None:
            x.gradient[...] -= bound.out.gradient

    return replace(bound, backward=backward)


FAULTS: dict[str, Fault] = {
    "transposed weight gradient": fault(tampered(transposed_gradient, Dense)),
    # before a batch norm, which takes it away again, a bias has no gradient that could be wrong
    "bias gradient divided by batch twice": fault(
        tampered(bias_over_batch_twice, Dense), normalisation=(None, "layer")
    ),
    "no bias gradient": fault(tampered(no_bias_gradient, Dense, after=-1)),
    "a layer's gradient has the wrong sign": fault(tampered(sign_of_gradient, Dense)),
    "gradients pile up": fault(tampered(gradients_pile_up, Dense)),
    "stale cache": fault(tampered(stale_cache, Dense)),
    "gradient not handed through one layer": fault(tampered(nothing_handed_back, Dense, after=1)),
    "no activation derivative": fault(tampered(no_derivative, Activate), activation=GATES),
    "derivative at the output": fault(tampered(derivative_at_output, Activate), activation=CURVED),
    "mask not reused": fault(tampered(another_mask, Dropout), **DROPPING),
    "no 1/(1-p) on dropout's way back": fault(tampered(mask_without_scale, Dropout), **DROPPING),
    "normalisation's statistics as constants": fault(
        tampered(statistics_as_constants, LayerNorm, BatchNorm),
        normalisation=("layer", "batch"),
    ),
    "residual hands nothing around": fault(
        tampered(only_through_the_parts, Residual, after=1),
        hidden=EQUAL["hidden"][2:],
        residual=(True,),
    ),
    "loss gradient not divided by batch": fault(head(Summed(value=False))),
}
