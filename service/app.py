"""The service as one value: routes, the layers around them, and the state that they share. No job is started here."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi.telemetry import TelemetryConfig
from fastapi_offline import FastAPIOffline
from prometheus_client import CollectorRegistry
from starlette.concurrency import run_in_threadpool

import store.changes
import store.clock
from service import (
    audit,
    backtests,
    bars,
    idempotency,
    jobs,
    keys,
    markets,
    metrics,
    oip,
    oip_errors,
    predictions,
    problems,
    readiness,
    security,
    stream,
    tracing,
    versions,
)
from service.answers import Answers
from service.broadcast import Broadcaster
from service.compression import Compression
from service.dashboard import backtests as pages
from service.dashboard import page
from service.deps import Clock
from service.keyring import Keyring
from service.overview import Overview
from service.requests import Requests
from store.database import Engine
from store.journal import Journal
from store.settings import Settings

ROUTERS = (
    predictions.router,
    stream.router,
    oip.router,
    bars.router,
    markets.router,
    versions.router,
    backtests.router,
    jobs.router,
    keys.router,
    audit.router,
    readiness.router,
    metrics.router,
    page.router,
    pages.router,
)

ABOUT = """Price bars in, calibrated signals out.

A Signal is a *prediction* (a probability, a price and its interval) or an *abstention* with its reason; both are
answers. Errors are RFC 9457 problem documents whose `type` is stable. Times are ISO 8601 in UTC. Lists are
`{"items": […], "next": cursor or null}`, newest first; `cursor` continues after a page."""

# FastAPI's own is off: it would hold addresses and the words of errors, in which secrets may stand. Traces are ours.
TELEMETRY: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}


def create_app(engine: Engine, settings: Settings, clock: Clock | None = None) -> FastAPI:
    """The service over the database of `engine`. `clock` tells the time that Signals are for, if not the database's: a
    demo's or the machine's."""
    watch = store.changes.watch(engine)
    clock = clock or store.clock.followed(watch)
    registry = CollectorRegistry()
    metrics.add_up(registry)
    journal = Journal(
        settings.service.journal,
        engine,
        settings.service.journal_rows,
        metrics.JournalMetrics(registry).note,
    )
    app = FastAPIOffline(
        title="Barprop",
        version=version("barprop"),
        description=ABOUT,
        lifespan=_lifespan,
        generate_unique_id_function=_operation_id,
        telemetry=TELEMETRY,
    )
    app.state.engine = engine
    app.state.settings = settings
    app.state.clock = clock
    app.state.stopping = False
    app.state.registry = registry
    app.state.overview = Overview(engine, settings.service.stale_after_timeframes)
    registry.register(metrics.DomainCollector(app.state.overview, clock))
    app.state.watch = watch
    app.state.journal = journal
    app.state.answers = Answers(engine, settings, watch, clock, journal)
    app.state.keyring = Keyring(engine, watch.mark)
    app.state.broadcaster = Broadcaster(
        engine,
        watch,
        app.state.answers,
        lambda: app.state.stopping,
        metrics.StreamMetrics(registry),
    )
    predictions.at_hand_first(app)
    bars.push_first(app)
    for router in ROUTERS:
        app.include_router(router)
    problems.install(app)
    layers(app, engine, settings, app.state.keyring, registry)
    _document_problems(app)
    return app


def layers(
    app: FastAPI, engine: Engine, settings: Settings, keyring: Keyring, registry: CollectorRegistry
) -> None:
    """Puts around the routes of `app` what every request passes; the last one added is the outermost."""
    app.add_middleware(idempotency.Idempotency, engine=engine)
    app.add_middleware(Compression)
    app.add_middleware(security.Gate, settings=settings, keyring=keyring)
    if tracing.wanted(settings):
        app.add_middleware(tracing.Tracing, provider=tracing.provider(settings))
    app.add_middleware(Requests, metrics=metrics.HttpMetrics(registry))
    app.add_middleware(oip_errors.Errors)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.keyring.start()
    app.state.answers.start()
    yield
    app.state.stopping = True
    await app.state.broadcaster.close()
    await run_in_threadpool(app.state.keyring.close)
    await run_in_threadpool(app.state.answers.close)
    app.state.watch.close()


def _operation_id(route: APIRoute) -> str:
    """What a generated client calls a route: its function's name, which no other route may have."""
    return route.name


def _document_problems(app: FastAPI) -> None:
    """Makes the OpenAPI document name errors by the media type that they are sent with, and what the gate does."""
    original = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = idempotency.document(problems.name_media_type(original()))
            app.openapi_schema = oip_errors.describe(security.describe(document))
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
