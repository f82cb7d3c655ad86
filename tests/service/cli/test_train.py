"""Work that a command line does itself: its row in the jobs, who may hold a market, and what interrupts it."""

import json
import signal
from datetime import timedelta
from pathlib import Path

import pytest

import store.database
import store.jobs
import store.markets
from jobs.executors import machine_now
from model.bars import Market
from store.database import Engine
from store.jobs import Job
from tests.processes import started
from tests.service.cli.conftest import Barprop, hourly_file
from tests.waiting import until

LIVE = Market("LIVE", "1h")


@pytest.fixture
def market_id(fresh: Engine, barprop: Barprop, tmp_path: Path) -> int:
    """A market with bars in a fresh database."""
    assert barprop("ingest", hourly_file(tmp_path, "LIVE"), "LIVE", "1h").code == 0
    with store.database.read(fresh) as conn:
        return store.markets.need(conn, LIVE).id


def last(engine: Engine, market_id: int, kind: str = "retrain") -> Job:
    with store.database.read(engine) as conn:
        job = store.jobs.last(conn, market_id, kind)
    assert job is not None
    return job


def hold(engine: Engine, market_id: int, seconds: float = 30) -> Job:
    """A worker that trains the market at this moment."""
    return store.jobs.start(
        engine, "retrain", market_id, {}, "a-worker", machine_now(), timedelta(seconds=seconds)
    )


def test_a_training_is_a_job_like_any_other(fresh: Engine, market_id: int, barprop: Barprop) -> None:
    ran = barprop("train", "LIVE", "1h", "--window", "900", "--seed", "3", "--json")
    job = last(fresh, market_id)
    assert (job.state, job.progress, job.params) == (
        "succeeded",
        1.0,
        {"warm": False, "window": 900, "seed": 3},
    )
    assert job.result == json.loads(ran.out)


def test_the_same_seed_gives_the_same_weights_and_another_one_others(
    market_id: int, barprop: Barprop
) -> None:
    one, two, other = (
        json.loads(barprop("train", "LIVE", "1h", "--seed", seed, "--json").out)["sha256"]
        for seed in (1, 1, 2)
    )
    assert one == two != other


def test_a_training_that_fails_is_one_line_and_a_failed_job(
    fresh: Engine, barprop: Barprop, tmp_path: Path
) -> None:
    barprop("ingest", hourly_file(tmp_path, "FEW", 20), "FEW", "1h")
    ran = barprop("train", "FEW", "1h", "--json")
    assert (ran.code, ran.out, ran.err.count("\n")) == (1, "", 1)
    with store.database.read(fresh) as conn:
        (job,) = store.jobs.page(conn)
    assert job.state == "failed"
    assert ran.err == f"barprop: {job.error}\n"


def test_a_held_market_is_refused_where_nobody_waits(fresh: Engine, market_id: int, barprop: Barprop) -> None:
    held = hold(fresh, market_id)
    ran = barprop("train", "LIVE", "1h", "--no-wait")
    assert (ran.code, ran.out) == (1, "")
    assert f"job {held.id}" in ran.err


def test_a_held_market_is_waited_for_saying_so(fresh: Engine, market_id: int) -> None:
    held = hold(fresh, market_id)
    with started("train", "LIVE", "1h", "--json", env={}) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("waiting: ")
        with store.database.write(fresh) as conn:
            store.jobs.fail(conn, held.id, "a-worker", machine_now(), "it broke")
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert json.loads(out)["version"] == 1


def test_a_market_whose_worker_died_is_taken_over(fresh: Engine, market_id: int, barprop: Barprop) -> None:
    hold(fresh, market_id, seconds=-1)
    assert barprop("train", "LIVE", "1h", "--no-wait").code == 0


LONG = ("backtest", "LIVE", "1h", "--window", "400", "--refit-every", "1")


def running(engine: Engine, market_id: int) -> bool:
    with store.database.read(engine) as conn:
        job = store.jobs.last(conn, market_id, "backtest")
    return job is not None and job.progress > 0


def test_an_interrupt_leaves_the_job_cancelled(fresh: Engine, market_id: int) -> None:
    with started(*LONG, env={}) as process:
        until(lambda: running(fresh, market_id))
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    kept = "what was done so far is kept: the same command with --resume goes on from there\n"
    assert (process.returncode, out, err) == (130, "", f"{kept}barprop: interrupted\n")
    assert last(fresh, market_id, "backtest").state == "cancelled"


def test_a_cancel_from_elsewhere_ends_the_command(fresh: Engine, market_id: int) -> None:
    with started(*LONG, env={"BARPROP_JOBS__HEARTBEAT_SECONDS": "0.2"}) as process:
        until(lambda: running(fresh, market_id))
        job = last(fresh, market_id, "backtest")
        with store.database.write(fresh) as conn:
            store.jobs.cancel(conn, job.id, machine_now())
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (1, "")
    assert err.startswith(f"barprop: job {job.id} (backtest LIVE 1h) was cancelled")
    assert last(fresh, market_id, "backtest").state == "cancelled"
