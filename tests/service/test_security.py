"""Who may ask what, how much, and from where."""

import asyncio
import base64
import logging
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.types import Message
from starlette.websockets import WebSocket

import store.database
import store.keys
from model.errors import BadInput
from service import security
from service.app import create_app
from store.database import Engine
from store.settings import Settings
from tests import waiting
from tests.service.conftest import HERE, Clock, problem

ASK = {"symbol": "ETHUSDT", "timeframe": "1h"}
# by hand from the routes of design.md: what each needs
NEEDED = {
    ("GET", "/"): "read",
    ("GET", "/docs"): "read",
    ("GET", "/openapi.json"): "read",
    ("GET", "/static/page.js"): "read",
    ("GET", "/problems/not-found"): "read",
    ("GET", "/readyz"): "read",
    ("GET", "/metrics"): "read",
    ("GET", "/v1/bars"): "read",
    ("POST", "/v1/bars"): "ingest",
    ("POST", "/v1/backfills"): "ingest",
    ("POST", "/v1/predict"): "predict",
    ("POST", "/v1/predict/batch"): "predict",
    ("GET", "/v1/predictions"): "read",
    ("GET", "/v1/signals"): "predict",
    ("GET", "/v1/signals/ETHUSDT/1h"): "predict",
    ("GET", "/v1/markets"): "read",
    ("GET", "/v1/markets/ETHUSDT/1h/breaks"): "read",
    ("POST", "/v1/markets/ETHUSDT/1h/rollback"): "admin",
    ("GET", "/v1/versions"): "read",
    ("GET", "/v1/versions/1"): "read",
    ("GET", "/v1/versions/1/gradient-health"): "read",
    ("POST", "/v1/versions/1/promote"): "admin",
    ("POST", "/v1/retrains"): "train",
    ("POST", "/v1/tunes"): "train",
    ("POST", "/v1/backtests"): "train",
    ("GET", "/v1/backtests"): "read",
    ("GET", "/v1/backtests/1"): "read",
    ("GET", "/v1/jobs"): "read",
    ("GET", "/v1/jobs/1"): "read",
    ("DELETE", "/v1/jobs/1"): "train",
    ("GET", "/v1/keys"): "admin",
    ("POST", "/v1/keys"): "admin",
    ("POST", "/v1/keys/999/rotate"): "admin",
    ("DELETE", "/v1/keys/999"): "admin",
    ("GET", "/v1/audit"): "admin",
    ("GET", "/v2"): "read",
    ("GET", "/v2/health/live"): "read",
    ("GET", "/v2/health/ready"): "read",
    ("GET", "/v2/models/ETHUSDT"): "read",
    ("GET", "/v2/models/ETHUSDT/ready"): "read",
    ("POST", "/v2/models/ETHUSDT/infer"): "predict",
    ("GET", "/v2/models/ETHUSDT/versions/1"): "read",
    ("GET", "/v2/models/ETHUSDT/versions/1/ready"): "read",
    ("POST", "/v2/models/ETHUSDT/versions/1/infer"): "predict",
    ("GET", "/v1/nothing"): "read",
    ("POST", "/v1/nothing"): "admin",
    ("DELETE", "/v1/markets/ETHUSDT/1h"): "admin",
}
FILLED = {
    "symbol": "ETHUSDT",
    "timeframe": "1h",
    "model_name": "ETHUSDT",
    "model_version": "1",
    "key_id": "999",
}
OPEN = {"/livez", "/v2/health/live"}
# streams that do not end by themselves; that they are let through is seen in their own tests
ENDLESS = {("GET", "/v1/signals")}


@pytest.fixture
def guarded(engine: Engine, settings: Settings, clock: Clock) -> FastAPI:
    """The service where keys are required."""
    service = settings.service.model_copy(update={"require_keys": True})
    return create_app(engine, settings.model_copy(update={"service": service}), clock)


@pytest.fixture
def stranger(guarded: FastAPI) -> Iterator[TestClient]:
    """A client from elsewhere."""
    with TestClient(guarded, base_url="http://bars.example.com", raise_server_exceptions=False) as made:
        yield made


def key(engine: Engine, *scopes: str, expires_at: datetime | None = None) -> str:
    with store.database.write(engine) as conn:
        return store.keys.create(conn, "a key", scopes, datetime.now(UTC) - timedelta(days=1), expires_at)[1]


def bearing(text: str) -> dict[str, str]:
    return {"authorization": f"Bearer {text}"}


def test_every_route_of_the_service_is_in_the_table(client: TestClient) -> None:
    filled = {
        (method.upper(), re.sub(r"{(\w+)}", lambda part: FILLED.get(part[1], "1"), path))
        for path, operations in client.get("/openapi.json").json()["paths"].items()
        for method in operations
    }
    assert filled - {("GET", "/livez")} <= set(NEEDED)


