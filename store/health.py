"""Gradient health as it is kept: a row a layer and epoch of a training run."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, select

from model.errors import NotFound
from model.health import GradientHealth
from store import runs, versions
from store.tables import gradient_health


def add(conn: Connection, run_id: int, epochs: Sequence[Sequence[GradientHealth]]) -> None:
    """Keeps the health of a run's epochs, first to last and counted from 1, each with its layers."""
    rows = [
        {"run_id": run_id, "epoch": epoch, **asdict(layer)}
        for epoch, layers in enumerate(epochs, start=1)
        for layer in layers
    ]
    if rows:
        conn.execute(gradient_health.insert(), rows)


def of_version(conn: Connection, version_id: int) -> dict[str, Any]:
    """The health of the training that a version came from, as a document. Raises NotFound.

    `epochs` has each epoch's losses and layers; `layers` repeats those of the last epoch.
    """
    version = versions.get(conn, version_id)
    run = runs.of_version(conn, version_id)
    if run is None:
        raise NotFound(f"version {version.id} has no training run, so no gradient health")
    rows = conn.execute(
        select(gradient_health)
        .where(gradient_health.c.run_id == run.id)
        .order_by(gradient_health.c.epoch, gradient_health.c.layer)
    )
    layers: dict[int, list[dict[str, Any]]] = {}
    for row in rows.mappings():
        layer = {key: value for key, value in row.items() if key not in ("run_id", "epoch")}
        layers.setdefault(row["epoch"], []).append(layer)
    losses = {point["epoch"]: point for point in run.curve}
    epochs = [
        {
            "epoch": epoch,
            "train_loss": losses.get(epoch, {}).get("train_loss"),
            "stop_loss": losses.get(epoch, {}).get("stop_loss"),
            "layers": of_epoch,
        }
        for epoch, of_epoch in layers.items()
    ]
    return {
        "version": version_id,
        "verdict": run.verdict,
        "epochs": epochs,
        "layers": epochs[-1]["layers"] if epochs else [],
    }
