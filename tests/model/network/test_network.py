"""Laws of the network as a whole, and those that every kind of part obeys."""

import json
import tracemalloc
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import BadInput
from model.network.activations import ACTIVATIONS
from model.network.gates import Activate, Dropout
from model.network.layers import Conv1d, Dense
from model.network.network import (
    PARTS,
    Architecture,
    Residual,
    architecture_from,
    bind,
    forward,
    initialise,
    perceptron,
)
from model.network.normalisation import BatchNorm, LayerNorm
from model.network.wires import Part
from tests.model.network.oracles import (
    Case,
    agrees_with_autograd,
    agrees_with_differences,
    agrees_with_torch,
    by_autograd,
    case,
    generators,
    member,
    passed,
    perceptrons,
    relative,
)

# Every kind of part, for an input of this width.
WIDTH = 12
KINDS: dict[str, Part] = {
    "dense": Dense(5),
    "convolution": Conv1d(4, 2, 3),
    "dropout": Dropout(0.3),
    "layer norm": LayerNorm(),
    "batch norm": BatchNorm(),
    **{name: Activate(name) for name in ACTIVATIONS},
    "residual": Residual((Dense(6), BatchNorm(), Activate("relu"), Dropout(0.3), Dense(WIDTH), LayerNorm())),
    "residual that begins with an activation": Residual((Activate("tanh"), Dense(WIDTH), Activate("silu"))),
    "residual of an activation": Residual((Activate("relu"),)),
    "residual of a convolution": Residual((Conv1d(4, 3, 2), Activate("elu"))),
    "residual of dropout": Residual((Dropout(0.3),)),
    "residual of a norm": Residual((LayerNorm(), Dense(WIDTH), BatchNorm())),
    "residual within a residual": Residual(
        (Dense(WIDTH), Residual((Activate("gelu"), Dense(WIDTH), Residual((Dense(WIDTH), Activate("relu"))))))
    ),
}


def around(kind: str) -> Architecture:
    """The layer before asks the part for the gradient by its input; the one behind reads what it makes of it."""
    return Architecture(4, (Dense(WIDTH), KINDS[kind], Dense(2)))


def test_no_kind_of_part_is_excused() -> None:
    assert {type(part) for part in KINDS.values()} == set(PARTS.values())


@pytest.mark.parametrize("kind", KINDS)
@given(rows=st.integers(1, 9), members=st.integers(1, 3), seed=st.integers(0, 999))
@settings(max_examples=15, deadline=None)
def test_a_part_agrees_with_an_independent_automatic_differentiation(
    kind: str, rows: int, members: int, seed: int
) -> None:
    agrees_with_autograd(case(around(kind), rows, seed, members))
    # first of all, where no gradient is asked for
    agrees_with_autograd(case(Architecture(WIDTH, (KINDS[kind], Dense(2))), rows, seed, members))


@pytest.mark.parametrize("kind", KINDS)
def test_a_part_agrees_with_pytorch(kind: str) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is installed in CI")
    agrees_with_torch(case(around(kind), 16, 1, members=2), torch)


@pytest.mark.parametrize("kind", KINDS)
def test_a_part_agrees_with_central_differences(kind: str) -> None:
    agrees_with_differences(case(around(kind), 8, 2, members=2))


@given(
    architecture=perceptrons(), rows=st.integers(1, 9), members=st.integers(1, 3), seed=st.integers(0, 999)
)
@settings(max_examples=200, deadline=None)
def test_perceptrons_agree_with_an_independent_automatic_differentiation(
    architecture: Architecture, rows: int, members: int, seed: int
) -> None:
    agrees_with_autograd(case(architecture, rows, seed, members))


OPTIONS = list(product([None, "layer", "batch"], [False, True], [0.0, 0.4]))


@pytest.mark.parametrize(("normalisation", "residual", "dropout"), OPTIONS)
@pytest.mark.parametrize("activation", ["relu", "gelu", "tanh"])
def test_perceptrons_agree_with_pytorch(
    activation: str, normalisation: str | None, residual: bool, dropout: float
) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is installed in CI")
    architecture = perceptron(
        6,
        (8, 8, 5),
        2,
        activation=activation,
        normalisation=normalisation,
        residual=residual,
        dropout=dropout,
    )
    agrees_with_torch(case(architecture, 32, 3, members=2), torch)


