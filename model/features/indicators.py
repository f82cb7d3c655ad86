"""Indicators that traders know by name, beside the features that are used where nobody says otherwise.

Add one by adding a row. What is defined by a recursion (Wilder's and other exponential means) is a sum over a window
here, so that it has the same bits wherever a history begins; RESIDUES states what that cuts off. A window's sum with weights is added up anew for each bar:
a flood long gone leaves no rounding behind.

Letters as in columns; p a typical price.
"""

import math
import operator
from collections.abc import Iterable, Iterator, Sequence
from functools import reduce

import polars as pl

from model.features.columns import (
    BODY,
    CLOSE,
    HIGH,
    LEAST_VOLATILITY,
    LONG_WINDOW,
    LOW,
    OPEN,
    SCALE_NEEDS,
    VOLATILITY,
    VOLUME,
    WARMUP,
    Feature,
    R,
    X,
    Y,
    clip,
    log_of_volatility,
)

TAPS = WARMUP - 1  # moves within the bars that a feature may look at
ADX_TAPS = TAPS // 2  # moves of each of the two means, one over the other
# The largest share that lies before the window. Of a MACD it is a multiple of the oldest moves, in volatilities.
RESIDUES = {
    "rsi_7": (6 / 7) ** TAPS,
    "rsi_14": (13 / 14) ** TAPS,  # 6e-9
    "atr_14": (13 / 14) ** TAPS,
    "adx_7": 2 * (6 / 7) ** ADX_TAPS,  # 6e-9
    "direction_7": (6 / 7) ** ADX_TAPS,
    "macd_12_26": 27 / 2 * (25 / 27) ** TAPS,  # 4e-8
    "macd_12_26_9": 27 / 2 * (25 / 27) ** TAPS,
}
FRACTION = 0.4

_P = (HIGH + LOW + CLOSE) / 3
_UP, _DOWN = HIGH - HIGH.shift(1), LOW.shift(1) - LOW
_TRUE_RANGE = pl.max_horizontal(HIGH, CLOSE.shift(1)) - pl.min_horizontal(LOW, CLOSE.shift(1))


def _sum(expr: pl.Expr, weights: Sequence[float]) -> pl.Expr:
    """Weighted sum of as many bars as there are weights, the oldest first."""
    # Polars weighs no nulls; there are some at a frame's first bars alone, where no row is valid yet
    return expr.fill_null(0.0).rolling_sum(len(weights), weights=list(weights))


def _total(expr: pl.Expr, k: int) -> pl.Expr:
    return _sum(expr, [1.0] * k)


def _added(exprs: Iterable[pl.Expr]) -> pl.Expr:
    """One after another: Polars' own horizontal sum adds in an order that depends on its threads."""
    return reduce(operator.add, exprs)


def _mean(expr: pl.Expr, alpha: float, k: int) -> pl.Expr:
    """Exponential mean of the newest k bars, each counting 1 - alpha of the one after it."""
    weights = [(1 - alpha) ** age for age in reversed(range(k))]
    return _sum(expr, [weight / math.fsum(weights) for weight in weights])


def _rsi(k: int) -> pl.Expr:
    move = CLOSE - CLOSE.shift(1)
    path = _mean(move.abs(), 1 / k, TAPS)
    return clip(_mean(move, 1 / k, TAPS) / pl.max_horizontal(path, LEAST_VOLATILITY * CLOSE), 1.0)


def _directions(k: int) -> tuple[pl.Expr, pl.Expr]:
    """Wilder's smoothed movements up and down; of the two of a bar the larger one counts."""
    up = pl.when((_UP > _DOWN) & (_UP > 0)).then(_UP).otherwise(0.0)
    down = pl.when((_DOWN > _UP) & (_DOWN > 0)).then(_DOWN).otherwise(0.0)
    return _mean(up, 1 / k, ADX_TAPS), _mean(down, 1 / k, ADX_TAPS)


def _adx(k: int) -> pl.Expr:
    up, down = _directions(k)
    sides = pl.max_horizontal(up + down, LEAST_VOLATILITY * CLOSE)
    return clip(_mean((up - down).abs() / sides, 1 / k, ADX_TAPS), 1.0)


