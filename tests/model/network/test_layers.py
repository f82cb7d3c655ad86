"""Laws of the layers that weigh their inputs, dense and convolutional."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import BadInput
from model.network.layers import Conv1d, Dense
from model.network.network import Architecture, forward, initialise
from tests.model.network.oracles import Case, agrees_with_autograd, agrees_with_torch, case, passed


@st.composite
def dense(draw: st.DrawFn) -> Case:
    """One or two layers: the first is not asked for the gradient by its input, the second is."""
    parts = tuple(Dense(units) for units in draw(st.lists(st.integers(1, 6), min_size=1, max_size=2)))
    architecture = Architecture(draw(st.integers(1, 6)), parts)
    return case(architecture, draw(st.integers(1, 9)), draw(st.integers(0, 999)), draw(st.integers(1, 3)))


@st.composite
def convolutions(draw: st.DrawFn) -> Case:
    """Kernels of one bar, and longer than the window; two of them, so that one hands its gradient on."""
    bars = draw(st.integers(1, 5))
    parts = tuple(
        Conv1d(bars, draw(st.integers(1, 4)), draw(st.integers(1, 7))) for _ in range(draw(st.integers(1, 2)))
    )
    architecture = Architecture(bars * draw(st.integers(1, 3)), parts)
    return case(architecture, draw(st.integers(1, 6)), draw(st.integers(0, 999)), draw(st.integers(1, 3)))


@given(c=dense())
@settings(max_examples=60, deadline=None)
def test_a_dense_layer_agrees_with_an_independent_automatic_differentiation(c: Case) -> None:
    agrees_with_autograd(c)


@given(c=convolutions())
@settings(max_examples=60, deadline=None)
def test_a_convolution_agrees_with_an_independent_automatic_differentiation(c: Case) -> None:
    agrees_with_autograd(c)


@given(c=dense() | convolutions())
@settings(max_examples=80, deadline=None)
def test_layers_agree_with_pytorch(c: Case) -> None:
    agrees_with_torch(c, pytest.importorskip("torch", reason="PyTorch is installed in CI"))


def test_a_dense_layer_and_its_gradients_are_the_sums_that_they_are_said_to_be() -> None:
    B, I, O = 4, 3, 2  # noqa: E741
    c = case(Architecture(I, (Dense(O),)), B, seed=0)
    x, d_z, found = c.x[0], c.d_outputs[0], passed(c)
    W, d_W = (flat.reshape(I + 1, O) for flat in (c.network.parameters[0], found.gradients[0]))
    for o in range(O):
        assert d_W[I, o] == pytest.approx(sum(d_z[r, o] for r in range(B)))
        for r in range(B):
            z = sum(x[r, i] * W[i, o] for i in range(I)) + W[I, o]
            assert found.outputs[0, r, o] == pytest.approx(z)
        for i in range(I):
            assert d_W[i, o] == pytest.approx(sum(x[r, i] * d_z[r, o] for r in range(B)))


def test_a_convolution_never_sees_a_later_bar_nor_one_that_its_kernel_does_not_reach() -> None:
    bars, channels, kernel = 8, 2, 3
    c = case(Architecture(bars * channels, (Conv1d(bars, 4, kernel),)), 5, seed=1)
    before = forward(c.network, c.x[0])[0].reshape(5, bars, 4)
    for bar in range(bars):
        x = c.x[0].copy().reshape(5, bars, channels)
        x[:, bar] += 1
        after = forward(c.network, x.reshape(5, -1))[0].reshape(5, bars, 4)
        moved = (after != before).any(axis=(0, 2))
        np.testing.assert_array_equal(moved, [bar <= t < bar + kernel for t in range(bars)])


def test_a_convolution_of_one_bar_is_a_dense_layer_at_every_bar() -> None:
    c = case(Architecture(6, (Conv1d(3, 4, 1),)), 5, seed=2)
    W = c.network.parameters[0].reshape(3, 4)
    expected = c.x[0].reshape(5, 3, 2) @ W[:-1] + W[-1]
    np.testing.assert_allclose(forward(c.network, c.x[0])[0], expected.reshape(5, 12), rtol=1e-12)


@pytest.mark.parametrize(
    ("part", "inputs", "shape", "deviation"),
    [
        (Dense(300), 200, (201, 300), 1 / np.sqrt(200)),
        (Dense(300, gain=1.5), 200, (201, 300), 1.5 / np.sqrt(200)),
        (Dense(300, "lecun", scale=0.1), 200, (201, 300), 0.1 / np.sqrt(200)),
        (Dense(300, "xavier", gain=2.0), 200, (201, 300), 2 * np.sqrt(2 / 500)),
        # a unit of a convolution reads kernel * channels numbers, however many bars there are
        (Conv1d(10, 100, 5), 400, (201, 100), 1 / np.sqrt(200)),
        (Conv1d(10, 100, 5, gain=1.5), 400, (201, 100), 1.5 / np.sqrt(200)),
        (Conv1d(10, 100, 5, "orthogonal"), 400, (201, 100), 1 / np.sqrt(200)),
        (Dense(3, "zero"), 5, (6, 3), 0.0),
    ],
)
def test_first_weights_have_the_initialisers_spread_and_biases_are_zero(
    part: Any, inputs: int, shape: tuple[int, int], deviation: float
) -> None:
    network = initialise(Architecture(inputs, (part,)), [np.random.default_rng(0)])
    W = network.parameters[0].reshape(shape)
    assert W[:-1].std() == pytest.approx(deviation, rel=0.02)
    assert abs(W[:-1].mean()) <= 0.02 * deviation
    assert (W[-1] == 0).all()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: Dense(0), "at least one unit, not 0"),
        (lambda: Dense(3, "lucky"), "unknown initialiser 'lucky'; one of he"),
        (lambda: Conv1d(0, 1, 1), "at least 1"),
        (lambda: Conv1d(1, 0, 1), "at least 1"),
        (lambda: Conv1d(1, 1, 0), "at least 1"),
        (lambda: Conv1d(1, 1, 1, "lucky"), "unknown initialiser 'lucky'; one of he"),
        (lambda: Architecture(7, (Conv1d(3, 2, 1),)), "7 inputs are not a whole number of channels"),
    ],
)
def test_a_layer_that_cannot_be_is_refused(wrong: Any, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        wrong()
