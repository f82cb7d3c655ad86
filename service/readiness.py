"""Does this process live, can it answer, and is what it answers from in order? Add a doubt by adding a row to DOUBTS."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

import store.database
from model.bars import iso
from model.errors import Unreachable
from service.deps import ClockDep, EngineDep, MarketDocument
from service.overview import MarketState

# The worker scores every few seconds: what waits this long waits for a worker that is not there.
SCORED_WITHIN = timedelta(minutes=5)


class Doubt(BaseModel):
    """One reason why answers may be missing or get worse."""

    reason: str = Field(examples=["stale_bars"])
    market: MarketDocument | None
    detail: str


class Readiness(BaseModel):
    """`ok`, `degraded` (answers, with doubts), or `unready` (cannot answer); each reason is named."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "ok", "reasons": []}]})

    status: Literal["ok", "degraded", "unready"]
    reasons: list[Doubt]


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


DOUBTS: dict[str, Callable[[MarketState, Moment], str | None]] = {
    "stale_bars": _stale_bars,
    "no_champion": _no_champion,
    "learning_stalled": _learning_stalled,
    "retrain_failed": _retrain_failed,
}


def doubts(states: list[MarketState], at: Moment) -> Iterator[dict[str, Any]]:
    """Every doubt about every market that is not paused, as documents."""
    for state in states:
        if state.paused:
            continue
        for reason, asks in DOUBTS.items():
            detail = asks(state, at)
            if detail is not None:
                market = {"symbol": state.market.symbol, "timeframe": state.market.timeframe}
                yield {"reason": reason, "market": market, "detail": detail}


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

    Whether it can answer is asked now; the reasons may be 5 s old.
    """
    if request.app.state.stopping:
        return _unready(response, "stopping", "the service is being stopped")
    try:
        if not store.database.at_head(engine):
            return _unready(
                response, "schema", "the database's schema is not this program's: run `barprop db upgrade`"
            )
        view = request.app.state.overview.view()
        reasons = list(doubts(view.markets, Moment(clock(), view.replay)))
    except Unreachable as error:
        # every answer is written to the ledger first, so without a database there is none
        return _unready(response, "database", str(error))
    return {"status": "degraded" if reasons else "ok", "reasons": reasons}


def _unready(response: Response, reason: str, detail: str) -> dict[str, Any]:
    response.status_code = 503
    return {"status": "unready", "reasons": [{"reason": reason, "market": None, "detail": detail}]}
