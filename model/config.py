"""What decides a training besides its bars."""

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

from model.breaks import JUMP_Z
from model.errors import BadInput
from model.features import DEFAULT, FeatureSet, Input, inputs_from
from model.network.activations import ACTIVATIONS
from model.network.initialisers import INITIALISERS
from model.network.losses import BinaryCrossEntropy, Huber
from model.network.network import NORMALISATIONS, Architecture, perceptron
from model.network.objective import Head
from model.network.optimisers import OPTIMISERS
from model.network.schedules import SCHEDULES

PLATEAU = "plateau"
CALIBRATIONS = ("temperature", "isotonic")
NUMBERS = (
    *("dead_zone", "jump_z", "dropout", "learning_rate", "warm_up", "weight_decay", "clip_norm"),
    *("return_weight", "stop_fraction", "held_fraction"),
)
OUTPUTS = 2  # the logit of up, and the forward return in units of recent volatility


# Whole numbers, and the least that each may be.
LEAST = {
    "horizon": 1,
    "window": 1,
    "batch": 1,
    "epochs": 1,
    "patience": 1,
    "seed": 0,
    "members": 1,
    "blas_threads": 1,
}
TABLES: dict[str, tuple[str | None, ...]] = {
    "activation": tuple(ACTIVATIONS),
    "initialiser": tuple(INITIALISERS),
    "normalisation": (None, *NORMALISATIONS),
    "optimiser": tuple(OPTIMISERS),
    "schedule": (*SCHEDULES, PLATEAU),
    "calibration": CALIBRATIONS,
}


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides a training besides its bars. Equal bars, config and library versions: equal weights.

    Raises BadInput for a setting that cannot be, with what it may be.
    """

    horizon: int = 1  # bars
    window: int = 30_000  # newest rows that are used at all
    dead_zone: float = 0.0  # in expected sizes of the move: what moves less teaches nothing about up
    half_life: int | None = (
        10_000  # rows by which a row is older to count half as much; None: all count alike
    )
    uniqueness: bool = False  # rows count by how little of their label's span they share with others
    features: tuple[str, ...] = DEFAULT.names
    inputs: tuple[Input, ...] = ()  # features of longer timeframes and of other markets, beside those
    jump_z: float = JUMP_Z  # a move of more robust standard deviations is no move but a break
    hidden: tuple[int, ...] = (64, 32)
    activation: str = "relu"
    initialiser: str = "he"
    normalisation: str | None = None  # "layer" or "batch", between a hidden layer and its activation
    residual: bool = False  # a way around every hidden layer that keeps the width of its input
    dropout: float = 0.3
    optimiser: str = "adamw"
    learning_rate: float = 2e-3  # at its highest
    schedule: str = "cosine"  # a row of SCHEDULES, by the step; or "plateau", by the stop losses
    warm_up: float = 0.0  # share of the steps in which it climbs to there
    weight_decay: float = 1.0  # decoupled, times the learning rate: strong, for there is little signal
    clip_value: float | None = None  # a larger entry of the gradient is cut to this, before its norm is taken
    clip_norm: float = 1.0  # a longer gradient is shortened to this
    batch: int = 256
    epochs: int = 12
    patience: int = 4  # epochs without a better stop loss
    return_weight: float = 0.2  # of the return head's loss, beside 1 for the up head's
    stop_fraction: float = 0.1
    held_fraction: float = 0.05
    relearn: bool = True  # once the best epochs are known, learn from all rows, those held back too
    calibration: str = "temperature"
    members: int = 4  # networks that differ by their random numbers alone, and whose mean answers
    seed: int = 0
    blas_threads: int = 1

    def __post_init__(self) -> None:
        for name, least in LEAST.items():
            self._must(name, _whole(getattr(self, name), least), f"a whole number of at least {least}")
        self._must(
            "half_life",
            self.half_life is None or _whole(self.half_life, 1),
            "a whole number of at least 1, or nothing",
        )
        for name in ("hidden", "features", "inputs"):  # a list could be changed afterwards
            self._must(name, isinstance(getattr(self, name), tuple), "a tuple")
        for name in NUMBERS:
            self._must(name, _real(getattr(self, name)), "a number")
        self._must(
            "hidden",
            all(_whole(units, 1) for units in self.hidden),
            "whole numbers of at least 1, one for each layer",
        )
        for name in ("residual", "uniqueness", "relearn"):
            self._must(name, isinstance(getattr(self, name), bool), "True or False")
        for name in ("stop_fraction", "held_fraction"):
            self._must(name, 0 < getattr(self, name) < 0.5, "between 0 and 0.5")
        for name in ("dropout", "warm_up"):
            self._must(name, 0 <= getattr(self, name) < 1, "a share from 0 to below 1")
        for name in ("dead_zone", "weight_decay", "return_weight"):
            self._must(name, 0 <= getattr(self, name) < math.inf, "0 or more")
        self._must("jump_z", 0 < self.jump_z < math.inf, "above 0")
        self._must("learning_rate", 0 < self.learning_rate < math.inf, "above 0")
        self._must("clip_norm", self.clip_norm > 0, "above 0")
        cut = self.clip_value
        self._must("clip_value", cut is None or (_real(cut) and cut > 0), "above 0, or nothing")
        for name, known in TABLES.items():
            self._must(name, getattr(self, name) in known, f"one of {', '.join(map(str, known))}")
        self.feature_set  # noqa: B018  raises

    def _must(self, name: str, fine: bool, wanted: str) -> None:
        if not fine:
            raise BadInput(f"{name} must be {wanted}, not {getattr(self, name)!r}")

    @property
    def feature_set(self) -> FeatureSet:
        """What a row is made of."""
        return FeatureSet(self.features, self.inputs)

    def architecture(self, inputs: int) -> Architecture:
        """The network that reads so many features."""
        return perceptron(
            inputs,
            self.hidden,
            OUTPUTS,
            activation=self.activation,
            initialiser=self.initialiser,
            dropout=self.dropout,
            normalisation=self.normalisation,
            residual=self.residual,
        )

    def heads(self) -> tuple[Head, ...]:
        """What the outputs are judged by: up as a probability, and the scaled return as a number."""
        return (Head(BinaryCrossEntropy(), 1.0, "up"), Head(Huber(), self.return_weight, "return"))

    def document(self) -> dict[str, Any]:
        """As a manifest has it."""
        return asdict(self)


# What was meant where a manifest says nothing of it, as it is older than the setting.
MEANT: dict[str, Any] = {"half_life": None, "members": 1, "relearn": False}


def config_from(document: dict[str, Any]) -> TrainConfig:
    """The config that a manifest holds; a setting younger than the manifest has the value that was meant without it.

    Raises BadInput for a setting that this program does not know, and for one that cannot be.
    """
    if unknown := document.keys() - {field.name for field in fields(TrainConfig)}:
        raise BadInput(f"a training's settings {', '.join(sorted(unknown))} are unknown to this program")
    listed: dict[str, tuple[Any, ...]] = {}
    for name in ("features", "hidden"):
        if not isinstance(document.get(name), list | tuple):
            raise BadInput(f"a training's {name} must be a list, not {document.get(name)!r}")
        listed[name] = tuple(document[name])
    listed["inputs"] = inputs_from(document.get("inputs", []))
    return TrainConfig(**{**MEANT, **document, **listed})


def _real(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
