"""`barprop serve`: the service, in one process or several, and one worker beside it in a process of its own."""

from __future__ import annotations

import errno
import logging
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from model.errors import BadInput
from service.cli import opening, output, parent
from service.cli.options import AsJson
from service.cli.worker import ParentPipe

if TYPE_CHECKING:
    from store.database import Engine
    from store.settings import Settings

log = logging.getLogger(__name__)

# SIGTERM is answered within 15 s: the worker, told at the same time as those that answer, gets this long.
WORKER_SECONDS = 10.0
# A worker that dies by itself (killed for its memory, say) is started again after this pause.
RESTART_SECONDS = 5.0
BACKLOG = 2048


def serve(
    host: Annotated[
        str | None, typer.Option("--host", help="Beyond 127.0.0.1 only with keys.", show_default="127.0.0.1")
    ] = None,
    port: Annotated[
        int | None, typer.Option("--port", min=0, max=65535, help="0: any free one.", show_default="8000")
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Processes that answer.", show_default="1")
    ] = None,
    with_worker: Annotated[
        bool, typer.Option("--worker/--no-worker", help="Run a worker beside the service.")
    ] = True,
    parent_pipe: ParentPipe = False,
    as_json: AsJson = False,
) -> None:
    """Answer over HTTP, and let a worker keep learning beside it.

    \b
    barprop serve
    barprop serve --port 9000
    barprop serve --workers 4
    barprop keys create my-bot && barprop serve --host 0.0.0.0

    \b
    curl http://127.0.0.1:8000/v1/predict -H 'content-type: application/json' \\
         -d '{"symbol": "ETHUSDT", "timeframe": "1h"}'

    The page is at /, the description of the routes at /docs. On this machine no key is needed. Ctrl-C or SIGTERM
    stops it. With --json the document tells the address, once it answers.
    """
    flagged = {"host": host, "port": port, "workers": workers}
    given = {name: value for name, value in flagged.items() if value is not None}
    flags: dict[str, dict[str, Any]] = {"service": given} if given else {}

    import store.database
    import store.keys
    from service import security

    with opening.database(**flags) as (settings, engine):
        opening.features(settings)
        opening.training(settings)
        with store.database.read(engine) as conn:
            security.may_bind(settings.service.host, store.keys.any_usable(conn, datetime.now(UTC)))
        listening = bind(settings.service.host, settings.service.port)

        def ready() -> None:
            if as_json:
                output.document({"url": address(listening), "pid": os.getpid()})
            elif sys.stderr.isatty() and not parent_pipe:
                output.note(f"barprop answers at {address(listening)} (Ctrl-C stops it)")

        _answer(engine, settings, listening, ready, with_worker, parent_pipe)


def _answer(
    engine: Engine,
    settings: Settings,
    listening: socket.socket,
    ready: Callable[[], None],
    with_worker: bool,
    parent_pipe: bool,
) -> None:
    """Runs the service until it is told to stop; `ready` is called once it answers."""
    from service import tracing
    from service.app import create_app
    from service.cli import answering, several

    stop, stopping = threading.Event(), threading.Event()
    answering.heed_signals(stop)
    if parent_pipe:
        parent.watch(stop.set)
    if settings.service.workers > 1:
        tracing.wanted(settings)  # what is missing for it is said once, and here
        answers = partial(several.run, settings)
    else:
        app = create_app(engine, settings)
        answers = partial(answering.run, app, settings)
    with beside(settings, stopping) if with_worker else nullcontext():
        started = answers(listening, ready, stopping.set, stop)
    if not started:
        raise typer.Exit(1)  # and the log says why


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens there. Raises BadInput where the port is in use or the address is not this machine's."""
    try:
        family, kind, proto, _, where = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, proto)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(where)
        listening.listen(BACKLOG)
    except socket.gaierror as error:
        raise BadInput(f"no such address: {host!r}; --host takes one of this machine's") from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise BadInput(f"port {port} is in use: choose another one with --port") from error
        if error.errno == errno.EACCES:
            raise BadInput(
                f"not allowed to listen on port {port}: choose one above 1023 with --port"
            ) from error
        raise BadInput(
            f"cannot listen on {host}: {error.strerror}; --host takes one of this machine's"
        ) from error
    return listening


def address(listening: socket.socket) -> str:
    """The web address of a listening socket."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@contextmanager
def beside(settings: Settings, stopping: threading.Event) -> Iterator[None]:
    """A worker in a process of its own while the block runs; it is stopped as soon as `stopping` is set."""
    keeper = threading.Thread(target=_keep, args=(settings, stopping), name="worker-keeper")
    keeper.start()
    try:
        yield
    finally:
        stopping.set()
        keeper.join()


def _keep(settings: Settings, stopping: threading.Event) -> None:
    """Starts a worker, and another one where it dies by itself, until told to stop."""
    while not stopping.is_set():
        try:
            process = parent.start(["worker"], {"BARPROP_DATABASE__URL": settings.database.url})
        except OSError as error:  # no memory or no process to be had just now
            log.error("no worker could be started: %s; it is tried again", error)
            stopping.wait(RESTART_SECONDS)
            continue
        while process.poll() is None and not stopping.wait(0.2):
            pass
        if stopping.is_set():
            parent.stop(process, WORKER_SECONDS)
        else:
            log.error("the worker ended with exit code %d; another one is started", process.returncode)
            stopping.wait(RESTART_SECONDS)
