"""What Prometheus is told."""

import re
import shutil
import subprocess
from datetime import UTC, datetime, timedelta

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

import store.backtests
import store.bars
import store.database
import store.jobs
import store.outcomes
import store.predictions
import store.runs
import store.settings
import store.versions
from service.app import create_app
from service.metrics import GAUGES
from service.overview import KEPT_SECONDS
from store.database import Engine
from store.settings import Settings
from tests.service.conftest import BARS, CLOSE, ETH, HERE, Clock, walk

ASK = {"symbol": "ETHUSDT", "timeframe": "1h"}
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples(client: TestClient) -> Samples:
    """Every sample by name and labels."""
    response = client.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def of_market(found: Samples, name: str, **labels: str) -> float | None:
    return found.get((name, tuple(sorted({**ASK, **labels}.items()))))


@pytest.fixture
def lived(client: TestClient, engine: Engine, market_id: int, champion: int, clock: Clock) -> TestClient:
    """A market that was asked, scored, trained and judged; ten minutes after its newest bar's close."""
    client.post("/v1/predict", json=ASK)
    clock.now = CLOSE + timedelta(hours=1, minutes=10)
    store.bars.add(engine, ETH, walk(BARS + 1, CLOSE + timedelta(hours=1), seed=8).tail(1), clock.now)
    store.outcomes.score(engine, clock.now)
    client.post("/v1/predict", json=ASK)
    machine_now = datetime.now(UTC)
    with store.database.write(engine) as conn:
        asked = store.jobs.ask(conn, "retrain", market_id, {}, machine_now)
        store.jobs.ask(conn, "backtest", market_id, {}, machine_now)
    store.jobs.claim(engine, "me", machine_now, timedelta(minutes=5))
    with store.database.write(engine) as conn:
        store.runs.add(
            conn,
            job_id=asked.id,
            market_id=market_id,
            version_id=champion,
            outcome="challenger",
            reason="worse",
            started_at=CLOSE,
            ended_at=CLOSE,
            bars_until=CLOSE,
            scores={},
            curve=[],
            verdict="vanishing",
        )
        store.jobs.succeed(conn, asked.id, "me", machine_now - timedelta(seconds=50), {})
        verdict = {"skill": False, "text": "none"}
        store.backtests.add(conn, asked.id, market_id, {}, {"verdict": verdict}, b"", CLOSE)
    return client


def test_an_empty_service_has_every_family_with_its_help(client: TestClient) -> None:
    text = client.get("/metrics").text
    helped = re.findall(r"^# HELP (\S+) \S", text, re.MULTILINE)
    assert len(helped) >= 8
    assert all(name.startswith("barprop_") for name in helped)
    assert set(GAUGES) <= set(helped)


def test_the_figures_of_a_market_are_those_of_its_life(
    lived: TestClient, champion: int, engine: Engine
) -> None:
    found = samples(lived)
    with store.database.read(engine) as conn:
        entries = store.predictions.page(conn)
    (outcome,) = [entry.outcome for entry in entries if entry.outcome is not None]
    assert of_market(found, "barprop_bars_stored") == BARS + 1
    assert of_market(found, "barprop_last_bar_age_seconds") == 600
    assert of_market(found, "barprop_champion_version") == champion
    assert of_market(found, "barprop_champion_age_seconds") == 30 * 86400 + 4200
    assert of_market(found, "barprop_live_log_loss") == pytest.approx(outcome.log_loss)
    assert of_market(found, "barprop_live_scored_predictions") == 1
    assert of_market(found, "barprop_unscored_predictions") == 0
    assert of_market(found, "barprop_backtest_skill") == -1
    assert of_market(found, "barprop_gradient_health", verdict="vanishing") == 1
    assert of_market(found, "barprop_gradient_health", verdict="healthy") == 0
    assert of_market(found, "barprop_last_retrain_age_seconds", state="succeeded") == pytest.approx(
        50, abs=20
    )
    assert found["barprop_jobs", (("kind", "retrain"), ("state", "succeeded"))] == 1
    assert found["barprop_jobs", (("kind", "backtest"), ("state", "queued"))] == 1


def test_what_waits_for_its_score_is_counted(
    client: TestClient, engine: Engine, champion: int, clock: Clock
) -> None:
    client.post("/v1/predict", json=ASK)
    clock.now = CLOSE + timedelta(hours=1, minutes=10)
    store.bars.add(engine, ETH, walk(BARS + 1, CLOSE + timedelta(hours=1), seed=8).tail(1), clock.now)
    assert of_market(samples(client), "barprop_unscored_predictions") == 1


def test_the_database_is_read_at_most_once_in_five_seconds(
    client: TestClient, engine: Engine, market_id: int
) -> None:
    assert KEPT_SECONDS == 5
    before = of_market(samples(client), "barprop_bars_stored")
    store.bars.add(engine, ETH, walk(BARS + 1, CLOSE - timedelta(hours=BARS), seed=9).head(1), CLOSE)
    assert of_market(samples(client), "barprop_bars_stored") == before
    fresh = create_app(engine, client.app.state.settings, lambda: CLOSE)  # type: ignore[attr-defined]
    assert of_market(samples(TestClient(fresh, base_url=HERE)), "barprop_bars_stored") == BARS + 1


def test_requests_are_counted_by_route_and_not_by_address(client: TestClient) -> None:
    for path in ("/v1/versions/1", "/v1/versions/2", "/v1/versions/x", "/nowhere/1", "/nowhere/2"):
        client.get(path)
    client.request("BREW", "/v1/versions/1")
    found = samples(client)

    def count(method: str, route: str, status: str) -> float | None:
        labels = (("method", method), ("route", route), ("status", status))
        return found.get(("barprop_http_requests_total", labels))

    assert count("GET", "/v1/versions/{version_id}", "404") == 2
    assert count("GET", "/v1/versions/{version_id}", "422") == 1
    assert count("GET", "unmatched", "404") == 2
    assert count("other", "/v1/versions/{version_id}", "405") == 1
    seconds = found["barprop_http_request_duration_seconds_sum", (("method", "GET"), ("route", "unmatched"))]
    assert 0 < seconds < 5


def test_refusals_are_counted_too(client: TestClient) -> None:
    client.get("/v1/markets", headers={"host": "evil.example.com"})
    labels = (("method", "GET"), ("route", "unmatched"), ("status", "403"))
    assert samples(client)["barprop_http_requests_total", labels] == 1


def test_two_services_in_one_process_count_apart(
    app: FastAPI, engine: Engine, settings: Settings, clock: Clock
) -> None:
    other = TestClient(create_app(engine, settings, clock), base_url=HERE)
    TestClient(app, base_url=HERE).get("/v1/markets")
    assert not any("/v1/markets" in str(labels) for _, labels in samples(other))


def test_without_a_database_it_is_said_and_still_answered(settings: Settings, clock: Clock) -> None:
    empty = store.database.connect("sqlite:///:memory:")
    with TestClient(create_app(empty, settings, clock), base_url=HERE) as client:
        assert samples(client)["barprop_database_reachable", ()] == 0


def test_promtool_finds_nothing_to_say(lived: TestClient) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("needs promtool, which comes with Prometheus")
    text = lived.get("/metrics").text
    checked = subprocess.run(
        [promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
