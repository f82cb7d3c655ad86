"""Initial weights. Add a rule by adding a row to INITIALISERS; biases start at zero.

I inputs and O outputs of a layer; the gain is that of the gate behind it (`Activation.gain`).
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Weights = NDArray[np.float64]


def he(rng: np.random.Generator, inputs: int, outputs: int, gain: float) -> Weights:
    """Variance gain²/I, which keeps the signal's spread (He et al. 2015, "Delving deep into rectifiers", eq. 10)."""
    return rng.standard_normal((inputs, outputs)) * (gain / float(np.sqrt(inputs)))


def xavier(rng: np.random.Generator, inputs: int, outputs: int, gain: float) -> Weights:
    """Variance 2 gain²/(I + O), between the needs of signal and gradient (Glorot & Bengio 2010, eq. 12)."""
    return rng.standard_normal((inputs, outputs)) * (gain * float(np.sqrt(2.0 / (inputs + outputs))))


def lecun(rng: np.random.Generator, inputs: int, outputs: int, gain: float) -> Weights:
    """Variance 1/I whatever the gate (LeCun et al. 1998, "Efficient BackProp", eq. 16): the gain is not used."""
    return rng.standard_normal((inputs, outputs)) / float(np.sqrt(inputs))


def orthogonal(rng: np.random.Generator, inputs: int, outputs: int, gain: float) -> Weights:
    """`gain` times orthonormal columns, or orthonormal rows where outputs outnumber inputs (Saxe et al. 2014).

    Q of a Gaussian matrix's QR, its columns signed by R's diagonal: only so is it uniform over all such matrices
    (Mezzadri 2007, "How to generate random matrices from the classical compact groups").
    """
    Q, R = np.linalg.qr(rng.standard_normal((max(inputs, outputs), min(inputs, outputs))))
    Q = Q * np.where(np.diag(R) < 0, -1.0, 1.0)
    return gain * np.ascontiguousarray(Q if inputs >= outputs else Q.T)


def zero(rng: np.random.Generator, inputs: int, outputs: int, gain: float) -> Weights:
    """All zero, drawing nothing: for a last layer, or one that a residual bypasses.

    A hidden layer of zeros in a chain never learns: its outputs are all alike, and so are their gradients.
    """
    return np.zeros((inputs, outputs))


# draw(rng, inputs, outputs, gain): the weights (I, O) in float64
INITIALISERS: dict[str, Callable[[np.random.Generator, int, int, float], Weights]] = {
    "he": he,
    "xavier": xavier,
    "lecun": lecun,
    "orthogonal": orthogonal,
    "zero": zero,
}
