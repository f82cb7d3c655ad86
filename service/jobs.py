"""Ask for work, watch it, cancel it. No job runs here: a route writes a row, and the worker takes it."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

from fastapi import APIRouter, Path, Response
from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

import store.audit
import store.database
import store.jobs
import store.markets
from model import extras
from model.bars import Market, iso
from model.errors import BadInput
from service import problems
from service.deps import (
    Actor,
    AnyMarket,
    ClockDep,
    Cursor,
    EngineDep,
    Ident,
    Limit,
    MarketBody,
    MarketDocument,
    Page,
    SettingsDep,
    Time,
    machine_now,
    page,
)
from store.database import Connection, Engine
from store.jobs import Job
from store.settings import Settings

# Exchanges have nothing from before.
EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)

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
    priority: int = Field(description="0: asked for, 1: scheduled; asked for goes first.")
    params: dict[str, Any] = Field(description="What was asked for beside the settings.")
    requested_at: str
    started_at: str | None
    ended_at: str | None
    heartbeat_at: str | None
    cancel_asked: bool = Field(description="It runs still, and was told to stop.")
    result: dict[str, Any] | None = Field(
        description="What it found, once it has succeeded; of a backtest the verdict and where the whole of it is."
    )


class RetrainAsk(MarketBody):
    """Which market to train, and what to use instead of the settings."""

    window: int | None = Field(None, ge=200, le=10_000_000, description="Bars of the training window.")
    seed: int | None = Field(None, ge=0, le=2**31 - 1)
    warm: bool | None = Field(None, description="Start from the champion's weights instead of new ones.")


class TuneAsk(MarketBody):
    """Which market's trainings to search better settings for, and how; no setting is changed by it."""

    trials: int | None = Field(
        None, ge=2, le=10_000, description="How many ways are tried, the present one first; else 30."
    )
    only: list[Literal["learning_rate", "width", "depth", "dropout", "window", "horizon"]] | None = Field(
        None, min_length=1, max_length=6, description="Search these alone."
    )
    judge: float | None = Field(
        None, ge=0.05, le=0.9, description="Share of the newest bars that judge; else 0.3."
    )
    timeout: float | None = Field(
        None, gt=0, le=31_536_000, description="Begin no trial after so many seconds."
    )
    last: int | None = Field(None, ge=1, le=100_000_000, description="Only the newest bars, this many.")
    refit_every: int | None = Field(None, ge=1, le=10_000_000, description="Bars between two trainings.")
    seed: int | None = Field(None, ge=0, le=2**31 - 1, description="Of what is tried; else 0.")


class BackfillAsk(MarketBody):
    """Which market to bring from its exchange, and from when on."""

    since: Time = Field(description="Bars that open from then on; without a zone it is UTC.")
    until: Time | None = Field(None, description="Bars that have closed by then; else by now.")

    @model_validator(mode="after")
    def _is_a_span(self) -> Self:
        if self.since < EARLIEST:
            raise ValueError("since is before 1970, of which no exchange has bars")
        if self.until is not None and self.until <= self.since:
            raise ValueError("until must be after since")
        return self


JobId = Annotated[Ident, Path()]
router = APIRouter(prefix="/v1", tags=["jobs"])
# What every ask for a job may be answered with.
REFUSALS = problems.responses(
    "malformed", "not-found", "too-large", "invalid-request", "bad-input", "queue-full", "unreachable"
)


def document(job: Job) -> dict[str, Any]:
    """The job; where its result is a backtest, the address of that document instead of the whole of it."""
    told = store.jobs.document(job)
    if job.kind == "backtest" and job.result is not None:
        ident = job.result["id"]
        told["result"] = {"id": ident, "href": f"/v1/backtests/{ident}", "verdict": job.result["verdict"]}
    return told


def ask(
    engine: Engine, settings: Settings, kind: str, body: MarketBody, actor: str, response: Response
) -> dict[str, Any]:
    """Writes the job's row, or finds the equal one that is still queued, and says where it can be watched."""
    given = body.model_dump(exclude={"symbol", "timeframe"})
    # a switch that is off is as if nothing was said
    params = {name: value for name, value in given.items() if value is not None and value is not False}
    now = machine_now()
    with store.database.write(engine) as conn:
        row = store.markets.need(conn, body.market())
        job = store.jobs.ask(conn, kind, row.id, params, now, most=settings.jobs.max_queued)
        _note(conn, actor, job, now)
    return _accepted(job, response)


