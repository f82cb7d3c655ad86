"""How the server speaks HTTP with one connection: as uvicorn's fastest protocol does, but not for ever with a slow one.

uvicorn waits for a request's headers as long as a client likes, so that whoever opens connections and says nothing, or a
byte a minute, holds them all. Here headers come whole within a time, or the connection is closed. The time of a body is
looked after by the layers inside.
"""

from asyncio import TimerHandle, Transport

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


def protocol(headers_seconds: float) -> type[HttpToolsProtocol]:
    """The protocol of a server whose clients have so long for the headers of each request."""

    class Patience(HttpToolsProtocol):
        """A timer runs while headers are awaited that did not come in one piece, as they mostly do."""

        _in_headers = True  # a connection is made to send some
        _timer: TimerHandle | None = None

        def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._timer = self.loop.call_later(headers_seconds, self._too_slow)

        def connection_lost(self, exc: Exception | None) -> None:
            self._disarm()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if not self._in_headers:
                if self._timer is not None:
                    self._disarm()
            elif self._timer is None:
                self._timer = self.loop.call_later(headers_seconds, self._too_slow)

        def on_message_begin(self) -> None:
            self._in_headers = True
            super().on_message_begin()

        def on_headers_complete(self) -> None:
            self._in_headers = False
            super().on_headers_complete()

        def _disarm(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _too_slow(self) -> None:
            self._timer = None
            # an answer to a pipelined request before may still be under way: it ends the connection itself
            if self.cycle is not None and not self.cycle.response_complete:
                self.cycle.keep_alive = False
            elif not self.transport.is_closing():
                self.transport.close()

    return Patience
