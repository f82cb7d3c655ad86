"""Laws of gradient health: each figure is what it is said to be, each sickness gets its own name, no healthy training does."""

import json
import math
import tracemalloc
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model import bars as model_bars
from model import dataset, features, health, training
from model.config import TrainConfig
from model.errors import BadInput
from model.health import DEAD_ROWS, LOOKS, RARELY, VERDICTS, GradientHealth, Watch
from model.network import finite, network, objective
from model.network.activations import ACTIVATIONS
from model.network.gates import Activate
from model.network.layers import Conv1d, Dense
from model.network.losses import BinaryCrossEntropy, Huber
from model.network.network import Architecture, Network, Residual, perceptron
from model.network.normalisation import LayerNorm
from model.network.objective import Head
from model.network.optimisers import OPTIMISERS
from tests import real_bars

ROWS, INPUTS = 256, 12
HEADS = Head(BinaryCrossEntropy()), Head(Huber(), 0.2)

Change = Callable[[np.ndarray], None]


def network_of(
    hidden: tuple[int, ...] = (32, 16), activation: str = "relu", initialiser: str = "he"
) -> Network:
    architecture = perceptron(INPUTS, hidden, 2, activation=activation, initialiser=initialiser)
    return network.initialise(architecture, [np.random.default_rng(0)])


def matrix(net: Network, layer: int, numbers: np.ndarray | None = None) -> np.ndarray:
    """A dense layer of the first member, biases as the last row; of its parameters, or of `numbers` (K, P) like them."""
    own = net.architecture.layers[layer]
    assert isinstance(own.part, Dense | Conv1d)
    units = own.part.units if isinstance(own.part, Dense) else own.part.channels
    return (net.parameters if numbers is None else numbers)[0, own.share].reshape(-1, units)


class Loop:
    """A training loop as small as it can be, on random rows; member k draws them by the k-th of the seeds."""

    def __init__(self, net: Network, rows: int = ROWS, seeds: tuple[int, ...] = (1,)) -> None:
        self.net, self.rngs = net, [np.random.default_rng(seed) for seed in seeds]
        self.gradients = np.zeros_like(net.parameters)
        self.tape = network.bind(net, rows, self.gradients, self.rngs)
        self.watch = Watch(net, self.tape, self.gradients)
        assert self.tape.d_outputs is not None
        weight, *self.targets = np.ones((1 + len(HEADS), net.members, rows), net.parameters.dtype)
        self.loss = objective.bind(HEADS, self.tape.outputs, self.targets, weight, self.tape.d_outputs)

    def passes(self) -> None:
        """A new batch, there and back."""
        for member, rng in enumerate(self.rngs):
            self.tape.inputs[member, :, :-1] = rng.standard_normal(self.tape.inputs[member, :, :-1].shape)
            self.targets[0][member] = rng.random(len(self.targets[0][member])) < 0.5
            self.targets[1][member] = rng.standard_normal(len(self.targets[1][member]))
        self.tape.forward()
        self.loss()
        self.tape.backward()

    def epoch(
        self, steps: int = 1, change: Change = lambda gradients: None, rate: float = 1e-2
    ) -> tuple[tuple[GradientHealth, ...], ...]:
        """Plain gradient descent, whose gradients are gone after the step, as an optimiser may leave them."""
        self.watch.begin(steps)
        with np.errstate(all="ignore"):
            for step in range(steps):
                self.passes()
                change(self.gradients)
                watched = self.watch.wants(step)
                if watched:
                    self.watch.before()
                np.subtract(self.net.parameters, rate * self.gradients, out=self.net.parameters)
                self.gradients.fill(7)
                if watched:
                    self.watch.after()
        return self.watch.rows()


def measured(
    net: Network, rows: int = ROWS, change: Change = lambda gradients: None, rate: float = 1e-2
) -> tuple[GradientHealth, ...]:
    """One step on a copy, looked at."""
    return Loop(net.copy(), rows).epoch(1, change, rate)[0]


