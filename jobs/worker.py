"""The worker: its own process, in which all happens that nobody waits for.

One loop looks every `poll_seconds` for a queued job and a free slot, and every few seconds for changed schedules
and for jobs whose worker died; APScheduler wakes what is due. It catches everything: a job's fault is written
into the job's row, and a database that goes away is waited for.
"""

import logging
import os
import secrets
import socket
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial

from apscheduler.schedulers.background import BackgroundScheduler

import store.database
import store.jobs
import store.schedules
import store.workers
from jobs import executors, schedule
from jobs.executors import Child, machine_now, one_line
from model.errors import Unreachable
from store.database import Engine
from store.jobs import Job
from store.schedules import Schedule
from store.settings import Settings

log = logging.getLogger(__name__)

LOOK_SECONDS = 5.0  # how often schedules and dead workers' jobs are looked at
LONGEST_BACK_OFF_SECONDS = 30.0  # between two tries to reach a database that went away


def run(settings: Settings, stop: threading.Event) -> None:
    """Works until `stop` is set. Running jobs are then ended and handed back, for the next worker. Raises
    Unreachable where the database cannot be used at the start."""
    engine = store.database.connect(settings.database.url)
    store.database.prepare(engine)
    scheduler = BackgroundScheduler(timezone="UTC")
    scheduler.start()
    worker = Worker(engine, settings, scheduler)
    log.info("worker %s started", worker.owner)
    try:
        worker.work(stop)
    finally:
        scheduler.shutdown(wait=False)
        worker.hand_back()
        engine.dispose()
        log.info("worker %s stopped", worker.owner)


class Worker:
    """What one worker holds: its name in job rows, its children, and what it said already."""

    def __init__(self, engine: Engine, settings: Settings, scheduler: BackgroundScheduler) -> None:
        self.owner = f"{socket.gethostname()[:40]}:{os.getpid()}:{secrets.token_hex(4)}"
        self._engine = engine
        self._settings = settings
        self._scheduler = scheduler
        self._lease = timedelta(seconds=settings.jobs.lease_seconds)
        self._children: list[Child] = []
        self._refused: list[str] = []  # schedules that could not be followed, as was said
        self._faulty: dict[str, str | None] = {}  # what each schedule's last firing died of
        self._fired: set[str] = set()  # schedules that fired well since they were last told of
        self._due: dict[str, datetime] = {}  # when each that is followed is to fire next, as was told
        self._look_at = machine_now()
        self._faults = 0  # in a row
        self._away = False  # the database, as far as was said

    def work(self, stop: threading.Event) -> None:
        """The loop, turn by turn; a pause that grows follows each turn that went wrong."""
        pause = 0.0
        while not stop.wait(pause):
            if self._tries(self._turn):
                pause = self._settings.jobs.poll_seconds
            else:
                pause = min(2.0 ** min(self._faults - 1, 10), LONGEST_BACK_OFF_SECONDS)

    def hand_back(self) -> None:
        """Ends what runs; each job is failed by name and its work asked for anew."""
        for child in self._children:
            executors.end(child)
        for child in self._children:
            self._tries(partial(self._hand_back, child.job))
        self._children.clear()
        self._tries(self._leave)

    def fire(self, row: Schedule) -> None:
        """What a schedule's firing does; a fault is said in one line, once while it stays, and ends nothing."""
        fault = None
        try:
            for job in schedule.FIRINGS[row.kind](self._engine, self._settings, row, machine_now()):
                log.info("asked for %s", _named(job))
        except Unreachable:
            return  # the loop says so
        except Exception as error:
            fault = one_line(error)
            if fault != self._faulty.get(row.kind):
                log.error("schedule %s: %s", row.kind, fault)
        else:
            self._fired.add(row.kind)
        self._faulty[row.kind] = fault

    def _tries(self, step: Callable[[], None]) -> bool:
        """Whether the step went well; else says so, of an unreachable database once."""
        try:
            step()
        except Unreachable as error:
            if not self._away:
                log.error("%s; trying again until it does", one_line(error))
            self._away = True
        except Exception as error:
            log.error("%s", one_line(error))
        else:
            if self._away:
                log.warning("the database answers again")
            self._away, self._faults = False, 0
            return True
        self._faults += 1
        return False

    def _turn(self) -> None:
        self._settle()
        self._claim()
        now = machine_now()
        if now >= self._look_at:
            self._look()
            self._look_at = now + timedelta(seconds=LOOK_SECONDS)

    def _look(self) -> None:
        """Follows the schedules as they are now, and fails the jobs of dead workers."""
        for job_id in store.jobs.reap(self._engine, machine_now()):
            log.warning("job %d failed: its worker died", job_id)
        with store.database.read(self._engine) as conn:
            rows = store.schedules.all(conn)
        refused = schedule.follow(self._scheduler, rows, self.fire, machine_now())
        for line in refused:
            if line not in self._refused:
                log.error("%s", line)
        self._refused = refused
        self._tell(machine_now())

    def _tell(self, now: datetime) -> None:
        """Says in the database that this worker lives, and when the schedules that fired are to fire next."""
        fired, self._fired = self._fired, set()
        next_times = {planned.id: planned.next_run_time for planned in self._scheduler.get_jobs()}
        due = {kind: at for kind, at in next_times.items() if kind in fired or kind not in self._due}
        with store.database.write(self._engine) as conn:
            store.workers.beat(conn, self.owner, now)
            store.schedules.note_due(conn, due)
        self._due = {kind: due.get(kind) or self._due[kind] for kind in next_times}

    def _leave(self) -> None:
        with store.database.write(self._engine) as conn:
            store.workers.leave(conn, self.owner)

    def _settle(self) -> None:
        """Forgets the children that have ended; a death that its job's row does not tell is written there."""
        for child in [c for c in self._children if not c.process.is_alive()]:
            reason = executors.death(child)
            if reason is not None:
                with store.database.write(self._engine) as conn:
                    store.jobs.fail(conn, child.job.id, self.owner, machine_now(), reason)
                log.warning("%s failed: %s", _named(child.job), reason)
            child.process.close()
            self._children.remove(child)

    def _claim(self) -> None:
        """Starts queued jobs while a slot is free."""
        while len(self._children) < self._settings.jobs.processes:
            job = store.jobs.claim(self._engine, self.owner, machine_now(), self._lease)
            if job is None:
                return
            log.info("%s starts", _named(job))
            self._children.append(executors.start(job, self._settings))

    def _hand_back(self, job: Job) -> None:
        now = machine_now()
        with store.database.write(self._engine) as conn:
            if store.jobs.fail(conn, job.id, self.owner, now, "its worker was stopped; it is asked for anew"):
                store.jobs.ask(conn, job.kind, job.market_id, job.params, now, job.priority)


def _named(job: Job) -> str:
    return f"job {job.id} ({job.kind})" if job.market is None else f"job {job.id} ({job.kind} {job.market})"
