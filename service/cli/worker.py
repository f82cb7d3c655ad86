"""`barprop worker`: what happens by itself, in a process of its own."""

import os
import signal
import threading
from typing import Annotated

import typer

from service.cli import opening, output, parent
from service.cli.options import AsJson

ParentPipe = Annotated[
    bool, typer.Option(parent.FLAG, hidden=True, help="Stop when stdin closes: the parent is gone.")
]


def worker(parent_pipe: ParentPipe = False, as_json: AsJson = False) -> None:
    """Do what happens by itself: score, ingest, fetch, retrain, backtest.

    \b
    barprop worker
    BARPROP_LOG__LEVEL=INFO barprop worker

    It follows the schedules (`barprop schedules list`) and runs the jobs that are asked for. `barprop serve` starts
    one beside itself. Start further ones, here or on other machines, on the same database: a job is never run
    twice. Ctrl-C or SIGTERM stops it; what ran is handed to the next worker.
    """
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    if parent_pipe:
        parent.watch(stop.set)

    import jobs.worker
    import store.database

    settings = opening.settings()
    opening.features(settings)
    opening.training(settings)
    if as_json:
        output.document({"pid": os.getpid(), "database": store.database.shown(settings.database.url)})
    jobs.worker.run(settings, stop)
