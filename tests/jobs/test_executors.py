"""A running job: its lease, its progress, its end by whatever way, and the one line that says which."""

import os
import signal
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest

import store.database
import store.jobs
from jobs import executors
from model.errors import BadBars, BarpropError, TrainingFailed
from store import context
from store.database import Engine
from store.jobs import Job
from store.settings import Settings
from tests.waiting import until

# a job is looked after ten times a second here, every few seconds out there
SETTINGS = Settings(jobs={"heartbeat_seconds": 0.1, "lease_seconds": 5.0})  # type: ignore[arg-type]


@pytest.fixture
def job(engine: Engine) -> Job:
    """A job that this process holds."""
    return claim(engine)


def claim(engine: Engine, kind: str = "ingest", lease: float = 5.0) -> Job:
    now = executors.machine_now()
    return store.jobs.start(engine, kind, None, {}, "me", now, timedelta(seconds=lease))


def read(engine: Engine, job: Job) -> Job:
    with store.database.read(engine) as conn:
        return store.jobs.get(conn, job.id)


def beats(job: Job) -> bool:
    """Whether a thread still renews the job's lease."""
    return f"heartbeat-{job.id}" in {thread.name for thread in threading.enumerate()}


def test_the_heartbeat_renews_the_lease_and_keeps_the_progress(engine: Engine, job: Job) -> None:
    with executors.Heartbeat(engine, job, SETTINGS, lambda: None) as heart:
        heart.progress(0.25)
        until(lambda: read(engine, job).progress == 0.25)
        first = read(engine, job).lease_until
        assert first is not None
        until(lambda: (read(engine, job).lease_until or first) > first)
        heart.progress(0.1)  # progress never goes back
        heart.progress(7.0)  # nor beyond its end
        until(lambda: read(engine, job).progress == 1.0)


def test_the_heartbeat_ends_with_its_block(engine: Engine, job: Job) -> None:
    with executors.Heartbeat(engine, job, SETTINGS, lambda: None):
        assert beats(job)
    assert not beats(job)


def test_a_cancelled_job_is_told_to_end_once(engine: Engine, job: Job) -> None:
    told = []
    with executors.Heartbeat(engine, job, SETTINGS, lambda: told.append(1)):
        with store.database.write(engine) as conn:
            store.jobs.cancel(conn, job.id, executors.machine_now())
        until(lambda: not beats(job))  # so it cannot tell again
    assert told == [1]


def test_a_job_whose_lease_was_lost_is_told_to_end(engine: Engine, job: Job) -> None:
    told = threading.Event()
    assert store.jobs.reap(engine, executors.machine_now() + timedelta(hours=1)) == [job.id]
    with executors.Heartbeat(engine, job, SETTINGS, told.set):
        assert told.wait(60)


def test_a_database_that_is_away_ends_a_job_only_when_its_lease_is_over(engine: Engine) -> None:
    job, told = claim(engine, lease=1.0), threading.Event()
    settings = Settings(jobs={"heartbeat_seconds": 0.1, "lease_seconds": 1.0})  # type: ignore[arg-type]
    nowhere = store.database.connect("sqlite:///:memory:")  # no tables
    began = time.monotonic()
    with executors.Heartbeat(nowhere, job, settings, told.set):
        assert told.wait(60)
    assert time.monotonic() - began > 0.9


def test_a_job_of_no_known_kind_fails_by_name(engine: Engine) -> None:
    job = claim(engine, "dance")
    with pytest.raises(BarpropError, match="dance"):
        executors.perform(engine, job, SETTINGS, lambda: None)
    after = read(engine, job)
    assert after.state == "failed"
    assert "no such kind of job: dance" in str(after.error)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (BadBars("no close\nin line 3"), "no close in line 3"),
        (TrainingFailed("too few rows"), "too few rows"),
        (KeyError("x"), "KeyError: 'x'"),
        (MemoryError(), "MemoryError"),
    ],
)
def test_an_error_is_one_line(error: Exception, line: str) -> None:
    assert executors.one_line(error) == line


def test_a_child_writes_its_own_end(engine: Engine) -> None:
    settings = Settings(database={"url": str(engine.url)})  # type: ignore[arg-type]
    job = claim(engine, "dance", lease=60.0)
    child = executors.start(job, settings)
    child.process.join(60)
    assert executors.death(child) is None
    assert "no such kind" in str(read(engine, job).error)


def test_the_death_of_a_child_is_told_by_its_signal(engine: Engine) -> None:
    settings = Settings(database={"url": str(engine.url)})  # type: ignore[arg-type]
    child = executors.start(claim(engine, "dance", lease=60.0), settings)
    executors.end(child)
    assert signal.SIGKILL.name in str(executors.death(child))


def test_a_child_starts_with_its_blas_threads_and_leaves_ours(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "7")
    settings = Settings(database={"url": str(engine.url)}, training={"blas_threads": 1})  # type: ignore[arg-type]
    child = executors.start(claim(engine, "dance", lease=60.0), settings)
    environment = Path(f"/proc/{child.process.pid}/environ")
    try:
        until(lambda: "OPENBLAS_NUM_THREADS=1" in environment.read_text().split("\0"))
    finally:
        executors.end(child)
    assert os.environ["OPENBLAS_NUM_THREADS"] == "7"


def test_what_is_logged_for_a_job_bears_its_id_the_heartbeat_s_words_too(
    engine: Engine, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    known: dict[str, int | None] = {}

    def work(*_: object) -> store.jobs.Keep:
        known["work"] = context.job_id.get()
        until(lambda: "heartbeat" in known)
        return lambda conn: {}

    def beat(*_: object) -> bool:
        known["heartbeat"] = context.job_id.get()
        return True

    monkeypatch.setitem(executors.KINDS, job.kind, work)
    monkeypatch.setattr(store.jobs, "beat", beat)
    executors.perform(engine, job, SETTINGS, lambda: None)
    assert known == {"work": job.id, "heartbeat": job.id}
    assert context.job_id.get() is None
