"""Keys over HTTP: made, listed, rotated and revoked, with the secret in the one answer that makes it."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

import store.database
import store.keys
from service.app import create_app
from store.database import Engine
from store.settings import Settings
from tests.service.conftest import Clock, problem


@pytest.fixture
def admin(engine: Engine, settings: Settings, clock: Clock) -> Iterator[TestClient]:
    """Who may do everything, where keys are needed."""
    service = settings.service.model_copy(update={"require_keys": True})
    app = create_app(engine, settings.model_copy(update={"service": service}), clock)
    with store.database.write(engine) as conn:
        text = store.keys.create(conn, "admin", store.keys.SCOPES, datetime.now(UTC))[1]
    with TestClient(app, base_url="http://bars.example.com", headers=bearing(text)) as made:
        yield made


def bearing(text: str) -> dict[str, str]:
    return {"authorization": f"Bearer {text}"}


def make(client: TestClient, **asked: object) -> dict[str, Any]:
    response = client.post("/v1/keys", json={"name": "bot", **asked})
    assert response.status_code == 201, response.text
    assert response.headers["cache-control"] == "no-store"
    made: dict[str, Any] = response.json()
    return made


def status(client: TestClient, text: str) -> int:
    return client.get("/v1/markets", headers=bearing(text)).status_code


def test_a_key_is_shown_once_and_works_at_once(admin: TestClient) -> None:
    made = make(admin, scopes=["read"])
    text = made.pop("key")
    assert text.startswith(f"bp_{made['prefix']}_")
    listed = admin.get("/v1/keys").json()
    assert listed["next"] is None
    assert listed["items"][1] == made
    assert text.rsplit("_", 1)[1] not in admin.get("/v1/keys").text + admin.get("/v1/audit").text
    assert status(admin, text) == 200


def test_a_key_reads_and_predicts_where_nothing_else_is_asked_and_ends_when_told(admin: TestClient) -> None:
    ends = datetime.now(UTC) + timedelta(days=1)
    made = make(admin, expires_at=ends.isoformat())
    assert made["scopes"] == ["read", "predict"]
    assert datetime.fromisoformat(made["expires_at"]) == ends


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": "b" * 65}, "name"),
        ({"name": "bot", "scopes": ["fly"]}, "scopes.0"),
        ({"name": "bot", "scopes": []}, "scopes"),
        ({"name": "bot", "until": "2024-01-01"}, "until"),
    ],
)
def test_a_key_that_makes_no_sense_is_refused(admin: TestClient, body: object, field: str) -> None:
    said = problem(admin.post("/v1/keys", json=body))
    assert said["type"] == "/problems/invalid-request"
    assert field in str(said["errors"])


def test_a_key_that_would_have_ended_already_is_refused(admin: TestClient) -> None:
    body = {"name": "bot", "expires_at": "2020-01-01T00:00:00Z"}
    assert "would have expired" in str(problem(admin.post("/v1/keys", json=body))["detail"])


def test_a_rotated_key_works_beside_the_old_one_until_that_ends(admin: TestClient) -> None:
    old = make(admin, scopes=["read"])
    response = admin.post(f"/v1/keys/{old['id']}/rotate")
    new = response.json()
    assert response.status_code == 201
    assert response.headers["cache-control"] == "no-store"
    assert (new["name"], new["scopes"], new["replaces"]["id"]) == ("bot", ["read"], old["id"])
    ends = datetime.fromisoformat(new["replaces"]["expires_at"]) - datetime.now(UTC)
    assert timedelta(hours=23) < ends <= timedelta(hours=24)
    assert status(admin, old["key"]) == status(admin, new["key"]) == 200
    newest = admin.post(f"/v1/keys/{new['id']}/rotate", json={"grace_seconds": 0}).json()
    assert status(admin, new["key"]) == 401
    assert status(admin, newest["key"]) == 200
    assert "is expired" in str(problem(admin.post(f"/v1/keys/{new['id']}/rotate"))["detail"])


def test_a_revoked_key_is_refused_at_once_and_revoking_twice_is_once(admin: TestClient) -> None:
    made = make(admin)
    assert status(admin, made["key"]) == 200
    first = admin.delete(f"/v1/keys/{made['id']}").json()
    assert status(admin, made["key"]) == 401
    assert admin.delete(f"/v1/keys/{made['id']}").json() == first
    assert first["revoked_at"] is not None
    revoked = [entry for entry in admin.get("/v1/audit").json()["items"] if entry["action"] == "key.revoke"]
    assert len(revoked) == 1


@pytest.mark.parametrize(("method", "path"), [("DELETE", "/v1/keys/99"), ("POST", "/v1/keys/99/rotate")])
def test_an_unknown_key_is_not_found(admin: TestClient, method: str, path: str) -> None:
    assert problem(admin.request(method, path))["type"] == "/problems/not-found"


def test_without_keys_whoever_is_at_this_machine_may(client: TestClient, app: FastAPI) -> None:
    assert make(client)["scopes"] == ["read", "predict"]
    assert client.get("/v1/audit").json()["items"][0]["actor"] == "loopback"
