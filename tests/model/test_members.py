"""Networks that are trained side by side become, to the bit, what each becomes alone."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np
import pytest

from model import dataset, features, members, training
from model.bars import timeframe
from model.config import TrainConfig
from model.dataset import Dataset
from model.epochs import Epoch, batches_of
from model.errors import TrainingFailed
from model.training import Fit, Task
from tests.model import synthetic

CONFIG = TrainConfig(
    window=900,
    hidden=(16, 8),
    epochs=6,
    batch=64,
    patience=2,
    learning_rate=0.02,
    members=1,
    relearn=False,
    half_life=None,
)


def made(n: int, seed: int, momentum: float) -> Dataset:
    rows = features.rows(synthetic.bars(n, seed, momentum), timeframe("1h"))
    return dataset.build(rows, features.DEFAULT, 1)


MARKETS = (made(1_400, 0, 0.6), made(1_400, 1, 0.0), made(1_400, 2, 0.3))


def same(one: Any, other: Any) -> bool:
    """Equal to the bit, through and through."""
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    if is_dataclass(one):
        return type(one) is type(other) and all(
            same(getattr(one, f.name), getattr(other, f.name)) for f in fields(one)
        )
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, TrainingFailed):
        return str(one) == str(other)
    return bool(one == other)


def alone(member: Task, config: TrainConfig) -> Fit:
    """Its config's own seed, and nobody beside it."""
    return training.fit(member.data, replace(config, seed=member.seed), member.warm)


def assert_as_alone(
    results: Sequence[Fit | TrainingFailed], members: Sequence[Task], config: TrainConfig
) -> None:
    for result, member in zip(results, members, strict=True):
        single = alone(member, config)
        assert isinstance(result, Fit)
        for name in (f.name for f in fields(Fit)):
            if name != "config":  # whose seed is another
                assert same(getattr(result, name), getattr(single, name)), name


