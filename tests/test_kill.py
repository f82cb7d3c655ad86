"""kill -9, wherever it hits: what was acknowledged is there, the old champion serves, and nothing works on as an orphan."""

import json
import signal
import sqlite3
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import store.bars
import store.database
import store.jobs
import store.markets
import store.schedules
from model.bars import Market
from store.database import Engine
from tests.model import markets
from tests.processes import alive, at_work, children, descendants, first_document, http, kill_group, started
from tests.waiting import until

MARKET = Market("LIVE", "1h")
ASK = {"symbol": "LIVE", "timeframe": "1h"}
BARS = 10_700  # a whole window
# A job of a dead worker is failed after seconds here, after half a minute out there.
QUICK = {
    "BARPROP_JOBS__LEASE_SECONDS": "6",
    "BARPROP_JOBS__HEARTBEAT_SECONDS": "0.1",
    "BARPROP_JOBS__POLL_SECONDS": "0.1",
    "BARPROP_TRAINING__JUMP_Z": "1e6",  # this made-up market is wilder than real ones
    "BARPROP_TRAINING__EPOCHS": "300",  # so that a training takes seconds
    "BARPROP_TRAINING__PATIENCE_EPOCHS": "300",
}


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """The environment of a service on a database of its own."""
    return {"BARPROP_DATABASE__URL": f"sqlite:///{tmp_path / 'bars.db'}", **QUICK}


@pytest.fixture
def engine(env: dict[str, str]) -> Engine:
    """That database, with a market whose bars end now; only what is asked for happens."""
    made = store.database.connect(env["BARPROP_DATABASE__URL"])
    store.database.upgrade(made)
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    store.bars.add(made, MARKET, markets.bars(BARS, start=now - BARS * timedelta(hours=1)), now)
    with store.database.write(made) as conn:
        for kind in ("retrain", "backtest"):
            store.schedules.set(conn, kind, "every 30s", {}, False, now)
    return made


def barprop(env: dict[str, str], *arguments: str) -> dict[str, Any]:
    """The document of a command that ends by itself."""
    with started(*arguments, "--json", env=env) as process:
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return dict(json.loads(out))


def serve(env: dict[str, str]) -> Any:
    return started("serve", "--port", "0", "--json", env=env)


def rows(engine: Engine, table: str) -> list[Any]:
    """A table's rows, read past the program."""
    with sqlite3.connect(str(engine.url.database)) as connection:
        return connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall()


def test_a_kill_in_a_retrain_loses_nothing_and_the_next_one_works(
    env: dict[str, str], engine: Engine
) -> None:
    barprop(env, "train", "LIVE", "1h")
    answer, job = killed_in_a_retrain(env, engine)
    before = {table: rows(engine, table) for table in ("bars", "predictions", "versions", "promotions")}
    with serve(env) as process:
        url = first_document(process)["url"]
        assert http("POST", f"{url}/v1/predict", ASK)[1] == answer
        until(lambda: http("GET", f"{url}/v1/jobs/{job['id']}")[1]["state"] == "failed", 30)
        assert "its worker died" in http("GET", f"{url}/v1/jobs/{job['id']}")[1]["error"]
        assert {table: rows(engine, table) for table in before} == before
        again = http("POST", f"{url}/v1/retrains", ASK)[1]
        until(lambda: http("GET", f"{url}/v1/jobs/{again['id']}")[1]["state"] == "succeeded", 60)
    assert len(rows(engine, "versions")) == len(before["versions"]) + 1
    assert rows(engine, "bars") == before["bars"]


def killed_in_a_retrain(env: dict[str, str], engine: Engine) -> tuple[Any, Any]:
    """The answer given before, and the retrain that a kill hit; asked for anew where it ended before the kill came."""
    for _ in range(5):
        with serve(env) as process:
            url = first_document(process)["url"]
            _, answer = http("POST", f"{url}/v1/predict", ASK)
            assert answer["kind"] == "prediction", answer
            status, job = http("POST", f"{url}/v1/retrains", ASK)
            assert status == 202
            until(lambda url=url, job=job: http("GET", f"{url}/v1/jobs/{job['id']}")[1]["progress"] > 0)
            kill_group(process)
        if state(engine, job["id"]) == "running":
            return answer, job
    raise AssertionError("every retrain ended before it could be killed")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_service_with_0_and_leaves_no_process(
    env: dict[str, str], engine: Engine, number: signal.Signals
) -> None:
    with serve(env) as process:
        url = first_document(process)["url"]
        barprop(env, "train", "LIVE", "1h")
        job = http("POST", f"{url}/v1/backtests", {**ASK, "window": 400, "refit_every": 1})[1]
        until(lambda: at_work(process.pid))
        family = descendants(process.pid)
        process.send_signal(number)
        assert process.wait(15) == 0
        until(lambda: not any(map(alive, family)), 5)
    states = {row[0]: row[3] for row in rows(engine, "jobs")}
    assert states[job["id"]] == "failed"
    assert "queued" in states.values(), "it is asked for anew"


def test_a_killed_worker_leaves_no_orphan_at_work(env: dict[str, str], engine: Engine) -> None:
    with started("worker", "--json", env=env) as process:
        first_document(process)
        ask_long(engine)
        until(lambda: at_work(process.pid))
        family = descendants(process.pid)
        process.kill()
        until(lambda: not any(map(alive, family)), 10)


def test_a_killed_service_takes_its_worker_with_it(env: dict[str, str], engine: Engine) -> None:
    with serve(env) as process:
        first_document(process)
        ask_long(engine)
        until(lambda: at_work(process.pid))
        family = descendants(process.pid)
        process.kill()
        until(lambda: not any(map(alive, family)), 15)


def test_a_worker_that_dies_is_replaced(env: dict[str, str], engine: Engine) -> None:
    with serve(env) as process:
        first_document(process)
        until(lambda: children(process.pid), 30)
        (worker,) = children(process.pid)
        subprocess.run(["kill", "-9", str(worker)], check=True)
        until(lambda: [pid for pid in children(process.pid) if pid != worker], 30)


def ask_long(engine: Engine) -> None:
    """Asks for a backtest that takes minutes."""
    with store.database.write(engine) as conn:
        market_id = store.markets.need(conn, MARKET).id
        params = {"window": 400, "refit_every": 1}
        store.jobs.ask(conn, "backtest", market_id, params, datetime.now(UTC))


def state(engine: Engine, job_id: int) -> str:
    with store.database.read(engine) as conn:
        return store.jobs.get(conn, job_id).state
