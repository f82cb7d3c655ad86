"""The learning-rate range test (Smith 2017, "Cyclical learning rates for training neural networks", section 3.3).

One short descent whose rate grows from next to nothing to far too much. Where the loss begins to fall the useful rates
begin, and where it has climbed again they end.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.errors import BadInput
from model.network import network, objective, optimisers
from model.network.activations import Array
from model.network.network import Network
from model.network.objective import Head
from model.network.optimisers import Optimiser

Float64 = NDArray[np.float64]

LOWEST, HIGHEST = 1e-8, 1e3
STEPS_A_DECADE = 20
# Shares of the first loss: a fall of this much is learning, and a climb of this much from the lowest is falling apart.
FALL, CLIMB = 0.03, 0.3


@dataclass(frozen=True)
class RangeTest:
    """The curve: `losses` (n,) before the step of each of `rates` (n,), up to the first that is not finite.

    `low` is the rate at which the loss has fallen by the share FALL of where it began, `high` the one at which it has
    climbed by the share CLIMB of it from its lowest, or is not finite. Where it never falls `low` is None, and `high`
    where it never climbs.
    """

    rates: Float64
    losses: Float64
    low: float | None
    high: float | None


def range_test(
    start: Network,
    x: Array,
    targets: Sequence[NDArray[np.generic]],
    heads: Sequence[Head],
    optimiser: Optimiser,
    *,
    clip_value: float | None = None,
    clip_norm: float = math.inf,
    lowest: float = LOWEST,
    highest: float = HIGHEST,
) -> RangeTest:
    """Walks the rates from `lowest` to `highest`, evenly in their logarithm, on the network of one member.

    All steps are on the same rows x (n, I), dropout's masks included: the curve then owes nothing to the draw of a
    batch, and falls where there is nothing to be learned too, as the rows can be learned by heart. No weight decay.
    Raises BadInput where the rates do not grow.
    """
    if not 0 < lowest < highest:
        raise BadInput(f"a range of learning rates has to grow from above 0, not from {lowest} to {highest}")
    steps = 1 + math.ceil(STEPS_A_DECADE * math.log10(highest / lowest))
    rates = np.geomspace(lowest, highest, steps)
    curve: list[float] = []
    with np.errstate(all="ignore"):  # what overflows ends the walk
        walk = descent(
            start, x, targets, heads, optimiser, rates.tolist(), clip_value=clip_value, clip_norm=clip_norm
        )
        for loss, _ in walk:
            if not math.isfinite(loss) or len(curve) == steps:
                break
            curve.append(loss)
    if not curve:
        raise BadInput("the loss is not finite before any step: there is no range to test")
    seen, began = np.array(curve), curve[0]
    fallen = np.flatnonzero(seen <= began * (1 - FALL))
    climbed = np.flatnonzero(seen >= np.minimum.accumulate(seen) + began * CLIMB)
    low = float(rates[fallen[0]]) if fallen.size else None
    if climbed.size:
        high: float | None = float(rates[climbed[0]])
    else:
        high = float(rates[len(seen)]) if len(seen) < steps else None
    return RangeTest(rates[: len(seen)], seen, low, high)


def descent(
    start: Network,
    x: Array,
    targets: Sequence[NDArray[np.generic]],
    heads: Sequence[Head],
    optimiser: Optimiser,
    rates: Iterable[float],
    *,
    decay: float = 0.0,
    clip_value: float | None = None,
    clip_norm: float = math.inf,
) -> Iterator[tuple[float, Network]]:
    """The joint loss before each step and after the last, and the network as it then is, which the next step moves.

    One member, always the same rows x (n, I), and the same of dropout's masks.
    """
    nets = start.copy()
    dtype: Any = nets.parameters.dtype
    gradients = np.zeros_like(nets.parameters)
    masks = np.random.default_rng(0)
    drawn = masks.bit_generator.state
    tape = network.bind(nets, len(x), gradients, (masks,))
    assert tape.d_outputs is not None
    tape.inputs[..., :-1] = x  # no part writes over what it is given
    given = [
        target[None].astype(dtype) if np.issubdtype(target.dtype, np.floating) else target[None]
        for target in targets
    ]
    loss_of = objective.bind(heads, tape.outputs, given, np.ones((1, len(x)), dtype), tape.d_outputs)
    moments = tuple(np.zeros_like(gradients) for _ in range(optimiser.moments))
    scratch, norms = np.empty_like(gradients), np.empty(1, dtype)

    def loss() -> float:
        masks.bit_generator.state = drawn
        tape.forward()
        return float(loss_of()[0])

    for number, rate in enumerate(rates, 1):
        yield loss(), nets
        tape.backward()
        if clip_value is not None:
            optimisers.clip_value(gradients, clip_value)
        if clip_norm < math.inf:
            optimisers.norms(gradients, norms)
            optimisers.clip_norm(gradients, clip_norm, norms)
        optimiser.step(
            nets.parameters, gradients, moments, scratch, number, np.full((1, 1), rate, dtype), decay
        )
    yield loss(), nets