@pytest.mark.parametrize(("normalisation", "residual", "dropout"), OPTIONS)
def test_perceptrons_agree_with_central_differences(
    normalisation: str | None, residual: bool, dropout: float
) -> None:
    architecture = perceptron(
        3,
        (5, 5),
        2,
        activation="softplus",
        normalisation=normalisation,
        residual=residual,
        dropout=dropout,
    )
    agrees_with_differences(case(architecture, 8, 4))


def same_bits(together: Case) -> None:
    """Member k of a run of K is, bit for bit, what it is alone."""
    ours = passed(together)
    for k in range(together.network.members):
        for whole, alone in zip(ours, passed(member(together, k)), strict=True):
            assert whole[k].tobytes() == alone[0].tobytes()
    answers = forward(together.network, together.x[0])
    for k in range(together.network.members):
        assert answers[k].tobytes() == forward(together.network.member(k), together.x[0])[0].tobytes()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_member_is_bit_for_bit_the_network_alone(kind: str, dtype: type) -> None:
    for rows in (1, 2, 7, 64):
        same_bits(case(around(kind), rows, rows, members=3, dtype=dtype))


@given(architecture=perceptrons(), rows=st.integers(1, 40), members=st.integers(2, 5))
@settings(max_examples=60, deadline=None)
def test_a_member_of_any_perceptron_is_bit_for_bit_the_network_alone(
    architecture: Architecture, rows: int, members: int
) -> None:
    same_bits(case(architecture, rows, rows, members, np.float32))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("first", [False, True])
def test_there_and_back_twice_gives_the_same_and_changes_nothing_else(kind: str, first: bool) -> None:
    c = case(Architecture(WIDTH, (KINDS[kind], Dense(2))) if first else around(kind), 7, 5, members=2)
    gradients, rngs = np.full_like(c.network.parameters, np.nan), generators(c)
    drawn = [rng.bit_generator.state for rng in rngs]
    before = c.network.parameters.copy()
    tape = bind(c.network, 7, gradients, rngs)
    assert tape.d_outputs is not None
    tape.inputs[..., :-1] = c.x
    tape.d_outputs[...] = c.d_outputs
    outputs, backs = [], []
    for _ in range(3):
        for rng, state in zip(rngs, drawn, strict=True):
            rng.bit_generator.state = state  # dropout's masks, drawn again
        tape.forward()
        outputs.append(tape.outputs.tobytes())
        for _ in range(2):
            tape.backward()
            backs.append(gradients.tobytes())
            gradients.fill(np.nan)
    assert len(set(outputs)) == len(set(backs)) == 1
    np.testing.assert_array_equal(tape.inputs[..., :-1], c.x)
    np.testing.assert_array_equal(tape.inputs[..., -1], 1)
    np.testing.assert_array_equal(tape.d_outputs, c.d_outputs)
    np.testing.assert_array_equal(c.network.parameters, before)


@pytest.mark.parametrize("kind", KINDS)
def test_float32_stays_float32_and_is_near_float64(kind: str) -> None:
    c = case(around(kind), 9, 6, members=2)
    network, x, slopes = c.network.astype(np.float32), c.x.astype(np.float32), c.d_outputs.astype(np.float32)
    single, double = passed(Case(network, x, slopes, c.seeds)), passed(c)
    assert {array.dtype for array in single} == {np.dtype(np.float32)}
    assert {array.dtype for array in double} == {np.dtype(np.float64)}
    if Dropout not in kinds_in(c.network.architecture.parts):  # whose masks are drawn in their own precision
        assert all(relative(a, b) < 1e-4 for a, b in zip(single, double, strict=True))
    answers = forward(network, x[0])
    assert answers.dtype == np.float32
    assert relative(answers, forward(c.network, c.x[0])) < 1e-4
    tape = bind(network, 9)
    shown = {array.dtype for gate in tape.gates for array in (gate.z, gate.a)}
    assert {tape.inputs.dtype, tape.outputs.dtype} | shown == {np.dtype(np.float32)}


