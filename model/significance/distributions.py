"""The normal distribution and Student's t, to eight digits or more."""

import math
from statistics import NormalDist

# Where a continued fraction has settled, and what stands in for a zero in it.
SETTLED = 1e-15
TINY = 1e-300


def normal_cdf(z: float) -> float:
    """How often a standard normal draw is at most z."""
    return 0.5 * math.erfc(-z / math.sqrt(2))


def normal_quantile(q: float) -> float:
    """What a standard normal draw is at most, in a share q of draws; 0 < q < 1."""
    return NormalDist().inv_cdf(q)


def student_t_upper(t: float, freedom: float) -> float:
    """How often a draw of Student's t with so many degrees of freedom is above t.

    By the incomplete beta function (Abramowitz & Stegun 1964, 26.7.1).
    """
    if t < 0:
        return 1 - student_t_upper(-t, freedom)
    square = t * t
    return _beta(freedom / (freedom + square), square / (freedom + square), freedom / 2, 0.5) / 2


def _beta(x: float, y: float, a: float, b: float) -> float:
    """The regularised incomplete beta function of x, where y = 1 - x is told apart to keep its digits."""
    if x == 0 or y == 0:
        return float(y == 0)
    # on the other side of the mean the fraction below would settle slowly
    if x > (a + 1) / (a + b + 2):
        return 1 - _beta(y, x, b, a)
    log_x = math.log1p(-y) if y < 0.5 else math.log(x)
    log_y = math.log1p(-x) if x < 0.5 else math.log(y)
    scale = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * log_x + b * log_y
    return math.exp(scale) * _fraction(x, a, b) / a


def _fraction(x: float, a: float, b: float) -> float:
    """The continued fraction of the incomplete beta function (Abramowitz & Stegun 1964, 26.5.8) by Lentz's method
    (1976), which goes from the front and stops by itself."""
    value, c, d = TINY, TINY, 0.0
    term, step = 1.0, 0
    while step == 0 or abs(c * d - 1) > SETTLED:
        d = 1 / ((1 + term * d) or TINY)
        c = (1 + term / c) or TINY
        value *= c * d
        step += 1
        m = step // 2
        if step % 2:
            term = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            term = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
    return value
