"""Bins of forecasts that cannot be told apart: a constant resolves nothing, whatever order its rows come in."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model import scores
from model.scores import Paired
from model.significance import bootstrap


def drawn(n: int, values: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    p = rng.choice(rng.uniform(0.2, 0.8, values), n)
    return p, (rng.random(n) < p).astype(np.float64)


@settings(deadline=None)
@given(st.integers(1, 400), st.integers(0, 99))
def test_a_constant_is_off_by_the_distance_of_the_means_and_resolves_nothing(n: int, seed: int) -> None:
    _, up = drawn(n, 3, seed)
    found = scores.of(Paired(np.full(n, 0.4), up, np.zeros(n), np.zeros(n)))
    assert found.ece == pytest.approx(abs(up.mean() - 0.4), abs=1e-12)
    assert found.brier_resolution == pytest.approx(0, abs=1e-12)
    assert found.brier_within_covariance == pytest.approx(0, abs=1e-12)


@settings(deadline=None)
@given(st.integers(1, 300), st.integers(1, 12), st.integers(0, 99))
def test_the_order_of_rows_says_nothing(n: int, values: int, seed: int) -> None:
    p, up = drawn(n, values, seed)
    order = np.random.default_rng(seed).permutation(n)
    assert scores.calibration_error(p, up) == pytest.approx(scores.calibration_error(p[order], up[order]))
    assert sum(each["rows"] for each in scores.reliability(p, up)) == n
    assert len({each["p"] for each in scores.reliability(p, up)}) == len(scores.reliability(p, up))


@pytest.mark.parametrize("values", [1, 5, 2_000])
def test_an_interval_reaches_to_its_figure(values: int) -> None:
    p, up = drawn(2_000, values, 1)
    realised = np.random.default_rng(2).normal(0, 0.01, 2_000)
    paired = Paired(p, up, np.zeros(2_000), realised)
    stated = scores.intervals(paired, bootstrap.rows(2_000, 5.0, 60, 0))
    figures = scores.of(paired).document()
    for name in ("log_loss", "ece", "brier_reliability", "brier_resolution"):
        interval, figure = stated[name], figures[name]
        assert interval is not None
        assert figure is not None
        assert interval[0] <= figure <= interval[1]
