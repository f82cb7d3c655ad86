"""Requests that name themselves: each happens once, and is answered the same again, by whichever process it reaches."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import func, select, update

import store.database
import store.jobs
import store.keys
import store.settings
from model.errors import Busy, NotFound, QueueFull, Unreachable
from service.app import create_app
from store.database import Engine
from store.idempotency import ABANDONED_AFTER
from store.settings import Settings
from store.tables import idempotency_keys
from tests.processes import first_document, started
from tests.service.conftest import CLOSE, ETH, HERE, Clock, bar, problem, walk

ASK = {"symbol": "ETHUSDT", "timeframe": "1h"}
NAME = {"idempotency-key": "6f1c2b0e"}
REPLAYED = "idempotency-replayed"
CHANGING = {
    ("post", "/v1/bars"),
    ("post", "/v1/retrains"),
    ("post", "/v1/backtests"),
    ("post", "/v1/tunes"),
    ("post", "/v1/backfills"),
    ("post", "/v1/versions/{version_id}/promote"),
    ("post", "/v1/markets/{symbol}/{timeframe}/rollback"),
}


class Work:
    """A route of the test's own: counts how often it ran, says so, and fails or waits as it is told."""

    def __init__(self) -> None:
        self.done = 0
        self.errors: list[Exception] = []
        self.running, self.may_go_on = threading.Event(), threading.Event()
        self.may_go_on.set()
        self.lock = threading.Lock()

    def __call__(self) -> dict[str, int]:
        """Runs once."""
        self.running.set()
        assert self.may_go_on.wait(30)
        with self.lock:
            if self.errors:
                raise self.errors.pop(0)
            self.done += 1
            return {"done": self.done}


@pytest.fixture
def work() -> Work:
    """What the routes at /v1/work do, in all services of a test."""
    return Work()


def service(database: Engine, work: Work, clock: Clock, **section: Any) -> FastAPI:
    """The service over that database, with a route of the test's own."""
    settings: Settings = store.settings.load(
        database={"url": database.url.render_as_string(hide_password=False)}, service=section
    )
    app = create_app(database, settings, clock)
    app.post("/v1/work")(work)
    return app


@pytest.fixture
def client(database: Engine, work: Work, clock: Clock) -> Iterator[TestClient]:
    """A client of a service over each kind of database, with ETHUSDT 1h in it."""
    store.bars.add(database, ETH, walk(50), CLOSE)
    with TestClient(service(database, work, clock), base_url=HERE, raise_server_exceptions=False) as made:
        yield made


def names(engine: Engine) -> int:
    with store.database.read(engine) as conn:
        return conn.scalar(select(func.count()).select_from(idempotency_keys)) or 0


def let_die(engine: Engine, ago: timedelta) -> None:
    """As if the process had been killed so long ago, before its answer was kept."""
    at = datetime.now(UTC) - ago
    with store.database.write(engine) as conn:
        conn.execute(update(idempotency_keys).values(status=None, headers=None, body=None, created_at=at))


def test_the_same_again_is_answered_the_same_and_happens_once(client: TestClient) -> None:
    first = client.post("/v1/retrains", json=ASK, headers=NAME)
    client.delete(first.headers["location"])  # else the second would be given the first job anyway
    again = client.post("/v1/retrains", json=ASK, headers=NAME)
    assert (again.status_code, again.content) == (202, first.content)
    for header in ("location", "content-type", "content-length"):
        assert again.headers[header] == first.headers[header]
    assert (first.headers.get(REPLAYED), again.headers[REPLAYED]) == (None, "true")
    assert first.headers["x-request-id"] != again.headers["x-request-id"]
    assert len(client.get("/v1/jobs").json()["items"]) == 1
    other = client.post("/v1/retrains", json=ASK, headers={"idempotency-key": "another"})
    assert other.headers["location"] != first.headers["location"]


def test_without_a_name_nothing_is_kept(client: TestClient, database: Engine, work: Work) -> None:
    assert [client.post("/v1/work").json()["done"] for _ in range(2)] == [1, 2]
    assert names(database) == 0


