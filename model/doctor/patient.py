"""What the doctor examines: everything that makes a training, as one frozen value, and what it says of it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.config import TrainConfig
from model.doctor import plain
from model.network.layers import Conv1d, Dense
from model.network.network import Architecture, Layer, Network, initialise
from model.network.normalisation import LayerNorm
from model.network.objective import Head
from model.network.optimisers import OPTIMISERS, Optimiser
from model.scaler import fit_scaler

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Patient:
    """A training: features as they came, x (n, F), and standardised, X; labels up (n,), target (n,), oldest first; and
    all that its config made of them. Where `closes` are known, labels are held to them."""

    x: Float32
    X: Float32
    up: Float32
    target: Float32
    closes: Float64 | None
    config: TrainConfig
    architecture: Architecture
    heads: tuple[Head, ...]
    optimiser: Optimiser

    @property
    def targets(self) -> tuple[Float32, Float32]:
        """The heads' targets."""
        return self.up, self.target

    @property
    def zeroed(self) -> tuple[Layer, ...]:
        """Layer normalisations over a single unit, which is its own mean: zero comes out whatever goes in, and no
        gradient goes back."""
        return tuple(
            layer
            for layer in self.architecture.layers
            if isinstance(layer.part, LayerNorm)
            and layer.part.parameters(1) == layer.share.stop - layer.share.start
        )

    def start(self, dtype: Any = np.float32) -> Network:
        """The network that its training starts from, always the same one."""
        return initialise(self.architecture, (np.random.default_rng(self.config.seed),), dtype)

    def probe(self) -> Network:
        """The same parts at other weights, in float64: of the usual scale, no bias zero and no statistics idle.

        What computes is examined here, so that a poor start is not taken for wrong arithmetic, and no fault hides
        behind a zero.
        """
        rng = np.random.default_rng(self.config.seed)
        network = self.start(np.float64)
        for layer in self.architecture.layers:
            own = network.parameters[0, layer.share]
            if isinstance(layer.part, Dense | Conv1d):
                O = layer.part.units if isinstance(layer.part, Dense) else layer.part.channels  # noqa: E741
                W = own.reshape(-1, O)
                W[...] = rng.standard_normal(W.shape) * np.sqrt(2 / len(W))
                W[-1] = rng.uniform(-0.3, 0.3, O)
            else:
                own[...] = rng.uniform(0.5, 1.5, own.shape)
        network.statistics[...] += rng.uniform(0.1, 0.5, network.statistics.shape)
        return network

    def steady(self) -> "Patient":
        """The same without dropout: its losses then move by its steps alone."""
        parts = plain.without_dropout(self.architecture.parts)
        return replace(self, architecture=replace(self.architecture, parts=parts))

    def rows(self, n: int) -> "Patient":
        """The newest n rows of it."""
        if len(self.x) <= n:
            return self
        cut = slice(len(self.x) - n, len(self.x))
        return replace(
            self,
            x=self.x[cut],
            X=self.X[cut],
            up=self.up[cut],
            target=self.target[cut],
            closes=None if self.closes is None else self.closes[cut],
        )


def admit(
    x: Float32, up: Float32, target: Float32, config: TrainConfig, closes: Float64 | None = None
) -> Patient:
    """The patient that a training of `config` on features x (n, F) and labels up and target (n,) is. `closes`
    (n, 2) are the closes that a market's labels were made from, as `Dataset.closes` has them."""
    with np.errstate(all="ignore"):  # numbers that are not finite are for the rules to find
        X = fit_scaler(x).apply(x)
    return Patient(
        x=x,
        X=X,
        up=up,
        target=target,
        closes=closes,
        config=config,
        architecture=config.architecture(x.shape[1]),
        heads=config.heads(),
        optimiser=OPTIMISERS[config.optimiser],
    )


@dataclass(frozen=True)
class Finding:
    """What one examination found. `kind` is where its fault lies: data, forward, backward, update or setting;
    `advice` is empty where it passed."""

    check: str
    kind: str
    passed: bool
    evidence: str
    advice: str


Look = Callable[[Patient], tuple[bool, str]]


@dataclass(frozen=True)
class Rule:
    """`look` says whether the patient passes, and the evidence. Where a `vital` rule fails, none after it means
    anything, so none is asked."""

    look: Look
    advice: str
    vital: bool = False
