"""Several processes that answer on one listening socket, each started with *spawn* and replaced where it dies.

They share nothing but the socket and the database. A pipe binds each to this process: it says through it that it
answers, and stops when it is closed, however this process ends.
"""

from __future__ import annotations

import logging
import multiprocessing
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from store.settings import Settings

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.1  # how often they are looked at
RESTART_SECONDS = 1.0  # after the death of one that never answered
STOP_SECONDS = 9.0  # for all of them to end; one that takes longer is killed


@dataclass
class Sibling:
    """One of them, with this process' end of its pipe."""

    process: SpawnProcess
    pipe: Connection
    answers: bool = False


def run(
    settings: Settings,
    listening: socket.socket,
    ready: Callable[[], None],
    stops: Callable[[], None],
    stop: threading.Event,
) -> bool:
    """Lets as many processes as the settings say answer until `stop` is set.

    `ready` is called once all answer, `stops` as soon as they are told to stop. False where one could not start at
    first, and the log says why.
    """
    with tempfile.TemporaryDirectory(prefix="barprop-figures-") as figures:
        siblings = [_start(settings, listening, figures) for _ in range(settings.service.workers)]
        try:
            return _look_after(siblings, lambda: _start(settings, listening, figures), figures, ready, stop)
        finally:
            stops()
            listening.close()  # they take what waits there; from the last one's end on nobody is let in
            _stop(siblings)


def _look_after(
    siblings: list[Sibling],
    start: Callable[[], Sibling],
    figures: str,
    ready: Callable[[], None],
    stop: threading.Event,
) -> bool:
    all_answered = False
    while not stop.wait(LOOK_SECONDS):
        for index, sibling in enumerate(siblings):
            with suppress(EOFError, OSError):  # its end is seen below
                sibling.answers = sibling.answers or (
                    sibling.pipe.poll() and sibling.pipe.recv_bytes() == b"ready"
                )
            if sibling.process.is_alive():
                continue
            if not (sibling.answers or all_answered):
                return False
            log.error("process %s that answered ended with %s; another is started", *_end(sibling, figures))
            if not sibling.answers and stop.wait(RESTART_SECONDS):
                break
            siblings[index] = start()
        if not all_answered and all(sibling.answers for sibling in siblings):
            all_answered = True
            ready()
    return True


def _end(sibling: Sibling, figures: str) -> tuple[int | None, int | None]:
    """Forgets one that died, and what it had open; what it counted stays. Its id and exit code."""
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(sibling.process.pid, figures)  # type: ignore[no-untyped-call]
    sibling.pipe.close()
    sibling.process.join()
    return sibling.process.pid, sibling.process.exitcode


def _stop(siblings: list[Sibling]) -> None:
    for sibling in siblings:
        sibling.pipe.close()
    until = time.monotonic() + STOP_SECONDS
    for sibling in siblings:
        sibling.process.join(max(0.0, until - time.monotonic()))
        if sibling.process.is_alive():
            log.error("process %s did not end in time and is killed", sibling.process.pid)
            sibling.process.kill()
            sibling.process.join()


def _start(settings: Settings, listening: socket.socket, figures: str) -> Sibling:
    from jobs import processes
    from model.features import user

    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    # what stands in this process's table was proven here
    proven = user.definition(user.registered())
    process = spawn.Process(target=_answer, args=(settings, proven, listening, theirs), daemon=True)
    threads = dict.fromkeys(processes.THREADS, str(settings.training.blas_threads))
    with processes.environment({**threads, "PROMETHEUS_MULTIPROC_DIR": figures}):
        process.start()
    theirs.close()
    return Sibling(process, ours)


def _answer(settings: Settings, proven: str, listening: socket.socket, pipe: Connection) -> None:
    """The whole life of one of them."""
    import jobs.logs
    import store.database
    import store.features
    from service.app import create_app
    from service.cli import answering

    stop = threading.Event()
    answering.heed_signals(stop)  # a terminal's go to all of the group
    threading.Thread(target=_until_closed, args=(pipe, stop), name="watch-parent", daemon=True).start()
    jobs.logs.to_stderr(settings.log)
    store.features.register_as(proven, settings)
    engine = store.database.connect(settings.database.url)
    app = create_app(engine, settings)
    try:
        started = answering.run(
            app, settings, listening, lambda: pipe.send_bytes(b"ready"), lambda: None, stop
        )
    finally:
        engine.dispose()
    if not started:
        raise SystemExit(1)


def _until_closed(pipe: Connection, stop: threading.Event) -> None:
    with suppress(EOFError, OSError):
        pipe.recv_bytes()
    stop.set()
