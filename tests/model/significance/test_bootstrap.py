"""The stationary bootstrap: block lengths and spreads are arch's and the paper's closed form, intervals cover."""

import warnings

import numpy as np
import pytest
from arch.bootstrap import StationaryBootstrap, optimal_block_length
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.tsa.stattools import acf

from model.significance import bootstrap


def autoregressive(rng: np.random.Generator, n: int, phi: float) -> np.ndarray:
    noise = rng.standard_normal(n + 200)
    x = np.zeros(n + 200)
    for i in range(1, n + 200):
        x[i] = phi * x[i - 1] + noise[i]
    return x[200:]


def test_the_block_length_is_archs() -> None:
    """But where an autocorrelation is so close to its bound that the two ways to norm it may differ on it."""
    compared = 0
    for seed in range(150):
        rng = np.random.default_rng(seed)
        n = int(rng.integers(50, 3_000))
        x = autoregressive(rng, n, rng.uniform(-0.5, 0.95))
        lags = int(np.ceil(np.sqrt(n))) + 5
        distance = np.abs(acf(x, nlags=lags)[1:]) / (2 * np.sqrt(np.log10(n) / n)) - 1
        # arch norms by the spread of the rows that overlap, a few per cent off in short series
        if np.abs(distance).min() < 0.3 * lags / n:
            continue
        theirs = max(1.0, float(optimal_block_length(x)["stationary"].iloc[0]))
        assert bootstrap.block_length(x) == pytest.approx(theirs, rel=1e-9), seed
        compared += 1
    assert compared >= 50


def test_the_block_length_grows_with_how_long_rows_hang_together() -> None:
    rng = np.random.default_rng(0)
    lengths = [
        np.mean([bootstrap.block_length(autoregressive(rng, 1_000, phi)) for _ in range(20)])
        for phi in (0.0, 0.5, 0.9)
    ]
    assert 1 <= lengths[0] < lengths[1] < lengths[2] <= np.ceil(3 * np.sqrt(1_000))


@settings(deadline=None)
@given(st.integers(0, 30), st.booleans())
def test_few_rows_and_still_ones_have_a_block_length(n: int, still: bool) -> None:
    x = np.ones(n) if still else np.random.default_rng(n).standard_normal(n)
    assert 1 <= bootstrap.block_length(x) <= max(n, 1)


@settings(deadline=None)
@given(st.integers(1, 60), st.floats(1, 80), st.integers(0, 5))
def test_draws_are_blocks_of_rows_that_follow_each_other(n: int, length: float, seed: int) -> None:
    drawn = list(bootstrap.rows(n, length, 3, seed))
    assert len(drawn) == 3
    for rows in drawn:
        assert rows.shape == (n,)
        assert rows.min() >= 0
        assert rows.max() < n
    again = list(bootstrap.rows(n, length, 3, seed))
    assert all((a == b).all() for a, b in zip(drawn, again, strict=True))


def test_blocks_have_the_mean_length_that_was_asked_for_and_begin_anywhere() -> None:
    n, length = 5_000, 25.0
    drawn = list(bootstrap.rows(n, length, 100, 1))
    breaks = np.mean([(np.diff(rows) % n != 1).mean() for rows in drawn])
    assert breaks == pytest.approx(1 / length, rel=0.03)
    begun = np.concatenate([rows[np.append(True, np.diff(rows) % n != 1)] for rows in drawn])
    assert stats.kstest(begun / n, "uniform").pvalue > 0.01


@pytest.mark.parametrize("length", [1.0, 4.0, 20.0])
def test_the_spread_of_resampled_means_is_politis_and_romanos_closed_form(length: float) -> None:
    """Their lemma 1: n var = γ(0) + 2 Σ (1 - k/n) (1 - 1/L)^k γ(k), with autocovariances around the circle."""
    n, many = 300, 6_000
    x = autoregressive(np.random.default_rng(2), n, 0.6)
    e = x - x.mean()
    k = np.arange(1, n)
    around = np.array([e @ np.roll(e, -lag) / n for lag in k])
    exact = (e @ e / n + 2 * np.sum((1 - k / n) * (1 - 1 / length) ** k * around)) / n
    means = np.array([x[rows].mean() for rows in bootstrap.rows(n, length, many, 3)])
    # a variance from so many draws has a standard error of √(2 / many), 1.8 %
    assert means.var() == pytest.approx(exact, rel=0.07)
    assert means.mean() == pytest.approx(x.mean(), abs=4 * np.sqrt(exact / many))


def test_an_interval_is_archs_but_for_the_draws() -> None:
    x = autoregressive(np.random.default_rng(4), 800, 0.4)
    oracle = StationaryBootstrap(10, x, seed=np.random.default_rng(5))
    low, high = oracle.conf_int(np.mean, reps=8_000, method="percentile", size=0.9).ravel()
    ours = bootstrap.interval(lambda c: c.mean(axis=1), x[None], 10.0, 0.9, 8_000, 6)[0]
    assert ours == pytest.approx([low, high], abs=0.05 * (high - low))


def test_an_interval_of_means_is_the_interval_of_a_statistic_that_is_made_of_means() -> None:
    rng = np.random.default_rng(7)
    x, y = rng.standard_normal((2, 400)) + 0.1

    def sharpe_and_loss(columns: np.ndarray) -> np.ndarray:
        return np.array([columns[0].mean() / columns[0].std(), np.sqrt((columns[1] ** 2).mean())])

    def from_means(means: np.ndarray) -> np.ndarray:
        mean, square, loss = means.T
        return np.stack([mean / np.sqrt(square - mean**2), np.sqrt(loss)], axis=1)

    long_way = bootstrap.interval(sharpe_and_loss, np.stack([x, y]), 5.0, 0.9, 200, 8)
    short_way = bootstrap.interval_of_means(from_means, np.stack([x, x * x, y * y]), 5.0, 0.9, 200, 8)
    np.testing.assert_allclose(short_way, long_way, rtol=1e-10)
    assert (long_way[:, 0] < long_way[:, 1]).all()


@pytest.mark.parametrize(("n", "phi"), [(500, 0.0), (1_000, 0.3), (2_000, 0.6)])
def test_intervals_cover_the_truth_about_as_often_as_they_say(n: int, phi: float) -> None:
    """Of 300 series nine tenths; a bootstrap of dependent rows is known to fall short by a few per cent."""
    rng = np.random.default_rng(n)
    inside = 0
    for seed in range(300):
        x = autoregressive(rng, n, phi)
        low, high = bootstrap.interval_of_means(
            lambda m: m, x[None], bootstrap.block_length(x), 0.9, 300, seed
        )[0]
        inside += low <= 0 <= high
    assert 0.82 <= inside / 300 <= 0.95


def test_drawing_single_rows_of_dependent_ones_covers_far_too_rarely() -> None:
    rng = np.random.default_rng(11)
    inside = 0
    for seed in range(200):
        low, high = bootstrap.interval_of_means(
            lambda m: m, autoregressive(rng, 1_000, 0.6)[None], 1.0, 0.9, 200, seed
        )[0]
        inside += low <= 0 <= high
    assert inside / 200 < 0.7


def test_a_figure_without_meaning_in_one_resample_has_no_interval() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = bootstrap.interval(
            lambda c: np.array([c.mean(), np.nan if c[0, 0] > 0 else 1.0]),
            np.arange(9.0)[None],
            2.0,
            0.9,
            50,
            0,
        )
    assert np.isfinite(found[0]).all()
    assert np.isnan(found[1]).all()
