"""The self-test of backpropagation: its gradients beside differences of the loss, layer by layer, in float64.

Every training runs it on its real network and a slice of its real data. A sample of single coordinates tells
where a fault is; one random direction through all of a layer's parameters misses none of them.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.errors import BadInput
from model.network.activations import Array
from model.network.losses import joint
from model.network.network import Network, Tape, backward, forward, over

LIMIT = 1e-7
# The more rows, the more units of which one may stand next to its kink.
ROWS = 8
# A step that crosses a kink (ReLU's at 0, Huber's at its delta) on both sides is tried again shorter.
SHORTER = (1.0, 0.1, 0.01)
# Biases of zero put units whose inputs are all shut exactly on their kink, where no slope is the right one. Hence
# the check stands a hair beside the parameters: far from the kink for a step, nowhere else for the network.
HAIR = 1e-3


@dataclass(frozen=True)
class LayerCheck:
    """The largest relative error found in a layer. `kinks` of its coordinates had a kink within reach of the step
    and were held to the slope on their own side of it."""

    name: str
    relative_error: float
    kinks: int


@dataclass(frozen=True)
class GradientCheck:
    """What a check found. `worst` is the largest relative error of any layer; infinite where one is not finite."""

    worst: float
    layers: tuple[LayerCheck, ...]
    passed: bool


def check(
    network: Network,
    x: Array,
    up: Array,
    target: Array,
    return_weight: float,
    *,
    step: float = 1e-5,
    coordinates: int | None = 64,
    seed: int = 0,
) -> GradientCheck:
    """Checks the gradients of `network` at the first ROWS rows of x (B, I), up (B,) and target (B,).

    `coordinates` of each layer (None: all) are drawn by `seed`, and dropout's masks, the same in every evaluation.
    The relative error is |a - n| / max(|a| + |n|, floor), a analytic and n numerical. A difference of losses has an
    error of its own, so that what is tiny cannot be known to LIMIT: the floor is the layer's largest entry (along
    the direction: its norm), and at least what rounding of the loss hides. Raises BadInput where there are no rows.
    """
    if len(x) == 0:
        raise BadInput("the gradient check needs at least one row")
    x, up, target = (np.asarray(part[:ROWS], np.float64) for part in (x, up, target))
    draw = np.random.default_rng(seed)
    parameters = network.parameters + draw.uniform(-HAIR, HAIR, network.parameters.shape)  # float64
    twin = over(network.architecture, parameters)
    gradient = over(network.architecture, np.empty_like(parameters))

    def run() -> tuple[Tape, float, Array]:
        rng = np.random.default_rng(seed) if network.architecture.dropout > 0 else None
        tape = forward(twin, x, rng)
        return tape, *joint(tape.outputs, up, target, return_weight)

    with np.errstate(all="ignore"):  # what overflows is found below, and not a warning
        tape, loss, d_out = run()
        backward(twin, tape, d_out, gradient)
        layers, start = [], 0
        for layer, given, name in zip(
            twin.layers, tape.inputs, network.architecture.layer_names, strict=True
        ):
            span = slice(start, start + layer.W.size + layer.b.size)
            start = span.stop
            a = gradient.parameters[span]
            reach = step / max(1.0, float(np.abs(given).max()))  # so that outliers are not moved further
            seen = (
                np.isfinite(loss)
                and np.isfinite(a).all()
                and (parameters[span] + reach != parameters[span]).all()
            )
            if not seen:  # nothing to compare, or parameters so large that rounding swallows the step
                layers.append(LayerCheck(name, math.inf, 0))
                continue
            unseen = 4 * float(np.finfo(np.float64).eps) * max(1.0, abs(loss)) / (reach * LIMIT)
            count = a.size if coordinates is None else min(coordinates, a.size)
            line = _Line(parameters[span], lambda: run()[1], loss, reach)
            floor = max(float(np.abs(a).max()), unseen)
            found = [
                line.error(slice(at, at + 1), np.ones(1), float(a[at]), floor)
                for at in draw.choice(a.size, count, replace=False)
            ]
            signs = draw.choice((-1.0, 1.0), a.size)
            floor = max(float(np.linalg.norm(a)), unseen)
            found.append(line.error(slice(None), signs, float(a @ signs), floor))
            errors, kinks = zip(*found, strict=True)
            layers.append(LayerCheck(name, max(errors), sum(kinks)))
    worst = max(layer.relative_error for layer in layers)
    return GradientCheck(worst, tuple(layers), worst <= LIMIT)


@dataclass(frozen=True)
class _Line:
    """The loss along lines through a layer's parameters (a view, moved and put back)."""

    parameters: Array
    loss: Callable[[], float]
    here: float  # the loss where nothing is moved
    step: float

    def at(self, where: slice, direction: NDArray[np.float64], distance: float) -> float:
        """The loss `distance` along `direction`."""
        kept = self.parameters[where].copy()
        self.parameters[where] = kept + distance * direction
        loss = self.loss()
        self.parameters[where] = kept  # to the bit, which subtracting the step again would not give
        return loss

    def error(
        self, where: slice, direction: NDArray[np.float64], a: float, floor: float
    ) -> tuple[float, bool]:
        """The relative error of the analytic slope `a`, and whether a kink was within reach.

        Every slope tried is the loss's own, so a wrong `a` agrees with none of them.
        """
        best = math.inf
        for slope, central in self.slopes(where, direction):
            error = abs(a - slope) / max(abs(a) + abs(slope), floor)
            best = min(best, error if math.isfinite(error) else math.inf)
            if best <= LIMIT:
                return best, not central
        return best, False

    def slopes(self, where: slice, direction: NDArray[np.float64]) -> Iterator[tuple[float, bool]]:
        """Slopes by differences, the best first: central, then of either side alone, then with a shorter step."""
        for shorter in SHORTER:
            h = self.step * shorter
            yield (self.at(where, direction, h) - self.at(where, direction, -h)) / (2 * h), shorter == 1
            yield self.side(where, direction, h), False
            yield self.side(where, direction, -h), False

    def side(self, where: slice, direction: NDArray[np.float64], h: float) -> float:
        """The slope towards h alone, from three points (second order, like the central one)."""
        near, far = self.at(where, direction, h), self.at(where, direction, 2 * h)
        return (4 * near - far - 3 * self.here) / (2 * h)