@pytest.fixture
def sides(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many went side by side, each time that epochs were begun."""
    seen: list[int] = []
    begun: Callable[..., Iterator[Epoch]] = members.epochs

    def noting(start: Any, *given: Any) -> Iterator[Epoch]:
        seen.append(start.members)
        return begun(start, *given)

    monkeypatch.setattr(members, "epochs", noting)
    return seen


THREE = tuple(Task(data, seed) for seed, data in enumerate(MARKETS, start=3))

SETTINGS: dict[str, dict[str, Any]] = {
    "as it comes": {},
    "batch": {"normalisation": "batch"},
    "layer": {"normalisation": "layer", "activation": "gelu"},
    "residual": {"hidden": (16, 16), "residual": True, "activation": "tanh"},
    "no dropout": {"dropout": 0.0, "half_life": 200},
    "plateau": {"schedule": "plateau", "patience": 3, "epochs": 12},
    "cut": {"clip_value": 0.01, "clip_norm": 0.05, "warm_up": 0.3},
    "isotonic": {"calibration": "isotonic"},
    "lion": {"optimiser": "lion", "learning_rate": 1e-3},
    "sgd": {"optimiser": "sgd"},
    "nesterov": {"optimiser": "nesterov"},
    "adagrad": {"optimiser": "adagrad"},
    "rmsprop": {"optimiser": "rmsprop"},
    "adam": {"optimiser": "adam", "weight_decay": 0.01},
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_member_is_what_it_is_alone(setting: str, sides: list[int]) -> None:
    config = replace(CONFIG, **SETTINGS[setting])
    results = training.fit_tasks(THREE, config)
    assert sides == [3]
    assert_as_alone(results, THREE, config)


def test_each_member_stops_by_itself() -> None:
    """Or else the bits above would show less than they seem to."""
    config = replace(CONFIG, epochs=20)
    results = training.fit_tasks(THREE, config)
    lengths = [len(fit.curve) for fit in results if isinstance(fit, Fit)]
    assert len(set(lengths)) > 1
    assert_as_alone(results, THREE, config)


def test_warm_and_cold_members_go_side_by_side(sides: list[int]) -> None:
    config = replace(CONFIG, normalisation="batch")
    first = training.fit(MARKETS[2], config)
    warm = training.warm_start(*training.contents(first))
    members = (Task(MARKETS[0], 1, warm), Task(MARKETS[1], 2), Task(MARKETS[2], 1, warm))
    sides.clear()
    results = training.fit_tasks(members, config)
    assert sides == [3]
    assert_as_alone(results, members, config)
    assert not same(results[0], training.fit_tasks((Task(MARKETS[0], 1),), config)[0])


def test_members_of_one_market_differ_by_their_seeds_alone(sides: list[int]) -> None:
    members = tuple(Task(MARKETS[0], seed) for seed in range(4))
    results = training.fit_tasks(members, CONFIG)
    assert sides == [4]
    assert_as_alone(results, members, CONFIG)
    assert len({fit.network.parameters.tobytes() for fit in results if isinstance(fit, Fit)}) == 4


@pytest.mark.parametrize("threads", [1, 2])
def test_members_may_have_different_numbers_of_rows(threads: int, sides: list[int]) -> None:
    """Some with as many batches of one size, which go side by side, and others; however many threads there are."""
    lengths = (900, 642, 902, 898, 643)
    members = tuple(
        Task(MARKETS[k % 3].part(slice(len(MARKETS[k % 3]) - n, None)), k) for k, n in enumerate(lengths)
    )
    config = replace(CONFIG, window=2_000)
    results = training.fit_tasks(members, config, threads)
    assert_as_alone(results, members, config)
    rows = [fit.rows for fit in results if isinstance(fit, Fit)]
    assert len(set(rows)) == 5
    plans = [batches_of(n, config.batch) for n in rows]
    assert plans[0] == plans[2] == plans[3] != plans[1] == plans[4]
    if threads == 1:
        assert sorted(sides[:2]) == [2, 3]


def test_results_come_in_the_order_of_the_members_and_again_the_same() -> None:
    shuffled = (THREE[2], THREE[0], THREE[1])
    straight, turned = (training.fit_tasks(members, CONFIG, threads=2) for members in (THREE, shuffled))
    again = training.fit_tasks(THREE, CONFIG, threads=2)
    assert same(straight, again)
    for place, at in enumerate((2, 0, 1)):
        assert same(turned[place], straight[at])


def test_blocks_that_fit_no_cache_change_nothing(monkeypatch: pytest.MonkeyPatch, sides: list[int]) -> None:
    together = training.fit_tasks(THREE, CONFIG)
    monkeypatch.setattr(members, "CACHE_BYTES", 1)
    one_by_one = training.fit_tasks(THREE, CONFIG)
    assert sides == [3, 1, 1, 1]
    assert same(together, one_by_one)


def test_a_member_that_fails_disturbs_nobody(sides: list[int]) -> None:
    """Too few rows, a feature that is no number, and a stop row that is none, between three that are fine."""
    few = Task(MARKETS[0].part(slice(0, 100)), 0)
    X, stop_X = MARKETS[1].X.copy(), MARKETS[1].X.copy()
    X[-500, 3], stop_X[-100, 3] = np.nan, np.nan
    broken, unjudged = (Task(replace(MARKETS[1], X=x), 0) for x in (X, stop_X))
    members = (THREE[0], few, broken, THREE[1], unjudged, THREE[2])
    results = training.fit_tasks(members, CONFIG)
    assert 5 in sides
    for place, wanted in ((1, "100 rows"), (2, "not finite in epoch 1"), (4, "no epoch had a finite loss")):
        failed = results[place]
        assert isinstance(failed, TrainingFailed)
        assert wanted in str(failed)
    assert_as_alone([results[i] for i in (0, 3, 5)], THREE, CONFIG)


def test_a_member_that_breaks_late_is_what_it_is_alone_and_disturbs_nobody(sides: list[int]) -> None:
    """Its weights double with each step, as in the tests of training; that of a smaller start later than the other's."""
    config = replace(CONFIG, optimiser="sgd", schedule="constant", learning_rate=0.1, weight_decay=30.0)
    config = replace(config, dropout=0.0, epochs=40, patience=40)
    first = training.fit(MARKETS[0], replace(config, epochs=1))
    warm = training.warm_start(*training.contents(first))
    members = (THREE[0], Task(MARKETS[0], 4, warm), THREE[1])
    sides.clear()
    results = training.fit_tasks(members, config)
    assert sides == [3]
    ends = [fit.broke for fit in results if isinstance(fit, Fit)]
    assert all(ends)
    assert len(set(ends)) > 1, "they were to break at different times"
    assert_as_alone(results, members, config)


def test_no_members_give_no_results() -> None:
    assert training.fit_tasks((), CONFIG) == ()


def test_all_may_fail() -> None:
    few = Task(MARKETS[0].part(slice(0, 100)), 0)
    assert all(isinstance(result, TrainingFailed) for result in training.fit_tasks((few, few), CONFIG))
