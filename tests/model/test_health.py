"""Laws of gradient health: each sickness gets its own name, and no healthy training is called sick."""

import json
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest

from model import bars as model_bars
from model import dataset, features, health, training
from model.errors import BadInput
from model.health import DEAD_ROWS, VERDICTS, GradientHealth
from model.network.activations import ACTIVATIONS
from model.network.losses import joint
from model.network.network import Architecture, Network, Tape, backward, forward, initialise, over
from model.network.optimisers import OPTIMISERS
from tests import real_bars

ROWS = 256


def network_of(
    hidden: tuple[int, ...] = (32, 16), activation: str = "relu", initialiser: str = "he"
) -> Network:
    return initialise(Architecture(12, hidden, activation, initialiser), np.random.default_rng(0))


def one_step(network: Network, rows: int = ROWS, seed: int = 1) -> tuple[Tape, Network, np.ndarray]:
    """A batch's forward and backward pass, and plain gradient descent's step of 1e-2."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, network.architecture.inputs)).astype(np.float32)
    up = (rng.random(rows) < 0.5).astype(np.float32)
    target = rng.standard_normal(rows).astype(np.float32)
    gradient = over(network.architecture, np.empty_like(network.parameters))
    with np.errstate(invalid="ignore"):
        tape = forward(network, x)
        _, d_out = joint(tape.outputs, up, target, 0.2)
        backward(network, tape, d_out, gradient)
    return tape, gradient, np.float32(-1e-2) * gradient.parameters


def measured(network: Network, rows: int = ROWS) -> tuple[GradientHealth, ...]:
    tape, gradient, update = one_step(network, rows)
    return health.measure(network, tape, gradient, update)


def verdicts(rows: tuple[GradientHealth, ...]) -> list[str]:
    return [row.verdict for row in rows]


def test_norms_and_ratios_are_what_they_are_said_to_be() -> None:
    network = network_of()
    tape, gradient, update = one_step(network)
    rows = health.measure(network, tape, gradient, update)
    at = 0
    for i, row in enumerate(rows):
        size = network.layers[i].W.size + network.layers[i].b.size
        g, p, u = (
            part[at : at + size].tolist() for part in (gradient.parameters, network.parameters, update)
        )
        at += size
        norm = sum(v * v for v in g) ** 0.5
        assert row.gradient_norm == pytest.approx(norm, rel=1e-6)
        assert row.update_ratio == pytest.approx(
            sum(v * v for v in u) ** 0.5 / sum(v * v for v in p) ** 0.5, rel=1e-6
        )
        assert (row.layer, row.name) == (i, ("hidden 1", "hidden 2", "output")[i])
        assert row.non_finite == 0


def test_measuring_changes_nothing() -> None:
    network = network_of()
    tape, gradient, update = one_step(network)
    parts = [network.parameters, gradient.parameters, update, *tape.z, *tape.a, tape.outputs]
    before = [part.copy() for part in parts]
    health.measure(network, tape, gradient, update)
    for part, kept in zip(parts, before, strict=True):
        np.testing.assert_array_equal(part, kept)


def test_a_unit_is_dead_if_it_is_shut_for_every_row() -> None:
    network = network_of()
    before = measured(network)[0].dead_fraction
    assert before == 0
    network.layers[0].b[:4] = -100  # shut for all
    network.layers[0].b[4] = -1.0  # shut for many, but not for all
    row = measured(network)[0]
    assert row.dead_fraction == 4 / 32
    assert row.verdict == "healthy"
    assert row.saturated_fraction == 0


@pytest.mark.parametrize("activation", ["tanh", "sigmoid"])
def test_saturation_is_the_share_of_rows_and_units_at_the_ends(activation: str) -> None:
    network = network_of(activation=activation, initialiser="xavier")
    network.layers[0].W[...] = 0
    network.layers[0].b[:8] = 50
    network.layers[0].b[8:12] = -50
    row = measured(network)[0]
    assert row.saturated_fraction == 12 / 32
    assert row.dead_fraction == 0


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_output_layer_has_no_gate(activation: str) -> None:
    network = network_of(activation=activation)
    network.parameters[...] *= 1e3
    last = measured(network)[-1]
    assert (last.dead_fraction, last.saturated_fraction) == (0, 0)
    (only,) = measured(network_of(hidden=()))
    assert (only.name, only.verdict) == ("output", "healthy")


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("hidden", [(), (1,), (8,), (32, 16), (64, 64)])
def test_a_fresh_network_is_healthy(activation: str, hidden: tuple[int, ...]) -> None:
    initialiser = "he" if activation == "relu" else "xavier"
    assert set(verdicts(measured(network_of(hidden, activation, initialiser)))) == {"healthy"}


def _dead(network: Network) -> None:
    network.layers[1].b[...] = -100


def _large(network: Network) -> None:
    for layer in network.layers:
        layer.W[...] *= 100


def _one_nan(network: Network) -> None:
    network.layers[1].W[0, 0] = np.nan


@pytest.mark.parametrize(
    ("hidden", "activation", "hurt", "expected"),
    [
        # nothing comes back through the second layer, so both are named for it
        ((32, 16), "relu", _dead, ["dead", "dead", "healthy"]),
        ((32, 16), "tanh", _large, ["saturated", "saturated", "healthy"]),
        ((32, 16), "relu", _large, ["exploding", "exploding", "exploding"]),
        ((32, 16), "tanh", _one_nan, ["non_finite", "non_finite", "non_finite"]),
        ((16,) * 10, "sigmoid", lambda network: None, [*["vanishing"] * 6, *["healthy"] * 5]),
    ],
)
def test_each_sickness_has_its_name(
    hidden: tuple[int, ...], activation: str, hurt: Callable[[Network], None], expected: list[str]
) -> None:
    network = network_of(hidden, activation, "he" if activation == "relu" else "xavier")
    hurt(network)
    assert verdicts(measured(network)) == expected


def test_a_gradient_that_grows_on_its_way_back_explodes() -> None:
    network = network_of((16, 16, 16), "relu")
    tape, gradient, update = one_step(network)
    gradient.layers[0].W[...] *= 1e4
    gradient.parameters[...] *= 1e-3
    assert verdicts(health.measure(network, tape, gradient, update)) == ["exploding", *["healthy"] * 3]


def test_a_step_longer_than_the_weights_explodes() -> None:
    network = network_of()
    tape, gradient, update = one_step(network)
    rows = health.measure(network, tape, gradient, 1e6 * update)
    assert set(verdicts(rows)) == {"exploding"}


@pytest.mark.parametrize("shrunk", [1e-3, 1e-9, 1e-30])
def test_at_the_noise_floor_small_gradients_are_healthy(shrunk: float) -> None:
    """Near an optimum every layer's gradient is small together."""
    network = network_of()
    tape, gradient, update = one_step(network)
    gradient.parameters[...] *= shrunk
    assert set(verdicts(health.measure(network, tape, gradient, shrunk * update))) == {"healthy"}