def kinds_in(parts: Sequence[Part]) -> set[type]:
    """The kinds of all parts, those within residual connections too."""
    return {type(part) for part in parts}.union(*(kinds_in(getattr(part, "parts", ())) for part in parts))


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_allocates_no_array(kind: str) -> None:
    c = case(around(kind), 4096, 7, members=2, dtype=np.float32)
    tape = bind(c.network, 4096, np.empty_like(c.network.parameters), generators(c))
    assert tape.d_outputs is not None
    tape.inputs[..., :-1] = c.x
    tape.d_outputs[...] = c.d_outputs
    tape.forward()
    tape.backward()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        tape.forward()
        tape.backward()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # NumPy walks what is broadcast or has gaps in buffers of its own. They are of one length whatever the arrays'.
    buffered = kinds_in(c.network.architecture.parts) & {LayerNorm, BatchNorm, Conv1d}
    limit = 4096 + (4 * np.getbufsize() * 4 if buffered else 0)
    assert peak - before < limit < 2 * 4096 * WIDTH * 4 / 2  # half of what the part reads


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_on_the_flat_buffer_moves_the_answers(kind: str) -> None:
    c = case(around(kind), 5, 8, members=2)
    tape = bind(c.network, 5)
    tape.inputs[..., :-1] = c.x
    tape.forward()
    before = tape.outputs.copy()
    c.network.parameters[1] += 0.1
    tape.forward()
    np.testing.assert_array_equal(tape.outputs[0], before[0])
    assert not np.isclose(tape.outputs[1], before[1]).any()
    for k in range(2):
        assert relative(tape.outputs[k], by_autograd(c, k, training=False)) < 1e-10


@given(architecture=perceptrons(), rows=st.integers(0, 6), seed=st.integers(0, 999))
@settings(max_examples=60, deadline=None)
def test_answering_repeats_itself_draws_nothing_and_no_row_sees_another(
    architecture: Architecture, rows: int, seed: int
) -> None:
    c = case(architecture, rows, seed, members=2)
    answers = forward(c.network, c.x[0])
    assert answers.shape == (2, rows, architecture.outputs)
    assert forward(c.network, c.x[0]).tobytes() == answers.tobytes()
    for row, answer in zip(c.x[0], answers.swapaxes(0, 1), strict=True):
        assert relative(forward(c.network, row[None])[:, 0], answer) < 1e-9
    if rows:
        same = c._replace(x=np.broadcast_to(c.x[0], c.x.shape))
        assert relative(answers[1], by_autograd(same, 1, training=False)) < 1e-10


def test_members_begin_apart_each_as_alone() -> None:
    architecture = perceptron(4, (5,), 2, normalisation="batch")
    both = initialise(architecture, [np.random.default_rng(seed) for seed in (1, 2)])
    assert both.members == 2
    assert both.parameters.dtype == both.statistics.dtype == np.float32
    assert not np.array_equal(both.parameters[0], both.parameters[1])
    for k, seed in enumerate((1, 2)):
        alone = initialise(architecture, [np.random.default_rng(seed)])
        np.testing.assert_array_equal(both.member(k).parameters, alone.parameters)
        np.testing.assert_array_equal(both.member(k).statistics, alone.statistics)
    assert np.shares_memory(both.member(1).parameters, both.parameters)
    assert np.shares_memory(both.member(1).statistics, both.statistics)
    for other in (both.copy(), both.astype(np.float32)):
        assert not np.shares_memory(other.parameters, both.parameters)
        assert not np.shares_memory(other.statistics, both.statistics)


@pytest.mark.parametrize(("normalisation", "residual", "dropout"), OPTIONS)
def test_the_first_loss_is_near_that_of_knowing_nothing(
    normalisation: str | None, residual: bool, dropout: float
) -> None:
    rng = np.random.default_rng(0)
    architecture = perceptron(
        64, (64, 64, 32), 1, normalisation=normalisation, residual=residual, dropout=dropout
    )
    network = initialise(architecture, [rng])
    tape = bind(network, 1000, np.empty_like(network.parameters), [rng])
    tape.inputs[..., :-1] = rng.standard_normal((1000, 64))
    tape.forward()
    sign = rng.choice((-1, 1), (1000, 1))
    assert np.logaddexp(0, sign * tape.outputs[0]).mean() == pytest.approx(np.log(2), abs=0.02)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_first_weights_make_up_for_the_gate_and_outputs_start_small(activation: str) -> None:
    architecture = perceptron(225, (225, 225), 100, activation=activation)
    network = initialise(architecture, [np.random.default_rng(0)])
    gain = ACTIVATIONS[activation].gain
    for layer, expected in zip(architecture.layers, [gain, gain, 0.1], strict=True):
        W = network.parameters[0, layer.share].reshape(226, -1)
        assert W[:-1].std() == pytest.approx(expected / 15, rel=0.02)
        assert (W[-1] == 0).all()


