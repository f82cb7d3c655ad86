"""Asking for jobs, watching and cancelling them, reading backtests."""

import sys
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, get_args

import pytest
from fastapi.testclient import TestClient

import store.backtests
import store.database
import store.jobs
from model.baselines import BASELINES
from model.portfolio.policies import RULES
from model.tuning import SPACE
from service.app import create_app
from service.backtests import BacktestAsk
from service.jobs import TuneAsk
from store.database import Engine
from store.jobs import Job
from store.settings import Settings, Sources
from tests.service.conftest import CLOSE, HERE, Clock, problem

ASK = {"symbol": "ETHUSDT", "timeframe": "1h"}
ASKED = {"retrain": "/v1/retrains", "backtest": "/v1/backtests", "tune": "/v1/tunes"}
LEASE = timedelta(seconds=30)
SOURCE = {
    **ASK,
    "exchange": "binance",
    "exchange_symbol": "ETH/USDT",
    "since": CLOSE - timedelta(days=30),
}
BACKFILL = {**ASK, "since": "2024-05-01T00:00:00Z"}


@pytest.fixture
def sourced(engine: Engine, settings: Settings, clock: Clock) -> Iterator[TestClient]:
    """A service whose settings name an exchange for ETHUSDT 1h, and whose queue takes two jobs."""
    told = settings.model_copy(
        update={
            "sources": Sources(markets=(SOURCE,)),  # type: ignore[arg-type]
            "jobs": settings.jobs.model_copy(update={"max_queued": 2}),
        }
    )
    app = create_app(engine, told, clock)
    with TestClient(app, base_url=HERE, raise_server_exceptions=False) as made:
        yield made


def claimed(engine: Engine) -> Job:
    job = store.jobs.claim(engine, "a worker", CLOSE, LEASE)
    assert job is not None
    return job


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


OTHER: dict[str, dict[str, Any]] = {
    "retrain": {"window": 500},
    "backtest": {"window": 500},
    "tune": {"only": ["window"]},
}


@pytest.mark.parametrize("kind", ASKED)
def test_an_equal_job_that_still_waits_is_given_instead(
    client: TestClient, market_id: int, kind: str
) -> None:
    first, second = (client.post(ASKED[kind], json=ASK).json() for _ in range(2))
    assert first == second
    other = client.post(ASKED[kind], json={**ASK, **OTHER[kind]}).json()
    assert other["id"] != first["id"]
    assert other["params"] == OTHER[kind]


WHOLE = {
    "retrain": {"window": 500, "seed": 3, "warm": True},
    "backtest": {
        **{"window": 500, "refit_every": 100, "first": 400, "last": 600, "by_need": True, "warm": True},
        **{"members": 2, "horizon": 4, "policy": "kelly", "baselines": ["no_change"], "resume": True},
    },
    "tune": {
        **{"trials": 5, "only": ["window", "dropout"], "judge": 0.2, "timeout": 60.0},
        **{"last": 800, "refit_every": 100, "seed": 3},
    },
}


@pytest.mark.parametrize("kind", WHOLE)
def test_everything_that_can_be_asked_for_reaches_the_job(
    client: TestClient, market_id: int, kind: str
) -> None:
    job = client.post(ASKED[kind], json={**ASK, **WHOLE[kind]}).json()
    assert (job["kind"], job["params"]) == (kind, WHOLE[kind])


@pytest.mark.parametrize(("kind", "switch"), [("retrain", "warm"), ("backtest", "by_need")])
def test_a_switch_that_is_off_is_as_if_nothing_was_said(
    client: TestClient, market_id: int, kind: str, switch: str
) -> None:
    first = client.post(ASKED[kind], json=ASK).json()
    assert client.post(ASKED[kind], json={**ASK, switch: False}).json() == first


