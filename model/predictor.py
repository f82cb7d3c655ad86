"""A trained network frozen for serving: what is affine is folded into plain arrays, and only the forward pass is left.

Nothing of backpropagation is imported here. Live answers and backtests use this same one-row forward pass, because a
batch's differs from it in the last bits.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model import artifact
from model.artifact import Packed
from model.errors import BadArtifact
from model.features import FeatureSet
from model.network.activations import ACTIVATIONS, Array
from model.network.layers import Dense, views

Float32 = NDArray[np.float32]

LEVEL = 0.9  # of the price interval
LARGEST_LOGIT = 15.0  # 1 - p of 3e-7: nobody's evidence goes further
LARGEST_RETURN = 10.0  # in units of its expected size: further than any that was learned from


@dataclass(frozen=True)
class Forecast:
    """What is said of one row."""

    p_up: float
    expected_return: float  # log return over the horizon
    price: float
    low: float
    high: float


@dataclass(frozen=True)
class Predictor:
    """Frozen: standardisation lies in the first layer's arrays and temperature in the last one's. Safe for threads."""

    features: FeatureSet
    horizon: int  # bars
    activation: str
    layers: tuple[Dense, ...]
    interval: float  # half-width, in units of the return's expected size
    base_rate: float
    sha256: str  # of the arrays that it was made of
    first_closed_at: int  # microseconds: nothing before it was learned from
    fitted_until: int  # microseconds: no label known later moved a weight
    seen_until: int  # microseconds: no label known later was used at all

    def predict(self, x: Float32, scale: float, close: float) -> Forecast:
        """The forecast for one row of raw features x (F,), given the volatility of one bar's log return and its close."""
        value = ACTIVATIONS[self.activation].value
        a: Array = x
        for layer in self.layers[:-1]:
            a = value(a @ layer.W + layer.b)
        logit, scaled_return = (a @ self.layers[-1].W + self.layers[-1].b).tolist()
        logit = min(max(logit, -LARGEST_LOGIT), LARGEST_LOGIT)
        scaled_return = min(max(scaled_return, -LARGEST_RETURN), LARGEST_RETURN)
        size = scale * math.sqrt(self.horizon)
        expected, half = scaled_return * size, self.interval * size
        return Forecast(
            p_up=1 / (1 + math.exp(-logit)),
            expected_return=expected,
            price=close * math.exp(expected),
            low=close * math.exp(expected - half),
            high=close * math.exp(expected + half),
        )


def from_arrays(arrays: dict[str, Array], manifest: dict[str, Any]) -> Predictor:
    """The predictor that a version's arrays and manifest describe. Raises BadArtifact where they do not fit together."""
    features = FeatureSet(tuple(manifest["features"]))
    if features.sha256 != manifest["features_sha256"]:
        raise BadArtifact(
            "this version's features have another definition now, so its weights no longer fit: train anew"
        )
    mean, scale = arrays["mean"].astype(np.float64), arrays["scale"].astype(np.float64)
    temperature, interval, base_rate = arrays["calibration"].tolist()
    layers = [
        Dense(layer.W.copy(), layer.b.copy())
        for layer in views(arrays["parameters"].astype(np.float64), manifest["sizes"])
    ]
    # ((x - mean) / scale) W + b  =  x (W / scale) + (b - (mean / scale) W)
    layers[0].b[...] -= (mean / scale) @ layers[0].W
    layers[0].W[...] /= scale[:, None]
    layers[-1].W[:, 0] /= temperature
    layers[-1].b[0] /= temperature
    return Predictor(
        features=features,
        horizon=int(manifest["horizon"]),
        activation=str(manifest["activation"]),
        layers=tuple(Dense(_frozen(layer.W), _frozen(layer.b)) for layer in layers),
        interval=interval,
        base_rate=base_rate,
        sha256=artifact.digest(arrays),
        first_closed_at=int(manifest["first_closed_at"]),
        fitted_until=int(manifest["fitted_until"]),
        seen_until=int(manifest["seen_until"]),
    )


def from_artifact(packed: Packed) -> Predictor:
    """The predictor of a stored version. Raises BadArtifact where it is damaged or cannot be used any more."""
    arrays, manifest = artifact.unpack(packed)
    try:
        return from_arrays(arrays, manifest)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise BadArtifact(f"these arrays and their manifest do not make a network: {error!r}") from error


def _frozen(array: Array) -> Float32:
    single = array.astype(np.float32)
    single.flags.writeable = False
    return single
