"""The network: dense layers over one flat parameter buffer, a forward pass that keeps a tape, and its way back."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from model.errors import BadInput
from model.network.activations import ACTIVATIONS, Array
from model.network.initialisers import INITIALISERS
from model.network.layers import Dense, views

OUTPUTS = 2  # the logit of up, and the forward return in units of recent volatility


@dataclass(frozen=True)
class Architecture:
    """What kind of network: everything about it but its parameters. Raises BadInput where it contradicts itself."""

    inputs: int
    hidden: tuple[int, ...] = (64, 32)
    activation: str = "relu"
    initialiser: str = "he"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        for name, rows in (("activation", ACTIVATIONS), ("initialiser", INITIALISERS)):
            if getattr(self, name) not in rows:
                raise BadInput(f"unknown {name} {getattr(self, name)!r}; one of {', '.join(rows)}")
        if self.inputs < 1 or any(width < 1 for width in self.hidden):
            raise BadInput(f"every layer needs at least one unit: {self.sizes}")
        if not 0 <= self.dropout < 1:
            raise BadInput(f"dropout is a fraction from 0 to below 1, not {self.dropout}")

    @property
    def sizes(self) -> tuple[int, ...]:
        """Units from the features to the two outputs."""
        return (self.inputs, *self.hidden, OUTPUTS)

    @property
    def layer_names(self) -> tuple[str, ...]:
        """What people call the layers, first to last."""
        return (*(f"hidden {i}" for i in range(1, len(self.hidden) + 1)), "output")

    @property
    def parameters(self) -> int:
        """How long the flat parameter buffer is."""
        return sum((inputs + 1) * outputs for inputs, outputs in pairwise(self.sizes))


@dataclass(frozen=True)
class Network:
    """An architecture and its parameters, flat (P,), with the layers as views into them."""

    architecture: Architecture
    parameters: Array
    layers: tuple[Dense, ...]


@dataclass(frozen=True)
class Tape:
    """What backward (and health) needs of a forward pass.

    `inputs` are what each layer was given, (B, I) each, dropout done; `z` and `a` each hidden layer's
    pre-activations and activations before dropout; `masks` what dropout multiplied them by, or nothing.
    """

    inputs: tuple[Array, ...]
    z: tuple[Array, ...]
    a: tuple[Array, ...]
    masks: tuple[Array, ...]
    outputs: Array  # (B, 2)


def over(architecture: Architecture, parameters: Array) -> Network:
    """The network whose parameters are `parameters` (P,), not copied."""
    return Network(architecture, parameters, views(parameters, architecture.sizes))


def initialise(architecture: Architecture, rng: np.random.Generator, dtype: Any = np.float32) -> Network:
    """A network with random weights and zero biases."""
    network = over(architecture, np.zeros(architecture.parameters, dtype))
    spread = INITIALISERS[architecture.initialiser]
    gain = ACTIVATIONS[architecture.activation].gain
    for layer in network.layers:
        inputs, outputs = layer.W.shape
        last = layer is network.layers[-1]
        # the outputs start small, so that the first loss is near ln 2
        scale = 0.1 * spread(inputs, outputs, 1.0) if last else spread(inputs, outputs, gain)
        layer.W[...] = rng.standard_normal(layer.W.shape) * scale
    return network


def forward(network: Network, x: Array, rng: np.random.Generator | None = None) -> Tape:
    """The forward pass of x (B, I). With `rng` it is a training pass: dropout draws its masks from it."""
    architecture, activation = network.architecture, ACTIVATIONS[network.architecture.activation]
    keep = 1 - architecture.dropout
    inputs, zs, activations, masks = [x], [], [], []
    for layer in network.layers[:-1]:
        z = layer.forward(inputs[-1])
        a = activation.value(z)
        zs.append(z)
        activations.append(a)
        if rng is not None and keep < 1:
            # inverted dropout: what stays is scaled up, so that inference needs no scaling
            mask = (rng.random(a.shape, dtype=np.float32) < keep).astype(a.dtype) / a.dtype.type(keep)
            masks.append(mask)
            a = a * mask
        inputs.append(a)
    outputs = network.layers[-1].forward(inputs[-1])
    return Tape(tuple(inputs), tuple(zs), tuple(activations), tuple(masks), outputs)


def backward(network: Network, tape: Tape, d_out: Array, gradient: Network) -> None:
    """Writes the loss's gradient by every parameter into `gradient`, given its gradient d_out (B, 2) by the outputs.

    The chain rule from the last layer to the first: each layer makes its own parameters' gradient and hands the
    gradient by its input back (Rumelhart, Hinton & Williams 1986).
    """
    activation = ACTIVATIONS[network.architecture.activation]
    d_z = d_out
    for i in reversed(range(len(network.layers))):
        network.layers[i].backward(tape.inputs[i], d_z, gradient.layers[i])
        if i > 0:
            d_a = network.layers[i].backward_input(d_z)
            if tape.masks:
                d_a *= tape.masks[i - 1]
            d_z = d_a * activation.derivative(tape.z[i - 1], tape.a[i - 1])