def test_what_may_be_named_is_what_there_is() -> None:
    def named(model: Any, field: str) -> set[str]:
        choice = get_args(model.model_fields[field].annotation)[0]
        return set(get_args(get_args(choice)[0] if field in ("only", "baselines") else choice))

    assert named(BacktestAsk, "policy") == set(RULES)
    assert named(BacktestAsk, "baselines") == set(BASELINES)
    assert named(TuneAsk, "only") == set(SPACE)


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
    + [
        (ASKED[kind], {**ASK, **wrong}, 422)
        for kind, wrong in (
            ("retrain", {"seed": -1}),
            ("backtest", {"refit_every": 0}),
            ("backtest", {"policy": "martingale"}),
            ("backtest", {"baselines": ["no_change", "oracle"]}),
            ("backtest", {"baselines": []}),
            ("backtest", {"expanding": True, "window": 500}),
            ("tune", {"only": ["colour"]}),
            ("tune", {"only": []}),
            ("tune", {"trials": 1}),
            ("tune", {"judge": 1.5}),
            ("tune", {"timeout": 0}),
        )
    ],
)
def test_a_bad_ask_is_a_problem_and_no_job(
    client: TestClient, market_id: int, path: str, body: dict[str, Any], status: int
) -> None:
    assert problem(client.post(path, json=body))["status"] == status
    assert client.get("/v1/jobs").json()["items"] == []


@pytest.mark.parametrize(
    ("path", "body", "package", "extra"),
    [
        ("/v1/tunes", ASK, "optuna", "tune"),
        ("/v1/backfills", BACKFILL, "ccxt", "exchanges"),
        ("/v1/backtests", {**ASK, "baselines": ["lightgbm"]}, "lightgbm", "baselines"),
    ],
)
def test_what_needs_a_missing_package_is_refused_at_once_with_what_installs_it(
    sourced: TestClient,
    market_id: int,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    body: dict[str, Any],
    package: str,
    extra: str,
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    document = problem(sourced.post(path, json=body))
    assert (document["status"], document["type"]) == (422, "/problems/bad-input")
    assert (
        document["detail"]
        == f"the package {package} is not there: pip install '.[{extra}]' in Barprop's folder"
    )
    assert sourced.get("/v1/jobs").json()["items"] == []


# ---------------------------------------------------------------- a market's past


def test_a_backfill_of_a_market_without_bars_is_a_job_that_names_it(sourced: TestClient) -> None:
    response = sourced.post("/v1/backfills", json={**BACKFILL, "until": "2024-06-01T02:00:00+02:00"})
    job = response.json()
    assert (response.status_code, response.headers["location"]) == (202, f"/v1/jobs/{job['id']}")
    assert (job["kind"], job["market"], job["state"]) == ("backfill", ASK, "queued")
    assert job["params"] == {**BACKFILL, "until": "2024-06-01T00:00:00Z"}
    assert sourced.get("/v1/markets").json()["items"] == []


def test_a_backfill_of_a_known_market_is_among_its_jobs(sourced: TestClient, market_id: int) -> None:
    job = sourced.post("/v1/backfills", json=BACKFILL).json()
    assert sourced.post("/v1/backfills", json={**ASK, "since": "2024-05-01"}).json() == job
    assert sourced.get("/v1/jobs", params=ASK).json()["items"] == [job]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (
            {**BACKFILL, "symbol": "BTCUSDT"},
            "BTCUSDT 1h has no source in the settings (sources.markets): those",
        ),
        ({**BACKFILL, "timeframe": "4h"}, "those that have one are ETHUSDT 1h"),
        ({**BACKFILL, "timeframe": "7x"}, "7x"),
        ({**BACKFILL, "since": "2024-07-02"}, "since is 2024-07-02T00:00:00Z, and now is"),
        ({**BACKFILL, "since": "1969-12-31"}, "before 1970"),
        ({**BACKFILL, "since": "yesterday"}, "since"),
        ({**BACKFILL, "until": BACKFILL["since"]}, "until must be after since"),
        (ASK, "since"),
    ],
)
def test_a_backfill_that_cannot_be_is_refused_at_once(
    sourced: TestClient, body: dict[str, Any], said: str
) -> None:
    document = problem(sourced.post("/v1/backfills", json=body))
    assert document["status"] == 422
    assert said in str(document["detail"])
    assert sourced.get("/v1/jobs").json()["items"] == []


def test_without_any_source_a_backfill_says_so(client: TestClient, market_id: int) -> None:
    assert "no market has one" in str(problem(client.post("/v1/backfills", json=BACKFILL))["detail"])


# ---------------------------------------------------------------- the queue, and what becomes of a job


