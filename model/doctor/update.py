"""Faults of the update: right gradients, but the step does not do with them what a step should."""

import math
from itertools import pairwise, repeat

import numpy as np

from model.doctor.patient import Float64, Patient, Rule
from model.range_test import descent

ROWS = 256
# So small a step of any optimiser follows the slope: only its direction matters.
SMALL_RATE = 1e-6
STEPS = 20
# Ten times the rate moves parameters ten times as far, but for the rounding of small differences.
TIMES, SCALE_WITHIN = 10.0, 0.01
RATE = 1e-4


def _walk(patient: Patient, rate: float, steps: int) -> tuple[list[float], list[Float64]]:
    """The losses and parameters (P,) before the first of so many small steps and after each."""
    p = patient.rows(ROWS).steady()
    walk = descent(p.probe(), p.X.astype(np.float64), p.targets, p.heads, p.optimiser, repeat(rate, steps))
    seen = [(loss, network.parameters[0].copy()) for loss, network in walk]
    return [loss for loss, _ in seen], [parameters for _, parameters in seen]


def every_layer_moves(patient: Patient) -> tuple[bool, str]:
    """One step moves each layer, and so does the one after."""
    _, places = _walk(patient, RATE, STEPS)
    # what lies before a normalisation that lets nothing through stands still by its settings, which are judged as such
    first = max((layer.share.start for layer in patient.zeroed), default=0)
    still = [
        layer.name
        for layer in patient.architecture.layers
        if layer.share.start >= first
        and any((after == before)[layer.share].all() for before, after in pairwise(places))
    ]
    return not still, f"of {STEPS} steps some leave these layers where they are: {', '.join(still) or 'none'}"


def small_steps_descend(patient: Patient) -> tuple[bool, str]:
    """The first lowers the loss, and twenty lower it further."""
    losses, _ = _walk(patient, SMALL_RATE, STEPS)
    one, all_of_them = losses[1] - losses[0], losses[-1] - losses[0]
    return one < 0 and all_of_them < one, (
        f"one step of {patient.config.optimiser} at a learning rate of {SMALL_RATE:.0e} changes the loss by {one:+.1e}, "
        f"{STEPS} by {all_of_them:+.1e}, from {losses[0]:.4f}"
    )


def steps_scale(patient: Patient) -> tuple[bool, str]:
    """The step is proportional to the rate."""
    lengths = []
    for rate in (SMALL_RATE, SMALL_RATE * TIMES):
        _, (before, after) = _walk(patient, rate, 1)
        lengths.append(float(np.linalg.norm(after - before)))
    ratio = lengths[1] / lengths[0] if lengths[0] else math.inf
    return abs(ratio / TIMES - 1) <= SCALE_WITHIN, (
        f"{TIMES:g} times the learning rate makes the step {ratio:.4g} times as long"
    )


def decay_shrinks(patient: Patient) -> tuple[bool, str]:
    """With no gradient at all, weight decay draws every parameter towards zero and leaves none behind it."""
    params = np.random.default_rng(patient.config.seed).uniform(0.5, 1.5, (1, 64))
    before = params.copy()
    moments = tuple(np.zeros_like(params) for _ in range(patient.optimiser.moments))
    rate = np.full((1, 1), RATE)
    patient.optimiser.step(params, np.zeros_like(params), moments, np.empty_like(params), 1, rate, 1.0)
    share = params / before - 1
    return bool((share < 0).all()), (
        f"one step with a decay of 1, a rate of {RATE:.0e} and no gradient changes parameters by {share.mean():+.1e} "
        "of their size"
    )


RULES: dict[str, Rule] = {
    "a step moves every layer": Rule(
        every_layer_moves,
        "The optimiser must write into the network's own buffer, all of it, at every step: look for a copy, or a slice.",
        vital=True,
    ),
    "small steps lower the loss": Rule(
        small_steps_descend,
        "The gradient is one thing, the step another: look at the optimiser's sign and its moments.",
        vital=True,
    ),
    "steps are as long as the learning rate says": Rule(
        steps_scale,
        "Multiply by the learning rate just once: look whether a schedule or the optimiser applies it again.",
        vital=True,
    ),
    "weight decay shrinks weights": Rule(
        decay_shrinks,
        "Decay takes from a weight, p - rate * decay * p: look at its sign, and whether it is applied at all.",
        vital=True,
    ),
}
