"""How much may be asked, and how slowly: by whom it is counted, what the answer says, and that others are served."""

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from http.client import HTTPConnection
from urllib.parse import urlsplit

import pytest
from fastapi.testclient import TestClient
from starlette.types import Message

import store.database
import store.keys
from service import limits
from service.app import create_app
from service.limits import MOST_REMEMBERED, Rate
from store.database import Engine
from store.settings import Settings
from tests.processes import first_document, http, started
from tests.service.conftest import HERE, Clock, problem


def test_a_bucket_gives_a_burst_and_then_one_at_a_time() -> None:
    rate = Rate(per_second=10, burst=3)
    assert [rate.wait("a", 5.0) for _ in range(3)] == [0, 0, 0]
    assert rate.wait("a", 5.0) == pytest.approx(0.1)
    assert rate.wait("a", 5.05) == pytest.approx(0.05)
    assert rate.wait("a", 5.1) == 0
    assert rate.wait("a", 5.1) == pytest.approx(0.1)
    assert rate.wait("b", 5.1) == 0


def test_over_a_long_time_the_rate_is_kept_and_rest_saves_no_more_than_a_burst() -> None:
    rate = Rate(per_second=100, burst=20)
    passed = sum(rate.wait("a", tick / 1000) == 0 for tick in range(10_000))
    assert passed == pytest.approx(10 * 100 + 20, abs=2)
    assert sum(rate.wait("a", 1_000.0) == 0 for _ in range(50)) == 20


def test_a_million_askers_do_not_fill_the_memory() -> None:
    rate = Rate(per_second=1, burst=1)
    for number in range(5 * MOST_REMEMBERED):
        assert rate.wait(str(number), number * 1.0) == 0
    assert len(rate._full_at) <= MOST_REMEMBERED


@pytest.fixture
def slow(engine: Engine, settings: Settings, clock: Clock) -> Settings:
    """One request a minute, three at once."""
    service = settings.service.model_copy(update={"requests_per_second": 1 / 60, "burst": 3})
    return settings.model_copy(update={"service": service})


def test_whoever_asks_too_often_is_told_when_to_come_again(
    engine: Engine, slow: Settings, clock: Clock
) -> None:
    with TestClient(create_app(engine, slow, clock), base_url=HERE) as client:
        assert [client.get("/v1/markets").status_code for _ in range(4)] == [200, 200, 200, 429]
        response = client.get("/v1/nothing")
        assert problem(response)["type"] == "/problems/too-many-requests"
        assert 59 <= int(response.headers["retry-after"]) <= 60
        assert response.headers["ratelimit-policy"] == '"requests";q=3;w=180'
        assert response.headers["ratelimit"] == f'"requests";r=0;t={response.headers["retry-after"]}'
        assert client.get("/livez").status_code == 200


def test_each_key_has_a_rate_of_its_own(engine: Engine, slow: Settings, clock: Clock) -> None:
    service = slow.service.model_copy(update={"require_keys": True})
    app = create_app(engine, slow.model_copy(update={"service": service}), clock)
    with store.database.write(engine) as conn:
        texts = [store.keys.create(conn, "bot", ["read"], datetime.now(UTC))[1] for _ in range(2)]
    with TestClient(app, base_url=HERE) as client:
        for text in texts:
            key = {"authorization": f"Bearer {text}"}
            asked = [client.get("/v1/markets", headers=key).status_code for _ in range(4)]
            assert asked == [200, 200, 200, 429]
        # what has no key costs those who have one nothing
        assert [client.get("/v1/markets").status_code for _ in range(5)] == [401] * 5


def test_without_keys_nobody_is_counted_unless_the_settings_say_so(
    engine: Engine, settings: Settings, clock: Clock
) -> None:
    service = settings.service.model_copy(update={"burst": 3})
    app = create_app(engine, settings.model_copy(update={"service": service}), clock)
    with TestClient(app, base_url=HERE) as client:
        assert {client.get("/problems/busy").status_code for _ in range(10)} == {200}


