"""`barprop serve`: the service, and one worker beside it in a process of its own."""

from __future__ import annotations

import errno
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
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

# SIGTERM is answered within 15 s: requests under way get this long, the worker, told at the same time, that long.
GRACEFUL_SECONDS = 5
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
    barprop keys create my-bot && barprop serve --host 0.0.0.0

    \b
    curl http://127.0.0.1:8000/v1/predict -H 'content-type: application/json' \\
         -d '{"symbol": "ETHUSDT", "timeframe": "1h"}'

    The page is at /, the description of the routes at /docs. On this machine no key is needed. Ctrl-C or SIGTERM
    stops it. With --json the document tells the address, once it answers.
    """
    given = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
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
    import uvicorn

    import store.clock
    from service.app import create_app

    app = create_app(engine, settings, lambda: store.clock.now(engine))
    asked, stopping = threading.Event(), threading.Event()

    class Server(uvicorn.Server):
        """Says when it is ready, and stops the worker as soon as it stops itself."""

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                ready()

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            app.state.stopping = True
            stopping.set()
            await super().shutdown(sockets)

    server = Server(
        uvicorn.Config(
            app,
            loop="uvloop" if sys.platform != "win32" else "asyncio",
            http="httptools",
            access_log=False,
            log_config=None,  # ours goes to stderr already, a line a record
            timeout_graceful_shutdown=GRACEFUL_SECONDS,
        )
    )

    def stop(*_: object) -> None:
        asked.set()
        server.should_exit = True

    # Ours from before until after uvicorn's own: it raises the signal again once it has shut down, and the
    # default handler would then end this process with 143.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    if parent_pipe:
        parent.watch(stop)
    with beside(settings, stopping) if with_worker else nullcontext():
        server.run(sockets=[listening])
    if not (server.started or asked.is_set()):
        raise typer.Exit(1)  # its start failed, and the log says why


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