def _direction(k: int) -> pl.Expr:
    up, down = _directions(k)
    path = _mean(_TRUE_RANGE, 1 / k, ADX_TAPS)
    return clip((up - down) / pl.max_horizontal(path, LEAST_VOLATILITY * CLOSE), 1.0)


def _macd(fast: int, slow: int, signal: int | None) -> pl.Expr:
    """Of the log close, in volatilities. Linear in the returns, so that one weighted sum of them is all of it."""
    f, s = 1 - 2 / (fast + 1), 1 - 2 / (slow + 1)
    # a return of `age` bars ago lies in a mean with all that came after it
    line = [s ** (age + 1) - f ** (age + 1) for age in range(TAPS)]
    if signal is not None:
        a = 2 / (signal + 1)
        signals = [
            math.fsum(a * (1 - a) ** back * line[age - back] for back in range(age + 1))
            for age in range(TAPS)
        ]
        line = [whole - part for whole, part in zip(line, signals, strict=True)]
    return clip(_sum(R, line[::-1]) / VOLATILITY)


def _cci(k: int) -> pl.Expr:
    """The typical price's distance from its mean, in mean absolute deviations: 0.015 of Lambert's index."""
    mean = _total(_P, k) / k
    deviation = _added((_P.shift(age) - mean).abs() for age in range(k)) / k
    return clip((_P - mean) / pl.max_horizontal(deviation, LEAST_VOLATILITY * _P))


def _flow(k: int) -> pl.Expr:
    """Money flow index as -1 to 1; 0 where nothing is traded."""
    flow, move = _P * VOLUME, _P - _P.shift(1)
    moved = _total(flow * move.sign().abs(), k)
    return pl.when(moved > 0).then(clip(_total(flow * move.sign(), k) / moved, 1.0)).otherwise(0.0)


def _obv(k: int) -> pl.Expr:
    """The change of on-balance volume over k bars, over all volume in them; 0 where nothing is traded."""
    traded = _total(VOLUME, k)
    balance = _total(VOLUME * (CLOSE - CLOSE.shift(1)).sign(), k)
    return pl.when(traded > 0).then(clip(balance / traded, 1.0)).otherwise(0.0)


def _vwap(k: int) -> pl.Expr:
    """Log distance of the close from the mean typical price by volume, or of all bars alike where none is traded."""
    traded = _total(VOLUME, k)
    mean = pl.when(traded > 0).then(_total(_P * VOLUME, k) / traded).otherwise(_total(_P, k) / k)
    return clip((CLOSE / mean).log() / (VOLATILITY * math.sqrt(k)))


def _yang_zhang(k: int) -> pl.Expr:
    gap = (OPEN / CLOSE.shift(1)).log()
    inside = (HIGH / OPEN).log() * (HIGH / CLOSE).log() + (LOW / OPEN).log() * (LOW / CLOSE).log()
    share = 0.34 / (1.34 + (k + 1) / (k - 1))
    variance = gap.rolling_var(k) + share * BODY.rolling_var(k) + (1 - share) * inside.rolling_mean(k)
    return log_of_volatility(variance, k)


def _slope(k: int) -> pl.Expr:
    """Least squares through k log closes, as what it makes of k bars; in volatilities of so many."""
    middle = (k - 1) / 2
    spread = math.fsum((place - middle) ** 2 for place in range(k))
    return clip(_sum(X, [(place - middle) / spread for place in range(k)]) * math.sqrt(k) / VOLATILITY)


def _kurtosis(k: int) -> pl.Expr:
    m1, m2, m3, m4 = (_total(Y**n, k) / k for n in (1, 2, 3, 4))
    fourth = m4 - 4 * m1 * m3 + 6 * m1 * m1 * m2 - 3 * m1 * m1 * m1 * m1
    variance = (m2 - m1 * m1).clip(lower_bound=0.01)
    return clip(fourth / (variance * variance) - 3)


def _hurst(lag: int, k: int) -> pl.Expr:
    """How much further than a random walk moves over `lag` bars have gone: Hurst's exponent less a half."""
    far = _added(Y.shift(age) for age in range(lag))
    ratio = (_total(far * far, k) / (lag * k)).clip(lower_bound=0.01) / (_total(Y * Y, k) / k).clip(
        lower_bound=0.01
    )
    return clip(ratio.log() / (2 * math.log(lag)), 0.5)


