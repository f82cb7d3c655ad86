"""The service answers as its OpenAPI document says, whatever it is asked."""

from collections.abc import Iterator

import httpx
import pytest
from fastapi import FastAPI
from fastapi.responses import PlainTextResponse

from benchmarks import fuzz
from benchmarks.fuzzing import past
from benchmarks.fuzzing.run import Found, run
from tests.service.streams import listening


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service that has a past."""
    with past.served(tmp_path_factory.mktemp("past")) as url:
        yield url


def told(found: Found) -> str:
    return "\n".join(
        f"{each.operation}, {each.check}: {each.message}\n{each.again}" for each in found.failures
    )


def test_every_answer_is_as_documented_and_none_is_a_5xx(address: str) -> None:
    document = httpx.get(f"{address}/openapi.json").json()
    found = run(address, fuzz.QUICK_EXAMPLES, fuzz.QUICK_SCENARIOS, seed=1)
    assert found.errors == []
    assert not found.failures, told(found)
    every = {
        f"{method.upper()} {path}" for path, operations in document["paths"].items() for method in operations
    }
    assert set(found.cases) == every
    assert set(found.phases) == {"examples", "coverage", "fuzzing", "stateful"}
    assert {operation for operation in every if not found.done[operation]} == set()


def test_an_answer_that_is_not_as_documented_is_found() -> None:
    app = FastAPI()

    @app.get("/number")
    def number() -> int:
        return PlainTextResponse("seven")  # type: ignore[return-value]

    @app.get("/broken")
    def broken() -> int:
        raise ValueError

    with listening(app) as url:
        found = run(url, 2, 0, seed=1)
    seen = {(each.operation, each.check) for each in found.failures}
    assert ("GET /number", "content_type_conformance") in seen
    assert ("GET /broken", "not_a_server_error") in seen


def test_operations_are_called_by_readable_names_that_are_their_own(address: str) -> None:
    document = httpx.get(f"{address}/openapi.json").json()
    names = [
        operation["operationId"]
        for operations in document["paths"].values()
        for operation in operations.values()
    ]
    assert len(set(names)) == len(names)
    assert {"predict", "push_bars", "newest_signal", "rotate_key", "infer_of_version"} <= set(names)
    assert max(map(len, names)) < 25


def test_allow_names_every_method_of_an_address(address: str) -> None:
    allowed = {
        path: httpx.put(f"{address}{path}").headers["allow"]
        for path in ("/v1/keys", "/v1/bars", "/v1/jobs/1", "/v1/predict")
    }
    assert allowed == {
        "/v1/keys": "GET, POST",
        "/v1/bars": "GET, POST",
        "/v1/jobs/1": "GET, DELETE",
        "/v1/predict": "POST",
    }
