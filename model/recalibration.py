"""Recalibration: what came of a version's answers moves its temperature and the width of its interval, bar by bar."""

import math
from dataclasses import dataclass

# A temperature outside of this says that the rows are too few or the network broken, not how to repair it.
COOLEST, HOTTEST = 0.5, 5.0
# How far from 1 the temperature of a network that stopped early is expected to lie, as the standard deviation of its
# logarithm. A slice of 1,000 rows with little signal moves it by as much from noise alone.
PRIOR_SPREAD = 0.15
PRIOR_CERTAINTY = 1 / PRIOR_SPREAD**2
# An outcome counts half as much for the temperature once so many have come after it.
HALF_LIFE = 5_000
KEPT = 0.5 ** (1 / HALF_LIFE)
# By how much the logarithm of the width grows with an outcome outside, times the level, and how far it may go. Larger
# steps follow a change sooner and make every interval more random.
WIDTH_STEP = 0.02
WIDEST = math.log(4.0)


@dataclass(frozen=True)
class Recalibration:
    """How far calibration has moved since its version was made."""

    log_temperature: float  # of a further divisor of the version's calibrated logit
    certainty: float  # of it: the precision, 1 / variance, that outcomes and prior make
    log_width: float  # of a factor of the version's interval


FRESH = Recalibration(0.0, PRIOR_CERTAINTY, 0.0)


def after(before: Recalibration, logit: float, up: bool, inside: bool, level: float) -> Recalibration:
    """With one more outcome known: whether it rose, where the version's calibrated logit was this, and whether the return
    fell into the interval, as wide as it was `before`.

    The temperature takes a step of Newton's on the log loss, discounted by age, beside the prior around 1 that every
    version starts from (recursive estimation: Ljung & Soderstrom 1983, ch. 2). The width is tracked as the quantile
    that it stands for: an outcome outside widens it by level, one inside narrows it by 1 - level, in units of
    WIDTH_STEP, so that in the long run the share inside is the level, whatever the market does (adaptive conformal
    inference, Gibbs & Candes 2021; on the quantile itself, Angelopoulos, Candes & Tibshirani 2023; here on its logarithm).
    """
    cooled = logit * math.exp(-before.log_temperature)
    p = 1 / (1 + math.exp(-cooled))
    certainty = PRIOR_CERTAINTY + KEPT * (before.certainty - PRIOR_CERTAINTY) + p * (1 - p) * cooled**2
    slope = (up - p) * cooled + (1 - KEPT) * PRIOR_CERTAINTY * before.log_temperature
    log_temperature = before.log_temperature - slope / certainty
    log_width = before.log_width + WIDTH_STEP * ((not inside) - (1 - level))
    return Recalibration(
        min(max(log_temperature, math.log(COOLEST)), math.log(HOTTEST)),
        certainty,
        min(max(log_width, -WIDEST), WIDEST),
    )
