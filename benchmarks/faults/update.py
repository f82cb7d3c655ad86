"""Faults of the update: what a wrong step makes of the right one."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.faults.injection import Fault, Inflict, fault
from benchmarks.faults.trainings import Rng
from model.doctor import Patient
from model.network.activations import Array
from model.network.optimisers import Optimiser, Step


def stepping(wrong: Callable[[Any], Step]) -> Inflict:
    """Another optimiser, made from the patient's step(params, grads, moments, scratch, number, rate, decay)."""
    return lambda p, rng: replace(p, optimiser=Optimiser(p.optimiser.moments, wrong(p.optimiser.step)))


def uphill(right: Any) -> Step:
    return lambda params, grads, *rest: right(params, -grads, *rest)


def on_a_copy(right: Any) -> Step:
    return lambda params, *rest: right(params.copy(), *rest)


def rate_squared(right: Any) -> Step:
    return lambda *given: right(*given[:5], given[5] ** 2, given[6])


def rate_ignored(right: Any) -> Step:
    return lambda *given: right(*given[:5], np.full_like(given[5], 1e-3), given[6])


def decay_grows(right: Any) -> Step:
    return lambda *given: right(*given[:6], -given[6])


def only_once(right: Any) -> Step:
    return lambda *given: right(*given) if given[4] == 1 else None


def forgets_a_layer(p: Patient, rng: Rng) -> Patient:
    layers, right = p.architecture.layers, p.optimiser.step
    left_out = layers[int(rng.choice([0, len(layers) - 1]))].share

    def step(params: Array, *rest: Any) -> None:
        kept = params[:, left_out].copy()
        right(params, *rest)
        params[:, left_out] = kept

    return replace(p, optimiser=Optimiser(p.optimiser.moments, step))


FAULTS: dict[str, Fault] = {
    "wrong sign of the update": fault(stepping(uphill)),
    "optimiser moves a copy": fault(stepping(on_a_copy)),
    "optimiser squares the rate": fault(stepping(rate_squared)),
    "optimiser ignores the rate": fault(stepping(rate_ignored)),
    "optimiser forgets a layer": fault(forgets_a_layer),
    "optimiser steps only once": fault(stepping(only_once)),
    "weight decay of the wrong sign": fault(stepping(decay_grows)),
}
