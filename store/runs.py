"""Training runs: what became of each training, also of one that gave no version."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, select

from store.tables import training_runs


@dataclass(frozen=True)
class TrainingRun:
    """What became of one training. `version_id` is None where nothing fit to be stored came out."""

    id: int
    job_id: int
    market_id: int
    version_id: int | None
    outcome: str  # promoted, challenger, rejected, failed
    reason: str
    started_at: datetime
    ended_at: datetime
    bars_until: datetime  # the close of the newest bar that it read
    scores: dict[str, Any]
    curve: list[dict[str, Any]]  # [{"epoch", "train_loss", "stop_loss"}]
    verdict: str  # the gradients' health as a whole


def add(
    conn: Connection,
    *,
    job_id: int,
    market_id: int,
    version_id: int | None,
    outcome: str,
    reason: str,
    started_at: datetime,
    ended_at: datetime,
    bars_until: datetime,
    scores: Mapping[str, Any],
    curve: Sequence[Mapping[str, Any]],
    verdict: str,
) -> int:
    """Records what became of a training; gives the run's id. A number that is not finite is kept as null."""
    statement = training_runs.insert().values(
        job_id=job_id,
        market_id=market_id,
        version_id=version_id,
        outcome=outcome,
        reason=reason,
        started_at=started_at,
        ended_at=ended_at,
        bars_until=bars_until,
        scores=_finite(scores),
        curve=_finite(curve),
        verdict=verdict,
    )
    key = conn.execute(statement).inserted_primary_key
    assert key is not None
    return int(key[0])


def _finite(value: Any) -> Any:
    """`value` as JSON can hold it: a training that diverged has losses that are no numbers."""
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def last(conn: Connection, market_id: int) -> TrainingRun | None:
    """The newest training run of a market."""
    return _run(conn, select(training_runs).where(training_runs.c.market_id == market_id))


def of_version(conn: Connection, version_id: int) -> TrainingRun | None:
    """The training run that a version came from."""
    return _run(conn, select(training_runs).where(training_runs.c.version_id == version_id))


def _run(conn: Connection, statement: Select[Any]) -> TrainingRun | None:
    row = conn.execute(statement.order_by(training_runs.c.id.desc()).limit(1)).one_or_none()
    return None if row is None else TrainingRun(**row._mapping)
