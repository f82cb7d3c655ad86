"""Ask for work, watch it, cancel it. No job runs here: a route writes a row, and the worker takes it."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Response
from pydantic import BaseModel, ConfigDict, Field, JsonValue

import store.database
import store.jobs
import store.markets
from service import problems
from service.deps import (
    AnyMarket,
    Cursor,
    EngineDep,
    Ident,
    Limit,
    MarketBody,
    MarketDocument,
    Page,
    machine_now,
    page,
)

JOB: dict[str, JsonValue] = {
    "id": 12,
    "kind": "retrain",
    "market": {"symbol": "ETHUSDT", "timeframe": "1h"},
    "state": "running",
    "progress": 0.4,
    "error": None,
}


class JobDocument(BaseModel):
    """One execution of a kind of work. Its times are the machine's, in a replay too."""

    model_config = ConfigDict(json_schema_extra={"examples": [JOB]}, extra="allow")

    id: int
    kind: str
    market: MarketDocument | None
    state: Literal["queued", "running", "succeeded", "failed", "cancelled"]
    progress: float = Field(description="From 0 to 1.")
    error: str | None


class RetrainAsk(MarketBody):
    """Which market to train, and what to use instead of the settings."""

    window: int | None = Field(None, ge=200, le=10_000_000, description="Bars of the training window.")
    seed: int | None = Field(None, ge=0, le=2**31 - 1)
    warm: bool | None = Field(None, description="Start from the champion's weights instead of new ones.")


JobId = Annotated[Ident, Path()]
router = APIRouter(prefix="/v1", tags=["jobs"])


def ask(engine: store.database.Engine, kind: str, body: MarketBody, response: Response) -> dict[str, Any]:
    """Writes the job's row, or finds the equal one that is still queued, and says where it can be watched."""
    params = body.model_dump(exclude={"symbol", "timeframe"}, exclude_none=True)
    with store.database.write(engine) as conn:
        row = store.markets.need(conn, body.market())
        job = store.jobs.ask(conn, kind, row.id, params, machine_now())
    response.headers["location"] = f"/v1/jobs/{job.id}"
    return store.jobs.document(job)


@router.post(
    "/retrains",
    status_code=202,
    response_model=JobDocument,
    responses=problems.responses("malformed", "not-found", "invalid-request", "bad-input", "unreachable"),
)
def retrain(body: RetrainAsk, engine: EngineDep, response: Response) -> dict[str, Any]:
    """Asks for a training; an equal one that still waits is given instead of a second one."""
    return ask(engine, "retrain", body, response)


@router.get(
    "/jobs",
    response_model=Page[JobDocument],
    responses=problems.responses("not-found", "invalid-request", "bad-input", "unreachable"),
)
def jobs(market: AnyMarket, engine: EngineDep, cursor: Cursor = None, limit: Limit = 50) -> dict[str, Any]:
    """Jobs of one market or of all, newest first."""
    with store.database.read(engine) as conn:
        market_id = None if market is None else store.markets.need(conn, market).id
        rows = store.jobs.page(conn, market_id, cursor, limit + 1)
    return page(rows, limit, lambda job: job.id, store.jobs.document)


@router.get(
    "/jobs/{job_id}",
    response_model=JobDocument,
    responses=problems.responses("not-found", "invalid-request", "unreachable"),
)
def job(job_id: JobId, engine: EngineDep) -> dict[str, Any]:
    """One job."""
    with store.database.read(engine) as conn:
        return store.jobs.document(store.jobs.get(conn, job_id))


@router.delete(
    "/jobs/{job_id}",
    response_model=JobDocument,
    responses=problems.responses("not-found", "busy", "invalid-request", "unreachable"),
)
def cancel(job_id: JobId, engine: EngineDep) -> dict[str, Any]:
    """Cancels a job: a queued one at once, a running one as soon as its worker hears of it."""
    with store.database.write(engine) as conn:
        return store.jobs.document(store.jobs.cancel(conn, job_id, machine_now()))
