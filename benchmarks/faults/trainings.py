"""Healthy trainings of many kinds: made-up problems, and settings as people have them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from model import doctor, epochs
from model.config import TrainConfig
from model.doctor import Patient
from model.network.activations import ACTIVATIONS
from model.network.optimisers import OPTIMISERS

Rng = np.random.Generator

# A training is healthy where it learns: its loss at the end is lower, by this share, than that of knowing nothing. Most
# of those drawn below are; sigmoids at low rates are not always.
LEARNS = 0.02

HIDDEN = ((8,), (24,), (64,), (16, 8), (32, 32), (64, 32), (24, 24, 24), (64, 32, 16), (32, 32, 32, 32))
# What people take for these optimisers, from the lowest to the highest.
RATES = {
    "sgd": (0.03, 0.3),
    "momentum": (3e-3, 0.03),
    "nesterov": (3e-3, 0.03),
    "adagrad": (5e-3, 0.05),
    "rmsprop": (5e-4, 5e-3),
    "adam": (5e-4, 5e-3),
    "adamw": (5e-4, 5e-3),
    "lion": (1e-4, 1e-3),
}
DECAYS = {"adamw": (0.01, 0.1, 1.0), "lion": (0.01, 0.1, 1.0), "adam": (0.0, 1e-5, 1e-4)}
RECTIFIERS = ("relu", "leaky_relu", "elu", "softplus", "silu", "gelu")
ROWS, FEATURES = (600, 3000), (6, 40)


def problem(rng: Rng) -> tuple[Any, Any, Any]:
    """A made-up problem that can be learned: features of any scale x (n, F), up and target (n,)."""
    n, width = int(rng.integers(*ROWS)), int(rng.integers(*FEATURES))
    z = rng.standard_normal((n, width))
    if rng.random() < 0.3:  # features with fat tails, as returns have them
        z *= np.sqrt(3 / rng.chisquare(5, (n, width)))
    w = rng.standard_normal(width) / np.sqrt(width)
    signal = (
        z @ w,
        np.tanh(z[:, 0] * z[:, 1] + z[:, 2]),
        np.sin(z @ w) + z[:, 0] / 2,
        np.where(z[:, 1] > 0, z[:, 0], z[:, 2]),
    )[int(rng.integers(4))]
    target = signal / signal.std() + rng.uniform(0.5, 1.5) * rng.standard_normal(n)
    x = z * 10 ** rng.uniform(-2, 2, width) + rng.uniform(-1, 1, width)
    return x.astype(np.float32), (target > 0).astype(np.float32), target.astype(np.float32)


def settings(rng: Rng, **given: Any) -> TrainConfig:
    """Healthy settings, of any kind."""

    def one(of: Sequence[Any]) -> Any:
        return of[int(rng.integers(len(of)))]

    optimiser = given.get("optimiser", one(tuple(OPTIMISERS)))
    activation = given.get("activation", one(tuple(ACTIVATIONS)))
    hidden = given.get("hidden", one(HIDDEN))
    if activation == "sigmoid" and "hidden" not in given:  # more of them vanish: a fault, below
        hidden = hidden[:2]
    low, high = RATES[optimiser]
    drawn = {
        "hidden": hidden,
        "activation": activation,
        "initialiser": one(
            ("he", "orthogonal") if activation in RECTIFIERS else ("xavier", "orthogonal", "lecun")
        ),
        "normalisation": one((None, None, "layer", "batch")),
        "residual": bool(rng.random() < 0.3),
        "dropout": one((0.0, 0.0, 0.1, 0.3)),
        "optimiser": optimiser,
        "learning_rate": float(np.exp(rng.uniform(np.log(low), np.log(high)))),
        "schedule": one(("constant", "step", "cosine", "one_cycle", "plateau")),
        "weight_decay": one(DECAYS.get(optimiser, (0.0, 1e-4, 1e-3))),
        "batch": one((32, 64, 128, 256)),
        "seed": int(rng.integers(2**31)),
    }
    return TrainConfig(**(drawn | given))


def healthy(seed: int, **given: Any) -> Patient:
    """The healthy training of this seed, on its own made-up problem."""
    rng = np.random.default_rng(seed)
    return doctor.admit(*problem(rng), settings(rng, **given))


def learns(patient: Patient) -> bool:
    """Whether its own training, over all epochs of its settings and all its rows, has learned anything by LEARNS."""
    p = patient
    walk = epochs.epochs(
        p.start(),
        epochs.examples(p.X, p.targets),
        p.heads,
        p.config,
        (np.random.default_rng(p.config.seed),),
    )
    *_, last = walk
    huber = np.where(np.abs(p.target) < 1, p.target**2 / 2, np.abs(p.target) - 0.5)
    nothing = np.log(2) + p.config.return_weight * float(huber.mean())
    return bool(last.train_loss[0] < (1 - LEARNS) * nothing)
