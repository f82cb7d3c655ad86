"""What a command opens before its work."""

import pytest
from threadpoolctl import threadpool_info, threadpool_limits

import store.settings
from jobs import retrain
from model.config import TrainConfig
from service.cli import opening
from store.database import Engine
from tests.service.cli.conftest import Barprop


def blas_threads() -> set[int]:
    """How many threads matrix products take in this process."""
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


@pytest.mark.parametrize("threads", [1, 2])
def test_matrix_products_take_the_threads_of_the_settings(
    fresh: Engine, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    monkeypatch.setenv("BARPROP_TRAINING__BLAS_THREADS", str(threads))
    with threadpool_limits(3 - threads, "blas"), opening.database():
        assert blas_threads() == {threads}


@pytest.mark.parametrize("command", ["serve", "worker"])
def test_a_training_that_could_only_fail_is_refused_at_the_start(
    barprop: Barprop, fresh: Engine, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("BARPROP_TRAINING__OPTIMISER", "adamm")
    ran = barprop(command, *(["--port", 0] if command == "serve" else []))
    assert (ran.code, ran.out) == (2, "")
    assert "optimiser must be one of sgd" in ran.err


def test_every_setting_of_a_training_reaches_it() -> None:
    given = {
        **{"hidden": (9,), "activation": "tanh", "initialiser": "xavier", "normalisation": "layer"},
        **{"residual": True, "dropout": 0.1, "optimiser": "sgd", "learning_rate": 0.5, "schedule": "step"},
        **{"warm_up": 0.2, "weight_decay": 0.3, "clip_value": 4.0, "clip_norm": 5.0, "epochs": 6},
        **{"dead_zone": 0.7, "uniqueness": True, "return_weight": 0.8, "calibration": "isotonic"},
        **{"members": 3, "relearn": False},
    }
    with_units = {"batch_rows": 7, "patience_epochs": 8, "half_life_bars": 9}
    asked = retrain.config_of(store.settings.Settings(training={**given, **with_units}), {})
    for name, value in {**given, "batch": 7, "patience": 8, "half_life": 9}.items():
        assert getattr(asked, name) == value, name
    left = {
        field
        for field in type(asked).__dataclass_fields__
        if getattr(asked, field) == getattr(TrainConfig(), field)
    }
    assert left == {
        "horizon",
        "window",
        "features",
        "jump_z",
        "inputs",
        "stop_fraction",
        "held_fraction",
        "seed",
        "blas_threads",
    }
