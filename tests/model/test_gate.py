"""The gate: evidence promotes, chance does not reject, and a broken training never gets through."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from model import gate, training
from model.dataset import Dataset
from tests.model.test_training import DATA, SMALL

FIT = training.fit(DATA, SMALL)
RNG = np.random.default_rng(0)
CHAMPION = RNG.normal(0.69, 0.05, 500)


def test_without_a_champion_the_first_that_passes_its_checks_is_promoted() -> None:
    assert gate.judge(FIT, np.empty(0), None, 1) == gate.Verdict("promoted", "first")


def test_a_better_candidate_is_promoted() -> None:
    assert gate.judge(FIT, CHAMPION - 0.01, CHAMPION, 1).outcome == "promoted"


def test_an_equal_candidate_is_promoted() -> None:
    assert gate.judge(FIT, CHAMPION, CHAMPION, 1).outcome == "promoted"


def test_a_clearly_worse_candidate_is_rejected_with_the_figures() -> None:
    verdict = gate.judge(FIT, CHAMPION + 0.01 + RNG.normal(0, 0.001, 500), CHAMPION, 1)
    assert verdict.outcome == "rejected"
    assert "500 bars that neither has seen" in verdict.reason


def test_a_candidate_that_is_worse_by_chance_stays_a_challenger() -> None:
    noisy = CHAMPION + 0.0001 + RNG.normal(0, 0.05, 500)
    noisy += max(0.0, 0.0001 - (noisy - CHAMPION).mean())
    assert gate.judge(FIT, noisy, CHAMPION, 1).outcome == "challenger"


def test_a_handful_of_bars_decides_nothing() -> None:
    assert gate.judge(FIT, CHAMPION[:10] - 0.1, CHAMPION[:10], 1).outcome == "challenger"


def test_a_failed_gradient_check_is_rejected_however_good_the_scores() -> None:
    broken = replace(FIT, gradient_check=replace(FIT.gradient_check, passed=False, worst=0.3))
    for champion in (None, CHAMPION):
        verdict = gate.judge(broken, CHAMPION - 0.1, champion, 1)
        assert verdict.outcome == "rejected"
        assert "gradient check" in verdict.reason


CONSTANT = replace(DATA, X=np.full_like(DATA.X, 0.5))


@pytest.mark.parametrize("champion", [None, CHAMPION])
@pytest.mark.parametrize(
    ("data", "given"),
    [(DATA, {"initialiser": "zero", "return_weight": 0.0}), (DATA, {"initialiser": "zero"}), (CONSTANT, {})],
    ids=["zero weights", "zero weights, both heads", "features that never move"],
)
def test_one_that_answers_the_same_whatever_it_is_asked_is_rejected(
    data: Dataset, given: dict[str, Any], champion: np.ndarray | None
) -> None:
    fit = training.fit(data, replace(SMALL, **given))
    assert fit.spread == 0
    verdict = gate.judge(fit, CHAMPION - 0.1, champion, 1)
    assert verdict.outcome == "rejected"
    assert "answers the same whatever it is asked" in verdict.reason


def test_dead_units_answer_the_same_whatever_they_are_asked() -> None:
    arrays, manifest = training.contents(FIT)
    parameters = arrays["parameters"].copy()
    first = FIT.network.architecture.layers[0]
    parameters[first.share][-16:] = -1_000  # the biases of the first layer's 16 units
    dead = training.warm_start({**arrays, "parameters": parameters}, manifest)
    verdict = gate.judge(training.fit(DATA, SMALL, dead), np.empty(0), None, 1)
    assert verdict.outcome == "rejected"
    assert "answers the same whatever it is asked" in verdict.reason


def test_trainings_are_far_from_answering_the_same() -> None:
    assert FIT.spread > 1_000 * gate.LEAST_SPREAD


@pytest.mark.parametrize("health", gate.UNFIT)
def test_unfit_gradients_are_rejected_however_good_the_scores(health: str) -> None:
    last = tuple(replace(row, verdict=health) for row in FIT.health[-1])
    sick = replace(FIT, health=(*FIT.health[:-1], last))
    assert gate.judge(sick, CHAMPION - 0.1, CHAMPION, 1).outcome == "rejected"
