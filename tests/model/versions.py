"""Versions made by hand: any architecture, with numbers that are not those of a beginning."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from model import features
from model.features import FeatureSet
from model.network import network
from model.network.gates import Activate, Dropout
from model.network.layers import Conv1d, Dense
from model.network.network import Architecture, Network, Residual, perceptron
from model.network.normalisation import BatchNorm, LayerNorm

FEATURES = FeatureSet(features.DEFAULT.names[:24])
KNOTS = np.array([[-1.5, -0.4, -0.3, 0.2, 0.9, 2.0], [0.2, 0.2, 0.45, 0.5, 0.5, 0.85]], np.float32)

Contents = tuple[dict[str, NDArray[Any]], dict[str, Any]]

ARCHITECTURES = {
    **{
        f"{activation}-{normalisation}{'-residual' if residual else ''}": perceptron(
            24,
            (16, 16, 8),
            2,
            activation=activation,
            normalisation=normalisation,
            residual=residual,
            dropout=0.2,
        )
        for activation in network.ACTIVATIONS
        for normalisation in (None, *network.NORMALISATIONS)
        for residual in (False, True)
    },
    "linear": perceptron(24, (), 2),
    "one affine step": Architecture(
        24,
        (
            BatchNorm(),
            Conv1d(bars=6, channels=3, kernel=2),
            Dropout(0.1),
            Residual((Dense(18), BatchNorm())),
            Dense(2),
        ),
    ),
    "around nothing": Architecture(24, (Residual((Dropout(0.5),)), Activate("tanh"), Dense(2), BatchNorm())),
    "convolution": Architecture(
        24,
        (
            Conv1d(bars=8, channels=4, kernel=3),
            BatchNorm(),
            Activate("silu"),
            Conv1d(bars=8, channels=2, kernel=20),
            LayerNorm(),
            Activate("relu"),
            Dense(2),
        ),
    ),
    "gates first": Architecture(
        24,
        (
            LayerNorm(),
            Residual((Activate("gelu"), Residual((LayerNorm(), Dense(24))))),
            BatchNorm(),
            Dense(2),
        ),
    ),
}


def trained(architecture: Architecture, seed: int = 0) -> Network:
    """A network of one member as if it had learned: every scale, shift and statistic has moved."""
    rng = np.random.default_rng(seed)
    net = network.initialise(architecture, (rng,))
    net.parameters[...] += rng.normal(0, 0.05, net.parameters.shape)
    net.statistics[...] = rng.uniform(0.3, 2, net.statistics.shape)  # means and variances
    return net


def contents(net: Network, knots: NDArray[Any] | None = None, seed: int = 0, horizon: int = 1) -> Contents:
    """The arrays and the manifest of a version with this network."""
    rng = np.random.default_rng(seed)
    arrays: dict[str, NDArray[Any]] = {
        # of one member as versions once had it
        "parameters": net.parameters if net.members > 1 else net.parameters[0],
        "statistics": net.statistics if net.members > 1 else net.statistics[0],
        "mean": rng.normal(0, 1, 24).astype(np.float32),
        "scale": rng.uniform(0.2, 3, 24).astype(np.float32),
        "calibration": np.array([1.0 if knots is not None else 0.8, 1.7, 0.51]),
    }
    if knots is not None:
        arrays["knots"] = knots
    manifest = {
        "horizon": horizon,
        "architecture": net.architecture.document(),
        "features": list(FEATURES.names),
        "features_sha256": FEATURES.sha256,
        "first_closed_at": 1,
        "fitted_until": 2,
        "seen_until": 3,
    }
    return arrays, manifest


def rows(n: int = 300, seed: int = 1) -> NDArray[np.float32]:
    """Raw feature rows (n, 24), a few of them far out."""
    rng = np.random.default_rng(seed)
    return (rng.normal(0, 1.5, (n, 24)) * np.where(rng.random((n, 1)) < 0.05, 30, 1)).astype(np.float32)