def kind(response: Any) -> str:
    """The kind of problem that a response tells; under /v2 in the words of that protocol."""
    if not response.request.url.path.startswith("/v2"):
        return str(problem(response)["type"]).removeprefix("/problems/")
    assert set(response.json()) == {"error"}
    return {401: "not-authenticated", 403: "missing-scope"}[response.status_code]


def unknown(client: TestClient, headers: dict[str, str]) -> None:
    """Every route asks who that is."""
    for method, path in NEEDED:
        if path not in OPEN:
            response = client.request(method, path, headers=headers)
            assert response.status_code == 401, (method, path)
            assert kind(response) == "not-authenticated", (method, path)
            assert response.headers["www-authenticate"].split()[0] in ("Bearer", "Basic")


def test_without_a_key_every_route_asks_for_one(stranger: TestClient) -> None:
    unknown(stranger, {})


def test_a_revoked_key_opens_nothing(stranger: TestClient, engine: Engine) -> None:
    text = key(engine, *store.keys.SCOPES)
    with store.database.write(engine) as conn:
        store.keys.revoke(conn, text.split("_")[1], datetime.now(UTC))
    unknown(stranger, bearing(text))


def test_an_expired_key_opens_nothing(stranger: TestClient, engine: Engine) -> None:
    expired = datetime.now(UTC) - timedelta(seconds=1)
    unknown(stranger, bearing(key(engine, *store.keys.SCOPES, expires_at=expired)))


def test_a_key_without_the_scope_is_refused_and_one_with_it_let_through(
    stranger: TestClient, engine: Engine
) -> None:
    alone = {scope: bearing(key(engine, scope)) for scope in store.keys.SCOPES}
    others = {
        scope: bearing(key(engine, *[other for other in store.keys.SCOPES if other != scope]))
        for scope in store.keys.SCOPES
    }
    for (method, path), scope in NEEDED.items():
        if path in OPEN:
            continue
        response = stranger.request(method, path, headers=others[scope])
        assert response.status_code == 403, (method, path)
        assert kind(response) == "missing-scope", (method, path)
        assert f"{scope!r}" in response.text, (method, path)
        if (method, path) not in ENDLESS:
            response = stranger.request(method, path, headers=alone[scope])
            assert response.status_code not in (401, 403), (method, path)


def test_a_head_needs_what_its_get_needs(stranger: TestClient, engine: Engine) -> None:
    assert stranger.head("/v1/keys", headers=bearing(key(engine, "read"))).status_code == 403
    assert stranger.head("/v1/markets", headers=bearing(key(engine, "read"))).status_code != 403


def test_livez_is_open(stranger: TestClient) -> None:
    assert stranger.get("/livez").status_code == 200


def test_a_key_that_is_wrong_revoked_or_expired_is_none(stranger: TestClient, engine: Engine) -> None:
    good = key(engine, "read")
    now = datetime.now(UTC)
    with store.database.write(engine) as conn:
        expired = store.keys.create(conn, "old", ["read"], now - timedelta(days=2), now - timedelta(days=1))[
            1
        ]
    bad = [good[:-1] + ("0" if good[-1] != "0" else "1"), good[:-1], "bp__", "é", "x" * 10_000, expired]
    for text in bad:
        response = stranger.get("/v1/markets", headers={"authorization": f"Bearer {text}".encode()})
        assert response.status_code == 401, text
    assert stranger.get("/v1/markets", headers=bearing(good)).status_code == 200
    with store.database.write(engine) as conn:
        store.keys.revoke(conn, good.split("_")[1], now)
    waiting.until(lambda: stranger.get("/v1/markets", headers=bearing(good)).status_code == 401, 2)


def test_the_use_of_a_key_is_noted(stranger: TestClient, engine: Engine) -> None:
    stranger.get("/v1/markets", headers=bearing(key(engine, "read")))

    def used() -> datetime | None:
        with store.database.read(engine) as conn:
            return store.keys.all(conn)[0].last_used_at

    waiting.until(used, 5)


def basic(text: str) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(f"me:{text}".encode()).decode()}


def test_a_browser_may_give_the_key_as_a_password_to_read(stranger: TestClient, engine: Engine) -> None:
    text = key(engine, *store.keys.SCOPES)
    assert stranger.get("/").headers["www-authenticate"].startswith("Basic")
    assert stranger.get("/", headers=basic(text)).status_code == 200
    # a browser sends it along from any site, so nothing may be changed by it
    response = stranger.post("/v1/retrains", json=ASK, headers=basic(text))
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert stranger.get("/", headers={"authorization": "Basic %%%"}).status_code == 401


