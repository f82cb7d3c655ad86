"""Baselines: what scikit-learn finds on the same rows, a planted signal found, and nothing found in noise."""

import builtins
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from model import baselines, scores
from model.baselines import BASELINES, PENALTIES, logistic_path, ridge_path
from model.dataset import Dataset
from model.errors import BadInput
from tests.model.test_controls import market

Float64 = NDArray[np.float64]
LEARNERS = ("logistic", "lightgbm")
STILL = 2  # a feature that never moves


def signal(n: int, seed: int, strength: float, features: int = 12) -> tuple[Dataset, Float64]:
    """n rows of features of very different sizes, of which the first tells up and the return; and the true p (n,)."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, features))
    p = 1 / (1 + np.exp(-strength * X[:, 0] - 0.1))
    up = rng.random(n) < p
    moves = np.where(up, 1, -1) * np.abs(rng.standard_normal(n)) * 0.01
    sizes = 10.0 ** rng.integers(-3, 3, features)
    X = X * sizes + 5 * sizes
    X[:, STILL] = 7.0
    plain = market(n, seed)
    scale = np.full(n, 0.01) * np.where(np.arange(n) % 2, 1.0, 2.0)
    made = replace(
        plain, X=X.astype(np.float32), up=up.astype(np.float32), log_return=moves * scale / 0.01, scale=scale
    )
    return made, p


def halves(data: Dataset) -> tuple[Dataset, Dataset]:
    cut = len(data) // 2
    return data.part(slice(0, cut)), data.part(slice(cut, None))


def learned(name: str) -> Callable[..., baselines.Answers]:
    if name == "lightgbm":
        pytest.importorskip("lightgbm", reason="needs LightGBM, the extra `baselines`", exc_type=ImportError)
    return BASELINES[name]


def with_ones(X: Float64) -> Float64:
    return np.column_stack((X, np.ones(len(X))))


@settings(deadline=None, max_examples=25)
@given(st.integers(60, 400), st.integers(1, 8), st.integers(0, 10_000), st.floats(0, 3))
def test_the_logistic_regression_is_scikit_learns(n: int, features: int, seed: int, strength: float) -> None:
    linear = pytest.importorskip("sklearn.linear_model", reason="needs scikit-learn, which CI installs")
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, features))
    up = (rng.random(n) < 1 / (1 + np.exp(-strength * X[:, 0]))).astype(float)
    up[:2] = [0.0, 1.0]
    weight = rng.uniform(0.1, 2, n)
    for penalty, b in zip(PENALTIES, logistic_path(with_ones(X), up, weight), strict=True):
        theirs = linear.LogisticRegression(C=1 / penalty, solver="newton-cholesky", tol=1e-10, max_iter=1_000)
        theirs.fit(X, up, sample_weight=weight)
        np.testing.assert_allclose(b, [*theirs.coef_[0], theirs.intercept_[0]], atol=2e-5)


@settings(deadline=None, max_examples=25)
@given(st.integers(30, 400), st.integers(1, 8), st.integers(0, 10_000))
def test_the_ridge_regression_is_scikit_learns(n: int, features: int, seed: int) -> None:
    linear = pytest.importorskip("sklearn.linear_model", reason="needs scikit-learn, which CI installs")
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, features)) + 1
    target = X @ rng.standard_normal(features) + rng.standard_t(4, n) + 2
    weight = rng.uniform(0.1, 2, n)
    for penalty, b in zip(PENALTIES, ridge_path(with_ones(X), target, weight), strict=True):
        theirs = linear.Ridge(alpha=penalty).fit(X, target, sample_weight=weight)
        np.testing.assert_allclose(b, [*theirs.coef_, theirs.intercept_], rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("size", [1, 1_000])
def test_newtons_method_arrives_where_the_slope_is_zero_though_full_steps_overshoot(size: int) -> None:
    """Features with a few enormous values, and classes that a line all but divides."""
    for seed in range(60):
        rng = np.random.default_rng(seed)
        X = rng.standard_t(0.5, (500, 4))
        X /= X.std(axis=0)
        up = (rng.standard_normal(500) * 0.5 + 200 * X[:, 0] > 0).astype(float)
        X = with_ones(size * X)
        for penalty, b in zip(PENALTIES, logistic_path(X, up, np.ones(500)), strict=True):
            p = 0.5 * (1 + np.tanh(X @ b / 2))
            slope = X.T @ (p - up) + penalty * np.append(b[:-1], 0.0)
            assert np.abs(slope).max() < 1e-2 * size


@pytest.mark.parametrize("name", LEARNERS)
def test_a_linear_signal_is_found(name: str) -> None:
    data, p = signal(12_000, 1, strength=0.6)
    learn, rows = halves(data)
    answers = learned(name)
    said, expected = answers(learn, np.ones(len(learn)), rows)
    best = scores.log_losses(p[6_000:], rows.up).mean()
    base = scores.log_losses(np.full(6_000, float(learn.up.mean())), rows.up).mean()
    share = (base - scores.log_losses(said, rows.up).mean()) / (base - best)
    assert share > (0.95 if name == "logistic" else 0.75)  # trees draw a line in steps
    assert scores.correlation(expected / rows.scale, p[6_000:]) == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("name", LEARNERS)
def test_noise_is_answered_with_about_the_base_rate(name: str) -> None:
    answers, cost = learned(name), []
    for seed in range(5):
        data, _ = signal(6_000, seed, strength=0.0)
        learn, rows = halves(data)
        said, expected = answers(learn, np.ones(len(learn)), rows)
        base, _ = BASELINES["base_rate"](learn, np.ones(len(learn)), rows)
        cost.append(np.mean(scores.log_losses(said, rows.up) - scores.log_losses(base, rows.up)))
        assert np.abs(expected / rows.scale).max() < 1
    assert np.mean(cost) < (0.001 if name == "logistic" else 0.01)


@pytest.mark.parametrize("name", BASELINES)
def test_equal_rows_give_equal_answers_and_other_rows_change_none(name: str) -> None:
    learn, rows = halves(signal(1_000, 3, strength=0.5)[0])
    answers, weight = learned(name), np.linspace(0.5, 1.5, 500)
    whole = answers(learn, weight, rows)
    for first, second in zip(whole, answers(learn, weight, rows), strict=True):
        np.testing.assert_array_equal(first, second)
    for first, second in zip(whole, answers(learn, weight, rows.part(slice(100, 200))), strict=True):
        np.testing.assert_allclose(first[100:200], second, rtol=1e-12)


@pytest.mark.parametrize("name", BASELINES)
def test_a_row_that_counts_for_nothing_teaches_nothing(name: str) -> None:
    """Rows with the opposite signal, and a weight that all but leaves them out."""
    data, _ = signal(4_000, 4, strength=1.0)
    learn, rows = halves(data)
    wrong = np.arange(2_000) % 2 == 1
    mixed = replace(
        learn,
        up=np.where(wrong, 1 - learn.up, learn.up).astype(np.float32),
        log_return=np.where(wrong, -learn.log_return, learn.log_return),
    )
    answers = learned(name)
    said, expected = answers(mixed, np.where(wrong, 1e-6, 2.0), rows)
    alone, return_alone = answers(learn.part(~wrong), np.full(1_000, 2.0), rows)
    if name in ("base_rate", "no_change"):
        np.testing.assert_allclose(said, alone, atol=1e-6)
        np.testing.assert_allclose(expected, return_alone, atol=1e-6)
    else:
        both = scores.auc(said, rows.up)
        right = scores.auc(alone, rows.up)
        assert both is not None
        assert right is not None
        assert both > right - 0.05


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("outcome", [0.0, 1.0])
def test_a_window_of_one_class_is_no_failure(name: str, outcome: float) -> None:
    learn, rows = halves(signal(600, 5, strength=0.5)[0])
    same = replace(learn, up=np.full(300, outcome, np.float32))
    said, expected = learned(name)(same, np.ones(300), rows)
    assert np.isfinite(expected).all()
    assert np.abs(said - outcome).max() < 0.01


@pytest.mark.parametrize("name", BASELINES)
def test_what_lies_far_outside_is_answered_like_a_model_would_and_without_overflow(name: str) -> None:
    learn, rows = halves(signal(600, 6, strength=1.0)[0])
    far = replace(rows, X=(rows.X * np.float32(1e12)).astype(np.float32))
    said, expected = learned(name)(learn, np.ones(300), far)
    assert ((said > 0) & (said < 1)).all()
    assert (np.abs(expected) <= baselines.LARGEST_RETURN * rows.scale).all()


def test_few_rows_are_fitted_under_the_strongest_penalty() -> None:
    learn, rows = halves(signal(120, 7, strength=3.0)[0])
    said, _ = BASELINES["logistic"](learn, np.ones(60), rows)
    assert np.ptp(said) < 0.01


def test_the_penalty_is_not_chosen_by_what_was_not_known_yet() -> None:
    """Labels reach 50 bars ahead, and only the 49 rows that the newest fifth overlaps with tell what that fifth tells."""
    n, held_from, known = 1_000, 800, 751
    X = np.random.default_rng(8).standard_normal((n, 1)).astype(np.float32)
    slope = np.select([np.arange(n) < known, np.arange(n) < held_from], [-0.2, 8.0], 1.0)
    plain = market(n, 8)
    data = replace(plain, X=X, log_return=slope * X[:, 0] * plain.scale)
    overlapping, alone = (replace(data, known_at=data.closed_at + bars * 3_600_000_000) for bars in (50, 1))
    standard = with_ones((X - X.mean(dtype=float)) / X.std(dtype=float))
    by_penalty = standard @ ridge_path(standard, data.log_return / data.scale, np.ones(n)).T
    purged, open_eyed = (
        BASELINES["logistic"](each, np.ones(n), data)[1] / data.scale for each in (overlapping, alone)
    )
    np.testing.assert_allclose(purged, by_penalty[:, 0])  # of older rows alone the strongest is best
    assert np.ptp(open_eyed) > 10 * np.ptp(purged)


def test_the_returns_are_those_of_the_rows_own_scale() -> None:
    learn, rows = halves(signal(2_000, 9, strength=1.0)[0])
    _, expected = BASELINES["logistic"](learn, np.ones(1_000), rows)
    _, wider = BASELINES["logistic"](learn, np.ones(1_000), replace(rows, scale=rows.scale * 3))
    np.testing.assert_allclose(wider, expected * 3)


def test_constant_baselines_say_what_the_weights_say() -> None:
    learn, rows = halves(signal(400, 10, strength=0.5)[0])
    weight = np.zeros(200)
    weight[-1] = 5.0
    said, expected = BASELINES["base_rate"](learn, weight, rows)
    assert set(said) == {float(learn.up[-1])}
    assert set(expected) == {learn.log_return[-1]}
    assert set(BASELINES["no_change"](learn, weight, rows)[1]) == {0.0}


def test_without_lightgbm_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name == "lightgbm":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    data = signal(100, 11, strength=0.5)[0]
    with pytest.raises(BadInput, match=r"lightgbm is not there: pip install '\.\[baselines\]'"):
        BASELINES["lightgbm"](data, np.ones(100), data)