def test_once_a_body_has_arrived_nothing_is_hurried() -> None:
    async def receive() -> Message:
        if not waits:
            return {"type": "http.request", "body": b"{}", "more_body": False}
        await asyncio.sleep(0.2)
        return {"type": "http.disconnect"}

    async def read() -> list[str]:
        limited = limits.body(receive, most_bytes=10, seconds=0.05)
        first = await limited()
        waits.append(True)
        return [first["type"], (await limited())["type"]]

    waits: list[bool] = []
    assert asyncio.run(read()) == ["http.request", "http.disconnect"]


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real server that waits a second for a body."""
    env = {
        "BARPROP_DATABASE__URL": f"sqlite:///{tmp_path_factory.mktemp('slow') / 'bars.db'}",
        "BARPROP_SERVICE__BODY_SECONDS": "1",
    }
    with started("serve", "--port", "0", "--no-worker", "--json", env=env) as process:
        yield str(first_document(process)["url"])


def connect(url: str) -> socket.socket:
    parts = urlsplit(url)
    assert parts.hostname is not None
    return socket.create_connection((parts.hostname, parts.port or 80), timeout=10)


def head(length: str) -> bytes:
    return (
        "POST /v1/bars HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        f"{length}\r\nconnection: keep-alive\r\n\r\n"
    ).encode()


def read_all(connection: socket.socket) -> bytes:
    """What comes until the other side closes."""
    answer = b""
    while part := connection.recv(65_536):
        answer += part
    return answer


@pytest.mark.parametrize("length", ["content-length: 1000", "transfer-encoding: chunked"])
def test_a_body_that_trickles_is_given_up(impatient: str, length: str) -> None:
    chunk = b"1\r\n \r\n" if "chunked" in length else b" "
    with closing(connect(impatient)) as connection:
        began = time.monotonic()
        connection.sendall(head(length))
        connection.settimeout(0.2)
        answer = b""
        while time.monotonic() < began + 8:
            try:
                connection.sendall(chunk)
                answer += read_all(connection)
                break
            except TimeoutError:
                continue
            except OSError:  # closed while a byte was under way
                break
        assert 0.8 < time.monotonic() - began < 4
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"connection: close" in answer.lower()
    document = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert document["type"] == "/problems/too-slow"
    assert "1 s" in document["detail"]


def test_many_that_trickle_keep_nobody_else_waiting(impatient: str) -> None:
    slow = [connect(impatient) for _ in range(100)]
    try:
        for connection in slow:
            connection.sendall(head("content-length: 1000") + b"{")
        began = time.monotonic()
        assert http("GET", f"{impatient}/v1/markets")[0] == 200
        assert time.monotonic() - began < 1
        for connection in slow:
            assert read_all(connection).startswith(b"HTTP/1.1 408 ")
    finally:
        for connection in slow:
            connection.close()


def test_a_connection_may_rest_for_longer_than_a_body_may_take(impatient: str) -> None:
    with closing(HTTPConnection(urlsplit(impatient).netloc)) as connection:
        connection.connect()
        first = connection.sock
        for _ in range(2):
            connection.request("POST", "/v1/bars", b"{}", {"content-type": "application/json"})
            response = connection.getresponse()
            assert response.status == 422
            response.read()
            time.sleep(1.5)
        assert connection.sock is first


def test_a_strangers_body_is_not_waited_for(tmp_path_factory: pytest.TempPathFactory) -> None:
    env = {
        "BARPROP_DATABASE__URL": f"sqlite:///{tmp_path_factory.mktemp('keys') / 'bars.db'}",
        "BARPROP_SERVICE__REQUIRE_KEYS": "true",
    }
    with (
        started("serve", "--port", "0", "--no-worker", "--json", env=env) as process,
        closing(connect(first_document(process)["url"])) as connection,
    ):
        connection.sendall(head("content-length: 1000") + b"{")
        began = time.monotonic()
        answer = read_all(connection)
        assert answer.startswith(b"HTTP/1.1 401 ")
        assert time.monotonic() - began < 2
