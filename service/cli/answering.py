"""One process that answers: uvicorn on a listening socket, until it is told to stop, without dropping a request.

When it stops it takes no new connection, but answers those that the system has accepted for it already, and asks every
client with its next answer to close; only then are idle connections closed and requests under way waited for.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import uvicorn

from service.connections import protocol

if TYPE_CHECKING:
    from fastapi import FastAPI

    from store.settings import Settings

log = logging.getLogger(__name__)

# Requests under way get this long to end.
GRACEFUL_SECONDS = 5
# SIGTERM is answered within 15 s, whatever a database that neither answers nor goes away still holds up.
LAST_SECONDS = 12.0
# For so long clients that go on asking are told to close; only one that is silent for longer is closed unasked.
LINGER_SECONDS = 0.5
# The loop closes its own listening socket at its next turn; what comes until then is still taken.
CLOSED_SECONDS = 0.02


def heed_signals(stop: threading.Event) -> None:
    """Lets SIGTERM and SIGINT set `stop`, from before until after uvicorn's own handlers: it raises the signal again
    once it has shut down, and the default handler would then end this process with 143."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())


class Server(uvicorn.Server):
    """uvicorn's, which says when it is ready and when it stops."""

    def __init__(
        self,
        config: uvicorn.Config,
        ready: Callable[[], None],
        stops: Callable[[], None],
        stop: threading.Event,
    ) -> None:
        super().__init__(config)
        self._ready, self._stops, self._stop = ready, stops, stop

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts to answer."""
        await super().startup(sockets)
        if self.started:
            self._ready()

    async def on_tick(self, counter: int) -> bool:
        """Whether to stop, asked ten times a second."""
        return await super().on_tick(counter) or self._stop.is_set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Ends as the module says."""
        self._stops()
        waiting = [listening.dup() for listening in sockets or []]
        self.server_state.default_headers = [*self.server_state.default_headers, (b"connection", b"close")]
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            cycle = getattr(connection, "cycle", None)
            if cycle is not None and not cycle.response_complete:
                connection.shutdown()  # its answer says so too
        await asyncio.sleep(CLOSED_SECONDS)
        for listening in waiting:
            await self._take(listening)
            listening.close()
        until = asyncio.get_running_loop().time() + LINGER_SECONDS
        while self.server_state.connections and asyncio.get_running_loop().time() < until:
            await asyncio.sleep(0.02)
        await super().shutdown(sockets)

    async def _take(self, listening: socket.socket) -> None:
        """Takes the connections that were accepted by the system and by no process yet."""
        loop = asyncio.get_running_loop()
        listening.setblocking(False)
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:  # there is none left
                return
            await loop.connect_accepted_socket(self._protocol, connection)

    def _protocol(self) -> asyncio.Protocol:
        made: Callable[..., asyncio.Protocol] = self.config.http_protocol_class
        return made(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)


def _end() -> None:
    """Ends this process as it is: what it acknowledged is on the disk."""
    log.error("something does not end, most likely for want of the database; the process ends without it")
    logging.shutdown()
    os._exit(1)


def run(
    app: FastAPI,
    settings: Settings,
    listening: socket.socket,
    ready: Callable[[], None],
    stops: Callable[[], None],
    stop: threading.Event,
) -> bool:
    """Answers until `stop` is set; False where it could not start, and the log says why.

    `ready` is called once it answers, `stops` as soon as it begins to stop.
    """

    def stopping() -> None:
        app.state.stopping = True
        last = threading.Timer(LAST_SECONDS, _end)
        last.daemon = True
        last.start()
        stops()

    config = uvicorn.Config(
        app,
        loop="uvloop" if sys.platform != "win32" else "asyncio",
        http=protocol(settings.service.headers_seconds),
        ws="none",
        access_log=False,
        log_config=None,  # ours goes to stderr already, a line a record
        timeout_keep_alive=settings.service.keep_alive_seconds,  # type: ignore[arg-type]  # seconds like any other
        timeout_graceful_shutdown=GRACEFUL_SECONDS,
    )
    server = Server(config, ready, stopping, stop)
    server.run(sockets=[listening])
    return server.started or stop.is_set()