def verdicts(rows: tuple[GradientHealth, ...]) -> list[str]:
    return [row.verdict for row in rows]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sizes_are_what_they_are_said_to_be(dtype: type) -> None:
    net = network_of().astype(dtype)
    seen = []
    rows = measured(net, change=lambda gradients: seen.append(gradients.copy()))
    for i, row in enumerate(rows):
        g = matrix(net, i, seen[0]).ravel().tolist()
        p = matrix(net, i).ravel().tolist()
        assert row.gradient_norm == pytest.approx(math.hypot(*g), rel=1e-6)
        assert row.largest == pytest.approx(max(abs(v) for v in g), rel=1e-6)
        assert row.update_ratio == pytest.approx(1e-2 * math.hypot(*g) / math.hypot(*p), rel=1e-4)
        assert (row.layer, row.name) == (i, ("hidden 1", "hidden 2", "output")[i])
        assert (row.non_finite, row.cosine, row.noise_scale) == (0, None, None)


def test_the_middle_step_speaks_for_sizes_and_all_looks_for_the_rest() -> None:
    """Against plain sums over what was looked at, in double precision."""
    loop = Loop(network_of((8,)), rows=32)
    found, epochs = [], []
    for _ in range(2):
        seen: list[np.ndarray] = []
        found.append(loop.epoch(70, lambda gradients, seen=seen: seen.append(gradients[0].copy())))
        epochs.append([seen[step].astype(np.float64) for step in (8, 26, 43, 61)])
    for i, layer in enumerate(loop.net.architecture.layers):
        before, now = ([look[layer.share] for look in looks] for looks in epochs)
        row = found[1][0][i]
        assert row.gradient_norm == pytest.approx(np.linalg.norm(now[2]), rel=1e-6)
        then, mean = np.mean(before, axis=0), np.mean(now, axis=0)
        cosine = then @ mean / np.sqrt((then @ then) * (mean @ mean))
        assert row.cosine == pytest.approx(cosine, abs=1e-6)
        assert found[0][0][i].cosine is None
        # equations A.2 and A.3 of the paper, as they are printed
        small, big = 32, 4 * 32
        of_small, of_big = np.mean([g @ g for g in now]), mean @ mean
        signal = (big * of_big - small * of_small) / (big - small)
        noise = (of_small - of_big) / (1 / small - 1 / big)
        if signal > 0:
            assert row.noise_scale == pytest.approx(noise / signal, rel=1e-3)
        else:
            assert row.noise_scale is None


@pytest.mark.parametrize("expected", [5.0, 64.0, 1000.0])
def test_a_known_noise_scale_is_found(expected: float) -> None:
    """Gradients made up: a fixed one, and for each batch of B rows noise of variance σ²/B in each of P entries."""
    loop = Loop(network_of((256,)), rows=64)
    rng = np.random.default_rng(3)
    layer = loop.net.architecture.layers[0]
    size = layer.share.stop - layer.share.start
    fixed = rng.standard_normal(loop.gradients.shape)
    sigma = np.sqrt(expected * float((fixed[0, layer.share] ** 2).sum()) / size)

    def made_up(gradients: np.ndarray) -> None:
        gradients[...] = fixed + sigma / np.sqrt(64) * rng.standard_normal(gradients.shape)

    for _ in range(2):
        assert loop.epoch(RARELY * LOOKS, made_up)[0][0].noise_scale == pytest.approx(expected, rel=0.2)