def test_what_is_not_finite_is_counted_and_has_no_number() -> None:
    network = network_of()
    tape, gradient, update = one_step(network)
    gradient.layers[1].W[0, :3] = [np.nan, np.inf, -np.inf]
    gradient.layers[1].b[0] = np.nan
    update[-1] = np.nan
    first, second, last = health.measure(network, tape, gradient, update)
    assert (first.non_finite, first.verdict) == (0, "healthy")
    assert (second.non_finite, second.gradient_norm, second.verdict) == (4, None, "non_finite")
    assert second.update_ratio is not None
    assert (last.non_finite, last.update_ratio, last.verdict) == (1, None, "non_finite")
    assert last.gradient_norm is not None
    for row in (first, second, last):
        json.dumps(health.document(row), allow_nan=False)


def test_large_numbers_of_float32_do_not_overflow() -> None:
    network = network_of()
    tape, gradient, update = one_step(network)
    gradient.parameters[...] = 1e38
    assert all(row.gradient_norm > 1e38 for row in health.measure(network, tape, gradient, update))


def test_a_small_batch_says_nothing_of_dead_units() -> None:
    network = network_of()
    network.layers[0].b[...] = -100
    network.layers[1].b[...] = 1
    few, enough = measured(network, DEAD_ROWS - 1), measured(network, DEAD_ROWS)
    assert few[0].dead_fraction == enough[0].dead_fraction == 1
    assert enough[0].verdict == "dead"
    assert few[0].verdict != "dead"


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


def test_no_epoch_has_no_health() -> None:
    with pytest.raises(BadInput, match="without an epoch"):
        health.verdict_of([])


def test_the_document_has_the_keys_of_the_design() -> None:
    row = GradientHealth(0, "hidden 1", 0.5, 1e-3, 0.25, 0.0, 0, "healthy")
    assert health.document(row) == {
        "layer": 0,
        "name": "hidden 1",
        "gradient_norm": 0.5,
        "update_ratio": 1e-3,
        "dead_fraction": 0.25,
        "saturated_fraction": 0.0,
        "non_finite": 0,
        "verdict": "healthy",
    }


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(("optimiser", "rate"), [("sgd", 5e-2), ("momentum", 1e-2), ("adamw", 2e-3)])
def test_training_on_noise_stays_healthy(activation: str, optimiser: str, rate: float) -> None:
    network = network_of((32, 16), activation, "he" if activation == "relu" else "xavier")
    row = OPTIMISERS[optimiser]
    moments = tuple(np.zeros_like(network.parameters) for _ in range(row.moments))
    epochs = []
    for step in range(1, 301):
        tape, gradient, _ = one_step(network, seed=step)
        before = network.parameters.copy()
        row.step(network.parameters, gradient.parameters, moments, step, rate, 0.01)
        if step % 50 == 0:
            epochs.append(health.measure(network, tape, gradient, network.parameters - before))
    assert {row.verdict for rows in epochs for row in rows} == {"healthy"}


@pytest.mark.parametrize("market", ["ETHUSDT_1h", "GOOG_1d"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("hidden", [(), (64, 32)])
def test_trainings_on_real_bars_are_healthy(market: str, activation: str, hidden: tuple[int, ...]) -> None:
    bars = real_bars.bars(market)[-4000:]
    rows = features.rows(bars, model_bars.timeframe(market.split("_")[1]))
    data = dataset.build(rows, features.DEFAULT, 1)
    initialiser = "he" if activation == "relu" else "xavier"
    config = training.TrainConfig(
        window=3000, epochs=4, hidden=hidden, activation=activation, initialiser=initialiser
    )
    fit = training.fit(data, config)
    assert {row.verdict for rows in fit.health for row in rows} == {"healthy"}
    assert fit.verdict == "healthy"
    assert fit.gradient_check.passed
