"""Versions, their gradient health, promotion by hand, rolling back."""

from datetime import timedelta

import pytest
from fastapi.testclient import TestClient

import store.database
import store.health
import store.jobs
import store.runs
import store.versions
from model.artifact import Packed
from model.health import GradientHealth
from store.database import Engine
from tests.service.conftest import CLOSE, ETH, add_version, problem

ASK = {"symbol": "ETHUSDT", "timeframe": "1h"}
NEXT = "2024-07-01T01:00:00Z"


@pytest.fixture
def trained(engine: Engine, market_id: int, champion: int) -> int:
    """The champion, with the training run that it came from: two epochs of two layers."""
    with store.database.write(engine) as conn:
        job = store.jobs.ask(conn, "retrain", market_id, {}, CLOSE)
        run = store.runs.add(
            conn,
            job_id=job.id,
            market_id=market_id,
            version_id=champion,
            outcome="promoted",
            reason="first",
            started_at=CLOSE,
            ended_at=CLOSE,
            bars_until=CLOSE,
            scores={},
            curve=[{"epoch": n, "train_loss": 0.7, "stop_loss": 0.69} for n in (1, 2)],
            verdict="healthy",
        )
        layers = [
            GradientHealth(0, "hidden 1", 0.5, 0.001, 0.25, 0.0, 0, "healthy", 0.1, 0.9, 300.0),
            GradientHealth(1, "output", None, None, 0.0, 0.0, 3, "non_finite"),
        ]
        store.health.add(conn, run, [layers, layers])
    return champion


def test_the_list_is_newest_first_and_paged(
    client: TestClient, engine: Engine, market_id: int, champion: int, packed: Packed
) -> None:
    ids = [champion, *(add_version(engine, market_id, packed, None) for _ in range(3))][::-1]
    whole = client.get("/v1/versions").json()
    assert [item["id"] for item in whole["items"]] == ids
    first = client.get("/v1/versions", params={**ASK, "limit": 3}).json()
    second = client.get("/v1/versions", params={**ASK, "limit": 3, "cursor": first["next"]}).json()
    assert first["items"] + second["items"] == whole["items"]
    assert second["next"] is None


def test_a_version_tells_where_it_comes_from(client: TestClient, champion: int, packed: Packed) -> None:
    document = client.get(f"/v1/versions/{champion}").json()
    assert document["sha256"] == packed.sha256
    assert document["market"] == ASK
    assert document["role"] == "champion"
    assert document["manifest"]["horizon"] == 1


def test_gradient_health_is_told_by_epoch_and_layer(client: TestClient, trained: int) -> None:
    document = client.get(f"/v1/versions/{trained}/gradient-health").json()
    assert document["verdict"] == "healthy"
    assert [epoch["epoch"] for epoch in document["epochs"]] == [1, 2]
    assert document["layers"] == document["epochs"][-1]["layers"]
    assert document["layers"][0]["gradient_norm"] == 0.5
    assert document["layers"][1]["gradient_norm"] is None
    assert document["layers"][0]["noise_scale"] == 300.0
    assert document["layers"][1]["cosine"] is None


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/versions/99", 404),
        ("GET", "/v1/versions/99/gradient-health", 404),
        ("POST", "/v1/versions/99/promote", 404),
        ("GET", "/v1/versions/0", 422),
        ("GET", "/v1/versions/first", 422),
        ("GET", "/v1/versions/99999999999999999999", 422),
        ("GET", "/v1/versions?symbol=NOSUCH&timeframe=1h", 404),
        ("GET", "/v1/versions?timeframe=1h", 422),
        ("POST", "/v1/markets/NOSUCH/1h/rollback", 404),
        ("POST", "/v1/markets/ETHUSDT/7x/rollback", 422),
    ],
)
def test_what_is_not_there_is_a_problem(
    client: TestClient, market_id: int, method: str, path: str, status: int
) -> None:
    assert problem(client.request(method, path))["status"] == status


def test_a_version_without_a_training_run_has_no_health(client: TestClient, champion: int) -> None:
    assert problem(client.get(f"/v1/versions/{champion}/gradient-health"))["status"] == 404


def test_a_promoted_version_answers_from_the_next_bar_on(
    client: TestClient, engine: Engine, market_id: int, champion: int, packed: Packed
) -> None:
    other = add_version(engine, market_id, packed, "challenger")
    document = client.post(f"/v1/versions/{other}/promote").json()
    assert (document["role"], document["effective_from"]) == ("champion", NEXT)
    assert client.post("/v1/predict", json=ASK).json()["version"] == champion
    with store.database.read(engine) as conn:
        assert store.versions.champion(conn, market_id, CLOSE + timedelta(hours=1)) == other


def test_the_very_first_champion_answers_at_once(
    client: TestClient, engine: Engine, market_id: int, packed: Packed
) -> None:
    version = add_version(engine, market_id, packed, "rejected")
    client.post(f"/v1/versions/{version}/promote")
    assert client.post("/v1/predict", json=ASK).json()["version"] == version


def test_promoting_the_champion_changes_nothing(
    client: TestClient, engine: Engine, market_id: int, champion: int
) -> None:
    before = client.get(f"/v1/versions/{champion}").json()
    assert client.post(f"/v1/versions/{champion}/promote").json() == before
    with store.database.read(engine) as conn:
        assert len(store.versions.history(conn, market_id)) == 1


def test_rolling_back_brings_the_champion_before_back(
    client: TestClient, engine: Engine, market_id: int, champion: int, packed: Packed
) -> None:
    add_version(engine, market_id, packed, "champion")
    response = client.post(f"/v1/markets/{ETH.symbol}/60m/rollback")
    assert response.status_code == 200
    assert (response.json()["id"], response.json()["effective_from"]) == (champion, NEXT)
    assert problem(client.post("/v1/markets/ETHUSDT/1h/rollback"))["type"] == "/problems/not-found"