@pytest.mark.parametrize(
    ("path", "body"),
    [("/v1/retrains", {**ASK, "seed": 2}), ("/v1/backtests", ASK), ("/v1/retrains?x=1", ASK)],
)
def test_a_name_is_of_one_request(client: TestClient, path: str, body: dict[str, Any]) -> None:
    client.post("/v1/retrains", json=ASK, headers=NAME)
    response = client.post(path, json=body, headers=NAME)
    assert problem(response)["type"] == "/problems/idempotency-key-reused"
    assert response.status_code == 422
    assert len(client.get("/v1/jobs").json()["items"]) == 1


def test_while_the_first_is_under_way_the_second_is_told_to_wait(client: TestClient, work: Work) -> None:
    work.may_go_on.clear()
    with ThreadPoolExecutor() as pool:
        first = pool.submit(client.post, "/v1/work", headers=NAME)
        assert work.running.wait(30)
        second = client.post("/v1/work", headers=NAME)
        work.may_go_on.set()
        assert first.result().json() == {"done": 1}
    assert problem(second)["type"] == "/problems/idempotency-key-in-use"
    assert (second.status_code, second.headers["retry-after"]) == (409, "1")
    assert client.post("/v1/work", headers=NAME).json() == {"done": 1}


def test_of_many_at_once_in_two_services_one_is_carried_out(
    database: Engine, url: str, work: Work, clock: Clock
) -> None:
    with ExitStack() as stack:
        engines = [database, store.database.connect(url)]
        stack.callback(engines[1].dispose)
        clients = [
            stack.enter_context(TestClient(service(engine, work, clock), base_url=HERE)) for engine in engines
        ]
        pool = stack.enter_context(ThreadPoolExecutor(16))
        for number in range(10):
            headers = {"idempotency-key": f"race-{number}"}
            asked = [pool.submit(clients[i % 2].post, "/v1/work", headers=headers) for i in range(8)]
            answers = [one.result() for one in asked]
            assert {answer.status_code for answer in answers} <= {200, 409}
            assert {answer.json()["done"] for answer in answers if answer.status_code == 200} == {number + 1}
        assert work.done == 10


def test_who_died_in_the_midst_is_taken_over_from(client: TestClient, database: Engine, work: Work) -> None:
    client.post("/v1/work", headers=NAME)
    let_die(database, ABANDONED_AFTER - timedelta(seconds=20))
    assert client.post("/v1/work", headers=NAME).status_code == 409
    let_die(database, ABANDONED_AFTER)
    assert client.post("/v1/work", headers=NAME).json() == {"done": 2}
    assert client.post("/v1/work", headers=NAME).json() == {"done": 2}


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Unreachable("away"), 503),
        (ValueError("unforeseen"), 500),
        (QueueFull("full"), 429),
        (Busy("held"), 409),
    ],
)
def test_an_answer_that_only_says_not_now_is_not_kept(
    client: TestClient, work: Work, database: Engine, error: Exception, status: int
) -> None:
    work.errors.append(error)
    assert client.post("/v1/work", headers=NAME).status_code == status
    assert names(database) == 0
    assert client.post("/v1/work", headers=NAME).json() == {"done": 1}


def test_a_refusal_that_stays_is_kept(client: TestClient, work: Work) -> None:
    work.errors.append(NotFound("no such thing"))
    first, second = (client.post("/v1/work", headers=NAME) for _ in range(2))
    assert problem(first) == problem(second)
    assert (first.status_code, second.headers[REPLAYED], work.done) == (404, "true", 0)


@pytest.mark.parametrize(
    "keys", [[b""], [b"two words"], [b"x" * 256], ["ключ".encode()], [b"tab\t"], [b"one", b"two"]]
)
def test_a_name_that_is_none_is_refused(client: TestClient, work: Work, keys: list[bytes]) -> None:
    response = client.post("/v1/work", headers=[(b"Idempotency-Key", key) for key in keys])
    assert problem(response)["type"] == "/problems/idempotency-key-invalid"
    assert (response.status_code, work.done) == (422, 0)