def _note(conn: Connection, actor: str, job: Job, now: datetime) -> None:
    if job.requested_at == now:  # else an equal one waited already, and nothing was changed
        detail = {"kind": job.kind, "market": job.market and str(job.market), "params": job.params}
        store.audit.note(conn, actor, "job.ask", f"job {job.id}", detail, now)


def _accepted(job: Job, response: Response) -> dict[str, Any]:
    response.headers["location"] = f"/v1/jobs/{job.id}"
    return document(job)


@router.post("/retrains", status_code=202, response_model=JobDocument, responses=REFUSALS)
def retrain(
    body: RetrainAsk, engine: EngineDep, settings: SettingsDep, actor: Actor, response: Response
) -> dict[str, Any]:
    """Asks for a training; an equal one that still waits is given instead of a second one."""
    return ask(engine, settings, "retrain", body, actor, response)


@router.post("/tunes", status_code=202, response_model=JobDocument, responses=REFUSALS)
def tune(
    body: TuneAsk, engine: EngineDep, settings: SettingsDep, actor: Actor, response: Response
) -> dict[str, Any]:
    """Asks for a search for better settings, judged on the newest bars, which no choice saw. It needs the extra `tune`."""
    extras.need("optuna", "tune")
    return ask(engine, settings, "tune", body, actor, response)


@router.post("/backfills", status_code=202, response_model=JobDocument, responses=REFUSALS)
def backfill(
    body: BackfillAsk,
    engine: EngineDep,
    settings: SettingsDep,
    clock: ClockDep,
    actor: Actor,
    response: Response,
) -> dict[str, Any]:
    """Asks for a market's past from its exchange: what is missing there, and corrections of the newest bars.

    The market needs a source in the settings, but no bars yet. It needs the extra `exchanges`.
    """
    market, now = body.market(), clock()
    _need_source(settings, market)
    extras.need("ccxt", "exchanges")
    if body.since >= now:
        raise BadInput(f"since is {iso(body.since)}, and now is {iso(now)}: nothing can have opened since")
    params = {"symbol": market.symbol, "timeframe": market.timeframe, "since": iso(body.since)}
    if body.until is not None:
        params["until"] = iso(body.until)
    asked_at = machine_now()
    with store.database.write(engine) as conn:
        row = store.markets.find(conn, market)
        market_id = None if row is None else row.id
        job = store.jobs.ask(conn, "backfill", market_id, params, asked_at, most=settings.jobs.max_queued)
        _note(conn, actor, job, asked_at)
    return _accepted(job, response)


def _need_source(settings: Settings, market: Market) -> None:
    named = [source.market for source in settings.sources.markets]
    if market not in named:
        have = f"those that have one are {', '.join(map(str, named))}" if named else "no market has one"
        raise BadInput(f"{market} has no source in the settings (sources.markets): {have}")


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
    return page(rows, limit, lambda job: job.id, document)


@router.get(
    "/jobs/{job_id}",
    response_model=JobDocument,
    responses=problems.responses("not-found", "invalid-request", "unreachable"),
)
def job(job_id: JobId, engine: EngineDep) -> dict[str, Any]:
    """One job."""
    with store.database.read(engine) as conn:
        return document(store.jobs.get(conn, job_id))


@router.delete(
    "/jobs/{job_id}",
    response_model=JobDocument,
    responses=problems.responses("not-found", "invalid-request", "unreachable"),
)
def cancel_job(job_id: JobId, engine: EngineDep, actor: Actor) -> dict[str, Any]:
    """Cancels a job: a queued one at once, a running one as soon as its worker hears of it; an ended one stays."""
    with store.database.write(engine) as conn:
        before = store.jobs.get(conn, job_id)
        job = store.jobs.cancel(conn, job_id, machine_now())
        if (job.state, job.cancel_asked) != (before.state, before.cancel_asked):
            store.audit.note(conn, actor, "job.cancel", f"job {job_id}", {"kind": job.kind}, machine_now())
        return document(job)
