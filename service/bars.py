"""Push bars in, and read them back."""

from typing import Any

import msgspec
import polars as pl
from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field, JsonValue
from starlette.concurrency import run_in_threadpool

import model.bars
import store.audit
import store.bars
import store.database
import store.markets
from model.bars import BAR_SCHEMA, Market, iso
from model.errors import BadInput
from service import at_hand, problems
from service.deps import (
    Body,
    ClockDep,
    EngineDep,
    Limit,
    MarketBody,
    MarketDocument,
    OneMarket,
    SettingsDep,
    Time,
    machine_now,
)
from store.database import Connection

BAR: dict[str, JsonValue] = {
    "ts": "2024-06-30T23:00:00Z",
    "open": 3435.1,
    "high": 3442.0,
    "low": 3430.4,
    "close": 3438.2,
    "volume": 1250.4,
}


class Bar(Body):
    """A closed bar, named by its open time."""

    model_config = ConfigDict(json_schema_extra={"examples": [BAR]})

    ts: Time = Field(description="Open time; without a zone it is UTC.")
    open: float
    high: float
    low: float
    close: float
    volume: float


class Push(MarketBody):
    """Bars of one market, in any order."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"symbol": "ETHUSDT", "timeframe": "1h", "bars": [BAR]}]}
    )

    bars: list[Bar] = Field(min_length=1)


class Rejected(BaseModel):
    """Rows that were refused for one reason; `first` is the open time of the earliest."""

    reason: str
    rows: int
    first: str | None


class Ingested(BaseModel):
    """What became of the bars of one call: counts, and the first and last open time of those accepted."""

    market: MarketDocument
    added: int
    repeated: int
    corrected: int
    rejected: list[Rejected]
    gaps: int
    first: str | None
    last: str | None


class StoredBar(BaseModel):
    """A stored bar, in its newest revision."""

    ts: str
    open: float
    high: float
    low: float
    close: float
    volume: float


class BarPage(BaseModel):
    """Bars, newest first; `next` is the cursor of the older ones, null where there are none."""

    items: list[StoredBar]
    next: str | None


def frame(given: list[Bar], most: int) -> pl.DataFrame:
    """The bars of a request as a frame (BAR_SCHEMA). Raises BadInput where there are too many."""
    if len(given) > most:
        raise BadInput(f"{len(given)} bars in one request; at most {most}")
    return pl.DataFrame(
        {name: [getattr(bar, name) for bar in given] for name in BAR_SCHEMA}, schema=BAR_SCHEMA
    )


class Pushed(APIRoute):
    """The route that bars come in by."""

    def get_route_handler(self) -> at_hand.Handler:
        """The short way for plain bars, else the usual one."""
        usual = super().get_route_handler()

        async def handle(request: Request) -> Response:
            most = request.app.state.settings.service.max_bars_per_request
            given = at_hand.pushed(await request.body(), most) if at_hand.is_json(request) else None
            if given is None:
                return await usual(request)
            document = await run_in_threadpool(_keep, request, *given)
            return Response(msgspec.json.encode(document), media_type="application/json")

        return handle


def push_bars(body: Push, settings: SettingsDep, request: Request) -> dict[str, Any]:
    """Keeps closed bars; a first push makes the market, and pushing the same again changes nothing.

    Bars that break a rule are rejected and counted; a call without one acceptable bar is refused and says why.
    """
    given = frame(body.bars, settings.service.max_bars_per_request)
    return _keep(request, body.market(), given)


def _keep(request: Request, market: Market, given: pl.DataFrame) -> dict[str, Any]:
    state, actor = request.app.state, request.state.actor

    def noted(conn: Connection, counts: dict[str, int]) -> None:
        store.audit.note(conn, actor, "bars.push", str(market), counts, machine_now())

    report = store.bars.add(state.engine, market, given, state.clock(), noted, state.answers.recent)
    if report.added or report.corrected:
        state.broadcaster.stir(market)
    return report.document()


def push_first(app: FastAPI) -> None:
    """Adds the route that bars come in by. On the app itself and before all others, so that no router is walked
    through to find it."""
    app.router.add_api_route(
        "/v1/bars",
        push_bars,
        methods=["POST"],
        tags=["bars"],
        response_model=Ingested,
        responses=problems.responses(
            "malformed", "too-large", "invalid-request", "bad-bars", "bad-input", "unreachable"
        ),
        route_class_override=Pushed,
    )


router = APIRouter(prefix="/v1", tags=["bars"])


@router.get(
    "/bars",
    response_model=BarPage,
    responses=problems.responses("not-found", "invalid-request", "bad-input", "unreachable"),
)
def newest_bars(
    market: OneMarket, engine: EngineDep, clock: ClockDep, cursor: Time | None = None, limit: Limit = 100
) -> dict[str, Any]:
    """The market's stored bars, newest first."""
    timeframe = model.bars.timeframe(market.timeframe)
    with store.database.read(engine) as conn:
        row = store.markets.need(conn, market)
        bars = store.bars.read(
            conn, row.id, timeframe, closed_by=clock(), opened_before=cursor, last=limit + 1
        )
    shown = [{**bar, "ts": iso(bar["ts"])} for bar in bars.tail(limit).reverse().iter_rows(named=True)]
    return {"items": shown, "next": shown[-1]["ts"] if len(bars) > limit else None}
