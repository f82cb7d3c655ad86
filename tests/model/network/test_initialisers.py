"""Laws of initial weights, by statistics."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.network.activations import ACTIVATIONS
from model.network.initialisers import INITIALISERS, orthogonal

# The variance of a weight between I inputs and O outputs at a gain g, as the papers state it.
VARIANCE: dict[str, Callable[[int, int, float], float]] = {
    "he": lambda I, O, g: g**2 / I,  # noqa: E741
    "xavier": lambda I, O, g: 2 * g**2 / (I + O),  # noqa: E741
    "lecun": lambda I, O, g: 1 / I,  # noqa: E741
    "orthogonal": lambda I, O, g: g**2 / max(I, O),  # noqa: E741
    "zero": lambda I, O, g: 0.0,  # noqa: E741
}


@pytest.mark.parametrize("name", INITIALISERS)
@pytest.mark.parametrize("gain", [1.0, 5 / 3])
@pytest.mark.parametrize("shape", [(300, 200), (150, 400)])
def test_weights_have_the_mean_and_variance_of_their_rule(
    name: str, gain: float, shape: tuple[int, int]
) -> None:
    assert name in VARIANCE, f"state the variance of {name} as its paper has it, as an oracle for its row"
    W = INITIALISERS[name](np.random.default_rng(0), *shape, gain)
    variance = VARIANCE[name](*shape, gain)
    # the standard errors of mean and variance of n normal numbers, five times over
    assert abs(W.mean()) <= 5 * np.sqrt(variance / W.size)
    assert abs(W.var() - variance) <= 5 * variance * np.sqrt(2 / W.size)


@pytest.mark.parametrize("name", INITIALISERS)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 5))
def test_equal_seeds_give_equal_weights_and_others_do_not(
    name: str, inputs: int, outputs: int, seed: int
) -> None:
    one, two, other = (
        INITIALISERS[name](np.random.default_rng(s), inputs, outputs, 1.0) for s in (seed, seed, seed + 1)
    )
    assert one.shape == (inputs, outputs)
    assert one.dtype == np.float64
    assert one.flags.c_contiguous
    assert one.tobytes() == two.tobytes()
    alike = name == "zero" or (name == "orthogonal" and inputs == outputs == 1)  # the latter is 1 or -1
    assert alike or not np.array_equal(one, other)


@given(st.integers(1, 12), st.integers(1, 12), st.floats(0.1, 3))
def test_orthogonal_weights_keep_every_length(inputs: int, outputs: int, gain: float) -> None:
    W = orthogonal(np.random.default_rng(inputs * 100 + outputs), inputs, outputs, gain)
    product = W.T @ W if inputs >= outputs else W @ W.T
    np.testing.assert_allclose(product, gain**2 * np.eye(min(inputs, outputs)), atol=1e-12)


def test_orthogonal_weights_prefer_no_direction() -> None:
    """Without R's signs, the diagonal of Q is one-sided."""
    diagonal = [np.diag(orthogonal(np.random.default_rng(seed), 2, 2, 1.0)) for seed in range(400)]
    assert (np.abs(np.mean(diagonal, axis=0)) < 5 * np.sqrt(0.5 / 400)).all()


@pytest.mark.parametrize(
    ("activation", "name"),
    [
        *((activation, "he") for activation in ("relu", "leaky_relu", "elu", "gelu", "identity")),
        ("softplus", "he"),
        ("tanh", "xavier"),
        ("tanh", "orthogonal"),
        ("identity", "orthogonal"),
    ],
)
def test_depth_neither_shrinks_nor_swells_the_signal(activation: str, name: str) -> None:
    """What the gains are for: twenty layers on, pre-activations still have the size of the first.

    Not so for SiLU: a size that its gain keeps is not one to which it comes back, and small deviations grow.
    """
    rng, row = np.random.default_rng(2), ACTIVATIONS[activation]
    a, sizes = rng.standard_normal((128, 128)), []
    for layer in range(20):
        z = a @ INITIALISERS[name](rng, 128, 128, row.gain if layer else 1.0)
        sizes.append(np.sqrt(np.mean(z**2)))
        a = np.empty_like(z)
        row.value(z, a, np.zeros_like(z))
    assert 0.4 < sizes[-1] / sizes[0] < 2.5
