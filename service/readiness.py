"""Does this process live, can it answer, and is what it answers from in order? Add a doubt by adding a row to DOUBTS, or to
OF_SCHEDULE where it is about no market. What is looked at without the database, the journal, is said while it is away too."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, get_args

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

import store.database
from model.bars import iso
from model.errors import Unreachable
from service.deps import ClockDep, EngineDep, MarketDocument, machine_now
from service.overview import MarketState, View
from store.journal import Journal

# The worker scores every few seconds: what waits this long waits for a worker that is not there.
SCORED_WITHIN = timedelta(minutes=5)


# The worker gives a sign of life every few seconds: one that is silent for this long is not there.
ALIVE_WITHIN = timedelta(seconds=30)

Check = Literal["database", "schema", "champions", "schedule", "staleness", "journal"]
CHECKS: tuple[Check, ...] = get_args(Check)
Found = Literal[
    "ok", "degraded", "failed", "unknown"
]  # unknown: not looked at, since an earlier check failed


class Doubt(BaseModel):
    """One reason why answers may be missing or get worse."""

    reason: str = Field(examples=["stale_bars"])
    market: MarketDocument | None
    detail: str


class Readiness(BaseModel):
    """`ok`, `degraded` (answers, with doubts), or `unready` (cannot answer); each reason is named, and each check says
    what it found."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"status": "ok", "reasons": [], "checks": dict.fromkeys(CHECKS, "ok")}]
        }
    )

    status: Literal["ok", "degraded", "unready"]
    reasons: list[Doubt]
    checks: dict[Check, Found]


@dataclass(frozen=True)
class Moment:
    """What doubts are measured by."""

    now: datetime
    replay: bool


def _stale_bars(state: MarketState, at: Moment) -> str | None:
    if state.last_close is None:
        return "it has no bars"
    if state.stale_from is None or at.now <= state.stale_from:
        return None
    return f"its newest bar closed at {iso(state.last_close)}"


def _no_champion(state: MarketState, at: Moment) -> str | None:
    if state.champion is not None:
        return None
    return f"no version answers; `barprop train {state.market}` makes one"


def _learning_stalled(state: MarketState, at: Moment) -> str | None:
    since = state.unscored.since
    if since is None or at.replay:  # a replay's clock runs ahead of its worker by design
        return None
    if at.now - since <= SCORED_WITHIN:
        return None
    return f"{state.unscored.rows} predictions wait for their score, the oldest since {iso(since)}: is a worker running?"


def _retrain_failed(state: MarketState, at: Moment) -> str | None:
    job = state.last_retrain
    return f"job {job.id}: {job.error}" if job is not None and job.state == "failed" else None


@dataclass(frozen=True)
class Asked:
    """A doubt: the check that it belongs to, and what is the matter, or None."""

    check: Check
    asks: Callable[[MarketState, Moment], str | None]


DOUBTS: dict[str, Asked] = {
    "stale_bars": Asked("staleness", _stale_bars),
    "no_champion": Asked("champions", _no_champion),
    "learning_stalled": Asked("schedule", _learning_stalled),
    "retrain_failed": Asked("schedule", _retrain_failed),
}


def doubts(states: list[MarketState], at: Moment) -> Iterator[dict[str, Any]]:
    """Every doubt about every market that is not paused, as documents."""
    for state in states:
        if state.paused:
            continue
        for reason, asked in DOUBTS.items():
            detail = asked.asks(state, at)
            if detail is not None:
                market = {"symbol": state.market.symbol, "timeframe": state.market.timeframe}
                yield {"reason": reason, "market": market, "detail": detail}


def _no_worker(view: View, now: datetime) -> str | None:
    """Whether nobody does what happens by itself. A demo's clock does not count here."""
    if view.worker_seen is None:
        return "no worker is there; `barprop worker` starts one"
    if now - view.worker_seen > ALIVE_WITHIN:
        return f"no worker has been seen since {iso(view.worker_seen)}; `barprop worker` starts one"
    return None


