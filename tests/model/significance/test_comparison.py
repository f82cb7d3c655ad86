"""Diebold and Mariano's test: its errors are statsmodels', its correction the paper's, its size under the null nominal."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.api import OLS
from statsmodels.stats.sandwich_covariance import S_hac_simple

from model import significance
from model.significance import comparison


def overlapping(rng: np.random.Generator, n: int, horizon: int) -> np.ndarray:
    """Differences of losses of equally good forecasters whose labels share bars."""
    return np.convolve(rng.standard_normal(n + horizon - 1), np.ones(horizon), "valid")


@pytest.mark.parametrize("n", [250, 3_000])
def test_the_error_of_a_gain_is_statsmodels_newey_west_but_for_its_correction(n: int) -> None:
    d = overlapping(np.random.default_rng(n), n, 5) + 0.1
    lags = int(4 * (n / 100) ** (2 / 9))
    oracle = OLS(d, np.ones(n)).fit(cov_type="HAC", cov_kwds={"maxlags": lags, "use_correction": False})
    gain = significance.gain(d, np.zeros(n), 1)
    share = comparison.expected_share(n, comparison.bartlett(lags))
    assert gain.mean == pytest.approx(oracle.params[0], rel=1e-12)
    assert gain.error == pytest.approx(oracle.bse[0] / np.sqrt(share), rel=1e-12)


@settings(deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=1, max_size=12), st.integers(20, 60))
def test_weighted_autocovariances_are_statsmodels(weights: list[float], n: int) -> None:
    d = np.random.default_rng(n).standard_normal(n)
    oracle = S_hac_simple(
        (d - d.mean())[:, None], nlags=len(weights), weights_func=lambda _: np.array([1.0, *weights])
    )
    found = comparison.long_run_variance(d, np.array(weights))
    assert found == pytest.approx(float(oracle.squeeze()) / n, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(("n", "horizon"), [(8, 1), (16, 2), (64, 4), (512, 10)])
def test_full_weights_are_corrected_as_harvey_leybourne_and_newbold_have_it(n: int, horizon: int) -> None:
    published = (n + 1 - 2 * horizon + horizon * (horizon - 1) / n) / n
    assert comparison.expected_share(n, np.ones(horizon - 1)) == pytest.approx(published, rel=1e-12)


def test_the_share_that_is_found_is_what_simulation_finds_for_falling_weights() -> None:
    rng, w = np.random.default_rng(0), comparison.bartlett(6)
    found = [comparison.long_run_variance(rng.standard_normal(40), w) for _ in range(20_000)]
    error = np.std(found) / np.sqrt(len(found))
    assert np.mean(found) == pytest.approx(comparison.expected_share(40, w), abs=4 * error)


def test_a_gain_is_a_comparison_and_its_p_students() -> None:
    baseline, losses = np.random.default_rng(1).standard_normal((2, 500))
    gain, found = significance.gain(baseline, losses, 3), significance.compare(baseline, losses, 3)
    assert (gain.rows, gain.mean, gain.error) == (found.rows, found.gain, found.error)
    assert found.z == gain.z
    assert found.p == pytest.approx(stats.t.sf(found.z, 499), rel=1e-9)


@pytest.mark.parametrize(("n", "horizon"), [(60, 1), (500, 1), (250, 4), (1_000, 6), (1_000, 24)])
def test_equal_forecasters_are_told_apart_at_the_nominal_rate(n: int, horizon: int) -> None:
    """Either one, 5 % of the time; 2,000 draws of 5 % have a standard error of half a per cent."""
    rng = np.random.default_rng(n + horizon)
    p = np.array(
        [significance.compare(overlapping(rng, n, horizon), np.zeros(n), horizon).p for _ in range(2_000)]
    )
    assert 0.035 <= (p < 0.05).mean() <= 0.07
    assert 0.035 <= (p > 0.95).mean() <= 0.07


def test_clustered_volatility_does_not_raise_the_rate() -> None:
    rng, n = np.random.default_rng(5), 500
    p = []
    for _ in range(1_000):
        volatility = np.exp(np.convolve(rng.standard_normal(n + 49), np.ones(50), "valid") / 10)
        p.append(significance.compare(rng.standard_normal(n) * volatility, np.zeros(n), 1).p)
    assert stats.kstest(np.array(p), "uniform").pvalue > 0.01


def test_a_better_forecaster_has_a_small_p_and_a_worse_one_the_rest() -> None:
    rng = np.random.default_rng(3)
    better, worse = rng.standard_normal(1_000), rng.standard_normal(1_000) + 0.3
    found, turned = significance.compare(worse, better, 1), significance.compare(better, worse, 1)
    assert found.p is not None
    assert turned.p is not None
    assert found.p < 1e-6
    assert found.p + turned.p == pytest.approx(1)
    assert found.document() == {
        "rows": 1_000, "gain": found.gain, "error": found.error, "z": found.z, "p": found.p,
    }  # fmt: skip


@settings(deadline=None)
@given(st.integers(0, 40), st.integers(1, 60), st.integers(0, 3))
def test_few_rows_and_long_horizons_give_a_finite_answer_or_none(n: int, horizon: int, seed: int) -> None:
    d = np.random.default_rng(seed).standard_normal(n)
    found = significance.compare(d, np.zeros(n), horizon)
    assert np.isfinite([found.gain, found.error]).all()
    assert found.p is None or 0 <= found.p <= 1


@given(st.integers(10, 80), st.integers(2, 12), st.integers(0, 10_000))
@settings(deadline=None)
def test_the_error_is_the_larger_of_full_and_falling_weights(n: int, horizon: int, seed: int) -> None:
    """Of series as short as these, falling weights find more in one of seven."""
    assume(n > 4 * horizon)
    d = overlapping(np.random.default_rng(seed), n, horizon)
    full = np.concatenate((np.ones(horizon - 1), comparison.bartlett(comparison.usual_lags(n))))
    found = [
        comparison.long_run_variance(d, w) / comparison.expected_share(n, w) / n
        for w in (full, comparison.bartlett(len(full)))
    ]
    assert found[1] > 0
    assert significance.compare(d, np.zeros(n), horizon).error == pytest.approx(np.sqrt(max(found)), rel=1e-9)


def test_losses_without_spread_are_not_judged() -> None:
    found = significance.compare(np.ones(500), np.zeros(500), 1)
    assert (found.gain, found.z, found.p) == (1.0, None, None)
