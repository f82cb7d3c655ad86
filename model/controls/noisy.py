"""The noisy oracle: sees what comes through noise of known size, and says exactly what follows from that.

Letters: r are realised log returns, z standard normal, q = sqrt(mean r^2) the size of a usual move.
"""

import math
from collections.abc import Iterator

import numpy as np

from model.backtest import Said
from model.controls.common import RETURN, Expected, Float64, earnable, entropy, phi, phis, share_up, statement
from model.dataset import Dataset
from model.predictor import LEVEL

SIGMA = 2.0  # of the noise through which it sees the move's sign, which is 1 or -1
KAPPA = 2.0  # of the noise through which it sees the return, in usual moves
STATED = 1.6448536269514722  # posterior standard deviations to each end of its interval: of a normal law 90 % lie within


def noisy(data: Dataset, rng: np.random.Generator) -> Said:
    """Sees the sign of each move as sign + SIGMA z, and the return as r + KAPPA q z, and says what follows from that.

    Bayes' rule for the sign, with the share of ups as the prior; for the return the posterior of a normal law of mean 0.
    """
    n = len(data)
    seen = np.where(data.up > 0.5, 1.0, -1.0) + SIGMA * rng.standard_normal(n)
    size, shrunk = _size(data), 1 / (1 + KAPPA**2)
    expected = shrunk * (data.log_return + KAPPA * size * rng.standard_normal(n))
    return statement(
        data, _posterior(seen, share_up(data)), expected, STATED * size * KAPPA * math.sqrt(shrunk)
    )


def _size(data: Dataset) -> float:
    return float(np.sqrt(np.mean(data.log_return**2)))


def _posterior(seen: Float64, base: float) -> Float64:
    """The probability of up for what was seen of the sign."""
    posterior: Float64 = 1 / (1 + np.exp(-2 * seen / SIGMA**2) * (1 - base) / base)
    return posterior


def of_noisy(data: Dataset, said: Said) -> Iterator[Expected]:
    """Means and standard errors over its noise: of the sign by integration, of the return in closed form."""
    yield from _of_sign(data)
    yield from _of_return(data)


def _of_sign(data: Dataset) -> Iterator[Expected]:
    base, n = share_up(data), len(data)
    ups, downs = base * n, (1 - base) * n
    z = np.linspace(
        -9, 9, 3601
    )  # the trapezoid rule is exact to rounding for what is smooth and falls off like this
    weight = np.exp(-z * z / 2) / np.exp(-z * z / 2).sum()
    of_up, of_down = _posterior(1 + SIGMA * z, base), _posterior(-1 + SIGMA * z, base)

    def mean(figure: str, if_up: Float64, if_down: Float64, less: float = 0.0, sign: float = 1.0) -> Expected:
        moments = [(float(weight @ x), float(weight @ (x * x))) for x in (if_up, if_down)]
        variance = sum(
            share * (squared - mean**2)
            for share, (mean, squared) in zip((base, 1 - base), moments, strict=True)
        )
        value = base * moments[0][0] + (1 - base) * moments[1][0]
        return Expected(figure, less + sign * value, math.sqrt(variance / n))

    losses = -np.log(of_up), -np.log1p(-of_down)
    yield mean("log_loss", *losses)
    yield mean("gain", *losses, less=entropy(base), sign=-1.0)
    yield mean("brier", (1 - of_up) ** 2, of_down**2)
    # p is above a half where what was seen lies above this
    edge = -(SIGMA**2) / 2 * math.log(base / (1 - base))
    right_up, right_down = phi((1 - edge) / SIGMA), phi((1 + edge) / SIGMA)
    spread = base * right_up * (1 - right_up) + (1 - base) * right_down * (1 - right_down)
    yield Expected("accuracy", base * right_up + (1 - base) * right_down, math.sqrt(spread / n))
    # an up beats a down where sqrt(2) SIGMA z < 2; two ups beat one down, and one up two downs, alike by symmetry
    auc, both = phi(math.sqrt(2) / SIGMA), float(weight @ phis(2 / SIGMA + z) ** 2)
    variance = (auc * (1 - auc) + (ups + downs - 2) * (both - auc**2)) / (ups * downs)  # Hanley & McNeil 1982
    yield Expected("auc", auc, math.sqrt(variance))


def _of_return(data: Dataset) -> Iterator[Expected]:
    n, r, q = len(data), data.log_return, _size(data)
    k2 = KAPPA**2
    shrunk = 1 / (1 + k2)
    deviation = float(r.std()) / q  # r's own, in usual moves: with it the noise is KAPPA / deviation of it
    ratio = k2 / deviation**2
    yield Expected("ic", 1 / math.sqrt(1 + ratio), math.sqrt(ratio**2 * (ratio + 0.5) / (1 + ratio) ** 3 / n))
    # the error of a row, r - e, is normal with this mean and the deviation s, the same for all rows
    mean, s = r * (1 - shrunk), shrunk * KAPPA * q
    squared = q * q * k2 * shrunk
    of_squared = math.sqrt((2 * s**4 + 4 * s * s * float(np.mean(mean**2))) / n)
    yield Expected("r2", shrunk, of_squared / q**2)
    yield Expected("rmse", math.sqrt(squared), of_squared / (2 * math.sqrt(squared)))
    absolute = s * math.sqrt(2 / math.pi) * np.exp(-((mean / s) ** 2) / 2) + mean * (2 * phis(mean / s) - 1)
    yield _sum("mae", absolute, mean**2 + s * s)
    half = STATED * q * KAPPA * math.sqrt(shrunk)
    within = phis((half - mean) / s) - phis((-half - mean) / s)
    yield _sum("coverage_90", within, within)
    yield Expected("sharpness", 2 * half)
    for figure, end, level in (
        ("pinball_low", -half, (1 - LEVEL) / 2),
        ("pinball_high", half, (1 + LEVEL) / 2),
    ):
        above = mean - end  # the mean of how far the outcome lies above this end
        share, density = phis(-above / s), s * np.exp(-((above / s) ** 2) / 2) / math.sqrt(2 * math.pi)
        below = above * share - density  # the mean of that distance where it is negative, and else of 0
        of_square = (above**2 + s * s) * share - above * density
        yield _sum(
            figure,
            level * above - below,
            level**2 * (above**2 + s * s - of_square) + (1 - level) ** 2 * of_square,
        )
    right = 2 * phis(r / (KAPPA * q)) - 1  # the mean of the sign of what is expected
    yield _sum(RETURN, earnable(data) * right, earnable(data) ** 2)


def _sum(figure: str, mean: Float64, square: Float64) -> Expected:
    """A mean over rows that are independent, given each row's mean and mean square."""
    return Expected(
        figure, float(mean.mean()), math.sqrt(max(float(np.mean(square - mean**2)), 0.0) / len(mean))
    )
