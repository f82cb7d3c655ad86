"""What a series of returns and trades is worth, in the field's figures.

Figures per bar end in `_bar`, those per year in `_annual`; a year has as many bars as this market really had in that
time, not a typed number of days. A figure that means nothing is None. Returns are simple ones, after all costs.
"""

import math
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from model.portfolio.costs import SECONDS_PER_YEAR
from model.portfolio.trading import Traded, Trades

Float64 = NDArray[np.float64]

TAIL = 0.05
STILL = 1e-9  # a spread smaller than this share of the mean is rounding
LARGEST = 700.0  # of a logarithm whose number can still be written down


@dataclass(frozen=True)
class Performance:
    """What positions came to. All but the first four figures are None without a trade: there is nothing to score."""

    trades: int  # from entering to leaving
    exposure: float  # share of bars with a position
    net_return: float  # over the whole period: 0.1 is ten per cent
    turnover_annual: float | None  # value traded a year, in units of the capital
    cagr_annual: float | None  # compound annual growth rate
    volatility_annual: float | None
    sharpe_annual: float | None  # against earning nothing
    sortino_annual: float | None  # the deviation is that below 0, over all bars (Sortino & Price 1994)
    calmar_annual: float | None  # CAGR by largest drawdown (Young 1991), over the whole period
    max_drawdown: float | None  # largest fall from a peak, as a share of the peak
    max_drawdown_bars: int | None  # of that fall, from the peak until it is regained, or until the end
    hit_rate: float | None  # share of trades that earned something
    profit_factor: float | None  # what winning trades earned by what losing ones lost; None without a loss
    expectancy: float | None  # mean net return of a trade
    tail_ratio_bar: float | None  # 95 % quantile of the returns by the 5 % quantile, without sign
    var_95_bar: float | None  # value at risk: the 5 % quantile of the returns, so below 0 where it is a loss
    # expected shortfall: mean of the worst 5 % of the returns, the last of them counted whole (cf. Acerbi & Tasche 2002)
    es_95_bar: float | None
    skewness_bar: float | None  # of the returns
    kurtosis_bar: float | None  # of the returns; a normal has 3

    def document(self) -> dict[str, float | int | None]:
        """As JSON has it."""
        return asdict(self)


def measure(traded: Traded) -> Performance:
    """The figures of what was traded."""
    net, years = traded.net_return, traded.seconds / SECONDS_PER_YEAR
    equity = traded.equity
    count, earned = len(traded.trades), float(equity[-1] - 1)
    turnover = float(traded.traded.sum()) / years if years > 0 else None
    exposure = float(np.count_nonzero(traded.held)) / len(net)
    if count == 0:
        return Performance(0, exposure, earned, turnover, *[None] * 15)
    fall, bars = _drawdown(equity)
    cagr = _cagr(earned, years)
    hit_rate, profit_factor, expectancy = _of_trades(traded.trades)
    tail_ratio, var, es = _tails(net)
    skewness, kurtosis = _shape(net)
    return Performance(
        trades=count,
        exposure=exposure,
        net_return=earned,
        turnover_annual=turnover,
        cagr_annual=cagr,
        volatility_annual=_deviation(net) * math.sqrt(len(net) / years)
        if len(net) > 1 and years > 0
        else None,
        sharpe_annual=sharpe_annual(net, traded.seconds),
        sortino_annual=_sortino_annual(net, years),
        calmar_annual=cagr / fall if cagr is not None and fall > 0 else None,
        max_drawdown=fall,
        max_drawdown_bars=bars,
        hit_rate=hit_rate,
        profit_factor=profit_factor,
        expectancy=expectancy,
        tail_ratio_bar=tail_ratio,
        var_95_bar=var,
        es_95_bar=es,
        skewness_bar=skewness,
        kurtosis_bar=kurtosis,
    )


def plain(found: Performance) -> str:
    """What it came to, in a sentence."""
    if found.trades == 0:
        return "There were no trades: no forecast was reason enough to take a position, so there is nothing to score."
    earned = f"{found.net_return:+.1%} after costs"
    return f"{found.trades} trade{'s' if found.trades > 1 else ''}, in the market {found.exposure:.0%} of the time: {earned}."


def sharpe_annual(net: Float64, seconds: float) -> float | None:
    """Mean by standard deviation (over n - 1) of the returns (n,) that took so many seconds, for a year of such bars."""
    if len(net) < 2 or seconds <= 0:
        return None
    mean, deviation = float(net.mean()), _deviation(net)
    if deviation <= STILL * abs(mean):
        return None
    return mean / deviation * math.sqrt(len(net) * SECONDS_PER_YEAR / seconds)


def _deviation(net: Float64) -> float:
    return float(net.std(ddof=1))


def _sortino_annual(net: Float64, years: float) -> float | None:
    losses = np.minimum(net, 0.0)
    downside = math.sqrt(float(losses @ losses) / len(net))
    return float(net.mean()) / downside * math.sqrt(len(net) / years) if downside > 0 and years > 0 else None


def _cagr(earned: float, years: float) -> float | None:
    """None where so short a time would have to be blown up beyond what can be written down."""
    if earned <= -1:
        return -1.0
    growth = math.log1p(earned) / years if years > 0 else math.inf
    return math.expm1(growth) if growth < LARGEST else None


def _drawdown(equity: Float64) -> tuple[float, int]:
    """The largest fall from a peak, the capital of 1 at the start included, and how many bars it took to come back."""
    peaks = np.maximum.accumulate(np.maximum(equity, 1.0))
    falls = equity / peaks
    deepest = int(np.argmin(falls))
    if falls[deepest] >= 1:
        return 0.0, 0
    peak = peaks[deepest]
    before, after = equity[:deepest] >= peak, equity[deepest:] >= peak
    fell_from = deepest - 1 - int(np.argmax(before[::-1])) if before.any() else -1
    back = deepest + int(np.argmax(after)) if after.any() else len(equity) - 1
    return float(1 - falls[deepest]), back - fell_from


def _of_trades(trades: Trades) -> tuple[float, float | None, float]:
    """Hit rate, profit factor and expectancy."""
    earned = trades.net_return
    won, lost = float(earned[earned > 0].sum()), -float(earned[earned < 0].sum())
    return float(np.mean(earned > 0)), won / lost if lost > 0 else None, float(earned.mean())


def _tails(net: Float64) -> tuple[float | None, float, float]:
    """Tail ratio, value at risk and expected shortfall; quantiles lie between the two nearest returns."""
    low, high = (len(net) - 1) * TAIL, (len(net) - 1) * (1 - TAIL)
    places = sorted({place for at in (low, high) for place in (math.floor(at), math.ceil(at))})
    ordered = np.partition(net, places)
    worst, best = (_between(ordered, at) for at in (low, high))
    return abs(best / worst) if worst != 0 else None, worst, float(ordered[: math.floor(low) + 1].mean())


def _between(ordered: Float64, at: float) -> float:
    first = math.floor(at)
    a, b = float(ordered[first]), float(ordered[math.ceil(at)])
    return a + (b - a) * (at - first)


def _shape(net: Float64) -> tuple[float | None, float | None]:
    """Skewness and kurtosis, as moments over n."""
    mean = float(net.mean())
    d = net - mean
    squares = d * d
    variance = float(squares.mean())
    if math.sqrt(variance) <= STILL * abs(mean):
        return None, None
    n = len(net)
    return float(squares @ d) / n / variance**1.5, float(squares @ squares) / n / variance**2
