"""How far each score could be off: its interval over resampled rows."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from model.scores.summary import Paired, figures

Int64 = NDArray[np.int64]

# Never below zero, and larger the more noise there is, which a resample has twice. To this power the noise is a term of
# its own: squares add up, and a calibration error is a mean of what is not squared.
INFLATED = {"ece": 2, "brier_reliability": 1, "brier_resolution": 1}


def intervals(
    paired: Paired, resamples: Iterable[Int64], level: float = 0.9
) -> dict[str, list[float] | None]:
    """Of each score its bootstrap interval [low, high] at this level; None where a resample leaves it without meaning.

    A resample says which rows were drawn, and in which order they stand: draw blocks of rows that follow each other, as
    outcomes that overlap are no evidence of their own. Percentile intervals, but for the scores that noise inflates:
    theirs are mirrored at the estimate (the basic bootstrap, Davison & Hinkley 1997, ch. 5.2), which takes the noise that
    resampling added away again instead of adding it twice, and reach to the figure that they are of.
    """
    at = figures(paired)
    found = at(np.arange(len(paired.p)))
    drawn = [at(rows) for rows in resamples]
    ends = ((1 - level) / 2, (1 + level) / 2)
    stated: dict[str, list[float] | None] = {}
    for name, estimate in found.items():
        values = [value for each in drawn if (value := each[name]) is not None]
        if estimate is None or not drawn or len(values) < len(drawn):
            stated[name] = None
            continue
        low, high = np.quantile(values, ends).tolist()
        if power := INFLATED.get(name):
            low, high = (max(2 * estimate**power - end**power, 0.0) ** (1 / power) for end in (high, low))
            # of a small figure that is mostly noise, what is left without noise may be less than it
            low, high = min(low, estimate), max(high, estimate)
        stated[name] = [low, high]
    return stated
