"""Laws of the doctor: it passes what is sound, and tells each fault with its kind, its evidence and a remedy."""

from collections.abc import Callable
from dataclasses import replace
from itertools import cycle
from typing import Any

import numpy as np
import pytest

from benchmarks.faults import FAULTS, KINDS, healthy
from model import bars as model_bars
from model import dataset, doctor, features
from model.config import TrainConfig
from model.doctor import RULES, Finding, Patient, forward, plain
from model.errors import BadInput
from model.network import losses, network, objective
from model.network.activations import ACTIVATIONS
from model.network.gates import Activate
from model.network.layers import Conv1d, Dense
from model.network.losses import LOSSES
from model.network.network import PARTS, Architecture
from model.network.optimisers import OPTIMISERS
from tests import real_bars

# Of each fault one seed that is neither among those that thresholds were chosen on nor among those of the benchmark.
SEED = 500


def failed(findings: tuple[Finding, ...]) -> list[str]:
    return [f"{finding.check}: {finding.evidence}" for finding in findings if not finding.passed]


def synthetic(config: TrainConfig | None = None) -> Patient:
    return doctor.admit(*doctor.synthetic(), config or TrainConfig())


@pytest.mark.parametrize(
    ("activation", "normalisation"), list(zip(ACTIVATIONS, cycle([None, "layer", "batch"]), strict=False))
)
def test_a_sound_training_passes(activation: str, normalisation: str | None) -> None:
    patient = healthy(SEED, activation=activation, normalisation=normalisation, hidden=(24, 24))
    findings = doctor.examine(patient)
    assert failed(findings) == []
    assert [finding.check for finding in findings] == list(RULES)
    assert all(finding.evidence and not finding.advice for finding in findings)
    assert doctor.verdict(findings) == "healthy"


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_a_sound_training_passes_with_every_optimiser(optimiser: str) -> None:
    assert failed(doctor.examine(healthy(SEED, optimiser=optimiser, residual=True, hidden=(32, 32)))) == []


@pytest.mark.parametrize("hidden", [(), (2,), (64, 32, 16)])
def test_the_settings_that_ship_pass_at_any_depth(hidden: tuple[int, ...]) -> None:
    assert failed(doctor.examine(synthetic(TrainConfig(hidden=hidden)))) == []


@pytest.mark.parametrize("market", ["ETHUSDT_1h", "GOOG_1d", "GBPUSD_1m"])
def test_real_bars_pass(market: str) -> None:
    """Among them daily bars, whose hour never moves, and a market that tells no volume."""
    patient = of_market(market)
    findings = {finding.check: finding for finding in doctor.examine(patient)}
    assert failed(tuple(findings.values())) == []
    assert "standard errors from chance" in findings["labels can be told from features"].evidence


def of_market(market: str) -> Patient:
    bars = real_bars.bars(market)[-3000:]
    rows = features.rows(bars, model_bars.timeframe(market.split("_")[1]))
    data = dataset.build(rows, features.DEFAULT, 1)
    return doctor.admit(data.X, data.up, data.target, TrainConfig(), data.closes)


def test_shuffled_labels_of_a_market_are_told_by_its_closes() -> None:
    market = of_market("ETHUSDT_1h")
    shuffled = FAULTS["shuffled labels"].inflict(market, np.random.default_rng(0))
    found = next(finding for finding in doctor.walk(shuffled) if not finding.passed)
    assert (found.kind, found.check) == ("data", "labels agree with each other")
    assert "are not what the closes 1 bars on say" in found.evidence


