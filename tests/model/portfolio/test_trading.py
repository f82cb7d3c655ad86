"""What positions come to: against an account that is kept by hand, and by laws that no cost or forecast may break."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import BadInput
from model.portfolio import trading
from model.portfolio.costs import Costs
from tests.model.portfolio.twin import YEAR, by_hand

FREE = Costs(0, 0)
DEAR = Costs(10, 2, spread_bps=3, borrow_bps_annual=300, funding_bps_8h=1.5)
HOUR = 3_600.0

shares = st.sampled_from([-2.0, -1.0, -0.4, 0.0, 0.0, 0.3, 1.0, 1.7])
costs_of_all_kinds = st.builds(
    Costs,
    fee_bps=st.floats(0, 50),
    slippage_bps=st.floats(0, 20),
    spread_bps=st.floats(0, 20),
    borrow_bps_annual=st.floats(0, 2_000),
    funding_bps_8h=st.floats(-20, 20),
)


def bars(position: Any = shares, largest: float = 0.05) -> Any:
    """(n, 2): a position and the return of its step."""
    return st.lists(st.tuples(position, st.floats(-largest, largest)), min_size=1, max_size=40).map(
        lambda rows: np.array(rows, np.float64)
    )


def prices(returns: Any) -> list[float]:
    return [100.0, *(100 * np.cumprod(1 + returns)).tolist()]


@given(bars(), costs_of_all_kinds, st.integers(0, 3))
@settings(deadline=None, max_examples=300)
def test_it_is_what_an_account_kept_by_hand_says(rows: Any, costs: Costs, latency: int) -> None:
    position, returns = rows.T
    seconds = HOUR * len(rows)
    said = trading.trade(position, returns, seconds, costs, latency)
    hand = by_hand(position.tolist(), prices(returns), seconds, costs, latency)
    assert said.equity == pytest.approx(np.array(hand.capital), rel=1e-9)
    assert said.traded == pytest.approx(np.array(hand.traded), abs=1e-9)
    entered, left, side, earned = zip(*hand.trades, strict=True) if hand.trades else ((), (), (), ())
    assert said.trades.entered.tolist() == list(entered)
    assert said.trades.left.tolist() == list(left)
    assert said.trades.side.tolist() == list(side)
    assert said.trades.net_return == pytest.approx(np.array(earned), abs=1e-9)
    assert said.trades.bars.tolist() == [b - a for a, b in zip(entered, left, strict=True)]


@given(bars(largest=0.9))
@settings(deadline=None, max_examples=200)
def test_a_ruined_account_stays_at_nothing_and_trades_no_more(rows: Any) -> None:
    position, returns = rows.T
    said = trading.trade(position, returns, HOUR * len(rows), DEAR)
    hand = by_hand(position.tolist(), prices(returns), HOUR * len(rows), DEAR)
    assert (said.equity >= 0).all()
    assert said.equity == pytest.approx(np.array(hand.capital), rel=1e-7, abs=1e-300)
    assert len(said.trades) == len(hand.trades)
    if (said.equity == 0).any():
        ruin = int(np.argmax(said.equity == 0))
        assert said.net_return[ruin] == -1
        assert not said.held[ruin + 1 :].any()
        assert not said.traded[ruin + 1 :].any()
        assert said.trades.net_return[-1] == -1


def test_costs_can_ruin_an_account_too() -> None:
    said = trading.trade(np.array([1.0, -3.0, 1.0]), np.full(3, 0.01), HOUR * 3, Costs(3_000, 0))
    assert said.equity.tolist() == [pytest.approx(0.7 * 1.01), 0.0, 0.0]
    assert said.held.tolist() == [1.0, -3.0, 0.0]
    assert said.trades.net_return[-1] == -1


@given(bars(), costs_of_all_kinds)
@settings(deadline=None)
def test_all_trades_together_are_the_whole(rows: Any, costs: Costs) -> None:
    position, returns = rows.T
    said = trading.trade(position, returns, HOUR * len(rows), costs)
    assert np.prod(1 + said.trades.net_return) == pytest.approx(said.equity[-1], rel=1e-9)


@given(bars())
@settings(deadline=None)
def test_holding_all_the_time_for_nothing_is_buying_and_holding(rows: Any) -> None:
    returns = rows[:, 1]
    said = trading.trade(np.ones(len(rows)), returns, HOUR * len(rows), FREE)
    assert said.net_return.tolist() == ((1 + returns) - 1).tolist()
    assert said.trades.entered.tolist() == [0]
    assert said.trades.left.tolist() == [len(rows)]
    assert said.traded.tolist() == [1.0] + [0.0] * (len(rows) - 1) + [1.0]


@given(
    bars(),
    costs_of_all_kinds,
    st.sampled_from(["fee_bps", "slippage_bps", "spread_bps", "borrow_bps_annual"]),
)
@settings(deadline=None)
def test_a_higher_cost_never_helps(rows: Any, costs: Costs, name: str) -> None:
    position, returns = rows.T
    dearer = replace(costs, **{name: getattr(costs, name) + 5})
    cheap, dear = (trading.trade(position, returns, HOUR * len(rows), each) for each in (costs, dearer))
    assert dear.equity[-1] <= cheap.equity[-1] * (1 + 1e-12)


@given(bars(), st.floats(0, 20))
@settings(deadline=None)
def test_what_the_long_pay_as_funding_the_short_receive(rows: Any, bps: float) -> None:
    position, returns = rows.T
    long, short = (
        trading.trade(
            sign * position, sign * returns, HOUR * len(rows), Costs(0, 0, funding_bps_8h=sign * bps)
        )
        for sign in (1, -1)
    )
    assert long.growth.tolist() == pytest.approx(short.growth.tolist(), rel=1e-12)


@given(bars(), costs_of_all_kinds, st.integers(0, 3), st.data())
@settings(deadline=None)
def test_the_future_changes_no_earlier_step(rows: Any, costs: Costs, latency: int, data: Any) -> None:
    n = len(rows)
    cut = data.draw(st.integers(0, n - 1))
    changed = rows.copy()
    changed[cut:, 0] = data.draw(shares)
    changed[cut:, 1] = data.draw(st.floats(-0.05, 0.05))
    was, now = (trading.trade(*each.T, HOUR * n, costs, latency) for each in (rows, changed))
    assert was.net_return[:cut].tolist() == now.net_return[:cut].tolist()
    assert was.held[: cut + latency].tolist() == now.held[: cut + latency].tolist()


@given(bars(), costs_of_all_kinds, st.integers(0, 50))
@settings(deadline=None)
def test_latency_is_deciding_later(rows: Any, costs: Costs, latency: int) -> None:
    position, returns = rows.T
    n = len(rows)
    later = np.concatenate([np.zeros(latency), position])[:n]
    late, shifted = (
        trading.trade(position, returns, HOUR * n, costs, latency),
        trading.trade(later, returns, HOUR * n, costs),
    )
    assert late.net_return.tolist() == shifted.net_return.tolist()


def test_a_decision_is_traded_at_the_next_open_and_not_at_its_own_close() -> None:
    opens = np.array([100.0, 110.0, 99.0])  # of the bars after those decided on
    assert trading.bar_returns(opens, 120.0) == pytest.approx([0.1, -0.1, 120 / 99 - 1])


def test_a_short_position_pays_for_staying_a_share_of_the_capital() -> None:
    """After a fall by a tenth, capital is 1.1 and the position 0.9: 0.2 more have to be sold, at 1 % each way."""
    said = trading.trade(np.full(2, -1.0), np.array([-0.1, 0.0]), 2 * HOUR, Costs(100, 0))
    assert said.traded.tolist() == pytest.approx([1.0, 0.2 / 1.1, 1.0])
    assert said.equity.tolist() == pytest.approx([0.99 * 1.1, 0.99 * 1.1 * (1 - 0.01 * 0.2 / 1.1) * 0.99])


def test_holding_costs_are_those_of_the_time_that_passed() -> None:
    """A year of a short position at 3 % a year, and eight hours of a long one at 2 bps each eight."""
    year = trading.trade(np.full(1_000, -1.0), np.zeros(1_000), YEAR, Costs(0, 0, borrow_bps_annual=300))
    assert year.equity[-1] == pytest.approx(np.exp(-0.03), rel=1e-6)
    held = trading.trade(np.ones(8), np.zeros(8), 8 * HOUR, Costs(0, 0, funding_bps_8h=2))
    assert held.growth.sum() - 8 == pytest.approx(-2e-4)


@pytest.mark.parametrize(
    ("position", "returns", "latency", "said"),
    [(np.ones(3), np.ones(2), 0, "3 positions and 2"), (np.ones(0), np.ones(0), 0, "at least one"),
     (np.ones(2), np.ones(2), -1, "latency")],
)  # fmt: skip
def test_what_cannot_be_traded_is_refused(position: Any, returns: Any, latency: int, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        trading.trade(position, returns, HOUR, FREE, latency)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [({"fee_bps": -1}, "fee_bps must be 0 or more"), ({"slippage_bps": float("nan")}, "slippage_bps must be a number"),
     ({"spread_bps": True}, "spread_bps"), ({"funding_bps_8h": float("inf")}, "funding_bps_8h")],
)  # fmt: skip
def test_a_cost_that_cannot_be_is_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        Costs(**{"fee_bps": 1, "slippage_bps": 1, **wrong})


def test_each_way_pays_half_the_spread() -> None:
    costs = Costs(10, 2, spread_bps=3)
    assert costs.each_way == pytest.approx(0.00135)
    assert costs.round_trip_bps == pytest.approx(27)