def _overdue(view: View, now: datetime) -> str | None:
    if not view.overdue or _no_worker(view, now) is not None:
        return None
    late = ", ".join(f"{kind} has been due since {iso(due)}" for kind, due in view.overdue.items())
    return f"{late}: the worker's log says why"


# Doubts about what happens by itself, whatever the market.
OF_SCHEDULE: dict[str, Callable[[View, datetime], str | None]] = {
    "no_worker": _no_worker,
    "overdue": _overdue,
}


def _doubt(reason: str, detail: str) -> dict[str, Any]:
    return {"reason": reason, "market": None, "detail": detail}


def _of_journal(journal: Journal) -> tuple[Found, list[dict[str, Any]]]:
    """What the check of the journal says, and why: rows that wait are safe, a full one takes no more."""
    waiting, most = journal.waiting, journal.most_rows
    if not waiting:
        return "ok", []
    detail = f"{waiting} of at most {most} rows of the ledger wait in the journal for the database"
    full = waiting >= most
    reason = "journal_full" if full else "journal_waiting"
    return "failed" if full else "degraded", [_doubt(reason, detail)]


def _of_schedule(view: View, now: datetime) -> Iterator[dict[str, Any]]:
    for reason, asks in OF_SCHEDULE.items():
        detail = asks(view, now)
        if detail is not None:
            yield _doubt(reason, detail)


router = APIRouter(tags=["operations"])


@router.get("/livez", response_model=dict[str, str])
async def livez() -> dict[str, str]:
    """The process lives. Nothing else is asked, so that an ailing database restarts no service."""
    return {"status": "ok"}


@router.get(
    "/readyz", response_model=Readiness, responses={503: {"model": Readiness, "description": "Cannot answer"}}
)
def readyz(request: Request, response: Response, engine: EngineDep, clock: ClockDep) -> dict[str, Any]:
    """503 only where this process cannot answer; else 200, and `degraded` with each reason named.

    Whether it can answer is asked now; the reasons may be 5 s old. While the database is away it answers from memory,
    if it has any Signal there and its journal takes what is answered anew.
    """
    if request.app.state.stopping:
        return _unready(response, [_doubt("stopping", "the service is being stopped")], {})
    journal, waits = _of_journal(request.app.state.journal)
    try:
        if not store.database.at_head(engine):
            detail = "the database's schema is not this program's: run `barprop db upgrade`"
            found: dict[Check, Found] = {"database": "ok", "schema": "failed"}
            return _unready(response, [_doubt("schema", detail)], found)
        view = request.app.state.overview.view()
        reasons = [*_of_schedule(view, machine_now()), *doubts(view.markets, Moment(clock(), view.replay))]
    except Unreachable as error:
        found = {"database": "failed", "journal": journal}
        reasons = [_doubt("database", str(error)), *waits]
        if journal == "failed" or not request.app.state.answers.holds_any():
            return _unready(response, reasons, found)
        return {"status": "degraded", "reasons": reasons, "checks": _checks(found)}
    checks: dict[Check, Found] = {**dict.fromkeys(CHECKS, "ok"), "journal": journal}
    for doubt in reasons:
        checks[DOUBTS[doubt["reason"]].check if doubt["reason"] in DOUBTS else "schedule"] = "degraded"
    reasons += waits
    return {"status": "degraded" if reasons else "ok", "reasons": reasons, "checks": checks}


def _unready(
    response: Response, reasons: list[dict[str, Any]], found: Mapping[Check, Found]
) -> dict[str, Any]:
    response.status_code = 503
    return {"status": "unready", "reasons": reasons, "checks": _checks(found)}


def _checks(found: Mapping[Check, Found]) -> dict[Check, Found]:
    unknown: dict[Check, Found] = dict.fromkeys(CHECKS, "unknown")
    return {**unknown, **found}
