"""Laws of the doctor: it passes what is sound, and tells each fault with its kind, its evidence and a remedy."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from model import bars as model_bars
from model import dataset, doctor, features
from model.doctor import RULES, TINY, Finding
from model.errors import BadInput
from model.network import gradcheck
from model.network.activations import ACTIVATIONS
from model.network.network import Network, Tape, backward, initialise
from model.network.optimisers import OPTIMISERS, Optimiser
from model.training import TrainConfig
from tests import real_bars

RATE = {"sgd": 5e-2, "momentum": 1e-2, "adamw": 2e-3}


def failed(findings: tuple[Finding, ...]) -> list[str]:
    return [finding.check for finding in findings if not finding.passed]


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize("hidden", [(), (2,), (64, 32)])
def test_a_sound_program_passes_on_the_synthetic_problem(
    activation: str, optimiser: str, hidden: tuple[int, ...]
) -> None:
    for seed in range(2):
        config = TrainConfig(
            activation=activation,
            initialiser="he" if activation == "relu" else "xavier",
            optimiser=optimiser,
            learning_rate=RATE[optimiser],
            hidden=hidden,
            seed=seed,
        )
        findings = doctor.examine(*doctor.synthetic(seed), config)
        assert failed(findings) == []
        assert [finding.check for finding in findings] == list(RULES)
        assert all(finding.evidence and not finding.advice for finding in findings)


@pytest.mark.parametrize("market", ["ETHUSDT_1h", "GOOG_1d", "GBPUSD_1m"])
def test_real_bars_pass(market: str) -> None:
    """Among them daily bars, whose hour never moves, and a market that tells no volume."""
    bars = real_bars.bars(market)[-3000:]
    rows = features.rows(bars, model_bars.timeframe(market.split("_")[1]))
    data = dataset.build(rows, features.DEFAULT, 1)
    assert failed(doctor.examine(data.X, data.up, data.target, TrainConfig())) == []


def test_the_same_patient_gets_the_same_findings() -> None:
    problem = doctor.synthetic()
    before = [part.copy() for part in problem]
    assert doctor.examine(*problem, TrainConfig()) == doctor.examine(*problem, TrainConfig())
    for part, kept in zip(problem, before, strict=True):
        np.testing.assert_array_equal(part, kept)


def test_too_few_rows_are_refused() -> None:
    x, up, target = doctor.synthetic(rows=TINY - 1)
    with pytest.raises(BadInput, match="at least 16 rows with features and a label, not 15"):
        doctor.examine(x, up, target, TrainConfig())


Problem = tuple[np.ndarray, np.ndarray, np.ndarray]


def _nan(problem: Problem, patch: pytest.MonkeyPatch) -> None:
    problem[0][7, 3] = np.nan


def _constant(problem: Problem, patch: pytest.MonkeyPatch) -> None:
    problem[0][:, 3] = 5.0


def _one_label(problem: Problem, patch: pytest.MonkeyPatch) -> None:
    problem[1][:] = 1.0


def _large_weights(problem: Problem, patch: pytest.MonkeyPatch) -> None:
    def too_large(*args: Any) -> Network:
        network = initialise(*args)
        network.parameters[...] *= 20
        return network

    patch.setattr(doctor, "initialise", too_large)


def _wrong_gradient(problem: Problem, patch: pytest.MonkeyPatch) -> None:
    def transposed(network: Network, tape: Tape, d_out: np.ndarray, gradient: Network) -> None:
        backward(network, tape, d_out, gradient)
        W = gradient.layers[1].W
        W[...] = W.reshape(W.shape[::-1]).T

    patch.setattr(gradcheck, "backward", transposed)


def _wrong_sign(problem: Problem, patch: pytest.MonkeyPatch) -> None:
    right = OPTIMISERS["adamw"]

    def uphill(params: np.ndarray, grads: np.ndarray, *rest: Any) -> None:
        right.step(params, -grads, *rest)

    patch.setitem(OPTIMISERS, "adamw", Optimiser(right.moments, uphill))


def _stuck(problem: Problem, patch: pytest.MonkeyPatch) -> None:
    right = OPTIMISERS["adamw"]

    def shrinking(params: np.ndarray, grads: np.ndarray, moments: Any, step: int, *rest: Any) -> None:
        if step == 1:  # later steps are lost
            right.step(params, grads, moments, step, *rest)

    patch.setitem(OPTIMISERS, "adamw", Optimiser(right.moments, shrinking))


def _deep_sigmoid(problem: Problem, patch: pytest.MonkeyPatch) -> TrainConfig:
    return TrainConfig(hidden=(16,) * 10, activation="sigmoid", initialiser="xavier")


Hurt = Callable[[Problem, pytest.MonkeyPatch], TrainConfig | None]

# For each rule a fault that it must find, where that fault lies, and a word of the evidence.
FAULTS: dict[str, tuple[Hurt, str, str]] = {
    "every number is finite": (_nan, "data", "1 in features"),
    "every feature moves": (_constant, "data", "1 of 24 features never move: column 3"),
    "both labels occur": (_one_label, "data", "100.0% of 2000 labels are up"),
    "the first loss is that of knowing nothing": (_large_weights, "forward", "ln 2 = 0.6931"),
    "gradients agree with numerical ones": (_wrong_gradient, "backward", "in hidden 2"),
    "one small step lowers the loss": (_wrong_sign, "update", "changes the loss by +"),
    "a few rows are learned by heart": (_stuck, "update", "16 rows not learned by heart"),
    "a short training is healthy": (_deep_sigmoid, "setting", "vanishing (last: hidden 1 vanishing"),
}


@pytest.mark.parametrize("check", RULES)
def test_each_rule_finds_its_fault(check: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check in FAULTS, f"put a fault into a sound network that only {check!r} can tell"
    hurt, kind, said = FAULTS[check]
    problem = tuple(part.copy() for part in doctor.synthetic())
    config = hurt(problem, monkeypatch) or TrainConfig(hidden=(64, 32))
    findings = {finding.check: finding for finding in doctor.examine(*problem, config)}
    found = findings[check]
    assert not found.passed
    assert found.kind == kind
    assert said in found.evidence
    assert found.advice
    assert "\n" not in found.evidence + found.advice


def test_on_numbers_that_are_not_finite_nothing_else_is_asked() -> None:
    x, up, target = doctor.synthetic()
    target[0] = np.inf
    (only,) = doctor.examine(x, up, target, TrainConfig())
    assert only.evidence == "numbers that are not finite: 1 in target"


def test_a_training_that_breaks_off_is_a_finding() -> None:
    config = replace(TrainConfig(), optimiser="sgd", learning_rate=1e6, clip_norm=1e12)
    last = doctor.examine(*doctor.synthetic(), config)[-1]
    assert (last.check, last.passed) == ("a short training is healthy", False)
    assert "not finite" in last.evidence


def test_a_finding_is_a_document() -> None:
    assert doctor.document(Finding("a", "data", False, "seen", "do")) == {
        "check": "a",
        "kind": "data",
        "passed": False,
        "evidence": "seen",
        "advice": "do",
    }
