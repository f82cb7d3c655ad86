"""Normalisation: over the units of a row, or over the rows of a batch. Both learn a scale and a shift for each unit."""

from dataclasses import dataclass

import numpy as np

from model.network.activations import Array
from model.network.wires import Bound, Share, Wire, no_way_back, wire

# Added to a variance before its square root is divided by, and the share of a batch's statistics that the running
# ones take on with each step: both as PyTorch has them.
EPSILON = 1e-5
MOMENTUM = 0.1


class Normalisation:
    """What both have in common: a member's parameters are the scale (O,) and the shift (O,), one after the other."""

    def width(self, inputs: int) -> int:
        """As wide as its input."""
        return inputs

    def parameters(self, inputs: int) -> int:
        """A scale and a shift for each unit."""
        return 2 * inputs

    def fill(self, parameters: Array, statistics: Array, inputs: int, rng: np.random.Generator) -> None:
        """At first nothing is scaled or shifted, and running statistics are those of a standard normal."""
        parameters[:inputs] = 1
        parameters[inputs:] = 0
        statistics[: len(statistics) // 2] = 0
        statistics[len(statistics) // 2 :] = 1


def _halves(array: Array) -> tuple[Array, Array]:
    """A share (K, 2 O) as two views (K, 1, O)."""
    members, both = array.shape
    first, second = np.moveaxis(array.reshape(members, 2, 1, both // 2, copy=False), 1, 0)
    return first, second


@dataclass(frozen=True)
class LayerNorm(Normalisation):
    """Each row is brought to mean 0 and variance 1 over its units (Ba, Kiros & Hinton 2016)."""

    def statistics(self, inputs: int) -> int:
        """None: it does the same when answering."""
        return 0

    def bind(self, x: Wire, share: Share) -> Bound:
        """The statistics are each row's own, in training and when answering."""
        return _bind(x, share, axis=2)


@dataclass(frozen=True)
class BatchNorm(Normalisation):
    """Each unit is brought to mean 0 and variance 1 over a batch in training, and by running statistics when
    answering, where it is an affine step (Ioffe & Szegedy 2015)."""

    def statistics(self, inputs: int) -> int:
        """A running mean and a running variance for each unit."""
        return 2 * inputs

    def bind(self, x: Wire, share: Share) -> Bound:
        """In training every forward pass moves the running statistics by MOMENTUM towards the batch's."""
        running_mean, running_var = _halves(share.statistics)
        if share.rngs is not None:
            return _bind(x, share, axis=1, running=(running_mean, running_var))
        members, rows, _ = x.value.shape
        out = wire(members, rows, x.width, x.value.dtype, share.gradients is not None)
        gamma, beta = _halves(share.parameters)
        v, y = x.value[..., :-1], out.value[..., :-1]
        scale, shift = np.empty_like(running_var), np.empty_like(running_mean)

        def forward() -> None:
            np.add(running_var, EPSILON, out=scale)
            np.sqrt(scale, out=scale)
            np.divide(gamma, scale, out=scale)
            np.multiply(running_mean, scale, out=shift)
            np.subtract(beta, shift, out=shift)
            np.multiply(v, scale, out=y)
            np.add(y, shift, out=y)

        return Bound(out, forward, no_way_back)


def _bind(x: Wire, share: Share, axis: int, running: tuple[Array, Array] | None = None) -> Bound:
    """y = gamma x_hat + beta with x_hat = (x - mean) / sqrt(var + EPSILON), mean and variance over `axis` of (K, B, O).

    Back: d_x = (d_hat - mean(d_hat) - x_hat mean(d_hat x_hat)) / sqrt(var + EPSILON), with d_hat = gamma d_y.
    """
    members, rows, _ = x.value.shape
    out = wire(members, rows, x.width, x.value.dtype, share.gradients is not None)
    gamma, beta = _halves(share.parameters)
    v, y = x.value[..., :-1], out.value[..., :-1]
    x_hat, product = np.empty_like(y), np.empty_like(y)
    over = v.shape[axis]
    mean = np.empty_like(v.mean(axis=axis, keepdims=True))
    var, spread = np.empty_like(mean), np.empty_like(mean)

    def forward() -> None:
        np.mean(v, axis=axis, keepdims=True, out=mean)
        np.subtract(v, mean, out=x_hat)
        np.multiply(x_hat, x_hat, out=product)
        np.mean(product, axis=axis, keepdims=True, out=var)
        np.add(var, EPSILON, out=spread)
        np.sqrt(spread, out=spread)
        np.divide(x_hat, spread, out=x_hat)
        np.multiply(x_hat, gamma, out=y)
        np.add(y, beta, out=y)
        if running is not None:
            unbiased = over / max(over - 1, 1)
            for kept, fresh, weight in ((running[0], mean, 1.0), (running[1], var, unbiased)):
                np.multiply(kept, 1 - MOMENTUM, out=kept)
                np.multiply(fresh, MOMENTUM * weight, out=spare)
                np.add(kept, spare, out=kept)

    spare = np.empty_like(mean)
    if out.gradient is None or share.gradients is None:
        return Bound(out, forward, no_way_back)
    d_gamma, d_beta = _halves(share.gradients)
    d_y = out.gradient[..., :-1]
    d_x = None if x.gradient is None else x.gradient[..., :-1]
    d_mean, d_along = np.empty_like(mean), np.empty_like(mean)

    def backward() -> None:
        np.sum(d_y, axis=1, keepdims=True, out=d_beta)
        np.multiply(d_y, x_hat, out=product)
        np.sum(product, axis=1, keepdims=True, out=d_gamma)
        if d_x is None:
            return
        np.multiply(d_y, gamma, out=d_x)
        np.mean(d_x, axis=axis, keepdims=True, out=d_mean)
        np.multiply(d_x, x_hat, out=product)
        np.mean(product, axis=axis, keepdims=True, out=d_along)
        np.subtract(d_x, d_mean, out=d_x)
        np.multiply(x_hat, d_along, out=product)
        np.subtract(d_x, product, out=d_x)
        np.divide(d_x, spread, out=d_x)

    return Bound(out, forward, backward)
