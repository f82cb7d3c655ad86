"""Laws of normalisation: over the units of a row, and over the rows of a batch."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.network.gates import Activate
from model.network.layers import Dense
from model.network.network import Architecture, bind, forward, initialise
from model.network.normalisation import BatchNorm, LayerNorm
from tests.model.network.oracles import (
    Case,
    agrees_with_autograd,
    agrees_with_torch,
    by_autograd,
    case,
    generators,
    relative,
)


@st.composite
def cases(draw: st.DrawFn, fewest_rows: int = 1) -> Case:
    """Alone, behind a layer that asks for the gradient, and in front of one; one unit, a batch of one row."""
    norm = draw(st.sampled_from([LayerNorm(), BatchNorm()]))
    before = draw(st.sampled_from([(), (Dense(1),), (Dense(4),), (Dense(5), Activate("tanh"))]))
    behind = draw(st.sampled_from([(), (Dense(2),), (Activate("relu"), Dense(2))]))
    architecture = Architecture(draw(st.integers(1, 6)), (*before, norm, *behind))
    rows, members = draw(st.integers(fewest_rows, 12)), draw(st.integers(1, 3))
    return case(architecture, rows, draw(st.integers(0, 999)), members)


@given(c=cases())
@settings(max_examples=120, deadline=None)
def test_normalisation_agrees_with_an_independent_automatic_differentiation(c: Case) -> None:
    agrees_with_autograd(c)


@given(c=cases(fewest_rows=2))  # of one row PyTorch makes no batch
@settings(max_examples=60, deadline=None)
def test_normalisation_agrees_with_pytorch(c: Case) -> None:
    agrees_with_torch(c, pytest.importorskip("torch", reason="PyTorch is installed in CI"))


@given(c=cases())
@settings(max_examples=40, deadline=None)
def test_the_answering_pass_goes_by_the_running_statistics(c: Case) -> None:
    before = c.network.statistics.copy()
    answers = forward(c.network, c.x[0])
    for k in range(c.network.members):
        same_rows = c._replace(x=np.broadcast_to(c.x[0], c.x.shape))
        assert relative(answers[k], by_autograd(same_rows, k, training=False)) < 1e-10
    np.testing.assert_array_equal(c.network.statistics, before)


def test_running_statistics_after_several_batches_are_pytorchs() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is installed in CI")
    members, rows, width = 2, 7, 5
    network = initialise(
        Architecture(width, (BatchNorm(),)), [np.random.default_rng(0)] * members, np.float64
    )
    theirs = [torch.nn.BatchNorm1d(width, dtype=torch.float64) for _ in range(members)]
    rng = np.random.default_rng(1)
    tape = bind(network, rows, np.empty_like(network.parameters), [rng] * members)
    for _ in range(6):
        x = 3 * rng.standard_normal((members, rows, width)) + 2
        tape.inputs[..., :-1] = x
        tape.forward()
        for k, norm in enumerate(theirs):
            assert relative(tape.outputs[k], norm(torch.tensor(x[k])).detach().numpy()) < 1e-12
    answers = forward(network, x[0])
    for k, norm in enumerate(theirs):
        kept = np.concatenate([norm.running_mean.numpy(), norm.running_var.numpy()])
        assert relative(network.statistics[k], kept) < 1e-12
        norm.eval()
        assert relative(answers[k], norm(torch.tensor(x[0])).detach().numpy()) < 1e-12


def test_running_statistics_move_by_a_tenth_towards_the_batchs() -> None:
    network = initialise(Architecture(1, (BatchNorm(),)), [np.random.default_rng(0)], np.float64)
    tape = bind(network, 2, np.empty_like(network.parameters), [np.random.default_rng(0)])
    mean, var = 0.0, 1.0  # those of a standard normal, at first
    for a, b in ((1.0, 3.0), (-2.0, 4.0)):
        tape.inputs[0, :, 0] = a, b
        tape.forward()
        mean, var = 0.9 * mean + 0.1 * (a + b) / 2, 0.9 * var + 0.1 * (a - b) ** 2 / 2
        np.testing.assert_allclose(network.statistics[0], [mean, var], rtol=1e-14)


def test_running_statistics_forget_where_they_began_and_end_at_the_datas() -> None:
    rng = np.random.default_rng(2)
    network = initialise(Architecture(3, (BatchNorm(),)), [rng], np.float64)
    tape = bind(network, 1000, np.empty_like(network.parameters), [rng])
    for _ in range(150):
        tape.inputs[..., :-1] = rng.normal([1, -5, 0], [0.1, 2, 10], (1000, 3))
        tape.forward()
    np.testing.assert_allclose(network.statistics[0, :3], [1, -5, 0], atol=0.5)
    np.testing.assert_allclose(np.sqrt(network.statistics[0, 3:]), [0.1, 2, 10], rtol=0.05)


@pytest.mark.parametrize(("part", "axis"), [(LayerNorm(), 2), (BatchNorm(), 1)])
def test_at_first_what_comes_out_has_mean_0_and_variance_1(part: LayerNorm | BatchNorm, axis: int) -> None:
    c = case(Architecture(30, (part,)), 40, seed=3, members=2)
    network = initialise(c.network.architecture, generators(c), np.float64)
    tape = bind(network, 40, np.empty_like(network.parameters), generators(c))
    tape.inputs[..., :-1] = 5 + 20 * c.x
    tape.forward()
    np.testing.assert_allclose(tape.outputs.mean(axis=axis), 0, atol=1e-12)
    np.testing.assert_allclose(tape.outputs.var(axis=axis), 1, rtol=1e-6)


def test_rows_of_a_layer_norm_do_not_see_each_other_and_what_is_constant_is_no_division_by_zero() -> None:
    c = case(Architecture(4, (LayerNorm(),)), 6, seed=4)
    alone = np.concatenate([forward(c.network, row[None])[0] for row in c.x[0]])
    np.testing.assert_allclose(forward(c.network, c.x[0])[0], alone, rtol=1e-12)
    beta = c.network.parameters[0, 4:]
    np.testing.assert_array_equal(forward(c.network, np.full((1, 4), 7.0))[0, 0], beta)
    agrees_with_autograd(c._replace(x=np.full_like(c.x, 7.0)))
    batch = case(Architecture(4, (Dense(3), BatchNorm())), 6, seed=4)
    agrees_with_autograd(batch._replace(x=np.zeros_like(batch.x)))


def test_a_batch_of_one_row_is_not_made_more_of_than_it_is() -> None:
    """Its variance is 0, and no sample variance can be had; PyTorch refuses, a last batch of a training cannot."""
    c = case(Architecture(2, (BatchNorm(),)), 1, seed=5)
    tape = bind(c.network, 1, np.empty_like(c.network.parameters), generators(c))
    before = c.network.statistics.copy()
    tape.inputs[..., :-1] = c.x
    tape.forward()
    np.testing.assert_array_equal(tape.outputs[0, 0], c.network.parameters[0, 2:])
    np.testing.assert_allclose(c.network.statistics[0, :2], 0.9 * before[0, :2] + 0.1 * c.x[0, 0], rtol=1e-14)
    np.testing.assert_allclose(c.network.statistics[0, 2:], 0.9 * before[0, 2:], rtol=1e-14)
