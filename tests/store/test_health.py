"""Laws of kept gradient health: every layer of every epoch comes back beside the losses of its epoch."""

from dataclasses import asdict
from datetime import UTC, datetime

import pytest

import store.database
import store.health
import store.versions
from model.errors import NotFound
from model.health import GradientHealth
from store.database import Engine
from tests.store.test_versions import add, add_run

NOW = datetime(2024, 7, 1, tzinfo=UTC)

EPOCHS = [
    [
        GradientHealth(0, "dense 0 (4 -> 3, relu)", 0.5, 1e-3, 0.25, 0.0, 0, "healthy"),
        GradientHealth(1, "heads", None, None, 0.0, 0.0, 3, "non_finite"),
    ],
    [
        GradientHealth(0, "dense 0 (4 -> 3, relu)", 1e-300, 2e-3, 1.0, 0.0, 0, "dead", 1e-301, -0.5, 300.0),
        GradientHealth(1, "heads", 0.125, 3e-3, 0.0, 0.5, 0, "healthy", 0.1, 1.0, None),
    ],
]


def test_what_was_measured_comes_back_by_epoch_and_layer(database: Engine, market_id: int) -> None:
    curve = [{"epoch": n, "train_loss": 0.7 - n / 100, "stop_loss": 0.69 - n / 100} for n in (1, 2)]
    with store.database.write(database) as conn:
        version = add(conn, market_id)
        store.health.add(conn, add_run(conn, market_id, version, curve=curve, verdict="dead"), EPOCHS)
        store.health.add(conn, add_run(conn, market_id, None), EPOCHS[:1])
        document = store.health.of_version(conn, version)
    layers = [[asdict(layer) for layer in epoch] for epoch in EPOCHS]
    assert document == {
        "version": version,
        "verdict": "dead",
        "epochs": [{**curve[0], "layers": layers[0]}, {**curve[1], "layers": layers[1]}],
        "layers": layers[1],
    }


def test_a_run_without_epochs_has_empty_lists(database: Engine, market_id: int) -> None:
    with store.database.write(database) as conn:
        version = add(conn, market_id)
        store.health.add(conn, add_run(conn, market_id, version), [])
        document = store.health.of_version(conn, version)
    assert document == {"version": version, "verdict": "healthy", "epochs": [], "layers": []}


def test_a_version_that_is_unknown_or_was_never_trained_here_is_not_found(
    database: Engine, market_id: int
) -> None:
    with store.database.write(database) as conn:
        version = add(conn, market_id)
        with pytest.raises(NotFound, match=f"version {version} has no training run"):
            store.health.of_version(conn, version)
        with pytest.raises(NotFound, match="no version 99"):
            store.health.of_version(conn, 99)
