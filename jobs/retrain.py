"""Retraining: from the stored bars to a stored, judged and perhaps promoted version, in one transaction at its end."""

from collections.abc import Callable
from dataclasses import asdict, fields
from datetime import datetime
from typing import Any

import numpy as np

import store.bars
import store.features
import store.health
import store.inputs
import store.libraries
import store.markets
import store.runs
import store.versions
from model import (
    artifact,
    backtest,
    bars,
    dataset,
    health,
    predictor,
    training,
)
from model.backtest import Contents
from model.config import TrainConfig
from model.errors import BadArtifact, BadInput, TrainingFailed
from model.gate import Verdict
from model.scores import Scores
from model.training import Fit, WarmStart
from store import database
from store.database import Connection, Engine
from store.jobs import Job, Keep
from store.settings import Settings
from store.versions import Role

ROLES: dict[str, Role] = {"promoted": "champion", "challenger": "challenger", "rejected": "rejected"}


# What the settings may leave to TrainConfig, by its names there; units stand in the names of settings.
CHOSEN = {
    **{
        name: name
        for name in (
            *("hidden", "activation", "initialiser", "normalisation", "residual", "dropout", "optimiser"),
            *("learning_rate", "schedule", "warm_up", "weight_decay", "clip_value", "clip_norm", "epochs"),
            *("dead_zone", "uniqueness", "return_weight", "calibration", "members", "relearn"),
        )
    },
    "batch": "batch_rows",
    "patience": "patience_epochs",
    "half_life": "half_life_bars",
}


def config_of(settings: Settings, params: dict[str, Any]) -> TrainConfig:
    """The training that the settings ask for, where the job's own parameters do not say otherwise."""
    chosen = {name: params.get(name, getattr(settings.training, setting)) for name, setting in CHOSEN.items()}
    return TrainConfig(
        **{name: value for name, value in chosen.items() if value is not None},
        window=params.get("window", settings.training.window_bars),
        seed=params.get("seed", settings.training.seed),
        horizon=params.get("horizon", settings.training.horizon_bars),
        features=store.features.chosen(settings),
        inputs=store.features.inputs(settings),
        blas_threads=settings.training.blas_threads,
        jump_z=settings.training.jump_z,
    )


def run(
    engine: Engine,
    job: Job,
    settings: Settings,
    clock: Callable[[], datetime],
    progress: Callable[[float], None],
) -> Keep:
    """Trains and judges; what it gives back keeps the version and tells the document of design `train`.

    Everything that a training leaves is kept in one transaction with the end of its job: a kill before leaves the old
    champion and no trace but the job's own row. A failed one, which raises TrainingFailed, is recorded as a run
    without a version.
    """
    assert job.market is not None
    assert job.market_id is not None
    market, market_id, started_at = job.market, job.market_id, clock()
    config = config_of(settings, job.params)
    kept = bars.timeframe(market.timeframe)
    with database.read(engine) as conn:
        newest = dataset.bars_for(config, kept, config.window)
        history = store.bars.read(conn, market_id, kept, closed_by=started_at, last=newest)
        others = store.inputs.beside(conn, config.feature_set, history, kept)
        champion_id = store.versions.champion(conn, market_id)
        champion = _load(conn, champion_id)
        warm = _warm(conn, champion_id) if job.params.get("warm") else None
    if history.is_empty():
        raise TrainingFailed(f"no bars of {market} had closed by {bars.iso(started_at)}")
    bars_until = kept.close_of(history["ts"][-1])
    data = dataset.from_bars(history, kept, config, config.window, others)
    try:
        fit = training.fit(data, config, warm, progress)
    except TrainingFailed as error:
        with database.write(engine) as conn:
            _record(conn, job, None, Verdict("failed", str(error)), started_at, clock(), bars_until, None, {})
        raise
    arrays, manifest = training.contents(fit)
    predictor.from_arrays(arrays, manifest)  # what cannot be folded is not kept
    judged = backtest.decide(fit, (arrays, manifest), champion, data)
    held = _held_back((arrays, manifest), data)
    newest_rows = data.part(slice(max(0, len(data) - config.window), None))
    broken = dataset.left_out(history, kept, config, newest_rows)
    manifest |= {"held": held, "bars_until": bars.iso(bars_until), "libraries": store.libraries.here()}
    packed = artifact.pack(arrays, manifest)
    now = clock()

    def keep(conn: Connection) -> dict[str, Any]:
        row, verdict = store.markets.need(conn, market), judged
        effective_from = store.versions.takes_effect(conn, row, now)
        if verdict.outcome == "promoted" and store.versions.champion(conn, row.id) != champion_id:
            verdict = Verdict("challenger", f"another version became champion meanwhile; {verdict.reason}")
        parent = champion_id if warm is not None else None
        version_id = store.versions.add(conn, row.id, packed, parent, now)
        run_id = _record(conn, job, version_id, verdict, started_at, now, bars_until, fit, held)
        store.health.add(conn, run_id, fit.health)
        role = ROLES[verdict.outcome]
        store.versions.record(conn, row.id, version_id, role, verdict.reason, now, effective_from)
        return {
            "market": asdict(market),
            "version": version_id,
            "sha256": packed.sha256,
            "outcome": verdict.outcome,
            "reason": verdict.reason,
            "scores": held,
            "gradient_health": {
                "verdict": fit.verdict,
                "check": fit.gradient_check.worst,
                "layers": [health.document(layer) for layer in fit.health[-1]],
            },
            "best_epochs": list(fit.best_epochs),
            "rows": fit.rows,
            "breaks": broken,
            "bars_until": bars.iso(bars_until),
        }

    return keep


