"""What the parts of a network have in common, and the wires between them.

A part is a value: it says how wide its output is and how many numbers it learns. `bind` ties it to its share of the
flat buffers and to the wire that it reads; what comes back are two calls, forward and backward, that allocate nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from model.network.activations import Activation, Array

Rngs = Sequence[np.random.Generator]


@dataclass(frozen=True)
class Wire:
    """The signal between two parts, value (K, B, width + 1), and the loss's gradient by it, of the same shape.

    The last column of a value is 1, so that a bias is the weight of a constant input; that of a gradient means
    nothing. There is no gradient where none is asked for: before the first part, and outside of training.
    `spare` where the part that made the value does not need it again, and the next may write over it.
    """

    value: Array
    gradient: Array | None
    spare: bool = True

    @property
    def width(self) -> int:
        """How many numbers a row has, the constant aside."""
        return int(self.value.shape[2]) - 1


def wire(members: int, rows: int, width: int, dtype: Any, gradient: bool) -> Wire:
    """A wire of its own, its constant column set."""
    value = np.ones((members, rows, width + 1), dtype)
    return Wire(value, np.zeros_like(value) if gradient else None)


@dataclass(frozen=True)
class Share:
    """A part's share of the flat buffers, (K, its size) views each. No gradients: there is no way back.

    `rngs`, one for each member, make it a training pass: dropout draws from them, batch statistics are the batch's.
    """

    parameters: Array
    gradients: Array | None
    statistics: Array
    rngs: Rngs | None

    def cut(self, parameters: slice, statistics: slice) -> "Share":
        """The share of a part within this one."""
        return replace(
            self,
            parameters=self.parameters[:, parameters],
            gradients=None if self.gradients is None else self.gradients[:, parameters],
            statistics=self.statistics[:, statistics],
        )


@dataclass(frozen=True)
class Gate:
    """What an activation let through in the last forward pass, (K, B, width) each; z is a where z was written over."""

    activation: Activation
    z: Array
    a: Array


@dataclass(frozen=True)
class Bound:
    """A part tied to its buffers. `backward` hands the gradient by the input on, and writes the parameters' own."""

    out: Wire
    forward: Callable[[], None]
    backward: Callable[[], None]
    gates: tuple[Gate, ...] = ()


class Part(Protocol):
    """What every kind of part offers; `inputs` is the width of what it reads."""

    def width(self, inputs: int) -> int:
        """How wide its output is. Raises BadInput where it cannot read that many inputs."""

    def parameters(self, inputs: int) -> int:
        """How many numbers it learns."""

    def statistics(self, inputs: int) -> int:
        """How many numbers it keeps besides, which no gradient moves."""

    def fill(self, parameters: Array, statistics: Array, inputs: int, rng: np.random.Generator) -> None:
        """Writes initial values for one member into its share, (size,) each."""

    def bind(self, x: Wire, share: Share) -> Bound:
        """The part, tied to the wire that it reads and to its share."""


def no_way_back() -> None:
    """The backward call of a part that was bound without gradients."""
    raise AssertionError("bound without gradients: there is no way back")