@pytest.mark.parametrize("key", ["x", "!~", "x" * 255])
def test_every_visible_character_may_be_in_a_name(client: TestClient, key: str) -> None:
    for _ in range(2):
        assert client.post("/v1/work", headers={"idempotency-key": key}).json() == {"done": 1}


@pytest.mark.parametrize("path", ["/v1/keys", "/v1/keys/1/rotate"])
def test_a_secret_is_never_kept(client: TestClient, database: Engine, path: str) -> None:
    body = {"name": "bot", "scopes": ["read"]}
    document = problem(client.post(path, json=body, headers=NAME))
    assert document["type"] == "/problems/idempotency-key-invalid"
    assert "secret" in str(document["detail"])
    assert names(database) == 0
    with store.database.read(database) as conn:
        assert not store.keys.all(conn)


def test_a_prediction_needs_no_name_and_keeps_none(client: TestClient, database: Engine) -> None:
    assert client.post("/v1/predict", json=ASK, headers={"idempotency-key": "two words"}).status_code == 200
    assert names(database) == 0


def test_each_key_has_names_of_its_own(database: Engine, work: Work, clock: Clock) -> None:
    with store.database.write(database) as conn:
        now = datetime.now(UTC)
        secrets = [store.keys.create(conn, name, ["admin"], now)[1] for name in ("a", "b")]
    app = service(database, work, clock, require_keys=True)
    with TestClient(app, base_url=HERE) as client:
        for _ in range(2):
            for number, secret in enumerate(secrets):
                headers = {**NAME, "authorization": f"Bearer {secret}"}
                assert client.post("/v1/work", headers=headers).json() == {"done": number + 1}


def test_a_body_beyond_the_limit_is_refused_and_leaves_the_name_free(
    database: Engine, work: Work, clock: Clock
) -> None:
    def endless() -> Iterator[bytes]:  # without a content-length
        yield from [b"x" * 100] * 20

    with TestClient(service(database, work, clock, max_body_bytes=1_000), base_url=HERE) as client:
        assert problem(client.post("/v1/work", content=endless(), headers=NAME))["status"] == 413
        assert client.post("/v1/work", headers=NAME).json() == {"done": 1}


def test_the_description_names_the_header_where_it_counts(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    named = {
        (method, path)
        for path, operations in paths.items()
        for method, operation in operations.items()
        if "Idempotency-Key" in [parameter["name"] for parameter in operation.get("parameters", [])]
    }
    assert named == CHANGING | {("post", "/v1/work")}
    for method, path in named:
        assert {"409", "422"} <= set(paths[path][method]["responses"])


def test_two_servers_take_a_bar_once(database: Engine, url: str) -> None:
    """Real processes, each asked the same by the same name at once: whoever has an answer has the first one."""
    env = {"BARPROP_DATABASE__URL": url}
    store.bars.add(database, ETH, walk(50), CLOSE)
    with ExitStack() as stack:
        servers = [
            stack.enter_context(started("serve", "--no-worker", "--port", "0", "--json", env=env))
            for _ in range(2)
        ]
        urls = [first_document(server)["url"] for server in servers]
        client = stack.enter_context(httpx.Client(timeout=30))
        pool = stack.enter_context(ThreadPoolExecutor(4))

        def push(url: str, number: int) -> httpx.Response:
            body = {**ASK, "bars": [bar(CLOSE + timedelta(hours=number))]}
            return client.post(f"{url}/v1/bars", json=body, headers={"idempotency-key": f"bar-{number}"})

        for number in range(12):
            answers = [one.result() for one in [pool.submit(push, url, number) for url in urls * 2]]
            answers.append(push(urls[number % 2], number))
            assert {answer.status_code for answer in answers} <= {200, 409}
            assert answers[-1].status_code == 200
            assert {answer.json()["added"] for answer in answers if answer.status_code == 200} == {1}
