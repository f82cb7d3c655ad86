"""Retraining: from the stored bars to a stored, judged and perhaps promoted version, in one transaction at its end."""

import sys
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from importlib.metadata import version
from typing import Any

import numpy as np
from threadpoolctl import threadpool_info

import store.bars
import store.health
import store.markets
import store.versions
from model import (
    artifact,
    backtest,
    bars,
    dataset,
    features,
    health,
    predictor,
    scores,
    significance,
    training,
)
from model.errors import BadArtifact, TrainingFailed
from model.features import FeatureSet
from model.gate import Verdict
from model.predictor import Predictor
from model.training import Fit, TrainConfig, WarmStart
from store import database
from store.database import Connection, Engine
from store.jobs import Job
from store.settings import Settings

# More bars than rows are read: the features' warm-up, and room for a market's history to begin anywhere in a block.
WARMUP_BARS = features.HISTORY


def config_of(settings: Settings, params: dict[str, Any]) -> TrainConfig:
    """The training that the settings ask for, where the job's own parameters do not say otherwise."""
    return TrainConfig(
        window=params.get("window", settings.training.window_bars),
        seed=params.get("seed", settings.training.seed),
        horizon=settings.training.horizon_bars,
        blas_threads=settings.training.blas_threads,
    )


def run(
    engine: Engine,
    job: Job,
    settings: Settings,
    clock: Callable[[], datetime],
    progress: Callable[[float], None],
) -> dict[str, Any]:
    """Trains the job's market and gives the document of design `train`. Raises TrainingFailed.

    Everything that it leaves is written in one transaction: a kill before leaves the old champion and no trace but
    the job's own row. A failed training is recorded as a run without a version.
    """
    assert job.market is not None
    assert job.market_id is not None
    started_at = clock()
    config = config_of(settings, job.params)
    kept = bars.timeframe(job.market.timeframe)
    with database.read(engine) as conn:
        history = store.bars.read(
            conn, job.market_id, kept, closed_by=started_at, last=config.window + config.horizon + WARMUP_BARS
        )
        champion_id = store.versions.champion(conn, job.market_id)
        champion = _load(conn, champion_id)
        warm = _warm(conn, champion_id) if job.params.get("warm") else None
    if history.is_empty():
        raise TrainingFailed(f"no bars of {job.market} had closed by {bars.iso(started_at)}")
    bars_until = kept.close_of(history["ts"][-1])
    feature_set = FeatureSet(config.features)
    data = dataset.build(features.rows(history, kept, feature_set), feature_set, config.horizon)
    try:
        fit = training.fit(data, config, warm, progress)
    except TrainingFailed as error:
        with database.write(engine) as conn:
            _record(conn, job, None, Verdict("failed", str(error)), started_at, clock(), bars_until, None, {})
        raise
    arrays, manifest = training.contents(fit)
    candidate = predictor.from_arrays(arrays, manifest)
    verdict = backtest.decide(fit, candidate, champion, data)
    held = _held_back(candidate, fit, data)
    manifest |= {"held": held, "bars_until": bars.iso(bars_until), "libraries": _libraries()}
    packed = artifact.pack(arrays, manifest)
    now = clock()
    with database.write(engine) as conn:
        parent = champion_id if warm is not None else None
        version_id = store.versions.add(conn, job.market_id, packed, parent, now)
        run_id = _record(conn, job, version_id, verdict, started_at, now, bars_until, fit, held)
        store.health.add(conn, run_id, fit.health)
        _promote(conn, job, version_id, verdict, champion_id, bars_until, now)
    return {
        "market": asdict(job.market),
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
        "best_epoch": fit.best_epoch,
        "rows": fit.rows,
        "bars_until": bars.iso(bars_until),
    }


def _load(conn: Connection, version_id: int | None) -> Predictor | None:
    """The champion to beat. One that cannot be used any more is none: whatever passes its checks replaces it."""
    if version_id is None:
        return None
    try:
        return predictor.from_artifact(store.versions.packed(conn, version_id))
    except BadArtifact:
        return None


def _warm(conn: Connection, version_id: int | None) -> WarmStart:
    if version_id is None:
        raise TrainingFailed("a warm start needs a champion to start from, and this market has none")
    return training.warm_start(*artifact.unpack(store.versions.packed(conn, version_id)))


def _held_back(candidate: Predictor, fit: Fit, data: dataset.Dataset) -> dict[str, Any]:
    """The candidate's scores on the rows that its weights have not seen, beside the base rate's, and its gain."""
    rows = data.part(slice(int(np.searchsorted(data.closed_at, fit.fitted_until)), len(data)))
    said = backtest.forecasts(candidate, rows)
    up = rows.up.astype(np.float64)
    base_rate = np.full(len(rows), fit.base_rate)
    outcome = rows.close * np.exp(rows.log_return)
    model = scores.score(
        said[:, 0], up, said[:, 1], rows.log_return, (outcome >= said[:, 3]) & (outcome <= said[:, 4])
    )
    base = scores.score(base_rate, up, np.zeros(len(up)), rows.log_return, None)
    gain = significance.gain(
        scores.log_losses(base_rate, up), scores.log_losses(said[:, 0], up), data.horizon
    )
    return {
        "rows": gain.rows,
        "gain": gain.mean,
        "gain_error": gain.error,
        "model": model.document(),
        "base_rate": base.document(),
    }


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
    return store.versions.add_run(
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


def _promote(
    conn: Connection,
    job: Job,
    version_id: int,
    verdict: Verdict,
    judged_against: int | None,
    bars_until: datetime,
    now: datetime,
) -> None:
    """Appends the verdict to the history. A bar's first Signal stands, so a new champion answers from the next bar on;
    the very first answers at once, for there is nothing that it could contradict."""
    assert job.market is not None
    assert job.market_id is not None
    reason, role = verdict.reason, "champion" if verdict.outcome == "promoted" else verdict.outcome
    if store.versions.champion(conn, job.market_id) != judged_against and role == "champion":
        role, reason = "challenger", f"the champion changed during this training; {reason}"
    kept = bars.timeframe(job.market.timeframe)
    newest = store.bars.newest(conn, job.market_id)
    next_close = kept.close_of(kept.close_of(newest)) if newest is not None else now
    effective_from = bars_until if judged_against is None else next_close
    store.versions.record(conn, job.market_id, version_id, role, reason, now, effective_from)  # type: ignore[arg-type]


def _libraries() -> dict[str, str]:
    """What the bits depend on besides bars, config and seed."""
    blas: dict[str, Any] = next((lib for lib in threadpool_info() if lib["user_api"] == "blas"), {})
    return {
        "python": sys.version.split()[0],
        "numpy": version("numpy"),
        "polars": version("polars"),
        "blas": f"{blas.get('internal_api', 'unknown')} {blas.get('version', '')} {blas.get('architecture', '')}",
    }
