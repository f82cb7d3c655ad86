"""Laws of the parts that learn nothing: activations and dropout."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import BadInput
from model.network.activations import ACTIVATIONS
from model.network.gates import Activate, Dropout
from model.network.layers import Dense
from model.network.network import Architecture, bind, forward
from tests.model.network.oracles import (
    Case,
    agrees_with_autograd,
    agrees_with_torch,
    case,
    generators,
    mask,
    passed,
)
from tests.model.network.test_activations import AS_IN_THE_PAPERS

shapes = {
    "units": st.integers(1, 6),
    "rows": st.integers(1, 9),
    "members": st.integers(1, 3),
    "seed": st.integers(0, 999),
}


def behind_a_layer(*parts: Activate | Dropout, units: int, rows: int, members: int, seed: int) -> Case:
    """The layer before them asks for the gradient by their input, the one behind sees what they make of it."""
    return case(Architecture(3, (Dense(units), *parts, Dense(2))), rows, seed, members)


@pytest.mark.parametrize("name", ACTIVATIONS)
@given(**shapes)
@settings(max_examples=25, deadline=None)
def test_an_activation_agrees_with_an_independent_automatic_differentiation(
    name: str, units: int, rows: int, members: int, seed: int
) -> None:
    agrees_with_autograd(behind_a_layer(Activate(name), units=units, rows=rows, members=members, seed=seed))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_agrees_with_pytorch(name: str) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is installed in CI")
    agrees_with_torch(behind_a_layer(Activate(name), units=20, rows=15, members=2, seed=3), torch)


@pytest.mark.parametrize("first", ACTIVATIONS)
@pytest.mark.parametrize("second", ["relu", "tanh", "silu"])
def test_one_activation_behind_another_leaves_it_what_its_slope_needs(first: str, second: str) -> None:
    c = behind_a_layer(Activate(first), Activate(second), units=5, rows=7, members=2, seed=4)
    agrees_with_autograd(c)
    agrees_with_autograd(case(Architecture(3, (Activate(first), Dense(2), Activate(second))), 6, seed=5))


@given(rate=st.sampled_from([0.0, 0.2, 0.5, 0.9]), **shapes)
@settings(max_examples=60, deadline=None)
def test_dropout_agrees_with_an_independent_automatic_differentiation(
    rate: float, units: int, rows: int, members: int, seed: int
) -> None:
    """The same mask there and back: the oracle reads it from a second, equally seeded generator."""
    agrees_with_autograd(behind_a_layer(Dropout(rate), units=units, rows=rows, members=members, seed=seed))


def test_dropout_agrees_with_pytorch() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is installed in CI")
    agrees_with_torch(behind_a_layer(Dropout(0.4), units=20, rows=15, members=2, seed=3), torch)


def test_dropout_keeps_the_expected_signal_and_hands_back_what_it_let_through() -> None:
    rate, width, rows = 0.3, 50, 400
    c = case(Architecture(width, (Dropout(rate),)), rows, seed=7)
    found, drawn = passed(c), mask(rate, (rows, width), generators(c)[0])
    assert set(np.unique(drawn)) == {0.0, 1 / (1 - rate)}
    np.testing.assert_allclose(found.outputs[0], c.x[0] * drawn, rtol=1e-15)
    n = drawn.size
    assert abs((found.outputs == 0).mean() - rate) < 5 * np.sqrt(rate * (1 - rate) / n)
    ones = c._replace(x=np.ones_like(c.x))
    assert passed(ones).outputs.mean() == pytest.approx(1, abs=5 * np.sqrt(rate / (1 - rate) / n))


def test_every_step_draws_a_mask_of_its_own_and_every_member_too() -> None:
    c = case(Architecture(20, (Dropout(0.5),)), 10, seed=0, members=2)
    tape = bind(c.network, 10, np.empty_like(c.network.parameters), generators(c))
    masks = []
    for _ in range(2):
        tape.inputs[..., :-1] = 1
        tape.forward()
        masks += [tape.outputs[0].tobytes(), tape.outputs[1].tobytes()]
    assert len(set(masks)) == 4


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_answering_knows_no_dropout(rate: float) -> None:
    c = case(Architecture(4, (Dropout(rate), Dense(5), Dropout(rate))), 6, seed=8)
    W = c.network.parameters[0].reshape(5, 5)
    np.testing.assert_allclose(forward(c.network, c.x[0])[0], c.x[0] @ W[:-1] + W[-1], rtol=1e-12)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_tape_shows_what_its_activations_let_through(name: str) -> None:
    c = case(Architecture(4, (Dense(5), Activate(name), Dropout(0.5), Dense(2))), 6, seed=9, members=2)
    tape = bind(c.network, 6, np.empty_like(c.network.parameters), generators(c))
    tape.inputs[..., :-1] = c.x
    tape.forward()
    (gate,) = tape.gates
    W = c.network.parameters[:, :25].reshape(2, 5, 5)
    z = c.x @ W[:, :-1] + W[:, -1:]
    assert gate.activation is ACTIVATIONS[name]
    np.testing.assert_allclose(gate.a, AS_IN_THE_PAPERS[name](z), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(gate.z, z if gate.activation.keeps_z else gate.a, rtol=1e-12)


@pytest.mark.parametrize("rate", [1.0, -0.1, 1.5, float("nan"), float("inf")])
def test_a_rate_that_is_no_fraction_is_refused(rate: float) -> None:
    with pytest.raises(BadInput, match="from 0 to below 1"):
        Dropout(rate)


def test_an_unknown_activation_is_refused() -> None:
    with pytest.raises(BadInput, match="unknown activation 'swosh'; one of relu"):
        Activate("swosh")
