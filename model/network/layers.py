"""Dense layers: views into one flat parameter buffer, and their local derivative rule."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from model.network.activations import Array


@dataclass(frozen=True)
class Dense:
    """z = x W + b. W (I, O) and b (O,) are views, so a step on the flat buffer moves every layer."""

    W: Array
    b: Array

    def forward(self, x: Array) -> Array:
        """Pre-activations (B, O) of inputs (B, I)."""
        return x @ self.W + self.b

    def backward(self, x: Array, d_z: Array, into: "Dense") -> None:
        """Writes the gradients by W and b into `into`, given inputs (B, I) and the loss's gradient d_z (B, O)."""
        into.W[...] = x.T @ d_z
        into.b[...] = d_z.sum(axis=0)

    def backward_input(self, d_z: Array) -> Array:
        """The loss's gradient (B, I) by the inputs, handed to the layer before."""
        return d_z @ self.W.T


def views(flat: Array, sizes: Sequence[int]) -> tuple[Dense, ...]:
    """The layers whose parameters lie one after another in `flat`; `sizes` are I, hidden…, O."""
    layers, at = [], 0
    for inputs, outputs in pairwise(sizes):
        W = flat[at : at + inputs * outputs].reshape(inputs, outputs)
        at += inputs * outputs
        layers.append(Dense(W, flat[at : at + outputs]))
        at += outputs
    return tuple(layers)
