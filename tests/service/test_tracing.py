"""Spans reach a collector that speaks OTLP over HTTP, as its own protobuf messages say it, and only where one is named."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from fastapi.testclient import TestClient
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

import store.settings
from model.errors import BadInput
from service import tracing
from service.app import create_app
from store.database import Engine
from tests.processes import first_document, http, started
from tests.service.cli.conftest import fresh as fresh
from tests.service.conftest import HERE, Clock

TRACE = "0af7651916cd43dd8448eb211c80319c"


class Collector:
    """What was sent to it: paths, and what decoded from the bodies."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.requests: list[ExportTraceServiceRequest] = []
        self.url = ""

    def spans(self) -> list[Any]:
        """All spans, in the order in which they came."""
        return [
            span
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


def attributes(holder: Any) -> dict[str, Any]:
    return {pair.key: pair.value.string_value or pair.value.int_value for pair in holder.attributes}


@contextmanager
def collecting(seconds: float = 0.0) -> Iterator[Collector]:
    """A collector on this machine that takes so long for each batch."""
    told = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            told.paths.append(self.path)
            told.requests.append(ExportTraceServiceRequest.FromString(body))
            time.sleep(seconds)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        told.url = f"http://127.0.0.1:{server.server_address[1]}"
        yield told
        server.shutdown()


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as told:
        yield told


def client_of(engine: Engine, clock: Clock, endpoint: str | None) -> TestClient:
    settings = store.settings.load(database={"url": str(engine.url)}, otel={"endpoint": endpoint})
    app = create_app(engine, settings, clock)
    return TestClient(app, base_url=HERE, raise_server_exceptions=False)


def test_a_request_is_a_span_with_its_route_and_id(
    engine: Engine, clock: Clock, collector: Collector
) -> None:
    with client_of(engine, clock, collector.url) as client:
        parent = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01", "x-request-id": "mine-1"}
        assert client.get("/v1/versions/7?secret=1", headers=parent).status_code == 404
        own = client.get("/v1/markets").headers["x-request-id"]
    first, second = collector.spans()  # all came before the service had ended
    assert set(collector.paths) == {"/v1/traces"}
    assert (first.name, first.kind) == ("GET /v1/versions/{version_id}", 2)
    assert attributes(first) == {
        "http.request.method": "GET",
        "http.route": "/v1/versions/{version_id}",
        "http.response.status_code": 404,
        "barprop.request_id": "mine-1",
    }
    assert first.trace_id.hex() == TRACE
    assert first.parent_span_id.hex() == "b7ad6b7169203331"
    assert first.end_time_unix_nano > first.start_time_unix_nano
    assert attributes(second)["barprop.request_id"] == own
    assert second.trace_id.hex() != TRACE
    about = attributes(collector.requests[0].resource_spans[0].resource)
    assert about["service.name"] == "barprop"
    assert about["service.version"]


def test_a_failure_is_one_in_the_trace_and_keeps_its_words_to_itself(
    engine: Engine, clock: Clock, collector: Collector
) -> None:
    def fails() -> None:
        raise RuntimeError("secret")

    with client_of(engine, clock, collector.url) as client:
        client.app.add_api_route("/fails", fails)  # type: ignore[attr-defined]
        assert client.get("/fails").status_code == 500
    (span,) = collector.spans()
    assert span.status.code == 2
    assert attributes(span)["error.type"] == "RuntimeError"
    assert attributes(span)["http.response.status_code"] == 500
    assert b"secret" not in collector.requests[0].SerializeToString()


def test_a_refusal_is_traced_too(engine: Engine, clock: Clock, collector: Collector) -> None:
    with client_of(engine, clock, collector.url) as client:
        assert client.get("/v1/markets", headers={"host": "evil.example.com"}).status_code == 403
    assert [span.name for span in collector.spans()] == ["GET unmatched"]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_service_finds_it_by_the_environment(fresh: Engine, collector: Collector, workers: str) -> None:
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_SERVICE_NAME": "mine"}
    with started("serve", "--port", "0", "--no-worker", "--workers", workers, "--json", env=env) as process:
        url = first_document(process)["url"]
        for _ in range(10):
            http("GET", f"{url}/v1/markets")
        process.terminate()
        _, err = process.communicate(timeout=15)
        assert process.returncode == 0
    assert [span.name for span in collector.spans()] == ["GET /v1/markets"] * 10, err
    assert attributes(collector.requests[0].resource_spans[0].resource)["service.name"] == "mine"


def test_a_collector_that_does_not_answer_holds_nobody_up(fresh: Engine) -> None:
    with collecting(30) as silent:
        env = {"BARPROP_OTEL__ENDPOINT": silent.url}
        with started("serve", "--port", "0", "--no-worker", "--json", env=env) as process:
            url = first_document(process)["url"]
            began = time.monotonic()
            for _ in range(600):  # more than one batch
                http("GET", f"{url}/livez")
            assert time.monotonic() - began < 30
            process.terminate()
            assert process.wait(15) == 0


def test_without_one_named_nothing_is_loaded() -> None:
    code = (
        "import sys; from datetime import UTC, datetime; import store.database, store.settings; "
        "from service.app import create_app; "
        "create_app(store.database.connect('sqlite://'), store.settings.load(), lambda: datetime.now(UTC)); "
        "sys.exit(any(name.startswith(('opentelemetry.sdk', 'opentelemetry.exporter')) for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("missing", ["opentelemetry", "opentelemetry.exporter.otlp.proto.http"])
def test_without_the_packages_it_is_said_what_installs_them(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("opentelemetry")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    settings = store.settings.load(otel={"endpoint": "http://127.0.0.1:4318"})
    with pytest.raises(BadInput, match=r"pip install '\.\[otel\]'"):
        tracing.wanted(settings)


@pytest.mark.parametrize("endpoint", ["127.0.0.1:4318", "http://me:secret@collector", "grpc://x", ""])
def test_an_address_that_is_none_is_refused(endpoint: str) -> None:
    with pytest.raises(BadInput, match=r"otel\.endpoint") as refused:
        store.settings.load(otel={"endpoint": endpoint})
    assert "secret" not in str(refused.value)
