"""Laws of the network as a whole: its gradients against independent automatic differentiation, and its passes."""

from itertools import pairwise
from typing import Any, NamedTuple

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import grad
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import BadInput
from model.network.activations import ACTIVATIONS
from model.network.losses import HUBER_DELTA, joint
from model.network.network import Architecture, Network, backward, forward, initialise, over
from tests.model.network.test_activations import AS_IN_THE_PAPERS

RETURN_WEIGHT = 0.7


class Case(NamedTuple):
    """A network with random weights and biases, and a batch for it, in float64."""

    network: Network
    x: np.ndarray
    up: np.ndarray
    target: np.ndarray


def case(architecture: Architecture, rows: int, seed: int) -> Case:
    rng = np.random.default_rng(seed)
    network = over(architecture, rng.standard_normal(architecture.parameters))
    up = (rng.random(rows) < 0.5).astype(float)
    return Case(network, rng.standard_normal((rows, architecture.inputs)), up, 2 * rng.standard_normal(rows))


@st.composite
def cases(draw: st.DrawFn, dropout: tuple[float, ...] = (0.0, 0.3, 0.7)) -> Case:
    """Any shape: no hidden layer, one unit, a batch of one row."""
    architecture = Architecture(
        inputs=draw(st.integers(1, 5)),
        hidden=tuple(draw(st.lists(st.integers(1, 6), max_size=3))),
        activation=draw(st.sampled_from(list(ACTIVATIONS))),
        dropout=draw(st.sampled_from(dropout)),
    )
    return case(architecture, draw(st.integers(1, 9)), draw(st.integers(0, 2**32 - 1)))


def analytic(c: Case, mask_seed: int) -> np.ndarray:
    """The gradient by backpropagation, of a training pass with the masks of `mask_seed`."""
    gradient = over(c.network.architecture, np.full_like(c.network.parameters, np.nan))
    tape = forward(c.network, c.x, np.random.default_rng(mask_seed))
    _, d_out = joint(tape.outputs, c.up, c.target, RETURN_WEIGHT)
    backward(c.network, tape, d_out, gradient)
    return gradient.parameters


def masks(c: Case, seed: int) -> list[np.ndarray]:
    """Dropout's masks drawn again, beside the code under test."""
    rng, keep = np.random.default_rng(seed), 1 - c.network.architecture.dropout
    widths = c.network.architecture.hidden
    if keep == 1:
        return [np.ones((len(c.x), width)) for width in widths]
    return [(rng.random((len(c.x), width), dtype=np.float32) < keep) / keep for width in widths]


def loss_as_in_the_papers(parameters: Any, c: Case, mask_seed: int) -> Any:
    """The mean joint loss, written anew for automatic differentiation."""
    gate, a, at = AS_IN_THE_PAPERS[c.network.architecture.activation], c.x, 0
    drawn = masks(c, mask_seed)
    sizes = c.network.architecture.sizes
    for i, (inputs, outputs) in enumerate(pairwise(sizes)):
        W = parameters[at : at + inputs * outputs].reshape((inputs, outputs))
        b = parameters[at + inputs * outputs : at + inputs * outputs + outputs]
        at += inputs * outputs + outputs
        z = anp.dot(a, W) + b
        a = gate(z) * drawn[i] if i < len(drawn) else z
    logit, error = a[:, 0], anp.abs(a[:, 1] - c.target)
    p = 1 / (1 + anp.exp(-anp.where(c.up == 1, logit, -logit)))
    huber = anp.where(error <= HUBER_DELTA, 0.5 * error**2, HUBER_DELTA * (error - 0.5 * HUBER_DELTA))
    return anp.mean(-anp.log(p) + RETURN_WEIGHT * huber)


def relative(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).max() / max(np.abs(a).max(), np.abs(b).max(), 1e-12))


@given(c=cases(), mask_seed=st.integers(0, 99))
@settings(max_examples=150, deadline=None)
def test_backward_agrees_with_an_independent_automatic_differentiation(c: Case, mask_seed: int) -> None:
    tape = forward(c.network, c.x, np.random.default_rng(mask_seed))
    loss, _ = joint(tape.outputs, c.up, c.target, RETURN_WEIGHT)
    assert loss == pytest.approx(loss_as_in_the_papers(c.network.parameters, c, mask_seed), rel=1e-10)
    oracle = grad(loss_as_in_the_papers)(c.network.parameters, c, mask_seed)
    assert relative(analytic(c, mask_seed), oracle) < 1e-10


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("hidden", [(), (1,), (16, 8), (5, 4, 3, 2)])
def test_backward_agrees_with_central_differences(
    activation: str, dropout: float, hidden: tuple[int, ...]
) -> None:
    c = case(Architecture(6, hidden, activation, dropout=dropout), 8, seed=5)
    parameters, h = c.network.parameters, 1e-5

    def loss() -> float:
        outputs = forward(c.network, c.x, np.random.default_rng(1)).outputs
        return joint(outputs, c.up, c.target, RETURN_WEIGHT)[0]

    numerical = np.empty_like(parameters)
    for i, kept in enumerate(parameters.tolist()):
        parameters[i] = kept + h
        above = loss()
        parameters[i] = kept - h
        numerical[i] = (above - loss()) / (2 * h)
        parameters[i] = kept
    assert relative(analytic(c, 1), numerical) < 1e-7


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_outputs_and_gradients_agree_with_pytorch(activation: str, dropout: float) -> None:
    torch = pytest.importorskip("torch", reason="needs PyTorch, which CI installs")
    c = case(Architecture(6, (16, 8), activation, dropout=dropout), 32, seed=6)
    weights = [
        torch.tensor(part.copy(), requires_grad=True)
        for layer in c.network.layers
        for part in (layer.W, layer.b)
    ]
    a = torch.tensor(c.x)
    for i, mask in enumerate(masks(c, 3)):
        a = getattr(torch, activation)(a @ weights[2 * i] + weights[2 * i + 1]) * torch.tensor(mask)
    outputs = a @ weights[-2] + weights[-1]
    losses = torch.nn.functional
    loss = losses.binary_cross_entropy_with_logits(outputs[:, 0], torch.tensor(c.up))
    loss = loss + RETURN_WEIGHT * losses.huber_loss(outputs[:, 1], torch.tensor(c.target), delta=HUBER_DELTA)
    loss.backward()
    tape = forward(c.network, c.x, np.random.default_rng(3))
    assert relative(tape.outputs, outputs.detach().numpy()) < 1e-10
    theirs = np.concatenate([weight.grad.numpy().ravel() for weight in weights])
    assert relative(analytic(c, 3), theirs) < 1e-10


