"""Initial weights. Add a rule by adding a row to INITIALISERS; biases start at zero."""

from collections.abc import Callable

import numpy as np

# Each row: the standard deviation of a weight, given the layer's inputs, its outputs and the gate's gain.
INITIALISERS: dict[str, Callable[[int, int, float], float]] = {
    # He et al. 2015, "Delving deep into rectifiers", eq. 10
    "he": lambda inputs, outputs, gain: gain / float(np.sqrt(inputs)),
    # Glorot & Bengio 2010, "Understanding the difficulty of training deep feedforward networks", eq. 12
    "xavier": lambda inputs, outputs, gain: gain * float(np.sqrt(2.0 / (inputs + outputs))),
}