def test_perceptrons_are_built_as_they_are_said_to_be() -> None:
    full = perceptron(
        3,
        (4, 4),
        2,
        activation="tanh",
        initialiser="xavier",
        dropout=0.2,
        normalisation="layer",
        residual=True,
    )
    block = (Dense(4, "xavier", ACTIVATIONS["tanh"].gain), LayerNorm(), Activate("tanh"), Dropout(0.2))
    last = Dense(2, "xavier", 1.0, scale=0.1)
    assert full == Architecture(3, (*block, Residual(block), last))
    plain = perceptron(3, (4,), 2)
    assert plain == Architecture(
        3, (Dense(4, "he", ACTIVATIONS["relu"].gain), Activate("relu"), Dense(2, scale=0.1))
    )
    assert perceptron(3, (), 2).parts == (Dense(2, scale=0.1),)
    assert (full.outputs, plain.parameters, plain.statistics) == (2, 4 * 4 + 5 * 2, 0)
    assert perceptron(3, (4, 5), 2, normalisation="batch").statistics == 2 * (4 + 5)


@pytest.mark.parametrize(
    ("architecture", "names"),
    [
        (perceptron(3, (4, 5), 2), ["hidden 1", "hidden 2", "output"]),
        (perceptron(3, (), 2), ["output"]),
        (
            perceptron(3, (4, 4), 2, dropout=0.2, normalisation="batch", residual=True),
            ["hidden 1", "norm 1", "hidden 2", "norm 2", "output"],
        ),
        (
            Architecture(12, (Conv1d(4, 2, 2), LayerNorm(), Conv1d(4, 1, 2), Dense(3), Dense(1))),
            ["conv 1", "norm 1", "conv 2", "hidden 1", "output"],
        ),
        (Architecture(12, (KINDS["residual within a residual"],)), ["hidden 1", "hidden 2", "output"]),
        (Architecture(2, (Dense(2), BatchNorm())), ["output", "norm 1"]),
        (Architecture(2, (Activate("tanh"),)), []),
    ],
)
def test_layers_are_named_for_people_and_share_the_buffer_out(
    architecture: Architecture, names: list[str]
) -> None:
    assert [layer.name for layer in architecture.layers] == names
    places = [place for layer in architecture.layers for place in range(architecture.parameters)[layer.share]]
    assert places == list(range(architecture.parameters))  # each once, and in order


def test_a_layers_share_is_what_its_part_learns_from() -> None:
    architecture = perceptron(3, (4, 4), 2, normalisation="layer", residual=True)
    network = initialise(architecture, [np.random.default_rng(0)])
    norms = [layer for layer in architecture.layers if isinstance(layer.part, LayerNorm)]
    for norm in norms:
        np.testing.assert_array_equal(network.parameters[0, norm.share], [1] * 4 + [0] * 4)


@given(architecture=perceptrons() | st.sampled_from([around(kind) for kind in KINDS]))
@settings(max_examples=80, deadline=None)
def test_an_architecture_comes_back_from_its_document(architecture: Architecture) -> None:
    again = architecture_from(json.loads(json.dumps(architecture.document(), allow_nan=False)))
    assert again == architecture
    assert hash(again) == hash(architecture)


