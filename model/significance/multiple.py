"""Many tests at once: p-values so adjusted that each may be held against the level that is meant for all of them."""

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]


def holm(p: Float64) -> Float64:
    """Adjusted p-values (m,) in the order of p: claim those at most 5 %, and even one false claim among all has a chance
    of at most 5 %, however the tests hang together (Holm 1979)."""
    ascending = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[ascending] * np.arange(len(p), 0, -1))
    return _in_order(np.minimum(stepped, 1.0), ascending)


def benjamini_hochberg(p: Float64) -> Float64:
    """Adjusted p-values (m,) in the order of p: claim those at most 5 %, and of the claims at most 5 % are false on
    average (Benjamini & Hochberg 1995), where tests are independent or hang together positively, as markets do
    (Benjamini & Yekutieli 2001)."""
    ascending = np.argsort(p, kind="stable")
    raised = p[ascending] * len(p) / np.arange(1, len(p) + 1)
    stepped = np.minimum.accumulate(raised[::-1])[::-1]
    return _in_order(np.minimum(stepped, 1.0), ascending)


def _in_order(adjusted: Float64, ascending: NDArray[np.intp]) -> Float64:
    """Values of ascending order, back in the order that they came in."""
    found = np.empty(len(adjusted))
    found[ascending] = adjusted
    return found
