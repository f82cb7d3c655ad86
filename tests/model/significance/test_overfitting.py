"""The probability of backtest overfitting: an independent implementation, noise, and trials of known skill."""

import numpy as np
import purgedcv
import pytest

from model.significance.overfitting import Overfitting, overfitting


def found(returns: np.ndarray, blocks: int) -> Overfitting:
    result = overfitting(returns, blocks)
    assert result is not None
    return result


@pytest.mark.parametrize(("trials", "n", "blocks"), [(2, 40, 4), (6, 203, 8), (7, 500, 10), (20, 120, 6)])
def test_every_way_to_choose_ends_as_in_purgedcv(trials: int, n: int, blocks: int) -> None:
    rng = np.random.default_rng(n)
    returns = rng.standard_normal((trials, n)) * 0.01 + rng.standard_normal((trials, 1)) * 0.001
    ours, theirs = found(returns, blocks), purgedcv.probability_of_backtest_overfitting(returns, blocks)
    # they walk through the ways to judge, we through the ways to choose: one is the other backwards
    np.testing.assert_allclose(ours.logits, theirs.logits[::-1], rtol=1e-12, atol=1e-14)
    sharpes = np.stack([ours.chosen_bar, ours.judged_bar], axis=1)
    np.testing.assert_allclose(sharpes, theirs.is_oos_performance[::-1], rtol=1e-9, atol=1e-12)
    at_median = (theirs.logits == 0).mean()
    assert ours.probability == pytest.approx(theirs.pbo + at_median / 2)


@pytest.mark.parametrize("trials", [2, 3, 9])
def test_among_noise_choosing_is_blind(trials: int) -> None:
    rng = np.random.default_rng(trials)
    results = [found(rng.standard_normal((trials, 400)), 8) for _ in range(200)]
    assert np.mean([r.probability for r in results]) == pytest.approx(0.5, abs=0.06)
    assert np.mean([r.loss for r in results]) == pytest.approx(0.5, abs=0.06)


def test_a_trial_with_skill_among_noise_is_chosen_and_stays_ahead() -> None:
    returns = np.random.default_rng(1).standard_normal((20, 4_000))
    returns[7] += 0.2
    result = found(returns, 16)
    assert len(result.rank) == 12_870
    assert result.probability < 0.01
    assert result.loss < 0.01


def test_trials_that_fit_one_half_at_the_others_cost_are_overfitted() -> None:
    """Each trial's mean over all rows is nil, so whatever it earned in one half it lost in the other."""
    returns = np.random.default_rng(2).standard_normal((30, 800))
    result = found(returns - returns.mean(axis=1, keepdims=True), 10)
    assert result.probability > 0.95
    assert result.loss == 1.0


def test_equal_trials_are_each_the_median() -> None:
    returns = np.tile(np.random.default_rng(3).standard_normal(333), (33, 1))
    assert found(returns, 8).probability == 0.5


def test_a_trial_that_never_traded_has_a_sharpe_ratio_of_zero() -> None:
    returns = np.stack([np.zeros(100), np.random.default_rng(4).standard_normal(100) - 1])
    result = found(returns, 4)
    assert (result.chosen_bar == 0).all()
    assert (result.judged_bar == 0).all()
    assert result.probability == 0.0


@pytest.mark.parametrize("shape", [(1, 400), (0, 400), (5, 31), (5, 0)])
def test_too_few_trials_or_rows_have_no_answer(shape: tuple[int, int]) -> None:
    assert overfitting(np.zeros(shape)) is None
