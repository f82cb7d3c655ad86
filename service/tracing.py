"""Traces of requests by OpenTelemetry, where the settings or OTEL_EXPORTER_OTLP_ENDPOINT name a collector.

Nothing of it is loaded otherwise. What OpenTelemetry's own variables say (OTEL_SERVICE_NAME, OTEL_TRACES_SAMPLER,
OTEL_EXPORTER_OTLP_HEADERS …) holds as its libraries read it.
"""

from __future__ import annotations

import os
import threading
from importlib.metadata import version
from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from model import extras
from service.requests import route_of
from store.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

NAMED_BY = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
# How long a collector may take for one batch, and all that is still waiting when the service ends.
EXPORT_SECONDS = 3.0
# Headers that say which trace a request belongs to.
CARRIED = (b"traceparent", b"tracestate")


def wanted(settings: Settings) -> bool:
    """Whether traces are wanted. Raises BadInput where they are and the packages for them are not there."""
    if settings.otel.endpoint is None and not any(os.environ.get(name) for name in NAMED_BY):
        return False
    try:
        import opentelemetry.exporter.otlp.proto.http.trace_exporter
        import opentelemetry.sdk.trace.export  # noqa: F401
    except ModuleNotFoundError as error:
        raise extras.missing(error.name, "otel") from error
    return True


def provider(settings: Settings) -> TracerProvider:
    """What makes spans and sends them off, from a thread, in batches."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    base = settings.otel.endpoint
    to = None if base is None else f"{base.rstrip('/')}/v1/traces"
    about = {"service.version": version("barprop")}
    if "OTEL_SERVICE_NAME" not in os.environ:
        about["service.name"] = "barprop"
    made = TracerProvider(resource=Resource.create(about), shutdown_on_exit=False)
    made.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(to, timeout=EXPORT_SECONDS)))
    return made


class Tracing:
    """ASGI middleware: a span for each request, inside the layer that gave the request its ID."""

    def __init__(self, app: ASGIApp, provider: TracerProvider) -> None:
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self.app = app
        self.provider = provider
        self.tracer = provider.get_tracer("barprop", version("barprop"))
        self.kind = SpanKind.SERVER
        self.propagator = TraceContextTextMapPropagator()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on within its span; when the service ends, what was not sent off yet is."""
        if scope["type"] == "http":
            await self._traced(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self.app(scope, receive, self._delivering(send))
        else:
            await self.app(scope, receive, send)

    def _delivering(self, send: Send) -> Send:
        async def delivering(message: Message) -> None:
            if message["type"].startswith(
                "lifespan.shutdown."
            ):  # the server waits for this, and for nothing after it
                ending = threading.Thread(target=self.provider.shutdown, name="end-traces", daemon=True)
                ending.start()
                await run_in_threadpool(ending.join, EXPORT_SECONDS)
            await send(message)

        return delivering

    async def _traced(self, scope: Scope, receive: Receive, send: Send) -> None:
        status = 0

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        carrier = {
            name.decode(): value.decode("latin-1") for name, value in scope["headers"] if name in CARRIED
        }
        method = scope["method"]
        # an error's own text stays here: secrets may stand in it
        with self.tracer.start_as_current_span(
            method,
            self.propagator.extract(carrier),
            self.kind,
            {"http.request.method": method, "barprop.request_id": scope["state"]["request_id"]},
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                await self.app(scope, receive, noting)
            except Exception as error:
                status = status or 500
                span.set_attribute("error.type", type(error).__name__)
                raise
            finally:
                route = route_of(scope)
                span.update_name(f"{method} {route}")
                span.set_attributes({"http.route": route, "http.response.status_code": status})
                if status >= 500:
                    from opentelemetry.trace import StatusCode

                    span.set_status(StatusCode.ERROR)
