"""Ask for walk-forward backtests and read what they found."""

from typing import Annotated, Any, Literal, Self

from fastapi import APIRouter, Path, Response
from pydantic import BaseModel, ConfigDict, Field, model_validator

import store.backtests
import store.database
import store.markets
from model import extras
from service import jobs, problems
from service.deps import (
    Actor,
    AnyMarket,
    Cursor,
    EngineDep,
    Ident,
    Limit,
    MarketBody,
    MarketDocument,
    Page,
    SettingsDep,
    page,
)


class BacktestAsk(MarketBody):
    """Which market to judge, and what to use instead of the settings."""

    window: int | None = Field(None, ge=200, le=10_000_000, description="Bars of each training window.")
    refit_every: int | None = Field(None, ge=1, le=10_000_000, description="Bars between two trainings.")
    first: int | None = Field(
        None, ge=1, le=100_000_000, description="Rows of the first training; judged are those after."
    )
    last: int | None = Field(None, ge=1, le=100_000_000, description="Only the newest bars, this many.")
    expanding: bool | None = Field(None, description="Learn from all bars up to then, not from a window.")
    by_need: bool | None = Field(
        None, description="Train only where the champion has gained nothing on the base rate lately."
    )
    warm: bool | None = Field(None, description="Go on from the champion's weights at each training.")
    members: int | None = Field(None, ge=1, le=64, description="Networks whose mean answers.")
    horizon: int | None = Field(None, ge=1, le=10_000, description="Bars ahead that are predicted.")
    policy: Literal["cost_aware", "sign", "threshold", "kelly", "volatility"] | None = Field(
        None, description="How a forecast becomes a position."
    )
    baselines: list[Literal["base_rate", "no_change", "logistic", "lightgbm"]] | None = Field(
        None, min_length=1, max_length=4, description="What it is compared with; the base rate always."
    )
    resume: bool | None = Field(None, description="Go on where the same backtest was interrupted.")

    @model_validator(mode="after")
    def _one_kind_of_window(self) -> Self:
        if self.expanding and self.window is not None:
            raise ValueError(
                "a window that grows with the bars (expanding) has no length: leave one of them out"
            )
        return self


class Verdict(BaseModel):
    """Whether there is skill, and why that is said; null: too little evidence either way."""

    model_config = ConfigDict(extra="allow")

    skill: bool | None
    text: str


class BacktestDocument(BaseModel):
    """What a backtest found: scores beside the base rate's, trading figures beside buy and hold."""

    model_config = ConfigDict(extra="allow")

    id: int
    created_at: str
    market: MarketDocument
    rows: int = Field(description="Bars that were judged, those with an abstention too.")
    first_judged: str | None
    last_judged: str | None
    scores: dict[str, Any]
    trading: dict[str, Any]
    verdict: Verdict


BacktestId = Annotated[Ident, Path()]
router = APIRouter(prefix="/v1/backtests", tags=["backtests"])


@router.post(
    "",
    status_code=202,
    response_model=jobs.JobDocument,
    responses=jobs.REFUSALS,
)
def ask_backtest(
    body: BacktestAsk, engine: EngineDep, settings: SettingsDep, actor: Actor, response: Response
) -> dict[str, Any]:
    """Asks for a backtest; an equal one that still waits is given instead of a second one."""
    if "lightgbm" in (body.baselines or settings.backtest.baselines):
        extras.need("lightgbm", "baselines")
    return jobs.ask(engine, settings, "backtest", body, actor, response)


@router.get(
    "",
    response_model=Page[BacktestDocument],
    responses=problems.responses("not-found", "invalid-request", "bad-input", "unreachable"),
)
def backtests(
    market: AnyMarket, engine: EngineDep, cursor: Cursor = None, limit: Limit = 20
) -> dict[str, Any]:
    """Backtests of one market or of all, newest first."""
    with store.database.read(engine) as conn:
        market_id = None if market is None else store.markets.need(conn, market).id
        rows = store.backtests.page(conn, market_id, cursor, limit + 1)
    return page(rows, limit, lambda row: row["id"], lambda row: row)


@router.get(
    "/{backtest_id}",
    response_model=BacktestDocument,
    responses=problems.responses("not-found", "invalid-request", "unreachable"),
)
def backtest(backtest_id: BacktestId, engine: EngineDep) -> dict[str, Any]:
    """One backtest."""
    with store.database.read(engine) as conn:
        return store.backtests.get(conn, backtest_id)
