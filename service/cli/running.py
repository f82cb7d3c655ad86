"""A job that a command line runs itself, in this process, with a row like any other."""

from __future__ import annotations

import _thread
import os
import socket
import time
from collections.abc import Callable
from contextlib import nullcontext
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from model.errors import BarpropError, Busy
from service.cli import output

if TYPE_CHECKING:
    from model.bars import Market
    from store.database import Engine
    from store.settings import Settings

WAIT_SECONDS = 1.0


class Cancelled(BarpropError):
    """Somebody cancelled this job, or it lost its lease, while it ran here."""


def run(
    engine: Engine,
    settings: Settings,
    kind: str,
    market: Market,
    params: dict[str, Any],
    wait: bool = True,
    watch: Callable[[float], None] | None = None,
) -> dict[str, Any]:
    """The result of a job of that kind, run here. While a worker runs the same kind for that market it waits and
    says so, or raises Busy where it may not wait. An interrupt leaves the job cancelled. `watch` sees the progress,
    0 to 1; without one it is drawn on a terminal.
    """
    import store.database
    import store.jobs
    import store.markets
    from jobs import executors

    with store.database.read(engine) as conn:
        market_id = store.markets.need(conn, market).id
    owner = f"{socket.gethostname()[:40]}:{os.getpid()}:cli"
    lease = timedelta(seconds=settings.jobs.lease_seconds)
    said = False
    while True:
        try:
            now = executors.machine_now()
            job = store.jobs.start(engine, kind, market_id, params, owner, now, lease)
            break
        except Busy as error:
            if not wait:
                raise
            if not said:
                output.note(f"waiting: {error}")
                said = True
            time.sleep(WAIT_SECONDS)
    cancelled = False

    def told_to_end() -> None:
        nonlocal cancelled
        cancelled = True
        _thread.interrupt_main()

    try:
        with output.progress(f"{kind} {market}") if watch is None else nullcontext(watch) as seen:
            return executors.perform(engine, job, settings, told_to_end, seen)
    except KeyboardInterrupt:
        if not cancelled:
            raise
        raise Cancelled(f"job {job.id} ({kind} {market}) was cancelled, or its lease was lost") from None
