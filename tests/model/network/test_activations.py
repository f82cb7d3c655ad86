"""Laws of every activation: its derivative, its extremes, its flat sides."""

from collections.abc import Callable
from typing import Any

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import elementwise_grad

from model.network.activations import ACTIVATIONS, sigmoid

# Written anew, for an automatic differentiation that knows nothing of the rows' own derivatives.
AS_IN_THE_PAPERS: dict[str, Callable[[Any], Any]] = {
    "relu": lambda z: anp.where(z > 0, z, 0.0),
    "tanh": lambda z: (anp.exp(z) - anp.exp(-z)) / (anp.exp(z) + anp.exp(-z)),
    "sigmoid": lambda z: 1 / (1 + anp.exp(-z)),
}

Z = np.linspace(-6, 6, 1201) + 0.0017  # no point within a step of a kink at 0


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_derivative_agrees_with_central_differences(name: str) -> None:
    row, h = ACTIVATIONS[name], 1e-5
    numerical = (row.value(Z + h) - row.value(Z - h)) / (2 * h)
    np.testing.assert_allclose(row.derivative(Z, row.value(Z)), numerical, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_value_and_derivative_agree_with_an_independent_automatic_differentiation(name: str) -> None:
    assert name in AS_IN_THE_PAPERS, f"write {name} as its paper has it, as an oracle for its row"
    row, oracle = ACTIVATIONS[name], AS_IN_THE_PAPERS[name]
    z = np.append(Z, 0.0)
    a = row.value(z)
    np.testing.assert_allclose(a, oracle(z), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(row.derivative(z, a), elementwise_grad(oracle)(z), rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_extremes_are_finite_and_keep_their_type(name: str, dtype: type) -> None:
    row = ACTIVATIONS[name]
    z = np.array([-1e4, -100, -1, 0, 1, 100, 1e4], dtype)  # a warning of overflow fails the test
    a = row.value(z)
    slope = row.derivative(z, a)
    assert a.dtype == slope.dtype == dtype
    assert np.isfinite(a).all()
    assert np.isfinite(slope).all()


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_where_a_gate_is_flat_next_to_no_gradient_passes(name: str) -> None:
    row = ACTIVATIONS[name]
    a = row.value(Z)
    flat, slope = row.flat(Z, a), row.derivative(Z, a)
    assert row.flat_means in ("dead", "saturated")
    assert flat.any()
    assert not flat.all()
    assert slope[flat].max() < 0.05 * slope.max()
    assert slope[~flat].min() >= slope[flat].max()


def test_sigmoid_is_the_logistic_function_on_both_sides() -> None:
    z = np.linspace(-30, 30, 241)
    np.testing.assert_allclose(sigmoid(z), 1 / (1 + np.exp(-z)), rtol=1e-15)
    np.testing.assert_allclose(sigmoid(-z), 1 - sigmoid(z), atol=1e-15)
