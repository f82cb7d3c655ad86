"""Calibration: the rising curve is scikit-learn's and a slow twin's, except that it never says 0 or 1."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from model import calibration

Float64 = NDArray[np.float64]


def samples() -> st.SearchStrategy[tuple[Float64, Float64]]:
    """Logits, many of them alike, and outcomes."""
    row = st.tuples(st.integers(-8, 8), st.integers(0, 1))
    return st.lists(row, min_size=1, max_size=40).map(
        lambda rows: (np.array([z / 4 for z, _ in rows]), np.array([float(up) for _, up in rows]))
    )


def slow(logits: Float64, up: Float64) -> Float64:
    """The isotonic fit at each row by the max-min formula (Barlow et al. 1972): the largest, over all beginnings below,
    of the smallest mean up to any end above."""

    def mean(low: float, high: float) -> float:
        return float(up[(logits >= low) & (logits <= high)].mean())

    return np.array(
        [max(min(mean(s, t) for t in logits[logits >= z]) for s in logits[logits <= z]) for z in logits]
    )


def off_the_ends(fit: Float64) -> Float64:
    """The fit with its rows of certainty, m of them, at 1 / (m + 2) from it, or where the neighbouring rows stand."""
    kept = fit.copy()
    nothing, certain = fit == 0, fit == 1
    if nothing.any():
        kept[nothing] = min([1 / (nothing.sum() + 2), *fit[~nothing]])
    if certain.any():
        kept[certain] = max([1 - 1 / (certain.sum() + 2), *fit[~certain]])
    return kept


@given(samples())
@settings(max_examples=200, deadline=None)
def test_the_curve_is_the_slow_twins(sample: tuple[Float64, Float64]) -> None:
    logits, up = sample
    fitted = np.interp(logits, *calibration.isotonic(logits, up))
    np.testing.assert_allclose(fitted, off_the_ends(slow(logits, up)), atol=1e-12)


@given(samples())
@settings(max_examples=200, deadline=None)
def test_knots_rise_and_are_never_certain(sample: tuple[Float64, Float64]) -> None:
    at, p = calibration.isotonic(*sample)
    assert (np.diff(at) > 0).all()
    assert (np.diff(p) >= 0).all()
    assert 0 < p[0] <= p[-1] < 1
    assert at[0] == sample[0].min()
    assert at[-1] == sample[0].max()


def noisy(seed: int, n: int = 1_000) -> tuple[Float64, Float64]:
    """Logits that are twice too sure."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=n)
    return 2 * logits, (rng.random(n) < 1 / (1 + np.exp(-logits))).astype(np.float64)


@pytest.mark.parametrize("seed", range(5))
def test_between_and_beyond_knots_it_is_scikit_learns(seed: int) -> None:
    isotonic = pytest.importorskip("sklearn.isotonic", reason="scikit-learn is the oracle here; CI has it")
    logits, up = noisy(seed)
    theirs = isotonic.IsotonicRegression(out_of_bounds="clip").fit(logits, up)
    knots = calibration.isotonic(logits, up)
    inner = slice(*np.searchsorted(knots[0], [-3.0, 3.0]))  # where nothing is certain
    grid = np.linspace(knots[0, inner][1], knots[0, inner][-2], 5_000)
    np.testing.assert_allclose(np.interp(grid, *knots), theirs.predict(grid), atol=1e-9)
    everywhere = np.linspace(-20, 20, 5_000)
    np.testing.assert_allclose(np.interp(everywhere, *knots), theirs.predict(everywhere), atol=0.2)


def test_it_calibrates_what_is_too_sure() -> None:
    knots = calibration.isotonic(*noisy(0, 4_000))
    logits, up = noisy(1, 20_000)

    def loss(p: Float64) -> float:
        return float(-np.mean(up * np.log(p) + (1 - up) * np.log(1 - p)))

    sure = 1 / (1 + np.exp(-logits))
    assert loss(np.interp(logits, *knots)) < loss(sure) - 0.02
    assert np.abs(np.interp([-2.0, 0.0, 2.0], *knots) - [0.269, 0.5, 0.731]).max() < 0.06


@pytest.mark.parametrize(
    ("up", "p"),
    [([0, 0, 0, 0], [1 / 6, 1 / 6]), ([1, 1], [3 / 4, 3 / 4]), ([0, 0, 1], [1 / 4, 1 / 4, 2 / 3])],
)
def test_rows_that_all_agree_are_worth_laplaces_rule(up: list[int], p: list[float]) -> None:
    knots = calibration.isotonic(np.arange(len(up), dtype=float), np.array(up, float))
    np.testing.assert_allclose(knots[1], p)


def test_one_row_gives_one_knot() -> None:
    np.testing.assert_allclose(calibration.isotonic(np.array([0.3]), np.array([1.0])), [[0.3], [2 / 3]])


@pytest.mark.parametrize(("sharpness", "expected"), [(0.5, 0.5), (1.0, 1.0), (2.0, 2.0)])
def test_the_temperature_is_that_of_the_logits(sharpness: float, expected: float) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, 50_000)
    up = (rng.random(50_000) < 1 / (1 + np.exp(-logits))).astype(np.float64)
    assert calibration.temperature(sharpness * logits, up) == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize(("n", "level", "rank"), [(99, 0.9, 90), (9, 0.9, 9), (5, 0.9, 5), (1_000, 0.5, 501)])
def test_the_width_is_the_corrected_rank(n: int, level: float, rank: int) -> None:
    residuals = np.random.default_rng(0).permutation(np.arange(1, n + 1)) * np.where(
        np.arange(n) % 2, 1.0, -1.0
    )
    assert calibration.conformal_width(residuals, level) == rank
