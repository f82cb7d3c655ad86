"""Running one claimed job: in a process of its own for the worker, in this process for a command line.

Add a kind of job by adding a row to KINDS. A job's process answers for its own row: it renews the lease from a
thread beside the work, and writes how the work ended. It ends at once when it is told to (a cancel, a lost lease)
or when the worker that started it is gone; what it had not committed by then never was.
"""

import contextvars
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from multiprocessing.context import SpawnProcess
from typing import Any, Self

from threadpoolctl import threadpool_limits

import jobs.backtest
import jobs.fetch
import jobs.ingest
import jobs.logs
import jobs.retrain
import jobs.tune
import store.clock
import store.database
import store.features
import store.jobs
from jobs import processes
from model.errors import BadInput, BarpropError, Unreachable
from model.features import user
from store import context
from store.database import Engine
from store.jobs import Job, Keep
from store.settings import Settings

log = logging.getLogger(__name__)

# The work, with the market's clock and a place to tell the progress. What it gives back keeps its result.
Run = Callable[[Engine, Job, Settings, Callable[[], datetime], Callable[[float], None]], Keep]

KINDS: dict[str, Run] = {
    "ingest": jobs.ingest.run,
    "fetch": jobs.fetch.run,
    "backfill": jobs.fetch.past,
    "retrain": jobs.retrain.run,
    "backtest": jobs.backtest.run,
    "tune": jobs.tune.run,
}

# Those that compute features, a user's too.
OF_FEATURES = ("retrain", "backtest", "tune")

# A job that makes progress shows it this often, although its lease would hold longer.
PROGRESS_SECONDS = 1.0


@dataclass(frozen=True)
class Child:
    """A claimed job and the process that runs it."""

    job: Job
    process: SpawnProcess


def machine_now() -> datetime:
    """The machine's time. Leases are measured by it, never by a demo's clock."""
    return datetime.now(UTC)


def one_line(error: BaseException) -> str:
    """An error as one plain line: a message of ours as it is, another with its type before it."""
    text = " ".join(str(error).split())
    if isinstance(error, BarpropError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


class Heartbeat:
    """Renews a running job's lease and keeps its progress, from a thread of its own, while its block runs.

    `told_to_end` is called once, in that thread, when the job was cancelled or somebody else may hold it by now.
    """

    def __init__(self, engine: Engine, job: Job, settings: Settings, told_to_end: Callable[[], None]) -> None:
        self.told = False
        self._engine = engine
        self._job = job
        self._every = settings.jobs.heartbeat_seconds
        self._lease = timedelta(seconds=settings.jobs.lease_seconds)
        self._told_to_end = told_to_end
        self._progress = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(
            target=contextvars.copy_context().run,  # what it logs is of this job too
            args=(self._beat,),
            name=f"heartbeat-{job.id}",
            daemon=True,
        )

    def progress(self, done: float) -> None:
        """Takes how much of the work is done, 0 to 1."""
        self._progress = min(max(done, self._progress), 1.0)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _beat(self) -> None:
        shown, last = 0.0, machine_now()
        held_until = last + self._lease
        while not self._over.wait(min(self._every, PROGRESS_SECONDS)):
            now, progress = machine_now(), self._progress
            if progress == shown and now - last < timedelta(seconds=self._every):
                continue
            try:
                goes_on = store.jobs.beat(
                    self._engine, self._job.id, _owner(self._job), now, self._lease, progress
                )
            except Exception as error:  # an unrenewed lease is what ends this job, not the thread's death
                log.warning("job %d could not renew its lease: %s", self._job.id, one_line(error))
                goes_on = now < held_until  # the lease still stands: the database may come back in time
            else:
                shown, last, held_until = progress, now, now + self._lease
            if not goes_on and not self._over.is_set():
                self.told = True
                self._told_to_end()
                return


def perform(
    engine: Engine,
    job: Job,
    settings: Settings,
    told_to_end: Callable[[], None],
    watch: Callable[[float], None] | None = None,
) -> dict[str, Any]:
    """Runs a claimed job here and writes its end into its row; raises what the work raised.

    `watch` sees the progress too, 0 to 1. KeyboardInterrupt, from a terminal or from `told_to_end`, leaves the
    job cancelled.
    """
    worked_for = context.job_id.set(job.id)
    heart = Heartbeat(engine, job, settings, told_to_end)

    def progress(done: float) -> None:
        heart.progress(done)
        if watch is not None:
            watch(done)

    try:
        if job.kind not in KINDS:
            raise BadInput(f"no such kind of job: {job.kind}; one of {', '.join(KINDS)}")
        with heart, threadpool_limits(settings.training.blas_threads):
            keep = KINDS[job.kind](engine, job, settings, lambda: store.clock.now(engine), progress)
            return finish(engine, job, keep)
    except KeyboardInterrupt:
        with store.database.write(engine) as conn:
            store.jobs.cancelled(conn, job.id, _owner(job), machine_now())
        raise
    except Exception as error:
        with store.database.write(engine) as conn:
            store.jobs.fail(conn, job.id, _owner(job), machine_now(), one_line(error))
        raise
    finally:
        context.job_id.reset(worked_for)


def finish(engine: Engine, job: Job, keep: Keep) -> dict[str, Any]:
    """Keeps what a job made and ends it, both or neither. Raises Busy where the job was taken from its owner."""
    with store.database.write(engine) as conn:
        result = keep(conn)
        store.jobs.succeed(conn, job.id, _owner(job), machine_now(), result)
    return result


def start(job: Job, settings: Settings) -> Child:
    """Starts a process of its own for a claimed job."""
    spawn = multiprocessing.get_context("spawn")
    # what stands in this process's table was proven here
    proven = user.definition(user.registered())
    process = spawn.Process(
        target=_child, args=(job, settings, proven), name=f"{job.kind}-{job.id}", daemon=True
    )
    with processes.environment(dict.fromkeys(processes.THREADS, str(settings.training.blas_threads))):
        process.start()
    return Child(job, process)


def end(child: Child) -> None:
    """Ends a job's process at once."""
    child.process.kill()
    child.process.join()


def death(child: Child) -> str | None:
    """Why a process that has ended did not write its job's end itself; None where it says that it did."""
    code = child.process.exitcode
    if code == 0:
        return None
    if code is not None and code < 0:
        hint = "; was the memory used up?" if -code == signal.SIGKILL else ""
        return f"its process was ended by {signal.Signals(-code).name}{hint}"
    return f"its process ended with exit code {code} and said nothing"


def _child(job: Job, settings: Settings, proven: str) -> None:
    """The whole life of a job's process. It ends with 0 where the job's row says how the work went."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # a terminal signals the whole group: the worker decides
    jobs.logs.to_stderr(settings.log)
    processes.end_with_parent()
    engine = store.database.connect(settings.database.url)

    def told_to_end() -> None:
        try:
            with store.database.write(engine) as conn:
                store.jobs.cancelled(conn, job.id, _owner(job), machine_now())
        finally:
            os._exit(0)

    try:
        try:
            if job.kind in OF_FEATURES:
                store.features.register_as(proven, settings)
        except BadInput as error:
            with store.database.write(engine) as conn:
                store.jobs.fail(conn, job.id, _owner(job), machine_now(), one_line(error))
            raise
        perform(engine, job, settings, told_to_end)
    except Unreachable:
        os._exit(1)  # its row could not be written either: the worker or the lease speaks for it
    except Exception:
        os._exit(0)  # the row says what happened
    os._exit(0)


def _owner(job: Job) -> str:
    if job.owner is None:
        raise BarpropError(f"job {job.id} was not claimed, so it cannot run")
    return job.owner