DENSE = {"part": "Dense", "units": 2}


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (None, "cannot be read"),
        ([], "cannot be read"),
        ("network", "cannot be read"),
        ({}, "lacks 'inputs'"),
        ({"inputs": 3}, "lacks 'parts'"),
        ({"inputs": 3, "parts": None}, "cannot be read"),
        ({"inputs": 3, "parts": []}, "at least one input and one part"),
        ({"inputs": 3, "parts": "Dense"}, "cannot be read"),
        ({"inputs": 3, "parts": [None]}, "cannot be read"),
        ({"inputs": 3, "parts": [[]]}, "lacks 'part'"),
        ({"inputs": 3, "parts": [{}]}, "lacks 'part'"),
        ({"inputs": 3, "parts": DENSE}, "cannot be read"),
        ({"inputs": "3", "parts": [DENSE]}, "inputs is '3', but has to be of type int"),
        ({"inputs": 3.0, "parts": [DENSE]}, "inputs is 3.0, but has to be of type int"),
        ({"inputs": True, "parts": [DENSE]}, "inputs is True, but has to be of type int"),
        ({"inputs": None, "parts": [DENSE]}, "inputs is None"),
        ({"inputs": 0, "parts": [DENSE]}, "at least one input"),
        *(
            ({"inputs": 12, "parts": [DENSE, part]}, said)
            for part, said in [
                ({"part": "Sparse", "units": 2}, "unknown part 'Sparse' of a network; one of Dense"),
                ({"part": ["Dense"]}, "cannot be read"),
                ({"part": None}, "unknown part None"),
                ({"part": "Dense"}, "units"),
                ({"part": "Dense", "units": None}, "units of Dense is None"),
                ({"part": "Dense", "units": "2"}, "units of Dense is '2', but has to be of type int"),
                ({"part": "Dense", "units": 2.5}, "units of Dense is 2.5"),
                ({"part": "Dense", "units": True}, "units of Dense is True"),
                ({"part": "Dense", "units": 0}, "at least one unit"),
                ({"part": "Dense", "units": 2, "colour": "red"}, "colour"),
                ({"part": "Dense", "units": 2, "initialiser": ["he"]}, "initialiser of Dense"),
                ({"part": "Dense", "units": 2, "initialiser": "lucky"}, "unknown initialiser"),
                ({"part": "Dense", "units": 2, "gain": "1"}, "gain of Dense"),
                ({"part": "Dense", "units": 2, "gain": float("nan")}, "gain of Dense is nan"),
                ({"part": "Dense", "units": 2, "scale": float("inf")}, "scale of Dense is inf"),
                ({"part": "Conv1d", "bars": 2, "channels": 1}, "kernel"),
                ({"part": "Conv1d", "bars": 5, "channels": 1, "kernel": 1}, "2 inputs are not a whole"),
                ({"part": "Activate"}, "name"),
                ({"part": "Activate", "name": 3}, "name of Activate is 3, but has to be of type str"),
                ({"part": "Activate", "name": "swosh"}, "unknown activation"),
                ({"part": "Dropout", "rate": "0.5"}, "rate of Dropout"),
                ({"part": "Dropout", "rate": 1}, "from 0 to below 1"),
                ({"part": "LayerNorm", "units": 2}, "units"),
                ({"part": "Residual"}, "lacks 'parts'"),
                ({"part": "Residual", "parts": 3}, "cannot be read"),
                ({"part": "Residual", "parts": []}, "residual"),
                (
                    {"part": "Residual", "parts": [{"part": "Dense", "units": 3}]},
                    "width 2 to an output of width 3",
                ),
                ({"part": "Residual", "parts": [{"part": "Dense", "units": 2.0}]}, "units of Dense is 2.0"),
            ]
        ),
    ],
)
def test_a_document_that_is_no_architecture_is_refused(document: Any, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        architecture_from(document)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"activation": "swosh"}, "unknown activation 'swosh'; one of relu"),
        ({"initialiser": "lucky"}, "unknown initialiser 'lucky'; one of he"),
        ({"normalisation": "group"}, "unknown normalisation 'group'; one of layer, batch"),
        ({"hidden": (4, 0)}, "at least one unit"),
        ({"outputs": 0}, "at least one unit"),
        ({"inputs": 0}, "at least one input"),
        ({"dropout": 1.0}, "from 0 to below 1"),
        ({"dropout": -0.1}, "from 0 to below 1"),
        ({"dropout": float("nan")}, "from 0 to below 1"),
    ],
)
def test_a_perceptron_that_cannot_be_is_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        perceptron(**{"inputs": 3, "hidden": (4,), "outputs": 2, **wrong})


def test_parts_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(BadInput, match="at least one input and one part"):
        Architecture(3, ())
    with pytest.raises(BadInput, match="its input of width 3 to an output of width 2"):
        Architecture(3, (Residual((Dense(2),)),))
    with pytest.raises(BadInput, match="residual"):
        Architecture(3, (Residual(()),))
    with pytest.raises(BadInput, match="its input of width 2 to an output of width 4"):
        Architecture(3, (Dense(2), Residual((Dense(2), Residual((Dense(4),))))))


def test_a_training_pass_needs_gradients_and_generators_and_an_answering_one_has_no_way_back() -> None:
    c = case(perceptron(3, (4,), 2), 5, 0)
    with pytest.raises(BadInput, match="both gradients and rngs"):
        bind(c.network, 5, np.empty_like(c.network.parameters))
    with pytest.raises(BadInput, match="both gradients and rngs"):
        bind(c.network, 5, rngs=generators(c))
    tape = bind(c.network, 5)
    assert tape.d_outputs is None
    tape.forward()
    with pytest.raises(AssertionError, match="no way back"):
        tape.backward()


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5, float("nan"), float("inf")])
@pytest.mark.parametrize("hidden", [(), (4,)])
def test_a_dropout_that_cannot_be_is_refused(hidden: tuple[int, ...], rate: float) -> None:
    with pytest.raises(BadInput, match="from 0 to below 1"):
        perceptron(3, hidden, 2, dropout=rate)
