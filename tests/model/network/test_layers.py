"""Laws of dense layers and of their views into the flat buffer."""

from itertools import pairwise

import numpy as np
import pytest

from model.network.layers import Dense, views

SIZES = [(3, 2), (1, 1, 2), (5, 4, 3, 2)]


@pytest.mark.parametrize("sizes", SIZES)
def test_the_views_cover_the_buffer_once_and_in_order(sizes: tuple[int, ...]) -> None:
    length = sum((i + 1) * o for i, o in pairwise(sizes))
    flat = np.arange(float(length))
    layers = views(flat, sizes)
    assert [layer.W.shape for layer in layers] == list(pairwise(sizes))
    assert [layer.b.shape for layer in layers] == [(o,) for o in sizes[1:]]
    again = np.concatenate([part.ravel() for layer in layers for part in (layer.W, layer.b)])
    np.testing.assert_array_equal(again, flat)


def test_a_step_on_the_flat_buffer_moves_every_layer_and_back() -> None:
    flat = np.zeros(26)
    first, second = views(flat, (3, 5, 1))
    flat += 1.5
    assert all((part == 1.5).all() for part in (first.W, first.b, second.W, second.b))
    second.b[...] = 7
    first.W[0, 1] = -1
    assert flat[-1] == 7
    assert flat[1] == -1
    assert np.shares_memory(first.W, flat)
    assert np.shares_memory(second.b, flat)


def test_a_layer_and_its_gradients_are_the_sums_that_they_are_said_to_be() -> None:
    rng = np.random.default_rng(0)
    B, I, O = 4, 3, 2  # noqa: E741
    layer = Dense(rng.standard_normal((I, O)), rng.standard_normal(O))
    x, d_z = rng.standard_normal((B, I)), rng.standard_normal((B, O))
    d = Dense(np.full((I, O), np.nan), np.full(O, np.nan))
    layer.backward(x, d_z, d)
    for o in range(O):
        assert d.b[o] == pytest.approx(sum(d_z[r, o] for r in range(B)))
        for r in range(B):
            z = sum(x[r, i] * layer.W[i, o] for i in range(I)) + layer.b[o]
            assert layer.forward(x)[r, o] == pytest.approx(z)
        for i in range(I):
            assert d.W[i, o] == pytest.approx(sum(x[r, i] * d_z[r, o] for r in range(B)))
    for r in range(B):
        for i in range(I):
            back = sum(d_z[r, o] * layer.W[i, o] for o in range(O))
            assert layer.backward_input(d_z)[r, i] == pytest.approx(back)
