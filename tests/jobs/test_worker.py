"""The worker: whatever becomes of a job, its row says so, and the worker goes on."""

import logging
import multiprocessing
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import jobs.schedule
import jobs.worker
import store.bars
import store.database
import store.jobs
import store.markets
import store.runs
import store.schedules
import store.versions
import store.workers
from jobs.executors import machine_now
from model.bars import Market
from store.database import Engine
from store.jobs import Job
from store.settings import Settings
from tests.model import markets
from tests.waiting import until

LIVE, FEW = Market("LIVE", "1h"), Market("FEW", "1h")
# A backtest that trains again at every bar takes minutes: time enough to do something to it.
LONG = {"window": 400, "refit_every": 1}


@pytest.fixture
def settings(engine: Engine) -> Settings:
    """A worker that looks often."""
    return settings_of(engine)


def settings_of(engine: Engine, **more: Any) -> Settings:
    often = {"poll_seconds": 0.05, "heartbeat_seconds": 0.2, "lease_seconds": 20.0}
    url = engine.url.render_as_string(hide_password=False)
    return Settings(database={"url": url}, jobs={**often, **more})  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def no_schedules(engine: Engine) -> None:
    """Nothing happens by itself unless a test says so."""
    switch_off(engine)


def switch_off(engine: Engine) -> None:
    with store.database.write(engine) as conn:
        for row in store.schedules.all(conn):
            store.schedules.set(conn, row.kind, row.trigger, row.params, False, machine_now())


@contextmanager
def working(settings: Settings) -> Iterator[threading.Thread]:
    """A worker at work while the block runs; it has ended within 10 s of it."""
    stop = threading.Event()
    thread = threading.Thread(target=jobs.worker.run, args=(settings, stop))
    thread.start()
    try:
        yield thread
    finally:
        stop.set()
        thread.join(10)
        assert not thread.is_alive()


def fill(engine: Engine, market: Market, count: int) -> int:
    """Puts made-up bars in that end now; gives the market's id."""
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    bars = markets.bars(count, start=now - count * timedelta(hours=1))
    store.bars.add(engine, market, bars, now)
    with store.database.read(engine) as conn:
        return store.markets.need(conn, market).id


def ask(engine: Engine, kind: str, market_id: int, **params: object) -> int:
    with store.database.write(engine) as conn:
        return store.jobs.ask(conn, kind, market_id, params, machine_now()).id


def read(engine: Engine, job_id: int) -> Job:
    with store.database.read(engine) as conn:
        return store.jobs.get(conn, job_id)


def state(engine: Engine, job_id: int) -> str:
    return read(engine, job_id).state


def test_a_job_that_fails_says_why_and_the_next_one_runs(engine: Engine, settings: Settings) -> None:
    failing = ask(engine, "retrain", fill(engine, FEW, 20))
    good = ask(engine, "retrain", live_id := fill(engine, LIVE, 1_000))
    with working(settings):
        until(lambda: state(engine, good) not in ("queued", "running"))
    failed, succeeded = read(engine, failing), read(engine, good)
    assert failed.state == "failed"
    assert failed.error
    assert "\n" not in failed.error
    assert succeeded.state == "succeeded"
    assert succeeded.result is not None
    assert succeeded.progress == 1.0
    with store.database.read(engine) as conn:
        assert store.versions.champion(conn, live_id) == succeeded.result["version"]


def child_of(job_id: int) -> multiprocessing.Process:
    return next(p for p in multiprocessing.active_children() if p.name.endswith(f"-{job_id}"))  # type: ignore[return-value]


def test_a_killed_process_leaves_its_job_failed_with_the_reason(engine: Engine, settings: Settings) -> None:
    job_id = ask(engine, "backtest", fill(engine, LIVE, 1_000), **LONG)
    with working(settings):
        until(lambda: state(engine, job_id) == "running")
        child_of(job_id).kill()
        until(lambda: state(engine, job_id) == "failed")
    assert "SIGKILL" in str(read(engine, job_id).error)


def test_a_cancel_ends_a_running_job(engine: Engine, settings: Settings) -> None:
    job_id = ask(engine, "backtest", fill(engine, LIVE, 1_000), **LONG)
    with working(settings):
        until(lambda: read(engine, job_id).progress > 0)
        with store.database.write(engine) as conn:
            store.jobs.cancel(conn, job_id, machine_now())
        until(lambda: state(engine, job_id) == "cancelled", 10)
        until(lambda: not multiprocessing.active_children(), 10)