def test_a_market_without_signal_is_no_fault_but_said() -> None:
    """The labels of a random walk are right, and cannot be told from anything."""
    rng = np.random.default_rng(0)
    close = 100 * np.exp(np.cumsum(0.01 * rng.standard_normal(1001)))
    returns = np.diff(np.log(close)) / 0.01
    up, target = (returns > 0).astype(np.float32), returns.astype(np.float32)
    x = rng.standard_normal((1000, 12)).astype(np.float32)
    found = {
        one.check: one
        for one in doctor.examine(
            doctor.admit(x, up, target, TrainConfig(), np.stack((close[:-1], close[1:]), axis=1))
        )
    }
    told = found["labels can be told from features"]
    assert told.passed
    assert "no signal worth mention" in told.evidence
    without = doctor.examine(doctor.admit(x, up, target, TrainConfig()))
    assert doctor.verdict(without) == "data"


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, own in KINDS.items() for name in own])
def test_each_fault_is_told_with_its_class(kind: str, name: str) -> None:
    first = next(finding for finding in doctor.walk(FAULTS[name](SEED)) if not finding.passed)
    assert first.kind == doctor.verdict([first]) == kind
    assert first.evidence
    assert first.advice
    assert "\n" not in first.evidence + first.advice


def test_there_are_faults_of_every_class_and_enough_of_them() -> None:
    assert list(KINDS) == list(doctor.KINDS)
    assert len(FAULTS) == sum(len(own) for own in KINDS.values()) >= 25


Hurt = Callable[[Patient], Patient]


def injected(name: str) -> Hurt:
    return lambda patient: FAULTS[name].inflict(patient, np.random.default_rng(SEED))


def configured(**given: Any) -> Hurt:
    return lambda p: doctor.admit(p.x, p.up, p.target, replace(p.config, **given))


