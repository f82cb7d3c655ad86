"""The self-test of backpropagation: its gradients beside differences of the loss, layer by layer, in float64.

Every training runs it on its real network and a slice of its real data. A sample of single coordinates tells
where a fault is; one random direction through all of a layer's parameters misses none of them.
"""

import math
from dataclasses import dataclass

import numpy as np

from model.errors import BadInput
from model.network.activations import Array
from model.network.losses import joint
from model.network.network import Network, Tape, backward, forward, over

LIMIT = 1e-7
# The more rows, the more units of which one may stand next to its kink.
ROWS = 8
# A step that crosses a kink (ReLU's at 0, Huber's at its delta) is tried again shorter. Every slope tried is the
# loss's own, so a wrong gradient agrees with none of them.
SHORTER = (1.0, 0.1, 0.01)
# Biases of zero put units whose inputs are all shut exactly on their kink, where no slope is the right one. Hence
# the check stands a hair beside the parameters: far from the kink for a step, nowhere else for the network.
HAIR = 1e-3


@dataclass(frozen=True)
class LayerCheck:
    """The largest relative error found in a layer. `kinks` of its coordinates had a kink (or a bend as sharp) within
    reach of the step, and were asked again with a shorter one."""

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

    def error(where: slice, direction: float | Array, a: float, floor: float) -> tuple[float, bool]:
        """The relative error of the slope `a` along `direction`, and whether a kink was within reach."""
        kept, errors = parameters[where].copy(), []
        for shorter in SHORTER:
            h = step * shorter
            parameters[where] = kept + h * direction
            above = run()[1]
            parameters[where] = kept - h * direction
            n = (above - run()[1]) / (2 * h)
            parameters[where] = kept
            found = abs(a - n) / max(abs(a) + abs(n), floor)
            errors.append(found if math.isfinite(found) else math.inf)
            if found <= LIMIT:
                return found, shorter < 1
        return min(errors), False

    with np.errstate(all="ignore"):  # what overflows is found below, and not a warning
        tape, loss, d_out = run()
        backward(twin, tape, d_out, gradient)
        unseen = 4 * float(np.finfo(np.float64).eps) * max(1.0, abs(loss)) / (step * LIMIT)
        layers, start = [], 0
        for layer, name in zip(twin.layers, network.architecture.layer_names, strict=True):
            size = layer.W.size + layer.b.size
            span, start = slice(start, start + size), start + size
            a, p = gradient.parameters[span], parameters[span]
            if not (np.isfinite(loss) and np.isfinite(a).all() and (p + step != p).all()):
                # nothing to compare, or parameters so large that rounding swallows the step
                layers.append(LayerCheck(name, math.inf, 0))
                continue
            floor = max(float(np.abs(a).max()), unseen)
            places = draw.choice(size, size if coordinates is None else min(coordinates, size), replace=False)
            found = [
                error(slice(span.start + at, span.start + at + 1), 1.0, float(a[at]), floor)
                for at in places.tolist()
            ]
            signs = draw.choice((-1.0, 1.0), size)
            found.append(error(span, signs, float(a @ signs), max(float(np.linalg.norm(a)), unseen)))
            errors, kinks = zip(*found, strict=True)
            layers.append(LayerCheck(name, max(errors), sum(kinks)))
    worst = max(layer.relative_error for layer in layers)
    return GradientCheck(worst, tuple(layers), worst <= LIMIT)
