"""The figures of a performance: against empyrical and quantstats, and against what a loop over the equity finds.

Where quantstats differs: its value at risk is a normal's, so that ours is taken out of its ratio of outliers; its expected
shortfall counts all that tie with the quantile; a trade that earns nothing is none to it; a profit factor without a loss
is infinite or 0; and its exposure is in whole per cent, rounded up. Its Monte Carlo only permutes returns, which has
nothing to say about ours.
"""

from types import ModuleType
from typing import Any

import empyrical
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.portfolio import performance, trading
from model.portfolio.costs import Costs
from model.portfolio.performance import Performance
from tests.model.portfolio.twin import YEAR

FREE = Costs(0, 0)
DEAR = Costs(3, 1)
HOUR = 3_600.0


def walk(n: int, seed: int, per_year: float = 8_766.0, costs: Costs = DEAR) -> trading.Traded:
    """Heavy-tailed returns under positions that last a while."""
    rng = np.random.default_rng(seed)
    returns = 0.004 * rng.standard_t(4, n)
    position = np.repeat(rng.choice([-1.0, 0.0, 0.5, 1.0], n // 5 + 1), 5)[:n]
    return trading.trade(position, returns, n * YEAR / per_year, costs)


@pytest.mark.parametrize("per_year", [8_766.0, 252.0])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("n", [3_000, 1_001, 61])
def test_the_figures_are_those_of_empyrical(n: int, seed: int, per_year: float) -> None:
    traded = walk(n, seed, per_year)
    said = performance.measure(traded)
    returns = pd.Series(traded.net_return)
    year: dict[str, Any] = {"period": None, "annualization": per_year}
    expected = {
        "net_return": empyrical.cum_returns_final(returns),
        "cagr_annual": empyrical.cagr(returns, **year),
        "volatility_annual": empyrical.annual_volatility(returns, **year),
        "sharpe_annual": empyrical.sharpe_ratio(returns, **year),
        "sortino_annual": empyrical.sortino_ratio(returns, **year),
        "calmar_annual": empyrical.calmar_ratio(returns, **year),
        "max_drawdown": -empyrical.max_drawdown(returns),
        "tail_ratio_bar": empyrical.tail_ratio(returns),
        "var_95_bar": empyrical.value_at_risk(returns, cutoff=0.05),
        "es_95_bar": empyrical.conditional_value_at_risk(returns, cutoff=0.05),
        "skewness_bar": returns.skew() * (n - 2) / np.sqrt(n * (n - 1)),  # pandas has the unbiased ones
        "kurtosis_bar": (returns.kurt() * (n - 2) * (n - 3) / (n - 1) - 6) / (n + 1) + 3,
    }
    for name, value in expected.items():
        assert getattr(said, name) == pytest.approx(value, rel=1e-9), name


@pytest.fixture(scope="module")
def quantstats() -> ModuleType:
    return pytest.importorskip("quantstats.stats", reason="needs quantstats, which CI installs")  # type: ignore[no-any-return]


def by_day(net_return: Any) -> "pd.Series[float]":
    """As quantstats takes returns: of days, though each may stand for a bar of any length."""
    return pd.Series(net_return, index=pd.date_range("1990-01-01", periods=len(net_return)), dtype=float)


@pytest.mark.parametrize("per_year", [8_766.0, 252.0])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("n", [3_000, 1_001, 61])
def test_the_figures_are_those_of_quantstats(
    quantstats: ModuleType, n: int, seed: int, per_year: float
) -> None:
    traded = walk(n, seed, per_year)
    said, returns = performance.measure(traded), by_day(traded.net_return)
    expected = {
        "net_return": quantstats.comp(returns),
        "cagr_annual": quantstats.cagr(returns, periods=per_year),
        "volatility_annual": quantstats.volatility(returns, periods=per_year),
        "sharpe_annual": quantstats.sharpe(returns, periods=per_year),
        "sortino_annual": quantstats.sortino(returns, periods=per_year),
        "calmar_annual": quantstats.calmar(returns, periods=per_year),
        "max_drawdown": -quantstats.max_drawdown(returns),
        "tail_ratio_bar": quantstats.tail_ratio(returns),
        "var_95_bar": quantstats.outlier_loss_ratio(returns, 0.05) * quantstats.avg_loss(returns),
        "es_95_bar": quantstats.expected_shortfall(returns, method="historical"),
    }
    for name, value in expected.items():
        assert getattr(said, name) == pytest.approx(value, rel=1e-9), name
    trades = by_day(traded.trades.net_return)
    assert said.hit_rate == pytest.approx(quantstats.win_rate(trades))
    assert said.profit_factor == pytest.approx(quantstats.profit_factor(trades))
    assert said.expectancy == pytest.approx(quantstats.avg_return(trades))
    free = walk(n, seed, per_year, FREE)
    assert np.ceil(performance.measure(free).exposure * 100) / 100 == quantstats.exposure(
        by_day(free.net_return)
    )


def test_the_length_of_the_largest_drawdown_is_that_of_quantstats(quantstats: ModuleType) -> None:
    """Theirs are the days below the peak: one less where it is regained. A day of 0 before all is where ours starts."""
    regained = []
    for seed in range(40):
        traded = walk(200, seed, costs=FREE)
        below = quantstats.to_drawdown_series(by_day([0.0, *traded.net_return]))
        found = quantstats.drawdown_details(below)
        deepest = found.loc[found["max drawdown"].idxmin()]
        regained.append(deepest["end"] != below.index[-1].strftime("%Y-%m-%d"))
        said = performance.measure(traded)
        assert said.max_drawdown_bars == deepest["days"] + regained[-1], seed
        assert said.max_drawdown == pytest.approx(-deepest["max drawdown"] / 100, rel=1e-9), seed
    assert 5 < sum(regained) < 35


sixty_fourths = st.integers(-63, 63).map(lambda k: k / 64)  # whose sums with 1 are not rounded


@given(st.lists(sixty_fourths, min_size=1, max_size=50))
@settings(deadline=None)
def test_the_figures_of_trades_are_those_of_quantstats(quantstats: ModuleType, earned: list[float]) -> None:
    """A bar each, with one without a position after it."""
    n = 2 * len(earned)
    position, returns = np.resize([1.0, 0.0], n), np.full(n, 0.25)
    returns[::2] = earned
    said = performance.measure(trading.trade(position, returns, HOUR * n, FREE))
    trades, moving = by_day(earned), sum(each != 0 for each in earned)
    assert said.hit_rate is not None
    assert said.expectancy is not None
    if moving:
        assert said.hit_rate * len(earned) == pytest.approx(quantstats.win_rate(trades) * moving)
        mean = quantstats.avg_return(trades) * moving / len(earned)
        assert said.expectancy == pytest.approx(mean, abs=1e-15)
    else:
        assert (said.hit_rate, said.expectancy) == (0, 0)
    factor = quantstats.profit_factor(trades, prepare_returns=False)
    if said.profit_factor is None:
        assert factor == (np.inf if moving else 0)
    else:
        assert said.profit_factor == pytest.approx(factor)


@given(st.lists(sixty_fourths, min_size=1, max_size=60, unique=True))
@settings(deadline=None)
def test_the_figures_of_few_bars_are_those_of_quantstats(quantstats: ModuleType, held: list[float]) -> None:
    traded = trading.trade(np.ones(len(held)), np.array(held), HOUR * len(held), FREE)
    said, returns = performance.measure(traded), by_day(held)
    per_year = YEAR / HOUR
    assert said.es_95_bar == pytest.approx(quantstats.expected_shortfall(returns, method="historical"))
    assert said.max_drawdown == pytest.approx(-quantstats.max_drawdown(returns), abs=1e-12)
    ratio = quantstats.tail_ratio(returns)
    assert said.tail_ratio_bar == (None if np.isnan(ratio) else pytest.approx(ratio))
    if min(held) < 0:
        var = quantstats.outlier_loss_ratio(returns, 0.05) * quantstats.avg_loss(returns)
        assert said.var_95_bar == pytest.approx(var, abs=1e-15)
        assert said.sortino_annual == pytest.approx(quantstats.sortino(returns, periods=per_year), abs=1e-9)
    if said.cagr_annual is not None:
        cagr = quantstats.cagr(returns, periods=per_year)
        assert said.cagr_annual == pytest.approx(cagr, rel=1e-9, abs=1e-12)
        if min(held) < 0:
            calmar = quantstats.calmar(returns, periods=per_year)
            assert said.calmar_annual == pytest.approx(calmar, rel=1e-9, abs=1e-12)


def test_ruin_is_that_of_quantstats(quantstats: ModuleType) -> None:
    traded = trading.trade(np.full(4, -1.0), np.array([0.1, 1.5, -0.5, -0.5]), YEAR, FREE)
    said, returns = performance.measure(traded), by_day(traded.net_return)
    for name, value in {
        "net_return": quantstats.comp(returns),
        "cagr_annual": quantstats.cagr(returns, periods=4),
        "calmar_annual": quantstats.calmar(returns, periods=4),
        "max_drawdown": -quantstats.max_drawdown(returns),
    }.items():
        assert getattr(said, name) == value == (1 if name == "max_drawdown" else -1), name


def longest(equity: list[float]) -> tuple[float, int]:
    """The largest fall, and the bars from its peak until it is regained, each bar looked at by itself."""
    capital = [1.0, *equity]
    fall, bars = 0.0, 0
    for bottom in range(len(capital)):
        peak = max(range(bottom + 1), key=lambda i: (capital[i], i))
        if 1 - capital[bottom] / capital[peak] > fall:
            fall = 1 - capital[bottom] / capital[peak]
            back = [i for i in range(bottom, len(capital)) if capital[i] >= capital[peak]]
            bars = (back[0] if back else len(capital) - 1) - peak
    return fall, bars


@given(st.lists(st.sampled_from([-0.5, -0.25, 0.0, 0.0, 0.25, 1.0]), min_size=1, max_size=30))
@settings(deadline=None, max_examples=300)
def test_the_largest_drawdown_and_its_length_are_those_that_a_loop_finds(returns: list[float]) -> None:
    traded = trading.trade(np.ones(len(returns)), np.array(returns), HOUR * len(returns), FREE)
    said = performance.measure(traded)
    fall, bars = longest(traded.equity.tolist())
    assert said.max_drawdown == pytest.approx(fall)
    assert said.max_drawdown_bars == bars


def test_the_figures_of_trades_by_hand() -> None:
    """Two trades that earn 10 % and 20 %, one that loses 5 %, and a bar without a position after each."""
    position = np.array([1.0, 0, -1, 0, 1, 0])
    returns = np.array([0.1, 0.3, -0.2, 0.3, -0.05, 0.3])
    said = performance.measure(trading.trade(position, returns, YEAR, FREE))
    assert (said.trades, said.exposure) == (3, 0.5)
    assert said.hit_rate == pytest.approx(2 / 3)
    assert said.profit_factor == pytest.approx(0.3 / 0.05)
    assert said.expectancy == pytest.approx(0.25 / 3)
    assert said.net_return == pytest.approx(1.1 * 1.2 * 0.95 - 1)
    assert said.turnover_annual == pytest.approx(1 + 1 + 1 + 0.8 / 1.2 + 1 + 1)


def test_a_year_has_the_bars_that_there_were() -> None:
    """The same returns over half the time: twice the bars a year."""
    slow = performance.measure(walk(2_000, 0, 1_000))
    fast = performance.measure(walk(2_000, 0, 2_000))
    assert slow.sharpe_annual is not None
    assert fast.sharpe_annual == pytest.approx(slow.sharpe_annual * np.sqrt(2))
    assert fast.turnover_annual == pytest.approx(2 * slow.turnover_annual)
    for name in (
        "var_95_bar",
        "es_95_bar",
        "skewness_bar",
        "kurtosis_bar",
        "max_drawdown_bars",
        "net_return",
    ):
        assert getattr(fast, name) == getattr(slow, name), name


def test_without_a_trade_there_is_nothing_to_score_and_that_is_said() -> None:
    said = performance.measure(trading.trade(np.zeros(10), np.full(10, 0.01), YEAR, DEAR))
    document = said.document()
    known = {"trades": 0, "exposure": 0.0, "net_return": 0.0, "turnover_annual": 0.0}
    assert {name: value for name, value in document.items() if value is not None} == known
    assert "There were no trades" in performance.plain(said)


def test_a_figure_that_means_nothing_is_none() -> None:
    rising = performance.measure(trading.trade(np.ones(10), np.full(10, 0.01), YEAR, FREE))
    assert rising.sharpe_annual is None
    assert rising.sortino_annual is None
    assert rising.calmar_annual is None
    assert rising.profit_factor is None
    assert rising.skewness_bar is None
    assert (rising.max_drawdown, rising.max_drawdown_bars) == (0.0, 0)
    single = performance.measure(trading.trade(np.ones(1), np.array([0.01]), HOUR, FREE))
    assert single.volatility_annual is None
    assert single.sharpe_annual is None
    timeless = performance.measure(trading.trade(np.ones(3), np.array([0.01, -0.01, 0.02]), 0.0, FREE))
    annual = {name: value for name, value in timeless.document().items() if name.endswith("_annual")}
    assert set(annual.values()) == {None}
    blown_up = performance.measure(trading.trade(np.ones(2), np.array([3.0, 1.0]), 1.0, FREE))
    assert blown_up.cagr_annual is None


def test_ruin_is_told_in_every_figure() -> None:
    said = performance.measure(trading.trade(np.full(4, -1.0), np.array([0.1, 1.5, -0.5, -0.5]), YEAR, FREE))
    assert (said.net_return, said.cagr_annual, said.max_drawdown, said.max_drawdown_bars) == (-1, -1, 1, 4)
    assert said.expectancy == -1


def test_a_document_holds_numbers_that_json_knows() -> None:
    document = performance.measure(walk(500, 1)).document()
    assert {type(value) for value in document.values()} == {int, float}
    assert all(np.isfinite(value) for value in document.values() if value is not None)


def test_a_sentence_says_what_it_came_to() -> None:
    one = performance.measure(trading.trade(np.array([1.0, 0.0]), np.array([0.1, 0.5]), YEAR, FREE))
    assert performance.plain(one) == "1 trade, in the market 50% of the time: +10.0% after costs."
    assert performance.plain(performance.measure(walk(500, 1))).split(" ")[1] == "trades,"


def test_what_is_per_bar_or_per_year_says_so() -> None:
    """The others are of the whole period, of a trade, or a count."""
    free = {
        "trades",
        "exposure",
        "net_return",
        "max_drawdown",
        "max_drawdown_bars",
        "hit_rate",
        "profit_factor",
    }
    named = {name for name in Performance.__dataclass_fields__ if name.endswith(("_bar", "_annual"))}
    assert set(Performance.__dataclass_fields__) == named | free | {"expectancy"}
