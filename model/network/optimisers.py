"""Optimisers: how gradients move the parameters of K members at once. Add one by adding a row to OPTIMISERS.

A step works in place on the training loop's buffers and allocates nothing of their size. It is elementwise, so what
it does to a member is bit for bit the same whoever else is in the batch. Letters, as in the papers:
g gradient, m and v the running means of g and of g squared, β (here B) how much of them a step keeps, ε (here EPS).

A running mean m = β m + (1 - β) g is kept as M = m / (1 - β), for which M = β M + g: one pass less over the
parameters. The (1 - β), and Adam's bias corrections with it, become part of the step's length and of ε. AdaGrad,
whose sums need no β, has nothing to fold.

Weight decay is decoupled (Loshchilov & Hutter 2019): a step first shrinks the parameters by rate x decay, and the
moments never see it. Of PyTorch's optimisers only AdamW does so. `adam` is the exception that shows the difference:
there decay is an L2 penalty, added to the gradient, as in PyTorch's Adam.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from model.network.activations import Array

Moments = tuple[Array, ...]  # a step's memory, each (K, P)

# (params (K, P), grads (K, P), moments, scratch (K, P), step number from 1, learning rate (K, 1), weight
# decay). All arrays are of one dtype, else NumPy computes through buffers. Grads and scratch may come back overwritten.
Step = Callable[[Array, Array, Moments, Array, int, Array, float], None]

BLOCK = 131_072  # elements of each array that a step takes at a time: those of five arrays fit a core's cache

SETTLE_EVERY = 64  # steps
SETTLE_BY = 1e-25


@dataclass(frozen=True)
class Optimiser:
    """`step` moves the parameters; it keeps `moments` buffers of their shape, zero at first."""

    moments: int
    step: Step


def _in_blocks(step: Step) -> Step:
    """The same step, taken block by block of adjacent numbers: its many passes then find them in the cache."""

    @functools.wraps(step)
    def blocked(
        params: Array, grads: Array, moments: Moments, scratch: Array, number: int, rate: Array, decay: float
    ) -> None:
        if params.size <= BLOCK:
            # one member's rate as a mere number, which is quicker than a row of one
            own = rate if len(params) > 1 else rate.reshape(())
            step(params, grads, moments, scratch, number, own, decay)
            return
        members, width = params.shape
        rows = max(BLOCK // width, 1)
        for row in range(0, members, rows):
            for column in range(0, width, BLOCK):
                part = slice(row, row + rows), slice(column, column + BLOCK)
                theirs = tuple(moment[part] for moment in moments)
                step(params[part], grads[part], theirs, scratch[part], number, rate[part[0]], decay)

    return blocked


@functools.lru_cache
def _number(value: float, dtype: Any) -> Array:
    """As an array, since NumPy makes one of a Python number each time, and takes as long for it as for the rest."""
    return np.array(value, dtype)


def _shrink(params: Array, rate: Array, decay: float) -> None:
    """Decoupled weight decay."""
    if decay:
        params *= 1 - rate * decay


def _settle(number: int, *moments: Array) -> None:
    """Every 64th step, makes zero of what is below about 1e-32, and changes the rest by no more than that.

    The moments of a weight whose gradient has become zero, such as a dead unit's, halve and halve until they are
    denormal numbers, and there they stay, by rounding. Arithmetic on those is some thirty times slower.
    """
    if number % SETTLE_EVERY == 0:
        for moment in moments:
            moment += SETTLE_BY  # whatever is lost beside this number …
            moment -= SETTLE_BY  # … is zero now


@_in_blocks
def sgd(
    params: Array, grads: Array, moments: Moments, scratch: Array, number: int, rate: Array, decay: float
) -> None:
    """Gradient descent: p = p - rate g."""
    _shrink(params, rate, decay)
    np.multiply(grads, rate, out=scratch)
    params -= scratch


B = 0.9  # momentum's and Nesterov's


@_in_blocks
def momentum(
    params: Array, grads: Array, moments: Moments, scratch: Array, number: int, rate: Array, decay: float
) -> None:
    """Heavy ball (Polyak 1964), as PyTorch's SGD has it: v = 0.9 v + g; p = p - rate v."""
    (v,) = moments
    v *= B
    v += grads
    _shrink(params, rate, decay)
    np.multiply(v, rate, out=scratch)
    params -= scratch
    _settle(number, v)


@_in_blocks
def nesterov(
    params: Array, grads: Array, moments: Moments, scratch: Array, number: int, rate: Array, decay: float
) -> None:
    """Accelerated gradient (Nesterov 1983), as PyTorch's SGD has it: v = 0.9 v + g; p = p - rate (g + 0.9 v).

    The parameters kept are those ahead, where the gradient is taken (Sutskever et al. 2013; Bengio et al. 2013).
    """
    (v,) = moments
    v *= B
    v += grads
    _shrink(params, rate, decay)
    np.multiply(v, B, out=scratch)
    scratch += grads
    scratch *= rate
    params -= scratch
    _settle(number, v)


ADAGRAD_EPS = 1e-10  # PyTorch's


@_in_blocks
def adagrad(
    params: Array, grads: Array, moments: Moments, scratch: Array, number: int, rate: Array, decay: float
) -> None:
    """AdaGrad (Duchi, Hazan & Singer 2011), diagonal: s = s + g g; p = p - rate g / (√s + ε)."""
    (s,) = moments
    np.square(grads, out=scratch)
    s += scratch
    np.sqrt(s, out=scratch)
    scratch += ADAGRAD_EPS
    np.divide(grads, scratch, out=scratch)
    scratch *= rate
    _shrink(params, rate, decay)
    params -= scratch


