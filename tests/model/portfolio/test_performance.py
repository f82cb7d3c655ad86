"""The figures of a performance: against empyrical, and against what a loop over the equity finds."""

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
