"""Laws of the shipped self-test: it passes what is right, at every shape, and finds each fault that is put in."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import BadInput
from model.network import gradcheck
from model.network.activations import ACTIVATIONS, Array
from model.network.gradcheck import LIMIT, GradientCheck
from model.network.losses import joint
from model.network.network import Architecture, Network, Tape, backward, initialise, over
from tests.model.network.test_network import Case, cases


def drawn(architecture: Architecture, seed: int = 0, rows: int = 32) -> Case:
    """A freshly initialised network, in float32 as training has it, and rows for it."""
    rng = np.random.default_rng(seed)
    network = initialise(architecture, rng)
    x = rng.standard_normal((rows, architecture.inputs)).astype(np.float32)
    up = (rng.random(rows) < 0.5).astype(np.float32)
    return Case(network, x, up, (1.5 * rng.standard_normal(rows)).astype(np.float32))


def checked(c: Case, coordinates: int | None = 64, seed: int = 0) -> GradientCheck:
    return gradcheck.check(c.network, c.x, c.up, c.target, 0.5, coordinates=coordinates, seed=seed)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_right_gradients_pass(activation: str, dropout: float) -> None:
    for seed in range(20):
        found = checked(drawn(Architecture(64, (64, 32), activation, dropout=dropout), seed), seed=seed)
        assert found.passed
        assert found.worst == max(layer.relative_error for layer in found.layers) < LIMIT
        assert [layer.name for layer in found.layers] == ["hidden 1", "hidden 2", "output"]


@given(c=cases())
@settings(max_examples=100, deadline=None)
def test_right_gradients_pass_at_every_shape_and_coordinate(c: Case) -> None:
    assert checked(c, coordinates=None).passed


@given(
    hidden=st.lists(st.integers(1, 5), max_size=3),
    activation=st.sampled_from(list(ACTIVATIONS)),
    seed=st.integers(0, 999),
)
@settings(max_examples=50, deadline=None)
def test_units_on_their_kink_are_no_false_alarm(hidden: list[int], activation: str, seed: int) -> None:
    """With biases of zero, a layer whose inputs were all dropped has pre-activations of exactly 0."""
    c = drawn(Architecture(2, tuple(hidden), activation, dropout=0.7), seed)
    assert checked(c, coordinates=None, seed=seed).passed


def test_a_kink_within_reach_of_the_step_is_no_false_alarm_and_is_counted() -> None:
    c = drawn(Architecture(3, (200,), "relu"))
    assert sum(layer.kinks for layer in checked(c, coordinates=None).layers) == 0
    found = gradcheck.check(c.network, c.x, c.up, c.target, 0.5, step=1e-3, coordinates=None)
    assert found.layers[0].kinks > 0
    assert found.layers[0].relative_error < 1e-2  # of the curvature over so long a step, not of kinks


def test_outliers_and_vanishing_gradients_are_no_false_alarm() -> None:
    c = drawn(Architecture(8, (16, 8), "tanh"))
    c.x[:, 0] *= 1000
    assert checked(c).passed
    assert checked(drawn(Architecture(8, (8,) * 20, "sigmoid"))).passed


def _wrong_sign(network: Network, tape: Tape, d_out: Array, gradient: Network) -> None:
    backward(network, tape, -d_out, gradient)


def _masks_forgotten(network: Network, tape: Tape, d_out: Array, gradient: Network) -> None:
    backward(network, Tape(tape.inputs, tape.z, tape.a, (), tape.outputs), d_out, gradient)


def _derivative_at_the_output(network: Network, tape: Tape, d_out: Array, gradient: Network) -> None:
    value = ACTIVATIONS[network.architecture.activation].value
    shifted = tuple(value(a) for a in tape.a)
    backward(network, Tape(tape.inputs, tape.a, shifted, tape.masks, tape.outputs), d_out, gradient)


def _stale_inputs(network: Network, tape: Tape, d_out: Array, gradient: Network) -> None:
    inputs = (np.roll(tape.inputs[0], 1, axis=0), *tape.inputs[1:])
    backward(network, Tape(inputs, tape.z, tape.a, tape.masks, tape.outputs), d_out, gradient)


def _bias_averaged_twice(network: Network, tape: Tape, d_out: Array, gradient: Network) -> None:
    backward(network, tape, d_out, gradient)
    gradient.layers[1].b[...] /= len(d_out)


def _one_entry_in_ten_thousand(network: Network, tape: Tape, d_out: Array, gradient: Network) -> None:
    backward(network, tape, d_out, gradient)
    W = gradient.layers[0].W
    W[np.unravel_index(np.abs(W).argmax(), W.shape)] *= 1.001


def _not_finite(network: Network, tape: Tape, d_out: Array, gradient: Network) -> None:
    backward(network, tape, d_out, gradient)
    gradient.layers[1].W[0, 0] = np.nan


FAULTS: list[tuple[Callable[[Network, Tape, Array, Network], None], str]] = [
    (_wrong_sign, "relu"),
    (_masks_forgotten, "relu"),
    (_derivative_at_the_output, "tanh"),
    (_derivative_at_the_output, "sigmoid"),
    (_stale_inputs, "relu"),
    (_bias_averaged_twice, "tanh"),
    (_one_entry_in_ten_thousand, "relu"),
    (_not_finite, "relu"),
]


@pytest.mark.parametrize(("fault", "activation"), FAULTS)
@pytest.mark.parametrize("seed", range(5))
def test_every_fault_is_found(
    monkeypatch: pytest.MonkeyPatch,
    fault: Callable[[Network, Tape, Array, Network], None],
    activation: str,
    seed: int,
) -> None:
    c = drawn(Architecture(100, (100, 20), activation, dropout=0.3), seed)
    monkeypatch.setattr(gradcheck, "backward", fault)
    found = checked(c, seed=seed)
    assert not found.passed
    assert found.worst > 100 * LIMIT


def test_a_fault_of_one_layer_is_told_as_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradcheck, "backward", _bias_averaged_twice)
    found = checked(drawn(Architecture(10, (8, 6), "tanh")))
    assert [layer.relative_error > LIMIT for layer in found.layers] == [False, True, False]


def test_weights_that_are_not_finite_fail_without_a_warning() -> None:
    c = drawn(Architecture(5, (4,)))
    for bad in (np.nan, np.inf, 1e38):
        c.network.layers[0].W[...] = bad
        found = checked(c)
        assert not found.passed
    assert found.worst == float("inf")


def test_a_loss_that_is_not_finite_beside_the_parameters_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    losses = iter([0.7])  # and then no number any more

    def breaking(*args: Any) -> tuple[float, Array]:
        _, d_out = joint(*args)
        return next(losses, float("nan")), d_out

    monkeypatch.setattr(gradcheck, "joint", breaking)
    found = checked(drawn(Architecture(3, (2,))))
    assert (found.worst, found.passed) == (float("inf"), False)


def test_the_check_changes_nothing_and_repeats_itself() -> None:
    c = drawn(Architecture(6, (5, 4), dropout=0.5))
    before = c.network.parameters.copy()
    assert checked(c, seed=3) == checked(c, seed=3)
    np.testing.assert_array_equal(c.network.parameters, before)


def test_eight_rows_are_enough_and_none_are_refused() -> None:
    c = drawn(Architecture(6, (5,)), rows=8)
    padded = [np.concatenate([part, np.full_like(part, np.nan)]) for part in (c.x, c.up, c.target)]
    assert checked(Case(c.network, *padded)) == checked(c)
    with pytest.raises(BadInput, match="at least one row"):
        checked(Case(c.network, c.x[:0], c.up[:0], c.target[:0]))


def test_it_is_quick_enough_for_every_training() -> None:
    c = drawn(Architecture(64, (64, 32), dropout=0.3))
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        checked(c)
        seconds.append(time.perf_counter() - started)
    assert min(seconds) < 0.3


def test_float64_parameters_are_not_moved_either() -> None:
    network = over(Architecture(3, (2,)), np.full(14, 0.5))
    gradcheck.check(network, np.ones((2, 3)), np.ones(2), np.ones(2), 1.0)
    assert (network.parameters == 0.5).all()