RMSPROP_B = 0.99  # PyTorch's; Tieleman & Hinton have 0.9
EPS = 1e-8  # RMSProp's, Adam's and AdamW's


@_in_blocks
def rmsprop(
    params: Array, grads: Array, moments: Moments, scratch: Array, number: int, rate: Array, decay: float
) -> None:
    """RMSProp (Tieleman & Hinton 2012): v = 0.99 v + 0.01 g g; p = p - rate g / (√v + ε)."""
    (V,) = moments
    V *= RMSPROP_B
    np.square(grads, out=scratch)
    V += scratch
    unit = math.sqrt(1 - RMSPROP_B)  # √v = unit √V
    np.sqrt(V, out=scratch)
    scratch += EPS / unit
    np.divide(grads, scratch, out=scratch)
    scratch *= rate * (1 / unit)
    _shrink(params, rate, decay)
    params -= scratch
    _settle(number, V)


B1, B2 = 0.9, 0.999  # Adam's and AdamW's


def _adam(params: Array, grads: Array, moments: Moments, scratch: Array, number: int, rate: Array) -> None:
    """p = p - rate m̂ / (√v̂ + ε), where m̂ = m / (1 - β1^t) and v̂ = v / (1 - β2^t)."""
    M, V = moments
    dtype = params.dtype
    M *= _number(B1, dtype)
    M += grads
    V *= _number(B2, dtype)
    np.square(grads, out=scratch)
    V += scratch
    mean = (1 - B1) / (1 - B1**number)  # m̂ = mean M
    unit = math.sqrt((1 - B2) / (1 - B2**number))  # √v̂ = unit √V
    np.sqrt(V, out=scratch)
    scratch += np.array(EPS / unit, dtype)
    np.divide(M, scratch, out=scratch)
    scratch *= rate * (mean / unit)
    params -= scratch
    _settle(number, M, V)


@_in_blocks
def adam(
    params: Array, grads: Array, moments: Moments, scratch: Array, number: int, rate: Array, decay: float
) -> None:
    """Adam (Kingma & Ba 2015, algorithm 1) with the usual 0.9, 0.999 and 1e-8. Decay is L2: it overwrites grads."""
    if decay:
        np.multiply(params, decay, out=scratch)
        grads += scratch
    _adam(params, grads, moments, scratch, number, rate)


@_in_blocks
def adamw(
    params: Array, grads: Array, moments: Moments, scratch: Array, number: int, rate: Array, decay: float
) -> None:
    """AdamW (Loshchilov & Hutter 2019, algorithm 2): Adam with decoupled decay, and the same constants."""
    _shrink(params, rate, decay)
    _adam(params, grads, moments, scratch, number, rate)


LION_B1, LION_B2 = 0.9, 0.99
TINY = 1e-30


@_in_blocks
def lion(
    params: Array, grads: Array, moments: Moments, scratch: Array, number: int, rate: Array, decay: float
) -> None:
    """Lion (Chen et al. 2023, algorithm 2): p = p - rate sign(0.9 m + 0.1 g); then m = 0.99 m + 0.01 g."""
    (M,) = moments
    # 0.9 m + 0.1 g, divided by what does not change its sign
    np.multiply(grads, (1 - LION_B1) / (LION_B1 * (1 - LION_B2)), out=scratch)
    scratch += M
    # the sign, for all but numbers that are next to nothing: NumPy's own branches, and takes three times as long
    scratch.clip(-TINY, TINY, out=scratch)
    scratch *= rate * (1 / TINY)
    _shrink(params, rate, decay)
    params -= scratch
    M *= LION_B2
    M += grads
    _settle(number, M)


OPTIMISERS: dict[str, Optimiser] = {
    "sgd": Optimiser(0, sgd),
    "momentum": Optimiser(1, momentum),
    "nesterov": Optimiser(1, nesterov),
    "adagrad": Optimiser(1, adagrad),
    "rmsprop": Optimiser(1, rmsprop),
    "adam": Optimiser(2, adam),
    "adamw": Optimiser(2, adamw),
    "lion": Optimiser(1, lion),
}


def norms(grads: Array, out: Array) -> None:
    """The Euclidean norm of each member's gradient, (K, P) to (K,): not finite where any of its numbers is not.

    In float32 it overflows to infinity from about 1e19 on, with NumPy's warning unless the caller has silenced it. One dot product a row, so that no member's bits depend on the others.
    """
    np.vecdot(grads, grads, out=out)
    np.sqrt(out, out=out)


def clip_norm(grads: Array, limit: float, norms: Array) -> None:
    """Shortens, in place, the gradient of each member whose norm (K,) is beyond the limit to just that limit.

    Pascanu, Mikolov & Bengio 2013, algorithm 1. The other members' numbers are left as they are, and so are those of
    a member whose norm is not a number; a limit of infinity clips nothing.
    """
    for row, norm in enumerate(norms.tolist()):
        if norm > limit:
            grads[row] *= limit / norm


def clip_value(grads: Array, limit: float) -> None:
    """Brings, in place, every number of the gradients between -limit and limit; what is not a number stays so."""
    grads.clip(-limit, limit, out=grads)
