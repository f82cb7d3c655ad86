"""The scaling of features: fitted on the rows that weights learn from, and a measure of how far from them a row lies."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Scaler:
    """Standardises features, (F,) each: x -> (x - mean) / scale. Fitted on the rows that weights learn from, only."""

    mean: Float32
    scale: Float32

    def apply(self, X: Float32) -> Float32:
        """X (n, F), standardised."""
        return (X - self.mean) / self.scale


def distances(scaler: Scaler, X: Float32) -> Float64:
    """How far each row of X (n, F) lies from the middle of what the scaler was fitted on: the root mean square of its
    features, each in standard deviations."""
    found: Float64 = np.sqrt(np.square(scaler.apply(X)).mean(axis=1, dtype=np.float64))
    return found


def fit_scaler(X: Float32) -> Scaler:
    """The scaler of X (n, F). A feature that never moves is left at zero instead of being divided by nothing."""
    mean = X.mean(axis=0, dtype=np.float64)
    spread = X.std(axis=0, dtype=np.float64)
    scale = np.where(spread > 1e-6, spread, 1.0)
    return Scaler(mean.astype(np.float32), scale.astype(np.float32))
