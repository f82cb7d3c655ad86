"""The service as one value: routes, the layers around them, and the state that they share. No job is started here."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import Depends, FastAPI
from fastapi.security import HTTPBearer
from fastapi_offline import FastAPIOffline
from prometheus_client import CollectorRegistry

from service import (
    backtests,
    bars,
    jobs,
    markets,
    metrics,
    predictions,
    problems,
    readiness,
    security,
    versions,
)
from service.dashboard import backtests as pages
from service.dashboard import page
from service.deps import Clock
from service.overview import Overview
from service.requests import Requests
from store.database import Engine
from store.settings import Settings

ROUTERS = (
    predictions.router,
    bars.router,
    markets.router,
    versions.router,
    backtests.router,
    jobs.router,
    readiness.router,
    metrics.router,
    page.router,
    pages.router,
)

ABOUT = """Price bars in, calibrated signals out.

A Signal is a *prediction* (a probability, a price and its interval) or an *abstention* with its reason; both are
answers. Errors are RFC 9457 problem documents whose `type` is stable. Times are ISO 8601 in UTC. Lists are
`{"items": […], "next": cursor or null}`, newest first; `cursor` continues after a page."""


def create_app(engine: Engine, settings: Settings, clock: Clock) -> FastAPI:
    """The service over the database of `engine`. `clock` tells the time that Signals are for: a demo's or the machine's."""
    registry = CollectorRegistry()
    app = FastAPIOffline(
        title="Barprop",
        version=version("barprop"),
        description=ABOUT,
        lifespan=_lifespan,
        # only says in the documentation that a key may be needed: the gate below asks for it
        dependencies=[Depends(HTTPBearer(auto_error=False, description="Needed beyond loopback: `bp_…`"))],
    )
    app.state.engine = engine
    app.state.settings = settings
    app.state.clock = clock
    app.state.predictors = {}
    app.state.stopping = False
    app.state.registry = registry
    app.state.overview = Overview(engine, settings.service.stale_after_timeframes)
    registry.register(metrics.DomainCollector(app.state.overview, clock))
    for router in ROUTERS:
        app.include_router(router)
    problems.install(app)
    # the last one added is the outermost
    app.add_middleware(security.Gate, engine=engine, settings=settings)
    app.add_middleware(Requests, metrics=metrics.HttpMetrics(registry))
    _document_problems(app)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    yield
    app.state.stopping = True


def _document_problems(app: FastAPI) -> None:
    """Makes the OpenAPI document name errors by the media type that they are sent with."""
    original = app.openapi

    def openapi() -> dict[str, Any]:
        return app.openapi_schema or problems.name_media_type(original())

    app.openapi = openapi  # type: ignore[method-assign]
