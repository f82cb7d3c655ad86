"""Schedules: the share of the learning rate that a step takes. Add one by adding a row to SCHEDULES.

Each is a pure function of the step's place, so that a training is resumed, drawn or repeated without any state. Steps
are counted from 0: a training of n steps asks for 0 ... n - 1. `warmed` lets any of them begin gently. `plateau` looks at
the losses instead of the place, and is a pure function of their curve: multiply the two.
"""

import math
from collections.abc import Callable, Iterable

from model.errors import BadInput

Schedule = Callable[
    [int, int], float
]  # (step from 0, steps in all) -> factor of the learning rate, from 0 to 1


def constant(step: int, steps: int) -> float:
    """The learning rate as it is."""
    return 1.0


def stairs(step: int, steps: int, factor: float = 0.1, share: float = 1 / 3) -> float:
    """Down by the factor each time another share of the steps is done; a tenth is that of He et al. 2016."""
    # the billionth: 0.07 of 100 steps ends at step 7, though the product is a last bit above 7
    return float(factor ** int(step / (share * steps) + 1e-9))


def cosine(step: int, steps: int) -> float:
    """Half a cosine, from 1 to where the step after the last would be 0 (Loshchilov & Hutter 2017, no restart)."""
    return 0.5 * (1 + math.cos(math.pi * step / steps))


def one_cycle(
    step: int, steps: int, rise: float = 0.3, start: float = 1 / 25, end: float = 1 / 250_000
) -> float:
    """Up from `start` to 1 over the share `rise` of the steps, then down to `end` at the last (Smith & Topin 2018).

    The paper's legs are straight; these are half cosines, and the numbers fastai's, as in PyTorch.
    """
    peak, last = max(rise * steps - 1, 0.0), steps - 1
    if step < peak:
        return _between(start, 1.0, step / peak)
    return _between(1.0, end, (step - peak) / (last - peak)) if last > peak else 1.0


def _between(start: float, end: float, way: float) -> float:
    """From start to end along half a cosine, `way` from 0 to 1."""
    return start + (end - start) * 0.5 * (1 - math.cos(math.pi * way))


SCHEDULES: dict[str, Schedule] = {
    "constant": constant,
    "step": stairs,
    "cosine": cosine,
    "one_cycle": one_cycle,
}


def warmed(schedule: Schedule, share: float) -> Schedule:
    """The schedule over the rest of the steps, after this share of them has led up to its start in equal steps.

    Goyal et al. 2017, section 2.2. The first step is already longer than zero. Raises BadInput where the share leaves
    no rest.
    """
    if not 0 <= share < 1:
        raise BadInput(f"the warm-up's share of the steps must lie between 0 and 1, not {share}")

    def factor(step: int, steps: int) -> float:
        rising = min(round(share * steps), steps - 1)
        if step < rising:
            return schedule(0, steps - rising) * (step + 1) / (rising + 1)
        return schedule(step - rising, steps - rising)

    return factor


def plateau(
    losses: Iterable[float], patience: int = 10, factor: float = 0.1, threshold: float = 1e-4, rest: int = 0
) -> float:
    """The factor that one member's stop losses so far, oldest first, have earned: lower each time they stop falling.

    After more than `patience` losses in a row without a better one, multiply by the factor, count anew, and do not
    count during the `rest` that follow. Better is lower than the best by more than the share `threshold` of it; what
    is not a number is not better. PyTorch's ReduceLROnPlateau, whose defaults these are; here a share also means what
    it says where the losses are negative, as likelihoods can be.
    """
    lowered, bar, bad, resting = 1.0, math.inf, 0, 0
    for loss in losses:
        if loss < bar:
            bar, bad = loss - threshold * abs(loss), 0
        else:
            bad += 1
        if resting:
            resting, bad = resting - 1, 0
        if bad > patience:
            lowered, bad, resting = lowered * factor, 0, rest
    return lowered
