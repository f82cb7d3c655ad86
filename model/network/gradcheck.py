"""The self-test of backpropagation: its gradients beside differences of the loss, layer by layer, in float64.

Every training runs it on its real network and a slice of its real data. A sample of single coordinates tells
where a fault is; one random direction through all of a layer's parameters misses none of them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.errors import BadInput
from model.network import objective
from model.network.activations import Array
from model.network.network import Network, bind
from model.network.objective import Head

LIMIT = 1e-7
# The more rows, the more units of which one may stand next to its kink.
ROWS = 8
# A step that crosses a kink (ReLU's at 0, Huber's at its delta) is tried again shorter. Every slope tried is the
# loss's own, so a wrong gradient agrees with none of them.
SHORTER = (1.0, 0.5, 0.1, 0.01)
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
    targets: Sequence[NDArray[np.generic]],
    heads: Sequence[Head],
    *,
    step: float = 1e-5,
    coordinates: int | None = 64,
    seed: int = 0,
) -> GradientCheck:
    """Checks the gradients of a network of one member at the first ROWS rows of x (n, I) and the heads' targets (n,).

    `coordinates` of each layer (None: all) are drawn by `seed`, and dropout's masks, the same in every evaluation.
    The relative error is |a - n| / max(|a| + |n|, floor), a analytic and n numerical. A difference of losses has an
    error of its own, so that what is tiny cannot be known to LIMIT: the floor is the layer's largest entry (along
    the direction: its norm), and at least what rounding of the loss hides. Raises BadInput where there are no rows.
    """
    if len(x) == 0:
        raise BadInput("the gradient check needs at least one row")
    draw = np.random.default_rng(seed)
    twin = network.astype(np.float64)
    twin.parameters[...] += draw.uniform(-HAIR, HAIR, twin.parameters.shape)
    gradients, masks = np.empty_like(twin.parameters), np.random.default_rng(seed)
    drawn = masks.bit_generator.state
    x = x[:ROWS]
    tape = bind(twin, len(x), gradients, (masks,))
    assert tape.d_outputs is not None
    tape.inputs[..., :-1] = x
    loss_of = objective.bind(
        heads,
        tape.outputs,
        [_exact(target[None, :ROWS]) for target in targets],
        np.ones((1, len(x))),
        tape.d_outputs,
    )
    parameters, gradient = twin.parameters[0], gradients[0]

    def loss() -> float:
        masks.bit_generator.state = drawn
        tape.forward()
        return float(loss_of()[0])

    def error(where: slice, direction: float | Array, a: float, floor: float) -> tuple[float, bool]:
        """The relative error of the slope `a` along `direction`, and whether a kink was within reach."""
        kept, errors, last = parameters[where].copy(), [], (math.nan, math.nan)
        for shorter in SHORTER:
            h = step * shorter
            parameters[where] = kept + h * direction
            above = loss()
            parameters[where] = kept - h * direction
            n = (above - loss()) / (2 * h)
            parameters[where] = kept
            # together with the step before, without the error that grows with h² (Richardson 1911): a normalised unit
            # may bend too sharply for a long step, and rounding leave too little of a short one
            longer, before = last
            smooth = n + (n - before) / ((longer / h) ** 2 - 1)
            last = h, n
            least = max(floor, unseen / shorter)  # of a shorter step rounding hides more
            found = [abs(a - slope) / max(abs(a) + abs(slope), least) for slope in (n, smooth)]
            errors.append(min(error if math.isfinite(error) else math.inf for error in found))
            if errors[-1] <= LIMIT:
                return errors[-1], shorter < 1
        return min(errors), False

    with np.errstate(all="ignore"):  # what overflows is found below, and not a warning
        at = loss()
        tape.backward()
        unseen = 4 * float(np.finfo(np.float64).eps) * max(1.0, abs(at)) / (step * LIMIT)
        layers = []
        for layer in network.architecture.layers:
            span, size = layer.share, layer.share.stop - layer.share.start
            a, p = gradient[span].copy(), parameters[span]
            if not (np.isfinite(at) and np.isfinite(a).all() and (p + step != p).all()):
                # nothing to compare, or parameters so large that rounding swallows the step
                layers.append(LayerCheck(layer.name, math.inf, 0))
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
            layers.append(LayerCheck(layer.name, max(errors), sum(kinks)))
    worst = max(layer.relative_error for layer in layers)
    return GradientCheck(worst, tuple(layers), worst <= LIMIT)


def _exact(target: NDArray[np.generic]) -> NDArray[np.generic]:
    """Numbers in float64; classes stay integers."""
    return target.astype(np.float64) if np.issubdtype(target.dtype, np.floating) else target