@given(c=cases())
@settings(max_examples=50, deadline=None)
def test_backward_twice_gives_the_same_and_changes_nothing_else(c: Case) -> None:
    tape = forward(c.network, c.x, np.random.default_rng(0))
    _, d_out = joint(tape.outputs, c.up, c.target, RETURN_WEIGHT)
    given_to = [c.network.parameters, c.x, d_out, tape.outputs, *tape.inputs, *tape.z, *tape.a, *tape.masks]
    before = [part.copy() for part in given_to]
    gradient = over(c.network.architecture, np.full_like(c.network.parameters, np.nan))
    backward(c.network, tape, d_out, gradient)
    once = gradient.parameters.copy()
    backward(c.network, tape, d_out, gradient)
    np.testing.assert_array_equal(gradient.parameters, once)
    for part, kept in zip(given_to, before, strict=True):
        np.testing.assert_array_equal(part, kept)


@given(c=cases())
@settings(max_examples=50, deadline=None)
def test_inference_is_deterministic_and_knows_no_dropout(c: Case) -> None:
    outputs = forward(c.network, c.x).outputs
    np.testing.assert_array_equal(forward(c.network, c.x).outputs, outputs)
    a = c.network.architecture
    without = over(Architecture(a.inputs, a.hidden, a.activation), c.network.parameters)
    np.testing.assert_array_equal(forward(without, c.x).outputs, outputs)
    np.testing.assert_array_equal(forward(without, c.x, np.random.default_rng(0)).outputs, outputs)
    assert forward(c.network, c.x).masks == ()


@given(c=cases(dropout=(0.0,)))
@settings(max_examples=50, deadline=None)
def test_a_row_does_not_see_its_neighbours(c: Case) -> None:
    together = forward(c.network, c.x).outputs
    alone = np.concatenate([forward(c.network, row[None]).outputs for row in c.x])
    np.testing.assert_allclose(together, alone, rtol=1e-9, atol=1e-12)


def test_dropout_keeps_the_expected_signal() -> None:
    c = case(Architecture(4, (50,), "sigmoid", dropout=0.3), 400, seed=7)
    tape = forward(c.network, c.x, np.random.default_rng(0))
    (mask,) = tape.masks
    assert set(np.unique(mask)) == {0.0, 1 / (1 - 0.3)}
    n = mask.size
    assert abs((mask == 0).mean() - 0.3) < 5 * np.sqrt(0.3 * 0.7 / n)
    assert tape.inputs[1].mean() == pytest.approx(tape.a[0].mean(), rel=0.02)
    np.testing.assert_array_equal(tape.inputs[1], tape.a[0] * mask)


def test_float32_stays_float32_all_the_way() -> None:
    network = initialise(Architecture(4, (8, 3), dropout=0.5), np.random.default_rng(0))
    gradient = over(network.architecture, np.empty_like(network.parameters))
    x, up = np.ones((5, 4), np.float32), np.ones(5, np.float32)
    tape = forward(network, x, np.random.default_rng(1))
    _, d_out = joint(tape.outputs, up, up, 0.5)
    backward(network, tape, d_out, gradient)
    parts = (tape.outputs, d_out, gradient.parameters, *tape.inputs, *tape.z, *tape.a, *tape.masks)
    assert {part.dtype for part in parts} == {np.dtype(np.float32)}


def test_a_step_on_the_flat_buffer_changes_the_answers() -> None:
    network = initialise(Architecture(3, (4,)), np.random.default_rng(0))
    x = np.ones((2, 3), np.float32)
    before = forward(network, x).outputs
    network.parameters[...] += 1
    assert not np.array_equal(forward(network, x).outputs, before)


def test_the_first_loss_is_near_that_of_knowing_nothing() -> None:
    rng = np.random.default_rng(0)
    network = initialise(Architecture(64), rng)
    outputs = forward(network, rng.standard_normal((1000, 64)).astype(np.float32)).outputs
    up = (rng.random(1000) < 0.5).astype(np.float32)
    assert joint(outputs, up, up, 0.0)[0] == pytest.approx(np.log(2), abs=0.02)


def test_layers_are_named_for_people() -> None:
    assert Architecture(3, (4, 5)).layer_names == ("hidden 1", "hidden 2", "output")
    assert Architecture(3, ()).layer_names == ("output",)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"activation": "swosh"}, "unknown activation 'swosh'; one of relu"),
        ({"initialiser": "lucky"}, "unknown initialiser 'lucky'; one of he"),
        ({"hidden": (4, 0)}, "at least one unit"),
        ({"inputs": 0}, "at least one unit"),
        ({"dropout": 1.0}, "from 0 to below 1"),
        ({"dropout": -0.1}, "from 0 to below 1"),
        ({"dropout": float("nan")}, "from 0 to below 1"),
    ],
)
def test_an_architecture_that_cannot_be_is_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        Architecture(**{"inputs": 3, **wrong})
