"""Parts without parameters: activations, and dropout."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.errors import BadInput
from model.network.activations import ACTIVATIONS, Array
from model.network.wires import Bound, Gate, Share, Wire


class Unlearned:
    """What parts have in common that keep the width of their input and learn nothing."""

    def width(self, inputs: int) -> int:
        """As wide as its input."""
        return inputs

    def parameters(self, inputs: int) -> int:
        """None."""
        return 0

    def statistics(self, inputs: int) -> int:
        """None."""
        return 0

    def fill(self, parameters: Array, statistics: Array, inputs: int, rng: np.random.Generator) -> None:
        """Nothing to fill."""


# Numbers that are worked on at a time, so that what one call leaves is in the cache for the next.
PIECE = 32_768


def _pieces(array: NDArray[Any]) -> list[NDArray[Any]]:
    """A contiguous array as flat views of at most PIECE numbers."""
    flat = array.reshape(-1, copy=False)
    return [flat[start : start + PIECE] for start in range(0, len(flat), PIECE)]


@dataclass(frozen=True)
class Activate(Unlearned):
    """a = f(z), elementwise, for a row of ACTIVATIONS; d_z = d_a * f'(z)."""

    name: str

    def __post_init__(self) -> None:
        if self.name not in ACTIVATIONS:
            raise BadInput(f"unknown activation {self.name!r}; one of {', '.join(ACTIVATIONS)}")

    def bind(self, x: Wire, share: Share) -> Bound:
        """In place wherever the pre-activations are not needed again."""
        activation, z = ACTIVATIONS[self.name], x.value
        a = z if x.spare and not activation.keeps_z else np.ones_like(z)
        constant, d = a[..., -1], x.gradient
        # one piece's worth, which every piece uses after the other
        size = min(z.size, PIECE)
        scratch, factors = np.zeros((2, size), z.dtype)
        slopes = np.empty(size, bool) if activation.binary else factors
        pieces = [
            (z_piece, a_piece, slopes[: len(z_piece)], factors[: len(z_piece)], scratch[: len(z_piece)])
            for z_piece, a_piece in zip(_pieces(z), _pieces(a), strict=True)
        ]
        d_pieces = [] if d is None else _pieces(d)

        def forward() -> None:
            for z_piece, a_piece, _, _, spare in pieces:
                activation.value(z_piece, a_piece, spare)
            constant.fill(1)

        def backward() -> None:
            for d_piece, (z_piece, a_piece, slope, factor, spare) in zip(d_pieces, pieces, strict=False):
                activation.slope(z_piece, a_piece, slope, spare)
                if (
                    activation.binary
                ):  # a product of bools and floats would convert in buffers that it allocates
                    np.copyto(factor, slope)
                np.multiply(d_piece, factor, out=d_piece)

        gate = Gate(activation, z[..., :-1], a[..., :-1])
        return Bound(Wire(a, x.gradient, spare=False), forward, backward, (gate,))


@dataclass(frozen=True)
class Dropout(Unlearned):
    """In training, each number is dropped with probability `rate` and the others are scaled up by 1 / (1 - rate), so
    that nothing is left to do when answering (Srivastava et al. 2014, inverted). The mask serves both ways."""

    rate: float

    def __post_init__(self) -> None:
        if not 0 <= self.rate < 1:
            raise BadInput(f"dropout is a fraction from 0 to below 1, not {self.rate}")

    def bind(self, x: Wire, share: Share) -> Bound:
        """Outside of training, and at a rate of zero, it is not there."""
        if share.rngs is None or self.rate == 0:
            return Bound(x, lambda: None, lambda: None)
        rngs, keep, d = share.rngs, 1 - self.rate, x.gradient
        value, kept = np.ones_like(x.value), np.empty(x.value.shape, bool)
        mask = np.empty_like(x.value)
        constant = value[..., -1]
        exact: Any = mask.dtype.type

        def forward() -> None:
            for rng, member in zip(rngs, mask, strict=True):
                rng.random(out=member, dtype=exact)
            np.less(mask, keep, out=kept)
            np.copyto(mask, kept)  # a product of bools and floats would convert in buffers that it allocates
            np.multiply(mask, 1 / keep, out=mask)
            np.multiply(x.value, mask, out=value)
            constant.fill(1)

        def backward() -> None:
            if d is not None:
                np.multiply(d, mask, out=d)

        return Bound(Wire(value, x.gradient), forward, backward)
