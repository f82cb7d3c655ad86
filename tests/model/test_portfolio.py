"""Positions and what they earn: against a bar-by-bar twin that trades by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model import portfolio
from model.portfolio import Costs

FREE = Costs(0, 0)
DEAR = Costs(10, 2)
YEAR = portfolio.SECONDS_PER_YEAR


def by_hand(expected: list[float], costs: Costs) -> list[float]:
    held, out = 0.0, []
    for e in expected:
        side = float(np.sign(e))
        if abs(e) > 2 * costs.each_way:
            held = side
        elif side != held:
            held = 0.0
        out.append(held)
    return out


@given(st.lists(st.sampled_from([-0.01, -0.001, 0.0, 0.001, 0.01]), min_size=1, max_size=60))
@settings(deadline=None)
def test_positions_are_entered_where_they_pay_and_left_when_the_sign_turns(expected: list[float]) -> None:
    assert portfolio.positions(np.array(expected), DEAR).tolist() == by_hand(expected, DEAR)


@given(
    st.lists(st.tuples(st.sampled_from([-1.0, 0.0, 1.0]), st.floats(-0.05, 0.05)), min_size=2, max_size=50)
)
@settings(deadline=None)
def test_the_equity_is_that_of_trading_by_hand(bars: list[tuple[float, float]]) -> None:
    capital, peak, fall, held, traded = 1.0, 1.0, 0.0, 0.0, 0.0
    for i, (position, change) in enumerate(bars):
        cost = abs(position - held) * DEAR.each_way
        traded += abs(position - held)
        if i == len(bars) - 1:
            cost += abs(position) * DEAR.each_way
            traded += abs(position)
        capital *= 1 + position * change - cost
        held = position
        peak = max(peak, capital)
        fall = max(fall, 1 - capital / peak)
    position, change = (np.array(column) for column in zip(*bars, strict=True))
    said = portfolio.trade(position, change, YEAR, DEAR)
    assert said.net_return == pytest.approx(capital - 1)
    assert said.max_drawdown == pytest.approx(fall)
    assert said.turnover_annual == pytest.approx(traded)


def test_a_decision_is_traded_at_the_next_open_and_not_at_its_own_close() -> None:
    opens = np.array([100.0, 110.0, 99.0])  # of the bars after those decided on
    assert portfolio.bar_returns(opens, 120.0) == pytest.approx([0.1, -0.1, 120 / 99 - 1])


def test_without_a_trade_there_is_nothing_to_boast_of() -> None:
    said = portfolio.trade(np.zeros(10), np.full(10, 0.01), YEAR, DEAR)
    assert said.trades == 0
    assert said.net_return == 0
    assert said.sharpe_annual is None


def test_costs_only_ever_lower_the_return() -> None:
    rng = np.random.default_rng(0)
    position, returns = rng.choice([-1.0, 0.0, 1.0], 500), rng.normal(0, 0.01, 500)
    assert (
        portfolio.trade(position, returns, YEAR, DEAR).net_return
        < portfolio.trade(position, returns, YEAR, FREE).net_return
    )


def test_the_sharpe_ratio_is_annualised_by_the_bars_that_there_were() -> None:
    returns = np.random.default_rng(1).normal(0.001, 0.01, 8_766)
    said = portfolio.trade(np.ones(8_766), returns, YEAR, FREE)
    assert said.sharpe_annual == pytest.approx(returns.mean() / returns.std(ddof=1) * np.sqrt(8_766))