def _fractional(order: float, k: int) -> pl.Expr:
    """(1 - lag)^order of the log close, as the sum of k returns that it is, in its own deviations on a random walk."""
    weights = [1.0]
    for age in range(1, k):
        weights.append(weights[-1] * (age - order) / age)
    size = math.sqrt(math.fsum(weight * weight for weight in weights))
    return clip(_sum(R, [weight / size for weight in reversed(weights)]) / VOLATILITY)


def _entropy(k: int) -> pl.Expr:
    """Shannon's, of the four ways in which two returns in a row rise or not, k times; 0 to 1."""
    rose = R > 0
    before = rose.shift(1)
    shares = [
        _total((first & second).cast(pl.Float64), k) / k
        for first in (before, ~before)
        for second in (rose, ~rose)
    ]
    # never -0.0: Polars adds a column of nothing but 0.0 as if it were not there, and in a group as it is
    terms = [pl.when(p > 0).then(p * (1 / pl.max_horizontal(p, 1e-9)).log()).otherwise(0.0) for p in shares]
    return clip(_added(terms) / math.log(4), 1.0)


def indicators() -> Iterator[Feature]:
    """The rows, in order."""
    need = SCALE_NEEDS

    for k in (24, 96):
        about = f"log of Yang and Zhang's volatility over that of closes, {k} bars"
        yield Feature(f"yang_zhang_{k}", "volatility", max(need, k + 1), about, _yang_zhang(k))
    about = "log of Wilder's average true range of 14 bars, in log closes' volatilities"
    expr = _mean(_TRUE_RANGE, 1 / 14, TAPS) / (CLOSE * VOLATILITY)
    yield Feature("atr_14", "volatility", WARMUP, about, clip(expr.clip(lower_bound=math.exp(-3)).log(), 3.0))

    about = "MACD line of 12 and 26 log closes, in volatilities"
    yield Feature("macd_12_26", "trend", WARMUP, about, _macd(12, 26, None))
    about = "MACD histogram, the line of 12 and 26 less its signal of 9, in volatilities"
    yield Feature("macd_12_26_9", "trend", WARMUP, about, _macd(12, 26, 9))
    about = "Wilder's average directional index of 7 bars, 0 to 1"
    yield Feature("adx_7", "trend", 2 * ADX_TAPS, about, _adx(7))
    about = "Wilder's directional indicator up less that down, 7 bars"
    yield Feature("direction_7", "trend", ADX_TAPS + 1, about, _direction(7))
    for k in (24, 96):
        about = f"slope of the least squares line through {k} log closes, in volatilities x sqrt({k})"
        yield Feature(f"slope_{k}", "trend", need, about, _slope(k))

    for k in (7, 14):
        about = f"RSI of {k} bars in Wilder's form (exponential means), as -1 to 1"
        yield Feature(f"rsi_{k}", "oscillator", WARMUP, about, _rsi(k))
    about = "commodity channel index of 20 bars, in mean absolute deviations"
    yield Feature("cci_20", "oscillator", 20, about, _cci(20))
    yield Feature("mfi_14", "oscillator", 15, "money flow index of 14 bars, as -1 to 1", _flow(14))

    about = "change of on-balance volume over 24 bars, over all volume in them"
    yield Feature("obv_24", "volume", 25, about, _obv(24))
    for k in (24, 96):
        about = f"log distance of the close from the volume-weighted mean price of {k} bars, in volatilities x sqrt({k})"
        yield Feature(f"vwap_{k}", "volume", need, about, _vwap(k))

    about = "excess kurtosis of 60 log returns, each in the volatilities of its time"
    yield Feature("kurtosis_60", "pattern", need + 59, about, _kurtosis(60))
    about = "Hurst's exponent less a half, from moves over 4 bars and over one, 60 bars"
    yield Feature("hurst_4_60", "pattern", need + 62, about, _hurst(4, 60))
    about = f"fractional difference of order {FRACTION} of the log close, over {LONG_WINDOW - 1} returns"
    yield Feature("fractional_04", "pattern", need, about, _fractional(FRACTION, LONG_WINDOW - 1))
    about = "entropy of rises and falls, two returns in a row, 24 times; 0 to 1"
    yield Feature("entropy_24", "pattern", 26, about, _entropy(24))