def small_data(p: Patient) -> Patient:
    """Nothing to learn by heart: equal features, different labels."""
    x = np.tile(p.x[:8], (len(p.x) // 8, 1))
    return replace(doctor.admit(x, p.up, p.target, p.config), closes=p.closes)


# For each rule a fault that it must find, and a word of the evidence.
TOLD: dict[str, tuple[Hurt, str]] = {
    "rows belong together": (injected("labels as a column"), "up is (2000, 1), not (2000,)"),
    "every number is finite": (injected("NaN or infinite feature"), "1 in features"),
    "every feature moves": (injected("constant feature"), "1 of 24 features never move: column"),
    "features are standardised": (injected("feature off its mean"), "1 of 24 features are not standardised"),
    "both labels occur": (injected("one-class labels"), "0.0% of 2000 labels are up"),
    "labels agree with each other": (injected("shuffled up, returns left"), "contradict each other"),
    "no feature gives the outcome away": (injected("leaked label"), "alone ranks up before down"),
    "labels can be told from features": (injected("shuffled labels"), "standard errors from chance"),
    "the network is the one described": (
        injected("one activation too many at the end"),
        "part 8 is Activate where the settings say the end",
    ),
    "each part computes its formula": (injected("no 1/(1-p) in dropout"), "instead of 1/(1 - rate) = 1.429"),
    "answers agree with a plain recomputation": (
        injected("dropout active when answering"),
        "from a plain recomputation",
    ),
    "the loss is what its formula says": (injected("forgotten last activation"), "by its formula"),
    "gradients agree with numerical ones": (injected("mask not reused"), "largest relative error"),
    "no batch remembers the one before": (injected("stale cache"), "after another batch"),
    "a step moves every layer": (injected("optimiser forgets a layer"), "where they are: "),
    "small steps lower the loss": (injected("wrong sign of the update"), "changes the loss by +"),
    "steps are as long as the learning rate says": (
        injected("optimiser squares the rate"),
        "makes the step 100 times as long",
    ),
    "weight decay shrinks weights": (injected("weight decay of the wrong sign"), "by +1.0e-04 of their size"),
    "enough rows count": (configured(half_life=1), "of 1700 rows about 3 count"),
    "no layer is normalised away": (
        configured(hidden=(16, 1), normalisation="layer"),
        "1 layer normalisation over a single unit",
    ),
    "the first loss is that of knowing nothing": (injected("initial weights too large"), "ln 2 = 0.6931"),
    "units are alive at the start": (injected("dead ReLUs"), "hidden 1 is 100% dead"),
    "the learning rate is useful": (injected("learning rate /1000"), "the setting is 2.0e-06"),
    "weight decay leaves weights": (configured(weight_decay=100.0), "of a weight that no gradient holds"),
    "a few rows are learned by heart": (small_data, "rows not learned by heart in 1000 steps"),
    "a short training is healthy": (
        configured(hidden=(16,) * 6, activation="sigmoid", initialiser="xavier"),
        "vanishing (last: hidden 1 vanishing",
    ),
}


@pytest.mark.parametrize(
    "given",
    [
        {"clip_value": 1e-12},
        {"clip_norm": 1e-12},
        {"clip_norm": 1e-12, "optimiser": "sgd", "learning_rate": 0.1, "weight_decay": 0.0},
        {"half_life": 1},
        {"dead_zone": 100.0},
        {"hidden": (1,), "normalisation": "layer"},
        {"hidden": (16, 1, 16), "normalisation": "layer", "residual": True},
    ],
    ids=str,
)
def test_settings_that_learn_nothing_are_told_as_settings(given: dict[str, Any]) -> None:
    first = next(finding for finding in doctor.walk(synthetic(TrainConfig(**given))) if not finding.passed)
    assert first.kind == "setting", first


@pytest.mark.parametrize(
    "given",
    [
        {"return_weight": 30.0},
        {"return_weight": 0.0},
        {"half_life": 200},
        {"clip_norm": 0.1},
        {"clip_value": 0.01},
        {"dead_zone": 0.5},
        {"hidden": (1,)},
        {"hidden": (1,), "normalisation": "batch"},
    ],
    ids=str,
)
def test_settings_that_are_unusual_pass(given: dict[str, Any]) -> None:
    assert failed(doctor.examine(synthetic(TrainConfig(**given)))) == []


def test_a_feature_too_small_for_the_scaler_is_not_standardised() -> None:
    x, up, target = doctor.synthetic()
    x[:, 5] *= 1e-8
    found = next(f for f in doctor.walk(doctor.admit(x, up, target, TrainConfig())) if not f.passed)
    assert (found.kind, found.check) == ("data", "features are standardised")
    assert "column 5, mean" in found.evidence


def test_a_volume_that_moves_by_its_rounding_alone_is_no_fault() -> None:
    data = of_market("GOOG_1d")
    names = data.config.feature_set.columns
    place = next(i for i, name in enumerate(names) if features.FEATURES[name].group == "volume")
    x = data.x.copy()
    x[:, place] = 1e-12 * np.random.default_rng(0).standard_normal(len(x))
    assert failed(doctor.examine(doctor.admit(x, data.up, data.target, data.config, data.closes))) == []


@pytest.mark.parametrize("check", RULES)
def test_each_rule_finds_its_fault(check: str) -> None:
    assert check in TOLD, f"put a fault into a sound training that {check!r} can tell"
    hurt, said = TOLD[check]
    found = next(finding for finding in doctor.walk(hurt(synthetic())) if finding.check == check)
    assert not found.passed
    assert said in found.evidence
    assert found.advice


def test_what_breaks_off_is_a_finding() -> None:
    *_, found = doctor.examine(FAULTS["shapes that do not fit"](SEED))
    assert found.kind == "forward"
    assert found.evidence.startswith("broke off: ")


def test_on_numbers_that_are_not_finite_nothing_else_is_asked() -> None:
    x, up, target = doctor.synthetic()
    target[0] = np.inf
    *_, last = doctor.examine(doctor.admit(x, up, target, TrainConfig()))
    assert last.evidence == "numbers that are not finite: 1 in target"


def test_a_training_that_breaks_off_is_a_finding() -> None:
    config = TrainConfig(optimiser="sgd", learning_rate=1e6, clip_norm=1e12, weight_decay=0.0)
    last = doctor.examine(synthetic(config))[-1]
    assert (last.check, last.passed) == ("a short training is healthy", False)
    assert "not finite" in last.evidence


def test_the_same_patient_gets_the_same_findings() -> None:
    patient = synthetic()
    before = [part.copy() for part in (patient.x, patient.X, patient.up, patient.target)]
    assert doctor.examine(patient) == doctor.examine(patient)
    for part, kept in zip((patient.x, patient.X, patient.up, patient.target), before, strict=True):
        np.testing.assert_array_equal(part, kept)


def test_too_few_rows_are_refused() -> None:
    x, up, target = doctor.synthetic(rows=doctor.FEWEST - 1)
    with pytest.raises(BadInput, match="at least 16 rows with features and a label, not 15"):
        doctor.examine(doctor.admit(x, up, target, TrainConfig()))


def test_a_finding_is_a_document() -> None:
    assert doctor.document(Finding("a", "data", False, "seen", "do")) == {
        "check": "a",
        "kind": "data",
        "passed": False,
        "evidence": "seen",
        "advice": "do",
    }


# The plain recomputation knows every row of the tables that it is held against.


def test_the_plain_pass_knows_every_part_and_activation() -> None:
    assert {kind.__name__ for kind in plain.KINDS} == set(PARTS)
    assert set(plain.ACTIVATIONS) == set(ACTIVATIONS)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_plain_pass_agrees_with_the_network(name: str) -> None:
    rng = np.random.default_rng(0)
    conv = Architecture(12, (Conv1d(4, 5, 3), Activate(name), Dense(2)))
    dense = network.perceptron(
        12, (12, 7), 2, activation=name, normalisation="batch", residual=True, dropout=0.3
    )
    for architecture in (conv, dense):
        net = network.initialise(architecture, (rng,), np.float64)
        net.parameters[...] += rng.uniform(0.1, 0.5, net.parameters.shape)
        net.statistics[...] += rng.uniform(0.1, 0.5, net.statistics.shape)
        x = rng.standard_normal((9, 12))
        expected = plain.chain(architecture.parts, x, net.parameters[0], net.statistics[0])
        np.testing.assert_allclose(network.forward(net, x)[0], expected, rtol=1e-12, atol=1e-12)


OPTIONS: dict[str, tuple[dict[str, Any], ...]] = {
    "binary_cross_entropy": ({}, {"smoothing": 0.1, "focal": 2.0, "up_weight": 3.0}),
    "categorical_cross_entropy": (
        {"classes": 3},
        {"classes": 3, "smoothing": 0.1, "focal": 2.0, "class_weights": (1.0, 2.0, 0.5)},
    ),
    "huber": ({}, {"delta": 0.3}),
    "quantile": ({"level": 0.9},),
}


@pytest.mark.parametrize("name", LOSSES)
def test_plain_losses_agree_with_those_of_the_network(name: str) -> None:
    rng = np.random.default_rng(0)
    for options in OPTIONS.get(name, ({},)):
        loss = LOSSES[name](**options)
        outputs = 2 * rng.standard_normal((50, loss.outputs))
        outputs[0, -1] = -20  # below the least variance
        if name == "categorical_cross_entropy":
            target = rng.integers(0, 3, 50)
        elif name == "binary_cross_entropy":
            target = rng.integers(0, 2, 50).astype(np.float64)
        else:
            target = rng.standard_normal(50)
        rows, slopes = np.empty((1, 50)), np.empty((1, 50, loss.outputs))
        loss.bind(outputs[None], target[None], np.ones((1, 50)), rows, slopes)()
        np.testing.assert_allclose(rows[0], plain.loss(loss, outputs, target), rtol=1e-10, atol=1e-12)


def test_a_part_of_no_known_kind_is_refused() -> None:
    class Strange(Activate.__mro__[1]):  # type: ignore[misc]
        """Of no known kind."""

    with pytest.raises(BadInput, match="Strange is none of the parts"):
        plain.kind_of(Strange())


def test_a_loss_head_too_many_is_told() -> None:
    patient = synthetic()
    patient = replace(patient, heads=(*patient.heads, objective.Head(losses.Squared())))
    passed, evidence = forward.as_described(patient)
    assert not passed
    assert "2 outputs for heads that read 3" in evidence
