"""Laws of every loss: its value, its derivative, its extremes."""

from collections.abc import Callable
from typing import Any

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import elementwise_grad, grad

from model.network.losses import HUBER_DELTA, LOSSES, joint

Drawn = tuple[np.ndarray, np.ndarray]


def _labels(rng: np.random.Generator) -> Drawn:
    return 3 * rng.standard_normal(200), (rng.random(200) < 0.5).astype(float)


def _amounts(rng: np.random.Generator) -> Drawn:
    return 2 * rng.standard_normal(200), rng.standard_normal(200)


def _cross_entropy(logit: Any, up: Any) -> Any:
    p = 1 / (1 + anp.exp(-logit))
    return -(up * anp.log(p) + (1 - up) * anp.log(1 - p))


def _huber(predicted: Any, target: Any) -> Any:
    error = anp.abs(predicted - target)
    return anp.where(error <= HUBER_DELTA, 0.5 * error**2, HUBER_DELTA * (error - 0.5 * HUBER_DELTA))


# How targets of each loss look, and the loss as its paper has it.
ORACLES: dict[str, tuple[Callable[[np.random.Generator], Drawn], Callable[[Any, Any], Any]]] = {
    "cross_entropy": (_labels, _cross_entropy),
    "huber": (_amounts, _huber),
}


@pytest.fixture(params=LOSSES)
def name(request: pytest.FixtureRequest) -> str:
    """Each row in turn; one without an oracle is a fault."""
    row: str = request.param
    assert row in ORACLES, f"write {row} as its paper has it, as an oracle for its row"
    return row


def test_value_and_derivative_agree_with_an_independent_automatic_differentiation(name: str) -> None:
    draw, oracle = ORACLES[name]
    output, target = draw(np.random.default_rng(0))
    value, slope = LOSSES[name](output, target)
    np.testing.assert_allclose(value, oracle(output, target), rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(slope, elementwise_grad(oracle)(output, target), rtol=1e-10, atol=1e-14)


def test_the_derivative_agrees_with_central_differences(name: str) -> None:
    output, target = ORACLES[name][0](np.random.default_rng(1))
    h = 1e-5
    numerical = (LOSSES[name](output + h, target)[0] - LOSSES[name](output - h, target)[0]) / (2 * h)
    np.testing.assert_allclose(LOSSES[name](output, target)[1], numerical, rtol=1e-7, atol=1e-9)


def test_a_loss_is_never_negative_and_lowest_where_its_slope_is_zero(name: str) -> None:
    output, target = ORACLES[name][0](np.random.default_rng(2))
    value, slope = LOSSES[name](output, target)
    assert (value >= 0).all()
    lower = LOSSES[name](output - 1e-3 * slope, target)[0]
    assert (lower <= value).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_extremes_are_finite_and_keep_their_type(name: str, dtype: type) -> None:
    output = np.array([-1e4, 1e4, -1e4, 1e4, 0, 100, -100], dtype)
    target = np.array([0, 0, 1, 1, 1, 0, 1], dtype)  # a warning of overflow fails the test
    value, slope = LOSSES[name](output, target)
    assert value.dtype == slope.dtype == dtype
    assert np.isfinite(value).all()
    assert (np.abs(slope) <= 1).all()


def test_confident_errors_cost_what_they_should() -> None:
    logit, up = np.float32([1e4, 1e4, -1e4, -1e4]), np.float32([1, 0, 1, 0])
    value, slope = LOSSES["cross_entropy"](logit, up)
    np.testing.assert_array_equal(value, np.float32([0, 1e4, 1e4, 0]))
    np.testing.assert_array_equal(slope, np.float32([0, 1, -1, 0]))


def test_knowing_nothing_costs_ln_2() -> None:
    value, _ = LOSSES["cross_entropy"](np.zeros(2), np.array([0.0, 1.0]))
    np.testing.assert_allclose(value, np.log(2))


@pytest.mark.parametrize("rows", [1, 7])
@pytest.mark.parametrize("return_weight", [0.0, 0.2, 3.0])
def test_the_joint_loss_is_a_mean_and_its_gradient_that_of_the_mean(rows: int, return_weight: float) -> None:
    rng = np.random.default_rng(3)
    outputs, target = 2 * rng.standard_normal((rows, 2)), rng.standard_normal(rows)
    up = (rng.random(rows) < 0.5).astype(float)

    def mean_loss(z: Any) -> Any:
        up_loss, return_loss = _cross_entropy(z[:, 0], up), _huber(z[:, 1], target)
        return anp.sum(up_loss + return_weight * return_loss) / rows

    value, d_out = joint(outputs, up, target, return_weight)
    assert value == pytest.approx(mean_loss(outputs), rel=1e-12)
    np.testing.assert_allclose(d_out, grad(mean_loss)(outputs), rtol=1e-10, atol=1e-14)
    assert (
        joint(np.float32(outputs), np.float32(up), np.float32(target), return_weight)[1].dtype == np.float32
    )
