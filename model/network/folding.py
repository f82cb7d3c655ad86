"""Folding: of a trained network, one that only answers, in which neighbouring affine parts are one dense layer.

Dense layers, convolutions and the running statistics of BatchNorm are affine when answering, and so is what stands
before and after a network (the scaling of its inputs, a temperature). Dropout is gone. What is left between the dense
layers are gates, LayerNorm and residual connections.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.errors import BadArtifact
from model.network.gates import Activate, Dropout
from model.network.layers import Conv1d, Dense
from model.network.network import Architecture, Network, Residual
from model.network.normalisation import BatchNorm
from model.network.wires import Part, Share, wire

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

AFFINE = (Dense, Conv1d, BatchNorm)  # when answering
CACHE_LINE = 64  # bytes


@dataclass(frozen=True)
class Affine:
    """x W + b, with W (I, O) and b (O,)."""

    W: Float64
    b: Float64

    def then(self, other: "Affine") -> "Affine":
        """This one and then the other, as one: (x W + b) W' + b' = x (W W') + (b W' + b')."""
        return Affine(self.W @ other.W, self.b @ other.W + other.b)


def elementwise(scale: Float64, shift: Float64) -> Affine:
    """x * scale + shift, (I,) each."""
    return Affine(np.diag(scale), shift)


@dataclass(frozen=True)
class Kept:
    """A part that is not affine, and its parameters."""

    part: Part
    parameters: Float64


Step = Affine | Kept


def fold(network: Network, before: Affine, after: Affine) -> Network:
    """Each member between two affine maps, as a network without statistics that answers the same.

    It is computed in float64 and kept in float32, read-only. Raises BadArtifact where a number in it is not finite.
    """
    architecture, members = network.architecture, []
    with np.errstate(all="ignore"):  # what overflows is refused below
        for own in zip(
            network.parameters.astype(np.float64), network.statistics.astype(np.float64), strict=True
        ):
            inner = _steps(architecture.parts, architecture.inputs, *own)
            parts, numbers = _parts(_merged([before, *inner, after]))
            members.append(numbers)
        single = _aligned(np.stack(members))
    if not np.isfinite(single).all():
        raise BadArtifact("the weights are not finite once scaling and statistics are folded into them")
    nothing = np.empty((len(single), 0), np.float32)
    return Network(Architecture(len(before.W), parts), single, nothing)


def _steps(parts: Sequence[Part], inputs: int, parameters: Float64, statistics: Float64) -> list[Step]:
    """What a chain of parts does when answering, step by step."""
    steps: list[Step] = []
    for part in parts:
        own, parameters = np.split(parameters, [part.parameters(inputs)])
        kept, statistics = np.split(statistics, [part.statistics(inputs)])
        if isinstance(part, Residual):
            steps.append(_around(_merged(_steps(part.parts, inputs, own, kept)), inputs))
        elif isinstance(part, AFFINE):
            steps.append(_affine(part, inputs, own, kept))
        elif not isinstance(part, Dropout) and part != Activate("identity"):
            steps.append(Kept(part, own))
        inputs = part.width(inputs)
    return steps


def _affine(part: Part, inputs: int, parameters: Float64, statistics: Float64) -> Affine:
    """What an affine part is can be read off its answers: to zero it says b, and to a unit vector b and a row of W."""
    x = wire(1, 1 + inputs, inputs, np.float64, gradient=False)
    x.value[0, :, :-1] = np.eye(1 + inputs, inputs, -1)
    bound = part.bind(x, Share(parameters[None], None, statistics[None], None))
    bound.forward()
    b, W = np.split(bound.out.value[0, :, :-1], [1])
    return Affine(W - b, b[0])


def _around(steps: list[Step], inputs: int) -> Step:
    """A residual connection around these; around an affine step it is affine itself."""
    through = _merged([elementwise(np.ones(inputs), np.zeros(inputs)), *steps])
    if len(through) == 1 and isinstance(through[0], Affine):
        return Affine(through[0].W + np.eye(inputs), through[0].b)
    parts, parameters = _parts(steps)
    return Kept(Residual(parts), parameters)


def _merged(steps: Sequence[Step]) -> list[Step]:
    """The same, with affine neighbours as one."""
    merged: list[Step] = []
    for step in steps:
        if merged and isinstance(step, Affine) and isinstance(merged[-1], Affine):
            merged[-1] = merged[-1].then(step)
        else:
            merged.append(step)
    return merged


def _parts(steps: Sequence[Step]) -> tuple[tuple[Part, ...], Float64]:
    """The parts that do these steps, and their flat parameters."""
    parts: list[Part] = []
    numbers = []
    for step in steps:
        if isinstance(step, Affine):
            parts.append(Dense(step.W.shape[1]))
            numbers += [step.W.ravel(), step.b]
        else:
            parts.append(step.part)
            numbers.append(step.parameters)
    return tuple(parts), np.concatenate(numbers)


def _aligned(numbers: Float64) -> Float32:
    """In single precision, read-only, and from the start of a cache line on: products with the weights gain a tenth."""
    room = np.empty(numbers.size + CACHE_LINE // 4, np.float32)
    start = -room.ctypes.data % CACHE_LINE // 4
    single = room[start : start + numbers.size].reshape(numbers.shape)
    single[...] = numbers
    single.flags.writeable = False
    return single