def test_a_full_queue_says_when_to_come_again(sourced: TestClient, market_id: int, engine: Engine) -> None:
    first = sourced.post("/v1/retrains", json=ASK).json()
    sourced.post("/v1/tunes", json=ASK)
    for path, body in (
        *((path, {**ASK, "seed": 9}) for path in ("/v1/retrains", "/v1/tunes")),
        ("/v1/backtests", ASK),
        ("/v1/backfills", BACKFILL),
    ):
        response = sourced.post(path, json=body)
        document = problem(response)
        assert (document["status"], document["type"]) == (429, "/problems/queue-full")
        assert int(response.headers["retry-after"]) > 0
    assert sourced.post("/v1/retrains", json=ASK).json() == first
    claimed(engine)
    assert sourced.post("/v1/backtests", json=ASK).status_code == 202
    sourced.delete("/v1/jobs/2")
    assert sourced.post("/v1/backfills", json=BACKFILL).status_code == 202


def test_progress_and_result_are_told(client: TestClient, market_id: int, engine: Engine) -> None:
    asked = client.post("/v1/retrains", json=ASK).json()
    assert (asked["progress"], asked["result"], asked["started_at"]) == (0, None, None)
    job = claimed(engine)
    store.jobs.beat(engine, job.id, "a worker", CLOSE, LEASE, 0.4)
    running = client.get(f"/v1/jobs/{job.id}").json()
    assert (running["state"], running["progress"]) == ("running", 0.4)
    with store.database.write(engine) as conn:
        store.jobs.succeed(conn, job.id, "a worker", CLOSE, {"version": 3})
    ended = client.get(f"/v1/jobs/{job.id}").json()
    assert (ended["state"], ended["progress"], ended["result"]) == ("succeeded", 1, {"version": 3})


def test_a_failed_job_says_why(client: TestClient, market_id: int, engine: Engine) -> None:
    job = client.post("/v1/retrains", json=ASK).json()
    claimed(engine)
    with store.database.write(engine) as conn:
        store.jobs.fail(conn, job["id"], "a worker", CLOSE, "too few bars")
    document = client.get(f"/v1/jobs/{job['id']}").json()
    assert (document["state"], document["error"], document["result"]) == ("failed", "too few bars", None)


def test_a_backtests_job_says_where_its_document_is(
    client: TestClient, market_id: int, engine: Engine
) -> None:
    asked = client.post("/v1/backtests", json=ASK).json()
    claimed(engine)
    with store.database.write(engine) as conn:
        ident = store.backtests.add(conn, asked["id"], market_id, {}, FOUND, b"", CLOSE)
        store.jobs.succeed(conn, asked["id"], "a worker", CLOSE, {"id": ident, **FOUND})
    result = client.get(f"/v1/jobs/{asked['id']}").json()["result"]
    assert result == {"id": ident, "href": f"/v1/backtests/{ident}", "verdict": FOUND["verdict"]}
    assert client.get(result["href"]).json()["rows"] == FOUND["rows"]
    assert client.get("/v1/jobs").json()["items"][0]["result"] == result


def test_jobs_are_listed_newest_first_and_paged(client: TestClient, market_id: int) -> None:
    ids = [client.post("/v1/retrains", json={**ASK, "seed": seed}).json()["id"] for seed in range(5)][::-1]
    whole = client.get("/v1/jobs", params=ASK).json()
    assert [job["id"] for job in whole["items"]] == ids
    first = client.get("/v1/jobs", params={"limit": 3}).json()
    second = client.get("/v1/jobs", params={"limit": 3, "cursor": first["next"]}).json()
    assert first["items"] + second["items"] == whole["items"]
    assert second["next"] is None
    assert client.get("/v1/jobs", params={"cursor": ids[-1]}).json() == {"items": [], "next": None}


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


@pytest.mark.parametrize("end", ["succeeded", "failed"])
def test_cancelling_an_ended_job_changes_nothing(
    client: TestClient, market_id: int, engine: Engine, end: str
) -> None:
    job = client.post("/v1/retrains", json=ASK).json()
    claimed(engine)
    with store.database.write(engine) as conn:
        if end == "failed":
            store.jobs.fail(conn, job["id"], "a worker", CLOSE, "why")
        else:
            store.jobs.succeed(conn, job["id"], "a worker", CLOSE, {})
    ended = client.get(f"/v1/jobs/{job['id']}").json()
    response = client.delete(f"/v1/jobs/{job['id']}")
    assert (response.status_code, response.json()) == (200, ended)
    assert (ended["state"], ended["cancel_asked"]) == (end, False)


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
