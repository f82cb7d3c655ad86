"""Lives, answers, and with which doubts."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

import store.bars
import store.clock
import store.database
import store.jobs
import store.markets
import store.schedules
import store.workers
from model.errors import Unreachable
from service.app import create_app
from service.readiness import CHECKS, DOUBTS, OF_SCHEDULE
from store.database import Engine
from store.settings import Settings
from tests.service.conftest import BARS, CLOSE, ETH, HERE, Clock, walk

ASK = {"symbol": "ETHUSDT", "timeframe": "1h"}


@pytest.fixture(autouse=True)
def worker(engine: Engine) -> None:
    """A worker that gave a sign of life just now."""
    seen(engine, timedelta(0))


def seen(engine: Engine, ago: timedelta) -> None:
    with store.database.write(engine) as conn:
        store.workers.beat(conn, "me", datetime.now(UTC) - ago)


def reasons(client: TestClient, market: object = ASK) -> list[str]:
    response = client.get("/readyz")
    document = response.json()
    assert response.status_code == 200
    assert (document["status"] == "ok") is (document["reasons"] == [])
    assert (document["status"] == "ok") is (set(document["checks"].values()) == {"ok"})
    assert all(reason["market"] == market and reason["detail"] for reason in document["reasons"])
    return [reason["reason"] for reason in document["reasons"]]


def checks(client: TestClient) -> dict[str, str]:
    document: dict[str, str] = client.get("/readyz").json()["checks"]
    assert list(document) == list(CHECKS)
    return document


def test_livez_asks_nothing(client: TestClient, engine: Engine) -> None:
    engine.dispose()
    assert client.get("/livez").json() == {"status": "ok"}


def test_an_empty_service_is_ready(client: TestClient) -> None:
    assert reasons(client) == []


def test_a_market_with_fresh_bars_and_a_champion_gives_no_doubt(client: TestClient, champion: int) -> None:
    assert reasons(client) == []


def stale(client: TestClient, engine: Engine, clock: Clock) -> None:
    clock.now = CLOSE + timedelta(hours=2, seconds=1)


def fail_retrain(client: TestClient, engine: Engine, clock: Clock) -> None:
    with store.database.write(engine) as conn:
        row = store.markets.need(conn, ETH)
        job = store.jobs.ask(conn, "retrain", row.id, {}, CLOSE)
    store.jobs.claim(engine, "me", CLOSE, timedelta(minutes=1))
    with store.database.write(engine) as conn:
        store.jobs.fail(conn, job.id, "me", CLOSE, "too few bars")


def stall(client: TestClient, engine: Engine, clock: Clock) -> None:
    client.post("/v1/predict", json=ASK)
    clock.now = CLOSE + timedelta(hours=1, minutes=5, seconds=1)
    store.bars.add(engine, ETH, walk(BARS + 1, CLOSE + timedelta(hours=1), seed=8).tail(1), clock.now)


CAUSES: dict[str, Callable[[TestClient, Engine, Clock], None]] = {
    "stale_bars": stale,
    "retrain_failed": fail_retrain,
    "learning_stalled": stall,
}


@pytest.mark.parametrize("reason", CAUSES)
def test_each_doubt_is_named_and_the_service_still_answers(
    client: TestClient, engine: Engine, champion: int, clock: Clock, reason: str
) -> None:
    CAUSES[reason](client, engine, clock)
    assert reasons(client) == [reason]
    assert [name for name, found in checks(client).items() if found == "degraded"] == [DOUBTS[reason].check]


def unseen(engine: Engine) -> None:
    with store.database.write(engine) as conn:
        store.workers.leave(conn, "me")


def silent(engine: Engine) -> None:
    seen(engine, timedelta(seconds=31))


def late(engine: Engine) -> None:
    with store.database.write(engine) as conn:
        store.schedules.note_due(conn, {"fetch": datetime.now(UTC) - timedelta(seconds=61)})


@pytest.mark.parametrize(
    ("cause", "reason", "says"),
    [
        (unseen, "no_worker", "no worker is there"),
        (silent, "no_worker", "no worker has been seen since"),
        (late, "overdue", "fetch has been due since"),
    ],
)
def test_what_happens_by_itself_no_more_is_said(
    client: TestClient, engine: Engine, cause: Callable[[Engine], None], reason: str, says: str
) -> None:
    cause(engine)
    assert reasons(client, market=None) == [reason]
    assert checks(client) == {**dict.fromkeys(CHECKS, "ok"), "schedule": "degraded"}
    assert says in client.get("/readyz").json()["reasons"][0]["detail"]


def test_a_worker_that_paused_for_a_moment_is_there(client: TestClient, engine: Engine) -> None:
    seen(engine, timedelta(seconds=29))
    assert reasons(client) == []


def test_without_a_worker_nothing_else_is_said_of_schedules(client: TestClient, engine: Engine) -> None:
    late(engine)
    unseen(engine)
    assert reasons(client, market=None) == ["no_worker"]


def test_what_is_switched_off_is_never_late(client: TestClient, engine: Engine) -> None:
    late(engine)
    with store.database.write(engine) as conn:
        (fetch,) = [row for row in store.schedules.all(conn) if row.kind == "fetch"]
        store.schedules.set(conn, "fetch", fetch.trigger, fetch.params, False, datetime.now(UTC))
    assert reasons(client) == []


def test_a_market_without_a_champion_is_a_doubt(client: TestClient, market_id: int) -> None:
    assert reasons(client) == ["no_champion"]


def test_no_doubt_was_forgotten() -> None:
    assert set(DOUBTS) == {*CAUSES, "no_champion"}
    assert set(OF_SCHEDULE) == {"no_worker", "overdue"}
    # test_away has that of the journal
    assert set(CHECKS) == {"database", "schema", "journal", *(asked.check for asked in DOUBTS.values())}


def test_the_last_moment_before_a_doubt_is_none(
    client: TestClient, engine: Engine, champion: int, clock: Clock
) -> None:
    clock.now = CLOSE + timedelta(hours=2)
    assert reasons(client) == []


def test_a_prediction_over_a_closed_market_waits_only_from_the_bar_after_it(
    client: TestClient, engine: Engine, champion: int, clock: Clock
) -> None:
    client.post("/v1/predict", json=ASK)
    opens_again = CLOSE + timedelta(hours=48)
    after = walk(BARS + 49, opens_again + timedelta(hours=1), seed=8).tail(1)
    clock.now = opens_again + timedelta(hours=1, minutes=5)
    store.bars.add(engine, ETH, after, clock.now)
    assert reasons(client) == []
    clock.now += timedelta(seconds=1)
    assert reasons(client) == ["learning_stalled"]


def test_the_doubts_and_the_figures_come_from_one_view(
    client: TestClient, engine: Engine, champion: int, clock: Clock
) -> None:
    before = client.get("/metrics").text
    stall(client, engine, clock)
    assert "barprop_unscored_predictions" in before
    assert reasons(client) == []  # for up to 5 s
    clock.now = CLOSE + timedelta(hours=2, seconds=1)
    assert reasons(client) == ["stale_bars"]  # the time is never old


def test_a_database_that_failed_is_asked_again_at_once(
    client: TestClient, engine: Engine, market_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> NoReturn:
        raise Unreachable("the database does not answer")

    with monkeypatch.context() as patched:
        patched.setattr(store.markets, "all", fail)
        assert unready(client) == "database"
    assert reasons(client) == ["no_champion"]


def test_a_paused_market_gives_no_doubt(client: TestClient, engine: Engine, market_id: int) -> None:
    with store.database.write(engine) as conn:
        store.markets.set_paused(conn, market_id, True)
    assert reasons(client) == []


def test_a_replay_does_not_wait_for_scores(
    client: TestClient, engine: Engine, champion: int, clock: Clock
) -> None:
    stall(client, engine, clock)
    store.clock.set(engine, clock.now)
    assert reasons(client) == []


def unready(client: TestClient) -> Any:
    response = client.get("/readyz")
    assert response.status_code == 503
    assert response.json()["status"] == "unready"
    assert set(response.json()["checks"].values()) - {"ok"} <= {"failed", "unknown"}
    return response.json()["reasons"][0]["reason"]


def test_a_stopping_service_is_not_ready(client: TestClient, app: FastAPI) -> None:
    app.state.stopping = True
    assert unready(client) == "stopping"


def test_an_old_schema_is_not_ready(settings: Settings, clock: Clock) -> None:
    empty = store.database.connect("sqlite:///:memory:")
    assert unready(TestClient(create_app(empty, settings, clock), base_url=HERE)) == "schema"


def test_without_a_database_it_is_not_ready(settings: Settings, clock: Clock) -> None:
    nowhere = store.database.connect("postgresql://nobody@127.0.0.1:9/none")
    assert unready(TestClient(create_app(nowhere, settings, clock), base_url=HERE)) == "database"
