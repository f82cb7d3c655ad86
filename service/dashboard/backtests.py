"""The pages of a market's backtests: how their verdict moved, and the report of each."""

import io
from typing import Annotated

import polars as pl
from fastapi import APIRouter, Path
from fastapi.responses import HTMLResponse
from markupsafe import Markup

import store.backtests
import store.database
import store.markets
from service.dashboard import report
from service.dashboard.page import POLICY, VERSIONS, templates
from service.deps import EngineDep, Ident, OneMarket

SHOWN = 100

router = APIRouter(prefix="/backtests", include_in_schema=False)


@router.get("", response_class=HTMLResponse)
def backtests(market: OneMarket, engine: EngineDep) -> HTMLResponse:
    """A market's backtests, newest first."""
    with store.database.read(engine) as conn:
        row = store.markets.need(conn, market)
        documents = store.backtests.page(conn, row.id, limit=SHOWN)
    text = templates.get_template("backtests.html").render(
        market=market,
        trend=Markup(report.trend(documents)),  # noqa: S704 - a template of ours made it
        versions=VERSIONS,
    )
    return HTMLResponse(text, headers={"content-security-policy": POLICY, "cache-control": "no-store"})


@router.get("/{backtest_id}", response_class=HTMLResponse)
def page(backtest_id: Annotated[Ident, Path()], engine: EngineDep) -> HTMLResponse:
    """The report of one: it can be saved and needs no network."""
    with store.database.read(engine) as conn:
        document = store.backtests.get(conn, backtest_id)
        rows = store.backtests.predictions(conn, backtest_id)
    return HTMLResponse(report.html(document, pl.read_parquet(io.BytesIO(rows))))
