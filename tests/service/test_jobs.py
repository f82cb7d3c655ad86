"""Asking for trainings and backtests, watching and cancelling jobs, reading backtests."""

from datetime import timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient

import store.backtests
import store.database
import store.jobs
from store.database import Engine
from tests.service.conftest import CLOSE, problem

ASK = {"symbol": "ETHUSDT", "timeframe": "1h"}
ASKED = {"retrain": "/v1/retrains", "backtest": "/v1/backtests"}
LEASE = timedelta(seconds=30)


@pytest.mark.parametrize("kind", ASKED)
def test_asking_is_accepted_and_tells_where_to_watch(client: TestClient, market_id: int, kind: str) -> None:
    response = client.post(ASKED[kind], json=ASK)
    job = response.json()
    assert response.status_code == 202
    assert response.headers["location"] == f"/v1/jobs/{job['id']}"
    assert {"id", "kind", "market", "state", "progress", "error"} <= set(job)
    assert (job["kind"], job["market"], job["state"], job["progress"], job["error"]) == (
        kind,
        ASK,
        "queued",
        0,
        None,
    )
    assert client.get(response.headers["location"]).json() == job


@pytest.mark.parametrize("kind", ASKED)
def test_an_equal_job_that_still_waits_is_given_instead(
    client: TestClient, market_id: int, kind: str
) -> None:
    first, second = (client.post(ASKED[kind], json=ASK).json() for _ in range(2))
    assert first == second
    other = client.post(ASKED[kind], json={**ASK, "window": 500}).json()
    assert other["id"] != first["id"]
    assert other["params"] == {"window": 500}


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        (path, body, status)
        for path in ASKED.values()
        for body, status in (
            ({"symbol": "NOSUCH", "timeframe": "1h"}, 404),
            ({**ASK, "timeframe": "7x"}, 422),
            ({**ASK, "window": 5}, 422),
            ({**ASK, "window": "many"}, 422),
            ({**ASK, "epochs": 5}, 422),
            ({}, 422),
        )
    ]
    + [("/v1/retrains", {**ASK, "seed": -1}, 422), ("/v1/backtests", {**ASK, "refit_every": 0}, 422)],
)
def test_a_bad_ask_is_a_problem_and_no_job(
    client: TestClient, market_id: int, path: str, body: dict[str, Any], status: int
) -> None:
    assert problem(client.post(path, json=body))["status"] == status
    assert client.get("/v1/jobs").json()["items"] == []


def test_jobs_are_listed_newest_first_and_paged(client: TestClient, market_id: int) -> None:
    ids = [client.post("/v1/retrains", json={**ASK, "seed": seed}).json()["id"] for seed in range(5)][::-1]
    whole = client.get("/v1/jobs", params=ASK).json()
    assert [job["id"] for job in whole["items"]] == ids
    first = client.get("/v1/jobs", params={"limit": 3}).json()
    second = client.get("/v1/jobs", params={"limit": 3, "cursor": first["next"]}).json()
    assert first["items"] + second["items"] == whole["items"]
    assert second["next"] is None


def test_a_queued_job_is_cancelled_at_once(client: TestClient, market_id: int) -> None:
    job = client.post("/v1/retrains", json=ASK).json()
    assert client.delete(f"/v1/jobs/{job['id']}").json()["state"] == "cancelled"
    assert client.delete(f"/v1/jobs/{job['id']}").json()["state"] == "cancelled"


def test_a_running_job_is_asked_to_stop(client: TestClient, market_id: int, engine: Engine) -> None:
    job = client.post("/v1/retrains", json=ASK).json()
    store.jobs.claim(engine, "a worker", CLOSE, LEASE)
    document = client.delete(f"/v1/jobs/{job['id']}").json()
    assert (document["state"], document["cancel_asked"]) == ("running", True)
    assert store.jobs.beat(engine, job["id"], "a worker", CLOSE, LEASE, 0.5) is False


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/jobs/99", 404),
        ("DELETE", "/v1/jobs/99", 404),
        ("GET", "/v1/jobs/first", 422),
        ("DELETE", "/v1/jobs/0", 422),
        ("GET", "/v1/jobs?limit=1000", 422),
        ("GET", "/v1/jobs?cursor=x", 422),
        ("GET", "/v1/jobs?symbol=NOSUCH&timeframe=1h", 404),
        ("GET", "/v1/backtests/99", 404),
        ("GET", "/v1/backtests/0", 422),
        ("GET", "/v1/backtests?symbol=NOSUCH&timeframe=1h", 404),
        ("GET", "/v1/backtests?symbol=ETHUSDT", 422),
    ],
)
def test_what_is_not_there_is_a_problem(client: TestClient, method: str, path: str, status: int) -> None:
    assert problem(client.request(method, path))["status"] == status


FOUND = {
    "market": ASK,
    "rows": 800,
    "first_judged": "2024-05-01T00:00:00Z",
    "last_judged": "2024-06-30T23:00:00Z",
    "window": 2000,
    "scores": {"model": {"log_loss": 0.69}, "base_rate": {"log_loss": 0.693}},
    "trading": {"strategy": {"net_return": 0.01}, "buy_and_hold": {"net_return": 0.02}},
    "verdict": {"skill": None, "text": "within chance", "z": 1.0},
}


def test_backtests_are_told_as_they_were_found(client: TestClient, market_id: int, engine: Engine) -> None:
    with store.database.write(engine) as conn:
        job = store.jobs.ask(conn, "backtest", market_id, {}, CLOSE)
        ids = [store.backtests.add(conn, job.id, market_id, {}, FOUND, b"", CLOSE) for _ in range(3)][::-1]
    document = client.get(f"/v1/backtests/{ids[0]}").json()
    assert document == {**FOUND, "id": ids[0], "created_at": "2024-07-01T00:00:00Z"}
    first = client.get("/v1/backtests", params={**ASK, "limit": 2}).json()
    assert [item["id"] for item in first["items"]] == ids[:2]
    second = client.get("/v1/backtests", params={"cursor": first["next"]}).json()
    assert [item["id"] for item in second["items"]] == ids[2:]
