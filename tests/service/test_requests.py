"""What is kept of each request: its ID, and its line in the log, in which no secret stands."""

import json
import logging
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient

import store.settings
from store import context
from store.database import Engine
from tests.processes import first_document, http, started
from tests.service.cli.conftest import Barprop
from tests.service.cli.conftest import barprop as barprop
from tests.service.cli.conftest import fresh as fresh
from tests.service.conftest import HERE

ACCESS = "service.requests"


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """The log from INFO on."""
    caplog.set_level(logging.INFO, ACCESS)
    return caplog


def fields(lines: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [record.fields for record in lines.records if record.name == ACCESS]  # type: ignore[attr-defined]


def test_each_request_has_its_line(client: TestClient, lines: pytest.LogCaptureFixture) -> None:
    client.get("/v1/versions/7", params={"cursor": "1"})
    client.get("/nowhere/secret")
    first, second = fields(lines)
    assert 0 < first.pop("seconds") < 10
    assert first == {
        "method": "GET",
        "route": "/v1/versions/{version_id}",
        "status": 404,
        "actor": "loopback",
    }
    assert (second["route"], second["status"]) == ("unmatched", 404)
    assert "secret" not in lines.text


def test_by_default_nothing_is_written(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(store.settings.Log().level):
        client.get("/livez")
    assert fields(caplog) == []


@pytest.mark.parametrize("kind", ["async", "thread"])
def test_whoever_works_for_a_request_knows_its_id(app: FastAPI, kind: str) -> None:
    async def in_the_loop(request: Request) -> list[str | None]:
        return [context.request_id.get(), request.state.request_id]

    def in_a_thread(request: Request) -> list[str | None]:
        return [context.request_id.get(), request.state.request_id]

    app.add_api_route("/async", in_the_loop)
    app.add_api_route("/thread", in_a_thread)
    with TestClient(app, base_url=HERE) as client:
        known = client.get(f"/{kind}", headers={"x-request-id": "mine-1"}).json()
        assert known == ["mine-1", "mine-1"]
        response = client.get(f"/{kind}")
        assert response.json() == [response.headers["x-request-id"]] * 2 != known
    assert context.request_id.get() is None


def test_no_secret_is_ever_logged(
    fresh: Engine, barprop: Barprop, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = json.loads(barprop("keys", "create", "me", "--json").out)["key"]
    false = secret[:-4] + "AAAA"
    env = {
        "BARPROP_LOG__LEVEL": "DEBUG",
        "BARPROP_LOG__FORMAT": "json",
        "BARPROP_SERVICE__REQUIRE_KEYS": "true",
    }
    with started("serve", "--port", "0", "--json", env=env) as process:
        url = first_document(process)["url"]
        assert http("GET", f"{url}/v1/markets?key={secret}")[0] == 401
        assert http("GET", f"{url}/v1/markets", key=false)[0] == 401
        assert http("GET", f"{url}/v1/markets/{secret}", key=secret)[0] == 404
        assert http("POST", f"{url}/v1/retrains", {"symbol": secret, "timeframe": "1h"}, secret)[0] >= 400
        assert http("GET", f"{url}/v1/markets", key=secret)[0] == 200
        process.terminate()
        _, err = process.communicate(timeout=20)
    written = [json.loads(line) for line in err.splitlines()]
    access = [line for line in written if line["logger"] == ACCESS]
    assert [line["status"] for line in access][:2] == [401, 401]
    assert access[-1] | {"actor": secret.split("_")[1]} == access[-1] or access[-1]["actor"] in secret
    assert all(line["request_id"] and line["seconds"] > 0 for line in access)
    kept = secret.rpartition("_")[2]
    assert len(kept) > 16
    assert kept not in err
    assert false not in err
