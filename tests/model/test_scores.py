"""Scores agree with scikit-learn's where it has them, and with a count by hand where it has not."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from model import calibration, scores, significance

P = arrays.arrays(np.float64, 40, elements=st.floats(0.001, 0.999))
UP = arrays.arrays(np.float64, 40, elements=st.sampled_from([0.0, 1.0]))


@given(p=P, up=UP)
@settings(deadline=None)
def test_scores_agree_with_scikit_learn(p: np.ndarray, up: np.ndarray) -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="needs scikit-learn, which CI installs")
    assert scores.log_losses(p, up).mean() == pytest.approx(metrics.log_loss(up, p, labels=[0, 1]))
    said = scores.of(scores.Paired(p, up, p, up))
    assert said.brier == pytest.approx(metrics.brier_score_loss(up, p))
    assert said.accuracy == pytest.approx(metrics.accuracy_score(up > 0.5, p > 0.5))
    if 0 < up.sum() < len(up):
        assert said.auc == pytest.approx(metrics.roc_auc_score(up, p))
    else:
        assert said.auc is None


def test_auc_counts_pairs_and_ties_half() -> None:
    p, up = np.array([0.2, 0.5, 0.5, 0.9]), np.array([0.0, 1.0, 0.0, 1.0])
    pairs = [(a > b) + 0.5 * (a == b) for a in p[up > 0] for b in p[up == 0]]
    assert scores.auc(p, up) == pytest.approx(np.mean(pairs))


def test_a_perfectly_calibrated_forecaster_has_a_small_calibration_error_and_a_boaster_a_large_one() -> None:
    rng = np.random.default_rng(0)
    p = rng.uniform(0.2, 0.8, 40_000)
    up = (rng.random(40_000) < p).astype(float)
    assert scores.calibration_error(p, up) < 0.01
    assert scores.calibration_error(np.where(p > 0.5, 0.95, 0.05), up) > 0.2


def test_one_wrong_certainty_is_no_infinite_loss() -> None:
    assert np.isfinite(scores.log_losses(np.array([0.0, 1.0]), np.array([1.0, 0.0]))).all()


def test_a_score_without_meaning_is_none() -> None:
    said = scores.of(scores.Paired(np.full(5, 0.5), np.ones(5), np.zeros(5), np.ones(5)))
    assert said.auc is None
    assert said.ic is None
    assert said.coverage_90 is None


def test_the_gain_of_independent_rows_has_the_usual_standard_error() -> None:
    d = np.random.default_rng(1).standard_normal(20_000)
    gain = significance.gain(d, np.zeros(20_000), 1)
    assert gain.mean == pytest.approx(d.mean())
    assert gain.error == pytest.approx(1 / np.sqrt(20_000), rel=0.05)


def test_overlapping_labels_widen_the_error() -> None:
    """Rows that share nine tenths of their news with the row before are a fraction of the evidence that they seem."""
    news = np.random.default_rng(2).standard_normal(20_000)
    d = np.convolve(news, np.ones(10), "valid")
    naive = d.std() / np.sqrt(len(d))
    error = significance.gain(d, np.zeros(len(d)), 40).error
    assert error == pytest.approx(10 / np.sqrt(len(d)), rel=0.25)  # the spread of a mean of ten-fold news
    assert error > 2 * naive


def test_noise_is_called_skill_at_about_the_stated_rate() -> None:
    rng = np.random.default_rng(3)
    claims = [significance.gain(rng.standard_normal(500), np.zeros(500), 1).skill for _ in range(1_000)]
    assert 0.03 <= np.mean(claims) <= 0.08


def test_few_rows_claim_nothing() -> None:
    assert significance.gain(np.ones(50) + np.arange(50), np.zeros(50), 1).skill is None


def test_pooling_two_halves_is_about_the_whole() -> None:
    d = np.random.default_rng(4).standard_normal(4_000) + 0.1
    zero = np.zeros(4_000)
    whole = significance.gain(d, zero, 1)
    halves = significance.pooled(
        significance.gain(d[:1_000], zero[:1_000], 1), significance.gain(d[1_000:], zero[1_000:], 1)
    )
    assert halves.mean == pytest.approx(whole.mean)
    assert halves.error == pytest.approx(whole.error, rel=0.1)


@pytest.mark.parametrize(("truth", "expected"), [(1.0, 1.0), (2.0, 2.0), (0.7, 0.7)])
def test_the_temperature_undoes_over_and_underconfidence(truth: float, expected: float) -> None:
    rng = np.random.default_rng(5)
    honest = rng.standard_normal(50_000)
    up = (rng.random(50_000) < 1 / (1 + np.exp(-honest))).astype(float)
    assert calibration.temperature(honest * truth, up) == pytest.approx(expected, rel=0.05)


def test_a_temperature_from_few_noisy_rows_stays_near_one() -> None:
    rng = np.random.default_rng(6)
    found = [
        calibration.temperature(rng.standard_normal(200) * 0.1, (rng.random(200) < 0.5).astype(float))
        for _ in range(50)
    ]
    assert 0.8 < np.mean(found) < 1.3


@pytest.mark.parametrize("n", [19, 50, 1_000])
def test_the_conformal_interval_covers_new_rows_as_often_as_it_says(n: int) -> None:
    rng = np.random.default_rng(7)
    covered = []
    for _ in range(400):
        width = calibration.conformal_width(rng.standard_t(4, n), 0.9)
        covered.append(np.mean(np.abs(rng.standard_t(4, 500)) <= width))
    expected = np.ceil((n + 1) * 0.9) / (n + 1)  # exact for exchangeable rows
    assert np.mean(covered) == pytest.approx(expected, abs=0.01)


def test_too_few_residuals_give_the_widest_seen() -> None:
    assert calibration.conformal_width(np.array([0.5, -3.0]), 0.9) == 3.0
