"""What other costs would have made of the same positions."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq

from model.portfolio import performance, sensitivity, trading
from model.portfolio.costs import Costs

HOUR = 3_600.0
FREE = Costs(0, 0)

rows = st.lists(
    st.tuples(st.sampled_from([-1.0, -0.4, 0.0, 0.3, 1.0, 1.7]), st.floats(-0.03, 0.04)),
    min_size=1,
    max_size=40,
).map(lambda rows: np.array(rows, np.float64))


def net_at(position: Any, returns: Any, bps: float) -> float:
    return float(trading.trade(position, returns, HOUR * len(returns), Costs(bps, 0)).equity[-1] - 1)


@given(rows, st.floats(0, 30))
@settings(deadline=None, max_examples=200)
def test_at_the_break_even_cost_nothing_is_left(given_rows: Any, bps: float) -> None:
    """Whatever cost they were traded at; the root is also found by Brent's method, over the whole of `trade`."""
    position, returns = given_rows.T
    found = sensitivity.break_even_bps(trading.trade(position, returns, HOUR * len(returns), Costs(bps, 0)))
    gross = net_at(position, returns, 0.0)
    if not position.any() or gross < 0:
        assert found is None or (position.any() and gross == pytest.approx(0, abs=1e-12))
        return
    assert found is not None
    assert net_at(position, returns, found) == pytest.approx(0, abs=1e-10)
    if gross > 1e-9:
        other = brentq(lambda cost: net_at(position, returns, cost), 0, 4_000, xtol=1e-12, rtol=1e-14)
        assert found == pytest.approx(other, rel=1e-6)


def test_the_break_even_cost_of_one_trade_by_hand() -> None:
    """A tenth earned, paid away in two halves: (1 - c)² = 1 / 1.1."""
    traded = trading.trade(np.ones(1), np.array([0.1]), HOUR, FREE)
    assert sensitivity.break_even_bps(traded) == pytest.approx((1 - 1 / np.sqrt(1.1)) * 10_000)


def test_what_loses_already_or_never_trades_has_no_break_even_cost() -> None:
    assert sensitivity.break_even_bps(trading.trade(np.ones(1), np.array([-0.1]), HOUR, FREE)) is None
    assert sensitivity.break_even_bps(trading.trade(np.zeros(2), np.ones(2), HOUR, FREE)) is None
    assert sensitivity.break_even_bps(trading.trade(-np.ones(2), np.full(2, 1.5), HOUR, FREE)) is None


def test_what_holding_costs_stays_in_the_break_even_cost() -> None:
    position, returns = np.ones(8), np.full(8, 0.001)
    free, funded = (
        sensitivity.break_even_bps(
            trading.trade(position, returns, 8 * HOUR, Costs(0, 0, funding_bps_8h=bps))
        )
        for bps in (0, 10)
    )
    assert free is not None
    assert funded is not None
    assert free - funded == pytest.approx(5, rel=0.01)


def test_the_break_even_cost_of_a_fortune_is_everything() -> None:
    traded = trading.trade(np.ones(40), np.full(40, 9.0), 40 * HOUR, FREE)
    assert sensitivity.break_even_bps(traded) == pytest.approx(10_000)


@given(rows, st.floats(0, 30))
@settings(deadline=None)
def test_a_sweep_is_trading_again_at_each_cost(given_rows: Any, bps: float) -> None:
    position, returns = given_rows.T
    seconds = HOUR * len(returns)
    traded = trading.trade(position, returns, seconds, Costs(bps, 0))
    points = sensitivity.sweep(traded, (0.0, 5.0, 25.0))
    for point in points:
        again = trading.trade(position, returns, seconds, Costs(point.each_way_bps, 0))
        assert point.net_return == pytest.approx(again.equity[-1] - 1, rel=1e-12, abs=1e-12)
        assert point.sharpe_annual == performance.sharpe_annual(again.net_return, seconds)
    earned = [point.net_return for point in points]
    assert earned == sorted(earned, reverse=True)
    assert set(points[0].document()) == {"each_way_bps", "net_return", "sharpe_annual"}
