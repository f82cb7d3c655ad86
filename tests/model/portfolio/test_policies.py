"""Target positions: the live function and the vectorised one are the same, and each policy does what its name says."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import BadInput
from model.portfolio import policies
from model.portfolio.costs import Costs
from model.portfolio.policies import RULES, Forecasts, Policy

DEAR = Costs(10, 2)
FREE = Costs(0, 0)

rows = st.lists(
    st.tuples(
        st.one_of(st.sampled_from([0.4, 0.45, 0.5, 0.55, 0.6]), st.floats(0.01, 0.99)),
        st.one_of(st.sampled_from([-0.01, -0.001, 0.0, 0.001, 0.01]), st.floats(-0.05, 0.05)),
        st.one_of(st.just(0.0), st.floats(1e-4, 0.1)),
        st.booleans(),
    ),
    min_size=1,
    max_size=60,
)
any_policy = st.builds(
    Policy,
    name=st.sampled_from(list(RULES)),
    long_only=st.booleans(),
    cap=st.floats(0.1, 3),
    threshold=st.sampled_from([0.5, 0.55, 0.6]),
    kelly_fraction=st.floats(0.01, 1),
    target_volatility_bps=st.floats(1, 500),
)


def forecasts(given_rows: list[tuple[float, float, float, bool]]) -> Forecasts:
    p_up, expected, scale, abstained = zip(*given_rows, strict=True)
    return Forecasts(np.array(p_up), np.array(expected), np.array(scale), np.array(abstained))


@given(any_policy, rows)
@settings(deadline=None, max_examples=400)
def test_one_bar_after_another_gives_the_same_bits(policy: Policy, given_rows: Any) -> None:
    held, one_by_one = 0.0, []
    for p_up, expected, scale, abstained in given_rows:
        held = policies.target(policy, DEAR, held, p_up, expected, scale, abstained)
        one_by_one.append(held)
    assert policies.positions(policy, DEAR, forecasts(given_rows)).tolist() == one_by_one


@given(any_policy, rows, st.data())
@settings(deadline=None)
def test_the_future_changes_no_earlier_position(policy: Policy, given_rows: Any, data: Any) -> None:
    cut = data.draw(st.integers(0, len(given_rows)))
    other = given_rows[:cut] + data.draw(rows)
    was, now = (policies.positions(policy, DEAR, forecasts(each)) for each in (given_rows, other))
    assert was[:cut].tolist() == now[:cut].tolist()


@given(any_policy, rows)
@settings(deadline=None)
def test_no_position_is_beyond_what_the_policy_allows(policy: Policy, given_rows: Any) -> None:
    said = forecasts(given_rows)
    held = policies.positions(policy, DEAR, said)
    assert (np.abs(held) <= policy.cap).all()
    assert said.abstained is not None
    assert not held[said.abstained].any()
    if policy.long_only:
        assert (held >= 0).all()


@given(rows)
@settings(deadline=None)
def test_cost_aware_enters_where_it_pays_and_leaves_when_the_sign_turns(given_rows: Any) -> None:
    held, by_hand = 0, []
    for _, expected, _, abstained in given_rows:
        side = 0 if abstained or expected == 0 else (1 if expected > 0 else -1)
        if side and abs(expected) * 10_000 > 24:
            held = side
        elif side != held:
            held = 0
        by_hand.append(float(held))
    assert policies.positions(Policy(), DEAR, forecasts(given_rows)).tolist() == by_hand


@pytest.mark.parametrize(
    ("policy", "p_up", "expected", "scale", "held"),
    [
        (Policy("sign"), 0.2, 0.0001, 0.01, 1.0),
        (Policy("sign", cap=0.5), 0.9, -0.0001, 0.01, -0.5),
        (Policy("sign", long_only=True), 0.5, -0.01, 0.01, 0.0),
        (Policy("sign"), 0.5, 0.0, 0.01, 0.0),
        (Policy("threshold", threshold=0.6), 0.6, -0.5, 0.01, 1.0),
        (Policy("threshold", threshold=0.6), 0.59, 0.5, 0.01, 0.0),
        (Policy("threshold", threshold=0.6), 0.39, 0.5, 0.01, -1.0),
        (Policy("threshold", threshold=0.5), 0.5, 0.5, 0.01, 1.0),
        # a mean of 0.0001 by a variance of 0.0001 is a whole position, of which half is held
        (Policy("kelly"), 0.5, 0.0001, 0.01, 0.5),
        (Policy("kelly", kelly_fraction=0.25, cap=2), 0.5, -0.0004, 0.01, -1.0),
        (Policy("kelly"), 0.5, 0.01, 0.01, 1.0),
        (Policy("kelly"), 0.5, 0.01, 0.0, 0.0),
        # 50 bps aimed at, of a market that moves 200
        (Policy("volatility"), 0.5, 0.001, 0.02, 0.25),
        (Policy("volatility"), 0.5, -0.001, 0.001, -1.0),
        (Policy("volatility"), 0.5, -0.001, 0.0, 0.0),
    ],
)
def test_a_policy_by_hand(policy: Policy, p_up: float, expected: float, scale: float, held: float) -> None:
    assert policies.target(policy, DEAR, 0.0, p_up, expected, scale) == pytest.approx(held)


def test_kellys_position_is_the_one_under_which_capital_grows_fastest() -> None:
    """Against the mean logarithm of many drawn returns, position by position."""
    mean, deviation = 0.0002, 0.015
    returns = np.random.default_rng(0).normal(0, 1, 400_000)
    returns = (returns - returns.mean()) / returns.std() * deviation + mean
    shares = np.linspace(0, 2, 201)
    best = shares[np.argmax([np.log1p(share * returns).mean() for share in shares])]
    whole = policies.target(Policy("kelly", kelly_fraction=1, cap=2), DEAR, 0.0, 0.5, mean, deviation)
    assert whole == pytest.approx(best, abs=0.02)


def test_a_volatility_target_gives_the_capital_that_volatility() -> None:
    rng = np.random.default_rng(0)
    scale = np.exp(rng.normal(-4, 0.5, 50_000))
    returns = rng.normal(0, scale)
    said = Forecasts(np.full(50_000, 0.6), np.full(50_000, 0.001), scale)
    held = policies.positions(Policy("volatility", target_volatility_bps=20, cap=10), DEAR, said)
    assert (held * returns).std() == pytest.approx(0.0020, rel=0.02)


@pytest.mark.parametrize(("previous", "held"), [(0.3, 1.0), (2.0, 1.0), (1.0, 1.0), (0.0, 0.0), (-0.3, 0.0)])
def test_what_a_bot_holds_of_another_size_is_kept_by_its_side_and_made_that_size(
    previous: float, held: float
) -> None:
    """A return that would not pay for entering: the side of what is held decides."""
    assert policies.target(Policy(), DEAR, previous, 0.5, 0.001, 0.01) == held


@given(st.sampled_from([-1.0, -0.3, 0.3, 1.0]), st.floats(-0.05, 0.05))
@settings(deadline=None)
def test_a_position_pays_up_to_the_cost_at_which_it_would_not_be_entered(
    side: float, expected: float
) -> None:
    up_to = policies.pays_up_to(side, expected)
    assert up_to is not None
    assert up_to >= 0
    for bps, pays in ((up_to * 0.999, True), (up_to * 1.001, False)):
        target = policies.target(Policy(), Costs(bps / 2, 0), 0.0, 0.5, expected, 0.01)
        assert (target * side > 0) == (pays and up_to > 0)


def test_what_is_not_held_has_nothing_to_pay_for() -> None:
    assert policies.pays_up_to(0.0, 0.01) is None
    assert policies.pays_up_to(-1.0, 0.01) == 0
    assert policies.pays_up_to(0.5, 0.0012) == pytest.approx(12)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [({"name": "martingale"}, "one of cost_aware, sign, threshold, kelly, volatility, not 'martingale'"),
     ({"threshold": 0.4}, "threshold must be from 0.5"), ({"threshold": 1}, "below 1"),
     ({"kelly_fraction": 1.5}, "at most 1"), ({"kelly_fraction": 0}, "above 0"), ({"cap": float("inf")}, "cap"),
     ({"target_volatility_bps": float("nan")}, "target_volatility_bps"), ({"long_only": 1}, "True or False"),
     ({"cap": "1"}, "cap must be a number")],
)  # fmt: skip
def test_a_policy_that_cannot_be_is_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        Policy(**wrong)


@pytest.mark.parametrize("policy", [Policy(name) for name in RULES], ids=list(RULES))
@pytest.mark.parametrize("column", ["p_up", "expected_return", "scale"])
def test_a_row_without_a_forecast_is_refused_unless_it_is_abstained_from(policy: Policy, column: str) -> None:
    columns = {
        "p_up": np.full(2, 0.6),
        "expected_return": np.full(2, 0.01),
        "scale": np.full(2, 0.01),
        column: np.array([0.6, np.nan]),
    }
    with pytest.raises(BadInput, match="1 of 2 forecasts"):
        Forecasts(**columns)
    held = policies.positions(policy, FREE, Forecasts(**columns, abstained=np.array([False, True])))
    assert held[0] > 0
    assert held[1] == 0


def test_columns_of_different_length_are_refused() -> None:
    with pytest.raises(BadInput, match="scale has 3 rows, but p_up has 2"):
        Forecasts(np.ones(2), np.ones(2), np.ones(3))
