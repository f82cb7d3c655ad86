"""The markets, the breaks in their bars, and stepping back to the champion before."""

from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, JsonValue

import model.bars
import store.audit
import store.breaks
import store.database
import store.markets
import store.versions
from service import overview, problems
from service.deps import Actor, ClockDep, EngineDep, MarketDocument, Page, SettingsDep, machine_now
from service.versions import VersionDocument

MARKET: dict[str, JsonValue] = {
    "market": {"symbol": "ETHUSDT", "timeframe": "1h"},
    "paused": False,
    "created_at": "2024-06-30T23:00:12Z",
    "bars": 37992,
    "last_close": "2024-07-01T00:00:00Z",
    "champion": 7,
}


class MarketItem(BaseModel):
    """A market, how many bars it has, when the newest of them closed, and which version answers."""

    model_config = ConfigDict(json_schema_extra={"examples": [MARKET]})

    market: MarketDocument
    paused: bool = Field(description="A paused market gets no scheduled work and abstains.")
    created_at: str
    bars: int
    last_close: str | None
    champion: int | None


class BreakItem(BaseModel):
    """A place where bars do not follow each other as they should."""

    kind: Literal["gap", "jump"]
    ts: str = Field(description="Open time of the first bar after it.")
    size: float = Field(description="Of a gap the number of bars that are missing, of a jump its log return.")


router = APIRouter(prefix="/v1", tags=["markets"])


@router.get("/markets", response_model=Page[MarketItem], responses=problems.responses("unreachable"))
def all_markets(engine: EngineDep) -> dict[str, Any]:
    """Every market. The list has one page."""
    with store.database.read(engine) as conn:
        items = [overview.document(conn, row) for row in store.markets.all(conn)]
    return {"items": items, "next": None}


@router.get(
    "/markets/{symbol}/{timeframe}/breaks",
    response_model=Page[BreakItem],
    responses=problems.responses("not-found", "invalid-request", "bad-input", "unreachable"),
)
def breaks(symbol: str, timeframe: str, engine: EngineDep, settings: SettingsDep) -> dict[str, Any]:
    """Every gap and jump, newest first, found in the bars as they are now. The list has one page."""
    market = model.bars.market(symbol, timeframe)
    with store.database.read(engine) as conn:
        row = store.markets.need(conn, market)
        return store.breaks.document(conn, row, settings.training.jump_z)


@router.post(
    "/markets/{symbol}/{timeframe}/rollback",
    response_model=VersionDocument,
    responses=problems.responses("not-found", "invalid-request", "bad-input", "unreachable"),
)
def rollback(symbol: str, timeframe: str, engine: EngineDep, clock: ClockDep, actor: Actor) -> dict[str, Any]:
    """The champion before this one serves again, from the next bar on: a bar's first Signal stands."""
    now, market = clock(), model.bars.market(symbol, timeframe)
    with store.database.write(engine) as conn:
        row = store.markets.need(conn, market)
        version = store.versions.rollback(conn, row.id, now, store.versions.takes_effect(conn, row, now))
        store.audit.note(conn, actor, "version.rollback", str(market), {"version": version}, machine_now())
        return store.versions.document(store.versions.get(conn, version))
