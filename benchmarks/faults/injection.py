"""How a fault is injected: a healthy patient is given back with one value broken, and nothing is patched."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from benchmarks.faults.trainings import Rng, healthy
from model.doctor import Patient, plain
from model.network.activations import ACTIVATIONS, Array
from model.network.gates import Activate, Dropout
from model.network.layers import Dense
from model.network.losses import BinaryCrossEntropy, Call, Target
from model.network.network import Architecture, Layer, Residual
from model.network.normalisation import BatchNorm, LayerNorm
from model.network.objective import Head
from model.network.wires import Bound, Part, Share, Wire

Inflict = Callable[[Patient, Rng], Patient]

# Settings that some faults need to be there at all.
GATES = tuple(name for name in ACTIVATIONS if name != "identity")
DROPPING: dict[str, tuple[Any, ...]] = {"dropout": (0.1, 0.3, 0.5)}
EQUAL: dict[str, tuple[Any, ...]] = {"hidden": ((16, 16), (32, 32), (24, 24, 24)), "residual": (True,)}


@dataclass(frozen=True)
class Fault:
    """How it is injected, and the settings that it needs to be there at all, of each of which one is drawn."""

    inflict: Inflict
    needs: dict[str, tuple[Any, ...]]

    def __call__(self, seed: int) -> Patient:
        """The patient of this seed, with the fault."""
        rng = np.random.default_rng(seed)
        given = {name: values[int(rng.integers(len(values)))] for name, values in self.needs.items()}
        return self.inflict(healthy(seed, **given), rng)


def fault(inflict: Inflict, **needs: tuple[Any, ...]) -> Fault:
    """A row of FAULTS."""
    return Fault(inflict, needs)


# How a bound part is tampered with: the part, as it was bound, and what it was bound to.
How = Callable[[Any, Bound, Wire, Share], Bound]


@dataclass(frozen=True)
class _Hurt:
    how: How | None = None

    def bind(self, x: Wire, share: Share) -> Bound:
        bound: Bound = super().bind(x, share)  # type: ignore[misc]
        return bound if self.how is None else self.how(self, bound, x, share)


@dataclass(frozen=True)
class HurtDense(_Hurt, Dense):
    """A dense layer that can be tampered with; so the others below."""


@dataclass(frozen=True)
class HurtActivate(_Hurt, Activate):
    """See HurtDense."""


@dataclass(frozen=True)
class HurtDropout(_Hurt, Dropout):
    """See HurtDense."""


@dataclass(frozen=True)
class HurtLayerNorm(_Hurt, LayerNorm):
    """See HurtDense."""


@dataclass(frozen=True)
class HurtBatchNorm(_Hurt, BatchNorm):
    """See HurtDense."""


@dataclass(frozen=True)
class HurtResidual(_Hurt, Residual):
    """See HurtDense."""


HURT: dict[type[Any], type[Any]] = {
    kind.__mro__[2]: kind
    for kind in (HurtDense, HurtActivate, HurtDropout, HurtLayerNorm, HurtBatchNorm, HurtResidual)
}


@dataclass(frozen=True)
class Broken(Architecture):
    """An architecture with other parts in the places of `sound`, whose layers keep their names and shares."""

    sound: Architecture

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Those of the sound one."""
        return self.sound.layers


def changed(patient: Patient, change: Callable[[int, Part], Part]) -> Patient:
    """The patient with other parts: `change` gets each leaf's number and the leaf, residual connections after theirs."""
    number = -1

    def chain(parts: Sequence[Part]) -> tuple[Part, ...]:
        nonlocal number
        made = []
        for part in parts:
            inner = replace(part, parts=chain(part.parts)) if isinstance(part, Residual) else part
            number += 1
            made.append(change(number, inner))
        return tuple(made)

    sound = patient.architecture
    return replace(patient, architecture=Broken(sound.inputs, chain(sound.parts), sound))


def places(patient: Patient, *kinds: type[Any]) -> list[int]:
    """The numbers of the leaves of these kinds."""
    parts = [part for part, _ in plain.leaves(patient.architecture.parts, patient.architecture.inputs)]
    return [number for number, part in enumerate(parts) if isinstance(part, kinds)]


def tampered(how: How, *kinds: type[Any], after: int = 0) -> Inflict:
    """Tampers with one part of these kinds, drawn among those from the number `after` on."""

    def inflict(patient: Patient, rng: Rng) -> Patient:
        at = rng.choice(places(patient, *kinds)[after:])

        def change(number: int, part: Part) -> Part:
            if number != at:
                return part
            given = {field.name: getattr(part, field.name) for field in fields(part)}  # type: ignore[arg-type]
            hurt: Part = HURT[type(part)](**given, how=how)
            return hurt

        return changed(patient, change)

    return inflict


def weights_of(part: Any, array: Array) -> Array:
    """A dense layer's share (K, size) as (K, I + 1, O)."""
    return array.reshape(len(array), -1, part.units)


@dataclass(frozen=True)
class Summed(BinaryCrossEntropy):
    """Cross-entropy that is summed over a batch where it should be averaged: its value, its gradient, or both."""

    value: bool = True
    slope: bool = True

    def bind(self, outputs: Array, target: Target, weight: Array, losses: Array, d_outputs: Array) -> Call:
        """The right ones, times the rows."""
        right = BinaryCrossEntropy().bind(outputs, target, weight, losses, d_outputs)
        rows = outputs.shape[1]

        def call() -> None:
            right()
            losses[...] *= rows if self.value else 1
            d_outputs[...] *= rows if self.slope else 1

        return call


def head(loss: BinaryCrossEntropy) -> Inflict:
    """Another loss for up."""
    return lambda p, rng: replace(p, heads=(Head(loss, p.heads[0].weight, p.heads[0].name), *p.heads[1:]))