def test_a_stopped_worker_hands_its_job_to_the_next(engine: Engine, settings: Settings) -> None:
    job_id = ask(engine, "backtest", fill(engine, LIVE, 1_000), **LONG)
    with working(settings):
        until(lambda: state(engine, job_id) == "running")
    job = read(engine, job_id)
    assert (job.state, multiprocessing.active_children()) == ("failed", [])
    assert "stopped" in str(job.error)
    with store.database.read(engine) as conn:
        again = store.jobs.last(conn, job.market_id, "backtest")
    assert again is not None
    assert (again.state, again.params, again.priority) == ("queued", job.params, job.priority)


def test_the_job_of_a_dead_worker_is_failed(engine: Engine, settings: Settings) -> None:
    long_ago = machine_now() - timedelta(minutes=1)
    job = store.jobs.start(
        engine, "retrain", fill(engine, FEW, 20), {}, "dead", long_ago, timedelta(seconds=30)
    )
    with working(settings):
        until(lambda: state(engine, job.id) == "failed", 15)
    assert "worker died" in str(read(engine, job.id).error)


def test_a_schedule_that_is_switched_on_is_followed(engine: Engine, settings: Settings) -> None:
    market_id = fill(engine, LIVE, 1_000)
    with working(settings):
        with store.database.write(engine) as conn:
            store.schedules.set(conn, "retrain", "every 1s", {"min_new_bars": 100}, True, machine_now())

        def champion() -> int | None:
            with store.database.read(engine) as conn:
                return store.versions.champion(conn, market_id)

        until(champion)
    with store.database.read(engine) as conn:
        assert len(store.jobs.page(conn, market_id)) == 1  # and then it is not due any more


def test_two_workers_never_run_a_job_twice(database: Engine) -> None:
    switch_off(database)
    ids = [fill(database, Market(name, "1h"), 1_000) for name in ("A", "B")]
    asked = [ask(database, "retrain", market_id, seed=seed) for market_id in ids for seed in (0, 1)]
    with working(settings_of(database)), working(settings_of(database)):
        until(lambda: all(state(database, job_id) == "succeeded" for job_id in asked))
    with store.database.read(database) as conn:
        runs = [store.runs.of_version(conn, version.id) for version in store.versions.page(conn)]
        owners = {store.jobs.get(conn, job_id).owner for job_id in asked}
    assert sorted(run.job_id for run in runs if run is not None) == asked
    assert len(owners) == 2, "both of them worked"


def test_a_database_that_goes_away_is_waited_for_and_said_once(
    engine: Engine, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "jobs.worker")
    job_id = ask(engine, "retrain", fill(engine, FEW, 20))
    with working(settings):
        until(lambda: state(engine, job_id) == "failed")
        rename_tables(engine, "jobs", "jobs_away")
        until(lambda: caplog.records, 10)
        threading.Event().wait(1.5)
        rename_tables(engine, "jobs_away", "jobs")
        next_id = ask(engine, "retrain", fill(engine, FEW, 20), seed=1)
        until(lambda: state(engine, next_id) == "failed")
    lines = [record.getMessage() for record in caplog.records]
    assert len([line for line in lines if "trying again" in line]) == 1
    assert lines[-1] == "the database answers again"


def rename_tables(engine: Engine, old: str, new: str) -> None:
    """As good as a database that does not answer: whatever is asked of the jobs, it has no such table."""
    with store.database.write(engine) as conn:
        conn.exec_driver_sql(f"ALTER TABLE {old} RENAME TO {new}")


def worker_seen(engine: Engine) -> datetime | None:
    with store.database.read(engine) as conn:
        return store.workers.seen(conn)


def overdue(engine: Engine, before: datetime) -> dict[str, datetime]:
    with store.database.read(engine) as conn:
        return store.schedules.overdue(conn, before)


def test_a_worker_shows_that_it_lives_until_it_ends(
    engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs.worker, "LOOK_SECONDS", 0.1)
    assert worker_seen(engine) is None
    with working(settings):
        until(lambda: worker_seen(engine) is not None)
        first = worker_seen(engine)
        until(lambda: worker_seen(engine) != first)
    assert worker_seen(engine) is None


def test_a_schedule_that_fires_well_is_never_late_and_one_that_fails_is(
    engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> list[Job]:
        raise ValueError("no such folder")

    monkeypatch.setattr(jobs.worker, "LOOK_SECONDS", 0.1)
    monkeypatch.setitem(jobs.schedule.FIRINGS, "ingest", fail)
    began = machine_now()
    with store.database.write(engine) as conn:
        for kind in ("score", "ingest"):
            store.schedules.set(conn, kind, "every 1s", {}, True, began)
    with working(settings):
        until(lambda: machine_now() > began + timedelta(seconds=5))
        late = overdue(engine, machine_now() - timedelta(seconds=2.5))
    assert set(late) == {"ingest"}
    assert began - timedelta(seconds=1) <= late["ingest"] <= began + timedelta(seconds=3)