def test_gradients_all_alike_have_no_noise_and_opposite_ones_no_scale() -> None:
    loop = Loop(network_of((4,)))
    fixed = np.random.default_rng(3).standard_normal(loop.gradients.shape)

    def alike(gradients: np.ndarray) -> None:
        gradients[...] = fixed

    def turned(gradients: np.ndarray) -> None:
        np.negative(fixed, out=fixed)
        gradients[...] = fixed

    assert all(0 <= row.noise_scale < 1e-3 for row in loop.epoch(40, alike)[0])
    assert [row.cosine for row in loop.epoch(40, alike)[0]] == pytest.approx([1, 1])
    assert {row.noise_scale for row in loop.epoch(1, turned)[0]} == {None}
    assert [row.cosine for row in loop.epoch(1, alike)[0]] == pytest.approx([1, 1])
    assert [row.cosine for row in loop.epoch(1, turned)[0]] == pytest.approx([-1, -1])
    assert {row.noise_scale for row in loop.epoch(2, turned)[0]} == {None}
    assert {row.cosine for row in loop.epoch(1, alike)[0]} == {None}  # the two before made nothing together


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 16, 33, 64, 127, 128, 1000])
def test_looks_are_few_and_spread_evenly(steps: int) -> None:
    watch = Loop(network_of((2,)), rows=2).watch
    watch.begin(steps)
    looks = [step for step in range(steps) if watch.wants(step)]
    assert len(looks) == min(LOOKS, steps, max(2, steps // RARELY))
    gaps = [after - before for before, after in pairwise(looks)]
    assert not gaps or max(gaps) - min(gaps) <= 1
    assert abs(looks[len(looks) // 2] - steps // 2) <= 1 + steps / (2 * len(looks))


@settings(max_examples=25, deadline=None)
@given(
    seeds=st.lists(st.integers(0, 2**31), min_size=2, max_size=5),
    hidden=st.lists(st.integers(1, 9), max_size=3),
    activation=st.sampled_from(list(ACTIVATIONS)),
    normalisation=st.sampled_from([None, "layer", "batch"]),
    rows=st.integers(2, 40),
    steps=st.integers(1, 40),
)
def test_a_member_shows_what_it_would_show_alone(
    seeds: list[int], hidden: list[int], activation: str, normalisation: str | None, rows: int, steps: int
) -> None:
    kind = {"activation": activation, "normalisation": normalisation, "residual": True}
    architecture = perceptron(INPUTS, hidden, 2, **kind)
    together = network.initialise(architecture, [np.random.default_rng(seed) for seed in seeds])
    each = [together.member(k).copy() for k in range(len(seeds))]
    loop = Loop(together, rows, tuple(seeds))
    found = [loop.epoch(steps) for _ in range(3)]
    for k, alone in enumerate(each):
        own = Loop(alone, rows, (seeds[k],))
        for rows_of in found:
            assert own.epoch(steps) == (rows_of[k],)


def test_watching_changes_nothing() -> None:
    loop = Loop(network_of())
    loop.passes()
    loop.watch.begin(1)
    parts = [loop.net.parameters, loop.net.statistics, loop.gradients, loop.tape.inputs, loop.tape.outputs]
    parts += [array for gate in loop.tape.gates for array in (gate.z, gate.a)]
    before = [part.copy() for part in parts]
    loop.watch.before()
    loop.watch.after()
    loop.watch.rows()
    for part, kept in zip(parts, before, strict=True):
        np.testing.assert_array_equal(part, kept)


def test_watching_allocates_nothing_of_the_parameters_size() -> None:
    loop = Loop(network_of((512, 256)), rows=4)
    loop.epoch(3)
    loop.watch.begin(64)
    tracemalloc.start()
    try:
        for step in range(64):
            if loop.watch.wants(step):
                loop.watch.before()
                np.multiply(loop.net.parameters, 1.01, out=loop.net.parameters)
                loop.watch.after()
        loop.watch.rows()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < loop.gradients.nbytes / 10


def test_a_unit_is_dead_if_it_is_shut_for_every_row() -> None:
    net = network_of()
    assert measured(net)[0].dead_fraction == 0
    b = matrix(net, 0)[-1]
    b[:4] = -100  # shut for all
    b[4] = -1.0  # shut for many, but not for all
    row = measured(net)[0]
    assert row.dead_fraction == 4 / 32
    assert row.verdict == "healthy"
    assert row.saturated_fraction == 0


@pytest.mark.parametrize("activation", ["tanh", "sigmoid"])
def test_saturation_is_the_share_of_rows_and_units_at_the_ends(activation: str) -> None:
    net = network_of(activation=activation, initialiser="xavier")
    W = matrix(net, 0)
    W[...] = 0
    W[-1, :8] = 50
    W[-1, 8:12] = -50
    row = measured(net)[0]
    assert row.saturated_fraction == 12 / 32
    assert row.dead_fraction == 0


def test_a_gate_speaks_for_the_layer_that_weighs_before_it() -> None:
    """Through normalisations and residual connections; a channel of a convolution is dead only if it is at every bar."""
    architecture = Architecture(
        INPUTS,
        (
            Activate("tanh"),  # of no layer
            Conv1d(bars=4, channels=4, kernel=1),
            Activate("relu"),
            Residual((Dense(16), LayerNorm(), Activate("relu"), Dense(16), Activate("tanh"))),
            Dense(2),
        ),
    )
    net = network.initialise(architecture, [np.random.default_rng(0)])
    names = ["conv 1", "hidden 1", "norm 1", "hidden 2", "output"]
    assert [row.name for row in measured(net)] == names
    matrix(net, 0)[-1, 0] = -100
    norm = architecture.layers[2].share
    net.parameters[0, norm][16:24] = -100  # shifts: half of the units behind the normalisation
    matrix(net, 3)[-1, :4] = 100
    rows = measured(net)
    assert [row.dead_fraction for row in rows] == [1 / 4, 8 / 16, 0, 0, 0]
    assert [round(row.saturated_fraction, 3) for row in rows] == [0, 0, 0, 0.25, 0]


def test_a_channel_that_opens_at_one_bar_is_not_dead() -> None:
    architecture = Architecture(INPUTS, (Conv1d(bars=4, channels=2, kernel=1), Activate("relu"), Dense(2)))
    net = network.initialise(architecture, [np.random.default_rng(0)])
    matrix(net, 0)[...] = 0
    matrix(net, 0)[0, 0] = 1  # sees the first of three numbers of a bar
    loop = Loop(net)
    loop.passes()
    loop.tape.inputs[..., :-1] = -1
    loop.tape.inputs[0, 0, 3] = 1  # one row, one bar
    loop.tape.forward()
    loop.watch.begin(1)
    loop.watch.before()
    loop.watch.after()
    assert loop.watch.rows()[0][0].dead_fraction == 1 / 2


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_output_layer_has_no_gate(activation: str) -> None:
    net = network_of(activation=activation)
    net.parameters[...] *= 1e3
    last = measured(net)[-1]
    assert (last.dead_fraction, last.saturated_fraction) == (0, 0)
    (only,) = measured(network_of(hidden=()))
    assert (only.name, only.verdict) == ("output", "healthy")


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("hidden", [(), (1,), (8,), (32, 16), (64, 64)])
def test_a_fresh_network_is_healthy(activation: str, hidden: tuple[int, ...]) -> None:
    initialiser = "he" if activation == "relu" else "xavier"
    assert set(verdicts(measured(network_of(hidden, activation, initialiser)))) == {"healthy"}


@pytest.mark.parametrize("normalisation", ["layer", "batch"])
def test_a_fresh_network_with_normalisation_and_ways_around_is_healthy(normalisation: str) -> None:
    architecture = perceptron(INPUTS, (16,) * 6, 2, normalisation=normalisation, residual=True)
    net = network.initialise(architecture, [np.random.default_rng(0)])
    assert set(verdicts(measured(net))) == {"healthy"}

    # scales and shifts are not beside weights
    for layer, expected in ((0, "vanishing"), (1, "healthy")):
        tiny = np.ones(architecture.parameters, np.float32)
        tiny[architecture.layers[layer].share] = 1e-4
        assert (
            verdicts(measured(net, change=lambda g, tiny=tiny: np.multiply(g, tiny, out=g)))[layer]
            == expected
        )


def _dead(net: Network) -> None:
    matrix(net, 1)[-1] = -100


def _large(net: Network) -> None:
    for layer in range(3):
        matrix(net, layer)[:-1] *= 100


def _one_nan(net: Network) -> None:
    matrix(net, 1)[0, 0] = np.nan


@pytest.mark.parametrize(
    ("hidden", "activation", "hurt", "expected"),
    [
        # nothing comes back through the second layer, so both are named for it
        ((32, 16), "relu", _dead, ["dead", "dead", "healthy"]),
        ((32, 16), "tanh", _large, ["saturated", "saturated", "healthy"]),
        ((32, 16), "relu", _large, ["exploding", "exploding", "exploding"]),
        ((32, 16), "tanh", _one_nan, ["non_finite", "non_finite", "non_finite"]),
        ((16,) * 10, "sigmoid", lambda net: None, [*["vanishing"] * 6, *["healthy"] * 5]),
    ],
)
def test_each_sickness_has_its_name(
    hidden: tuple[int, ...], activation: str, hurt: Callable[[Network], None], expected: list[str]
) -> None:
    net = network_of(hidden, activation, "he" if activation == "relu" else "xavier")
    hurt(net)
    assert verdicts(measured(net)) == expected


def test_a_gradient_that_grows_on_its_way_back_explodes() -> None:
    net = network_of((16, 16, 16), "relu")

    def grown(gradients: np.ndarray) -> None:
        matrix(net, 0, gradients)[...] *= 1e4
        gradients *= 1e-3

    assert verdicts(measured(net, change=grown)) == ["exploding", *["healthy"] * 3]


def test_a_step_longer_than_the_weights_explodes() -> None:
    assert set(verdicts(measured(network_of(), rate=1e4))) == {"exploding"}


@pytest.mark.parametrize("shrunk", [1e-3, 1e-9, 1e-30])
def test_at_the_noise_floor_small_gradients_are_healthy(shrunk: float) -> None:
    """Near an optimum every layer's gradient is small together."""

    def shrink(gradients: np.ndarray) -> None:
        gradients *= shrunk

    rows = measured(network_of(), change=shrink)
    assert set(verdicts(rows)) == {"healthy"}
    assert all(row.gradient_norm > 0 for row in rows)


def test_what_is_not_finite_is_counted_and_has_no_number() -> None:
    net = network_of()

    def hurt(gradients: np.ndarray) -> None:
        matrix(net, 1, gradients)[0, :3] = [np.nan, np.inf, -np.inf]
        matrix(net, 1, gradients)[-1, 0] = np.nan

    first, second, last = measured(net, change=hurt)
    assert (first.non_finite, first.verdict, last.non_finite, last.verdict) == (0, "healthy", 0, "healthy")
    # four of the gradient, and the four steps that they made
    assert (second.non_finite, second.gradient_norm, second.verdict) == (8, None, "non_finite")
    assert (second.largest, second.update_ratio) == (None, None)
    for row in (first, second, last):
        json.dumps(health.document(row), allow_nan=False)


def test_a_sick_member_leaves_the_others_figures_alone() -> None:
    architecture = perceptron(INPUTS, (8,), 2)
    pair = network.initialise(architecture, [np.random.default_rng(seed) for seed in (0, 1)])
    alone = pair.member(1).copy()
    pair.parameters[0] = np.nan
    sick, well = Loop(pair, seeds=(5, 6)).epoch(20)
    assert set(verdicts(sick)) == {"non_finite"}
    assert Loop(alone, seeds=(6,)).epoch(20) == (well,)


def test_large_numbers_of_float32_do_not_overflow() -> None:
    rows = measured(network_of(), change=lambda gradients: gradients.fill(1e38), rate=1e-38)
    assert all(row.gradient_norm > 1e38 and row.non_finite == 0 for row in rows)
    assert all(row.update_ratio is not None and row.noise_scale is None for row in rows)


def test_a_small_batch_says_nothing_of_dead_units() -> None:
    net = network_of()
    matrix(net, 0)[-1] = -100
    matrix(net, 1)[-1] = 1
    few, enough = measured(net, DEAD_ROWS - 1), measured(net, DEAD_ROWS)
    assert few[0].dead_fraction == enough[0].dead_fraction == 1
    assert enough[0].verdict == "dead"
    assert few[0].verdict != "dead"


@pytest.mark.parametrize(
    ("layer", "entry", "expected"),
    [
        (0, 0.5, None),
        (0, np.nan, "hidden 1"),
        (1, np.inf, "hidden 2"),
        (2, np.nan, "output"),
        (0, -np.inf, "hidden 1"),  # shuts its gate, so that what it puts out is finite
        (1, 3e38, "hidden 2"),  # finite itself, but what it puts out is not
        (2, 3e38, "output"),
    ],
)
def test_what_broke_first_on_the_way_forward(layer: int, entry: float, expected: str | None) -> None:
    loop = Loop(network_of())
    matrix(loop.net, 0)[-1] = matrix(loop.net, 1)[-1] = 9  # units that are open
    matrix(loop.net, layer)[-1 if entry == -np.inf else 0, 0] = entry
    with np.errstate(all="ignore"):
        loop.passes()
        loop.tape.inputs[..., :-1] *= 3
        loop.tape.forward()
    assert finite.first_broken(loop.net, loop.gradients, loop.tape, 0) == expected


def test_rows_broke_before_layers_and_where_the_way_forward_is_finite_the_last_layer_back_did() -> None:
    loop = Loop(network_of((8, 8, 8)))
    loop.passes()
    for layer in (0, 1, 2):
        matrix(loop.net, layer, loop.gradients)[0, 0] = np.inf
    assert finite.first_broken(loop.net, loop.gradients, loop.tape, 0) == "hidden 3"
    loop.tape.inputs[0, 3, 2] = np.nan
    loop.tape.forward()
    assert finite.first_broken(loop.net, loop.gradients, loop.tape, 0) == "inputs"


def test_what_broke_is_found_within_a_residual_connection_and_in_its_member_only() -> None:
    around = Residual((Dense(INPUTS), Activate("relu"), Dense(INPUTS), Activate("relu")))
    architecture = Architecture(INPUTS, (around, Dense(2)))
    net = network.initialise(architecture, [np.random.default_rng(seed) for seed in (0, 1)])
    loop = Loop(net, seeds=(0, 1))
    net.parameters[1, architecture.layers[0].share] = 3e38
    with np.errstate(all="ignore"):
        loop.passes()
    assert finite.first_broken(net, loop.gradients, loop.tape, 0) is None
    assert finite.first_broken(net, loop.gradients, loop.tape, 1) == "hidden 1"


def test_a_member_that_broke_shows_the_step_that_broke_it() -> None:
    architecture = perceptron(INPUTS, (8,), 2)
    pair = network.initialise(architecture, [np.random.default_rng(seed) for seed in (0, 1)])
    pair.parameters[1, architecture.layers[0].share][-2:] = -100  # two units are shut
    alone = [pair.member(k).copy() for k in range(2)]

    def hurt(loop: Loop, member: int) -> None:
        loop.passes()
        loop.gradients[member, 5:8] = np.nan
        loop.watch.broke(member)
        loop.gradients[member] = 0

    second = Loop(alone[1], seeds=(6,))
    second.watch.begin(4)
    hurt(second, 0)
    (cut_off,) = second.watch.rows()  # nothing more came
    assert [(row.non_finite, row.verdict) for row in cut_off] == [(3, "non_finite"), (0, "healthy")]
    assert {(row.update_ratio, row.cosine, row.noise_scale) for row in cut_off} == {(None, None, None)}
    assert cut_off[0].dead_fraction == 2 / 8
    assert cut_off[1].gradient_norm is not None

    both, first = Loop(pair, seeds=(5, 6)), Loop(alone[0], seeds=(5,))
    hurt(both, 1)
    first.passes()
    assert both.epoch(4) == (*first.epoch(4), cut_off)


def epoch(*layers: str) -> list[GradientHealth]:
    return [
        GradientHealth(i, f"hidden {i + 1}", 1.0, 1e-3, 0, 0, 0, verdict) for i, verdict in enumerate(layers)
    ]


def test_a_training_is_as_bad_as_its_worst_layer() -> None:
    for bad, better in pairwise(VERDICTS):
        assert health.verdict_of([epoch(better, bad, "healthy")]) == bad
        assert health.verdict_of([epoch(better, "healthy"), epoch("healthy", bad)]) == bad
    assert VERDICTS == ("non_finite", "exploding", "vanishing", "dead", "saturated", "healthy")


@pytest.mark.parametrize("verdict", VERDICTS)
def test_a_transient_is_not_held_against_a_training(verdict: str) -> None:
    healthy = epoch("healthy", "healthy")
    assert health.verdict_of([epoch(verdict, verdict), healthy, healthy, healthy]) == "healthy"
    assert health.verdict_of([healthy, healthy, healthy, epoch("healthy", verdict)]) == verdict
    assert health.verdict_of([healthy, epoch("healthy", verdict), healthy, healthy]) == verdict


def test_no_epoch_has_no_health_nor_has_one_that_was_cut_off() -> None:
    watch = Loop(network_of()).watch
    watch.begin(10)
    assert watch.rows() == ((),)
    for epochs in ([], watch.rows()):
        with pytest.raises(BadInput, match="without an epoch"):
            health.verdict_of(epochs)


def test_the_document_has_the_keys_of_the_design() -> None:
    row = GradientHealth(0, "hidden 1", 0.5, 1e-3, 0.25, 0.0, 0, "healthy", 0.125, -0.5, 300.0)
    assert health.document(row) == {
        "layer": 0,
        "name": "hidden 1",
        "gradient_norm": 0.5,
        "update_ratio": 1e-3,
        "dead_fraction": 0.25,
        "saturated_fraction": 0.0,
        "non_finite": 0,
        "verdict": "healthy",
        "largest": 0.125,
        "cosine": -0.5,
        "noise_scale": 300.0,
    }


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(("optimiser", "rate"), [("sgd", 5e-2), ("momentum", 1e-2), ("adamw", 2e-3)])
def test_training_on_noise_stays_healthy(activation: str, optimiser: str, rate: float) -> None:
    loop = Loop(network_of((32, 16), activation, "he" if activation == "relu" else "xavier"))
    row = OPTIMISERS[optimiser]
    moments = tuple(np.zeros_like(loop.gradients) for _ in range(row.moments))
    scratch, rates = np.empty_like(loop.gradients), np.full((1, 1), rate, np.float32)
    epochs = []
    for number in range(1, 301):
        if number % 50 == 1:
            loop.watch.begin(50)
        loop.passes()
        watched = loop.watch.wants((number - 1) % 50)
        if watched:
            loop.watch.before()
        row.step(loop.net.parameters, loop.gradients, moments, scratch, number, rates, 0.01)
        if watched:
            loop.watch.after()
        if number % 50 == 0:
            epochs.append(loop.watch.rows()[0])
    assert {row.verdict for rows in epochs for row in rows} == {"healthy"}


@pytest.mark.parametrize("market", ["ETHUSDT_1h", "GOOG_1d"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("hidden", [(), (64, 32)])
def test_trainings_on_real_bars_are_healthy(market: str, activation: str, hidden: tuple[int, ...]) -> None:
    rows = features.rows(real_bars.bars(market)[-4000:], model_bars.timeframe(market.split("_")[1]))
    data = dataset.build(rows, features.DEFAULT, 1)
    initialiser = "he" if activation == "relu" else "xavier"
    config = TrainConfig(window=3000, epochs=4, hidden=hidden, activation=activation, initialiser=initialiser)
    fit = training.fit(data, config)
    verdicts = {row.verdict for rows in fit.health for row in rows}
    assert (fit.gradient_check.passed, fit.verdict, verdicts) == (True, "healthy", {"healthy"})
    assert all(row.cosine is not None for rows in fit.health[1:] for row in rows)
