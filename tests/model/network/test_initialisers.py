"""Laws of initial weights, by statistics."""

import numpy as np
import pytest

from model.network.activations import ACTIVATIONS
from model.network.initialisers import INITIALISERS
from model.network.network import Architecture, forward, initialise

# The variance of a weight between I inputs and O outputs at a gain of 1, as the papers state it.
VARIANCE = {
    "he": lambda I, O: 1 / I,  # noqa: E741
    "xavier": lambda I, O: 2 / (I + O),  # noqa: E741
}


@pytest.mark.parametrize("name", INITIALISERS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_weights_have_the_mean_and_variance_of_their_rule(name: str, activation: str) -> None:
    assert name in VARIANCE, f"state the variance of {name} as its paper has it, as an oracle for its row"
    sizes = (300, 200)
    network = initialise(Architecture(sizes[0], sizes[1:], activation, name), np.random.default_rng(0))
    W = network.layers[0].W.astype(np.float64)
    variance = VARIANCE[name](*sizes) * ACTIVATIONS[activation].gain ** 2
    # the standard errors of mean and variance of n normal numbers, five times over
    assert abs(W.mean()) < 5 * np.sqrt(variance / W.size)
    assert abs(W.var() / variance - 1) < 5 * np.sqrt(2 / W.size)


@pytest.mark.parametrize("name", INITIALISERS)
def test_biases_start_at_zero_and_outputs_small(name: str) -> None:
    network = initialise(Architecture(400, (400,), "relu", name), np.random.default_rng(1))
    assert all((layer.b == 0).all() for layer in network.layers)
    spread = INITIALISERS[name](400, 2, 1.0)
    assert network.layers[-1].W.std() == pytest.approx(0.1 * spread, rel=0.1)


@pytest.mark.parametrize("name", INITIALISERS)
def test_equal_seeds_give_equal_weights_and_others_do_not(name: str) -> None:
    architecture = Architecture(7, (5, 3), "tanh", name)
    one, two, other = (initialise(architecture, np.random.default_rng(s)).parameters for s in (4, 4, 5))
    assert one.tobytes() == two.tobytes()
    assert not np.array_equal(one, other)
    assert one.dtype == np.float32


@pytest.mark.parametrize(("activation", "name"), [("relu", "he"), ("tanh", "xavier")])
def test_depth_neither_shrinks_nor_swells_the_signal(activation: str, name: str) -> None:
    """What the gains are for: twenty layers on, pre-activations still have the spread of the first."""
    rng = np.random.default_rng(2)
    network = initialise(Architecture(256, (256,) * 20, activation, name), rng, np.float64)
    tape = forward(network, rng.standard_normal((512, 256)))
    spreads = [z.std() for z in tape.z]
    assert 0.5 < spreads[-1] / spreads[0] < 2
