"""Errors are RFC 9457 problem documents, whatever went wrong."""

import logging
from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

import store.database
from model import errors
from model.errors import BarpropError
from service import problems
from service.app import create_app
from store.settings import Settings
from tests.service.conftest import HERE, Clock, problem


def test_an_unknown_address_is_a_problem(client: TestClient) -> None:
    document = problem(client.get("/v1/nothing"))
    assert (document["status"], document["type"]) == (404, "/problems/not-found")
    assert "/v1/nothing" in str(document["detail"])


def test_a_wrong_method_is_a_problem_and_names_the_right_one(client: TestClient) -> None:
    response = client.put("/v1/predict", json={})
    assert problem(response)["status"] == 405
    assert response.headers["allow"] == "POST"


@pytest.mark.parametrize("name", problems.PROBLEMS)
def test_every_problem_says_what_it_means(client: TestClient, name: str) -> None:
    response = client.get(f"/problems/{name}")
    assert response.status_code == 200
    assert problems.PROBLEMS[name].title in response.text
    assert 400 <= problems.PROBLEMS[name].status < 600


def test_an_unknown_problem_is_not_found(client: TestClient) -> None:
    assert problem(client.get("/problems/nonsense"))["status"] == 404


STATUS = {
    errors.NotFound: 404,
    errors.BadInput: 422,
    errors.BadBars: 422,
    errors.BadArtifact: 500,
    errors.Busy: 409,
    errors.QueueFull: 429,
    errors.Unreachable: 503,
    errors.TrainingFailed: 500,
    errors.SeenRows: 500,
    errors.BrokenEvaluation: 500,
    errors.BarpropError: 500,
}


@pytest.fixture
def failing(app: FastAPI) -> Iterator[TestClient]:
    """The service with a route that raises what it is asked to."""

    @app.get("/fail/{name}")
    def fail(name: str) -> None:
        raise {**vars(errors), "ValueError": ValueError}[name]("the reason /etc/secret")

    with TestClient(app, base_url=HERE, raise_server_exceptions=False) as client:
        yield client


@pytest.mark.parametrize("error", STATUS, ids=lambda error: error.__name__)
def test_every_error_of_ours_has_its_status(failing: TestClient, error: type[BarpropError]) -> None:
    response = failing.get(f"/fail/{error.__name__}")
    document = problem(response)
    assert document["status"] == STATUS[error]
    assert ("retry-after" in response.headers) is (error in (errors.Unreachable, errors.QueueFull))
    if STATUS[error] != 500:
        assert document["detail"] == "the reason /etc/secret"


def test_no_error_was_forgotten() -> None:
    ours = {e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, BarpropError)}
    assert ours == set(STATUS)


def test_what_nobody_foresaw_tells_nothing_but_the_request_id(
    failing: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        response = failing.get("/fail/ValueError", headers={"x-request-id": "abc-1"})
    document = problem(response)
    assert document["type"] == "/problems/unexpected"
    assert "secret" not in response.text
    assert "abc-1" in str(document["detail"])
    assert response.headers["x-request-id"] == "abc-1"
    assert "abc-1" in caplog.text
    assert "ValueError" in caplog.text


def test_an_address_cannot_forge_a_line_of_the_log(
    failing: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        failing.get("/fail/ValueError%0AERROR%20forged%1B%5B2J")
    (record,) = [record for record in caplog.records if record.name == "service.requests"]
    assert record.getMessage().endswith("GET /fail/ValueError%0AERROR%20forged%1B%5B2J")


def test_a_database_without_tables_is_unreachable(settings: Settings, clock: Clock) -> None:
    empty = store.database.connect("sqlite:///:memory:")
    with TestClient(create_app(empty, settings, clock), base_url=HERE) as client:
        response = client.get("/v1/markets")
    assert problem(response)["status"] == 503
    assert int(response.headers["retry-after"]) > 0


def test_each_answer_has_an_id_of_its_own(client: TestClient) -> None:
    first, second = (client.get("/livez").headers["x-request-id"] for _ in range(2))
    assert first != second
    forged = client.get("/livez", headers={"x-request-id": "a b\tc" * 50}).headers["x-request-id"]
    assert " " not in forged


def test_the_description_names_every_error_by_its_media_type(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    routes = [
        (path, operation)
        for path, operations in document["paths"].items()
        for operation in operations.values()
        if path.startswith("/v1/")
    ]
    assert len(routes) >= 17
    for path, operation in routes:
        assert operation["tags"], path
        assert operation["summary"], path
        assert operation["description"], path
        wrong = {status: answer for status, answer in operation["responses"].items() if status >= "4"}
        assert "503" in wrong, path
        for answer in wrong.values():
            assert list(answer["content"]) == ["application/problem+json"], path
    assert "HTTPValidationError" not in str(document["paths"])


def test_the_description_works_without_the_internet(client: TestClient) -> None:
    page = client.get("/docs")
    assert page.status_code == 200
    assert "://" not in page.text.replace("http://127.0.0.1", "")
    for name in ("swagger-ui-bundle.js", "swagger-ui.css"):
        assert client.get(f"/static-offline-docs/{name}").status_code == 200
