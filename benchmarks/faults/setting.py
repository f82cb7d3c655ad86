"""Faults of the settings, initial weights among them: all that is computed is right."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

from benchmarks.faults.injection import Fault, HurtDense, Inflict, changed, fault, places
from benchmarks.faults.trainings import Rng
from model import doctor
from model.config import TrainConfig
from model.doctor import Patient
from model.network.activations import Array
from model.network.layers import Dense
from model.network.optimisers import OPTIMISERS
from model.network.wires import Part


def configured(change: Callable[[TrainConfig, Rng], dict[str, Any]]) -> Inflict:
    """Other settings, and all that follows from them."""

    def inflict(p: Patient, rng: Rng) -> Patient:
        return doctor.admit(p.x, p.up, p.target, replace(p.config, **change(p.config, rng)), p.closes)

    return inflict


def dense(change: Callable[[Dense, Rng], Part], last: bool = True) -> Inflict:
    """Other dense layers, all of them or all but the last."""

    def inflict(p: Patient, rng: Rng) -> Patient:
        own = places(p, Dense)[: None if last else -1]
        return changed(
            p, lambda number, part: change(part, rng) if number in own and isinstance(part, Dense) else part
        )

    return inflict


@dataclass(frozen=True)
class Shut(HurtDense):
    """Biases that shut every unit."""

    def fill(self, parameters: Array, statistics: Array, inputs: int, rng: Rng) -> None:
        """Drawn weights, biases of -10."""
        super().fill(parameters, statistics, inputs, rng)
        parameters[-self.units :] = -10


def _named(part: Dense, **given: Any) -> HurtDense:
    return HurtDense(**{field.name: getattr(part, field.name) for field in fields(part)} | given)


FAULTS: dict[str, Fault] = {
    "learning rate x1000": fault(configured(lambda c, rng: {"learning_rate": c.learning_rate * 1000})),
    "learning rate /1000": fault(configured(lambda c, rng: {"learning_rate": c.learning_rate / 1000})),
    "gradient clipped to nothing": fault(
        configured(
            lambda c, rng: {
                ("clip_value", "clip_norm")[int(rng.integers(2))]: float(rng.choice([1e-12, 1e-15]))
            }
        ),
        # lion steps by signs alone, and a small gradient has them too
        optimiser=tuple(name for name in OPTIMISERS if name != "lion"),
    ),
    "only the newest rows count": fault(configured(lambda c, rng: {"half_life": int(rng.integers(1, 30))})),
    "a single unit normalised over itself": fault(
        lambda p, rng: p, hidden=((1,), (16, 1), (32, 1, 16)), normalisation=("layer",)
    ),
    "initial weights too large": fault(
        dense(lambda part, rng: _named(part, scale=part.scale * rng.choice([20, 100]))),
    ),
    "initial weights too small": fault(
        dense(lambda part, rng: _named(part, scale=part.scale / 1e4), last=False),
        normalisation=(None,),
        residual=(False,),
        activation=("tanh", "relu", "elu", "silu"),
    ),
    "zero initial weights": fault(configured(lambda c, rng: {"initialiser": "zero"})),
    "dead ReLUs": fault(
        dense(lambda part, rng: Shut(**{f.name: getattr(part, f.name) for f in fields(part)}), last=False),
        activation=("relu",),
        normalisation=(None,),
    ),
    "exploding depth": fault(
        dense(lambda part, rng: _named(part, scale=part.scale * 2)),
        hidden=tuple((width,) * depth for width in (16, 32) for depth in (12, 20)),
        activation=("relu", "leaky_relu", "elu"),
        initialiser=("he",),
        normalisation=(None,),
        residual=(False,),
    ),
    "vanishing depth": fault(
        lambda p, rng: p,
        hidden=tuple((width,) * depth for width in (16, 32) for depth in (8, 12)),
        activation=("sigmoid",),
        normalisation=(None,),
        residual=(False,),
    ),
    "weight decay too strong": fault(
        configured(lambda c, rng: {"weight_decay": 0.3 / c.learning_rate}),
        optimiser=("adamw", "lion", "sgd", "momentum"),
    ),
}
