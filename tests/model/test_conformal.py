"""Conformal intervals: their width, what is served of it, and their scores, beside crepes.

Where crepes differs: too few rows for a level give it an endless interval, and us the widest residual seen; and its rank
comes of 1 - confidence, which in floats is a little less than a tenth for 0.9, and takes it to the next rank where
(n + 1) / 10 is whole. So it is told the next smaller float.
"""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from model import calibration, scores
from model.network.network import perceptron
from model.predictor import LEVEL, from_arrays
from model.recalibration import FRESH
from model.scores import Paired
from tests.model import versions

crepes = pytest.importorskip("crepes", reason="crepes is the oracle of conformal intervals")

Float64 = NDArray[np.float64]

LEVELS = (0.5, 0.75, 0.8, LEVEL, 0.95, 0.99)


def told(level: float) -> float:
    """The confidence whose 1 - confidence is not below that of the level."""
    return math.nextafter(level, 0)


def theirs(residuals: Float64, level: float) -> float:
    """The half-width that crepes comes to."""
    ((low, high),) = (
        crepes.ConformalRegressor().fit(residuals).predict_int(np.zeros(1), confidence=told(level))
    )
    assert low == -high
    return float(high)


def enough(n: int, level: float) -> bool:
    """Whether n rows have a rank for the level."""
    return round((n + 1) * (1 - level), 9) >= 1


# quarters tie, and lie on both sides of zero
residuals = st.one_of(
    st.lists(st.integers(-9, 9).map(lambda quarters: quarters / 4), min_size=1, max_size=300),
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=120),
).map(np.array)


@given(residuals, st.sampled_from(LEVELS))
@settings(deadline=None, max_examples=300)
@pytest.mark.filterwarnings("ignore:the no. of calibration examples is too small")
def test_the_width_is_that_of_crepes(residuals: Float64, level: float) -> None:
    width = theirs(residuals, level)
    assert math.isfinite(width) == enough(len(residuals), level)
    assert calibration.conformal_width(residuals, level) == (
        width if math.isfinite(width) else np.abs(residuals).max()
    )


@pytest.mark.parametrize("level", LEVELS)
def test_the_width_is_that_of_crepes_from_the_first_number_of_rows_that_is_enough(level: float) -> None:
    """Every number of rows up to 220: each is a rank of its own, and at the whole ones rounding decides."""
    every = np.random.default_rng(0).standard_t(4, 220)
    for n in range(1, 221):
        if enough(n, level):
            assert calibration.conformal_width(every[:n], level) == theirs(every[:n], level), n


@pytest.mark.parametrize("horizon", [1, 24])
@pytest.mark.parametrize("n", [9, 10, 400])
def test_intervals_as_served_are_those_of_crepes(n: int, horizon: int) -> None:
    """Normalised ones, whose difficulty is the expected size of the return; ours are of the price."""
    net = versions.trained(perceptron(24, (16,), 2))
    model = from_arrays(*versions.contents(net, horizon=horizon))
    rng = np.random.default_rng(n)
    X = np.clip(versions.rows(2 * n), -3, 3)
    scaled = np.array([reading.scaled_return for reading in model.readings(X)])
    scale = rng.lognormal(math.log(0.004), 0.7, 2 * n)  # of a bar
    size = scale * math.sqrt(horizon)
    realised = size * (scaled + rng.standard_t(4, 2 * n))
    past, new = slice(n), slice(n, None)
    width = calibration.conformal_width(realised[past] / size[past] - scaled[past], LEVEL)
    model = replace(model, interval=width)
    served = [
        model.forecast(reading, of_bar, 50.0, FRESH)
        for reading, of_bar in zip(model.readings(X[new]), scale[new].tolist(), strict=True)
    ]
    regressor = crepes.ConformalRegressor().fit(realised[past] - scaled[past] * size[past], sigmas=size[past])
    expected = regressor.predict_int(scaled[new] * size[new], sigmas=size[new], confidence=told(LEVEL))
    np.testing.assert_allclose(
        np.log([[each.low, each.high] for each in served]) - math.log(50.0), expected, rtol=1e-9, atol=1e-13
    )


@pytest.mark.parametrize("seed", range(5))
def test_coverage_and_sharpness_are_those_of_crepes(seed: int) -> None:
    """Also where outcomes lie on an end, which is inside."""
    rng = np.random.default_rng(seed)
    regressor = crepes.ConformalRegressor().fit(rng.standard_t(4, 200), sigmas=rng.uniform(0.5, 2, 200))
    expected, size = rng.normal(0, 0.3, 500), rng.uniform(0.5, 2, 500)
    low, high = regressor.predict_int(expected, sigmas=size, confidence=told(LEVEL)).T
    realised = expected + size * rng.standard_t(4, 500)
    realised[:40], realised[40:80] = low[:40], high[40:80]
    up = (realised > 0).astype(float)
    found = scores.of(Paired(np.full(500, 0.5), up, expected, realised, low, high))
    said = regressor.evaluate(
        expected, realised, sigmas=size, confidence=told(LEVEL), metrics=["error", "eff_mean"]
    )
    assert found.coverage_90 == pytest.approx(1 - said["error"], abs=1e-12)
    assert found.sharpness == pytest.approx(said["eff_mean"], rel=1e-12)