def _load(conn: Connection, version_id: int | None) -> Contents | None:
    """The champion to beat. One that cannot be used any more is none: whatever passes its checks replaces it."""
    if version_id is None:
        return None
    try:
        made = artifact.unpack(store.versions.packed(conn, version_id))
        predictor.from_arrays(*made)
    except (BadInput, KeyError, TypeError, ValueError, IndexError):
        return None
    return made


def _warm(conn: Connection, version_id: int | None) -> WarmStart:
    if version_id is None:
        raise TrainingFailed("a warm start needs a champion to start from, and this market has none")
    try:
        return training.warm_start(*artifact.unpack(store.versions.packed(conn, version_id)))
    except BadArtifact as error:
        raise TrainingFailed(f"a warm start cannot go on from version {version_id}: {error}") from error


def _held_back(made: Contents, data: dataset.Dataset) -> dict[str, Any]:
    """The training's scores on the rows that were held back, beside the base rate's, and its gain."""
    model = predictor.judged(*made)
    rows = data.part(slice(int(np.searchsorted(data.closed_at, model.fitted_until)), len(data)))
    if len(rows) == 0:  # a warm start that no bar has come after
        nothing = {field.name: None for field in fields(Scores)} | {"rows": 0}
        return {"rows": 0, "gain": 0.0, "gain_error": 0.0, "model": nothing, "base_rate": nothing}
    judged = backtest.judge(rows, backtest.forecasts(model, rows))
    gain, scored = judged.gain, judged.document()
    scored["model"]["coverage_90"] = None  # the interval was made on these very rows
    return {"rows": gain.rows, "gain": gain.mean, "gain_error": gain.error, **scored}


def _record(
    conn: Connection,
    job: Job,
    version_id: int | None,
    verdict: Verdict,
    started_at: datetime,
    ended_at: datetime,
    bars_until: datetime,
    fit: Fit | None,
    held: dict[str, Any],
) -> int:
    assert job.market_id is not None
    curve = fit.curve if fit is not None else ()
    return store.runs.add(
        conn,
        job_id=job.id,
        market_id=job.market_id,
        version_id=version_id,
        outcome=verdict.outcome,
        reason=verdict.reason,
        started_at=started_at,
        ended_at=ended_at,
        bars_until=bars_until,
        scores=held,
        curve=[{"epoch": n, "train_loss": train, "stop_loss": stop} for n, train, stop in curve],
        verdict=fit.verdict if fit is not None else "none",
    )