def test_a_key_is_never_logged(
    stranger: TestClient, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    text = key(engine, "read")
    with caplog.at_level(logging.DEBUG):
        stranger.get("/v1/markets", headers=bearing(text))
        stranger.post("/v1/predict", json=ASK, headers=bearing(text))
        stranger.get("/v1/markets", headers=bearing(text[:-1]))
    assert text.split("_")[2][:-1] not in caplog.text


@pytest.mark.parametrize(
    ("host", "passes"),
    [
        ("127.0.0.1:8000", True),
        ("localhost:8000", True),
        ("LOCALHOST", True),
        ("[::1]:8000", True),
        ("127.9.9.9", True),
        ("evil.example.com", False),
        ("evil.example.com:8000", False),
        ("localhost.evil.example.com", False),
        ("127.0.0.1.evil.example.com", False),
        ("127.0.0.1@evil.example.com", False),
        ("192.168.1.5:8000", False),
        ("0.0.0.0:8000", False),
        ("", False),
        ("localhost:8000:8000", False),
    ],
)
def test_without_keys_only_this_machines_own_names_are_answered(
    client: TestClient, host: str, passes: bool
) -> None:
    response = client.get("/v1/markets", headers={"host": host})
    assert (response.status_code == 200) is passes
    if not passes:
        assert problem(response)["type"] == "/problems/foreign-host"


@pytest.mark.parametrize(
    ("origin", "passes"),
    [
        ("http://127.0.0.1:8000", True),
        ("http://localhost:3000", True),
        ("https://[::1]", True),
        ("https://evil.example.com", False),
        ("http://localhost.evil.example.com", False),
        ("http://[::1", False),
        ("null", False),
        ("file://", False),
        ("", False),
    ],
)
def test_without_keys_no_other_sites_page_may_ask(client: TestClient, origin: str, passes: bool) -> None:
    response = client.post("/v1/predict", json=ASK, headers={"origin": origin})
    assert (response.status_code != 403) is passes
    if not passes:
        assert problem(response)["type"] == "/problems/foreign-origin"


@pytest.fixture
def narrow(engine: Engine, settings: Settings, clock: Clock) -> FastAPI:
    """The service that takes 1,000 bytes."""
    service = settings.service.model_copy(update={"max_body_bytes": 1000})
    return create_app(engine, settings.model_copy(update={"service": service}), clock)


@pytest.mark.parametrize("path", ["/v1/bars", "/v1/predict", "/v1/retrains"])
def test_a_body_beyond_the_limit_is_refused(narrow: FastAPI, path: str) -> None:
    with TestClient(narrow, base_url=HERE) as client:
        assert problem(client.post(path, content=b" " * 1001))["type"] == "/problems/too-large"
        json = {"content-type": "application/json"}
        assert client.post(path, content=b"[]" + b" " * 998, headers=json).status_code == 422


def test_a_body_of_unknown_length_is_read_no_further_than_the_limit(narrow: FastAPI) -> None:
    headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/v1/bars", "query_string": b"", "headers": headers}
    sent: list[Message] = []
    asked = 0

    async def receive() -> Message:
        nonlocal asked
        asked += 1
        return {"type": "http.request", "body": b" " * 100, "more_body": asked < 100}

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(narrow(scope, receive, send))
    assert sent[0]["status"] == 413
    assert asked == 11


@pytest.mark.parametrize("path", ["/", "/docs", "/v1/markets", "/v1/nothing", "/livez"])
def test_every_answer_bears_the_headers_that_protect_a_browser(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.com", ""])
def test_beyond_this_machine_nobody_listens_without_keys(host: str) -> None:
    security.may_bind(host, keys_exist=True)
    with pytest.raises(BadInput, match="keys create"):
        security.may_bind(host, keys_exist=False)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "[::1]"])
def test_on_this_machine_no_key_is_needed(host: str) -> None:
    security.may_bind(host, keys_exist=False)


def test_beyond_this_machine_keys_are_required_whatever_the_settings_say(settings: Settings) -> None:
    for host, required in (("127.0.0.1", False), ("0.0.0.0", True), ("::", True)):
        service = settings.service.model_copy(update={"host": host})
        assert security.keys_required(settings.model_copy(update={"service": service})) is required


@pytest.mark.parametrize("kind", ["websocket", "something"])
def test_what_is_not_http_is_refused(guarded: FastAPI, kind: str) -> None:
    sent: list[Message] = []

    @guarded.websocket("/socket")
    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": kind, "path": "/socket", "query_string": b"", "headers": [], "subprotocols": []}
    asyncio.run(guarded(scope, receive, send))
    assert [message["type"] for message in sent] == ["websocket.close"]
