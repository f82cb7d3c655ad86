"""Requests over keep-alive connections, each sent as soon as the one before it on its connection was answered.

`answered` runs this file as a process, so that what it costs to ask is not paid by whoever answers. Only the standard
library is loaded, and of an answer no more is looked at than its status and its length: a request costs some
microseconds here, and `busy` tells whether that was ever too much.
"""

import json
import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from benchmarks.serving import cores

WARM_SECONDS = 0.3  # asked before anything counts
LEAST = 20  # answers that count, however long they take
PATIENCE_SECONDS = 30.0  # for the next answer
AT_ONCE = 262_144  # bytes that are read at once


@dataclass(frozen=True)
class Answered:
    """How many requests a second were answered, how long half and nearly all of them took at most, and which share of
    its core the asking process was at work."""

    per_second: float
    p50_ms: float
    p99_ms: float
    busy: float


def request(
    path: str, body: object, key: str | None = None, headers: Mapping[str, str] | None = None
) -> bytes:
    """A POST of a JSON document as it goes over the wire."""
    sent = json.dumps(body).encode()
    told = {"host": "127.0.0.1", "content-type": "application/json", "content-length": str(len(sent))}
    told |= ({"authorization": f"Bearer {key}"} if key else {}) | dict(headers or {})
    lines = "".join(f"{name}: {value}\r\n" for name, value in told.items())
    return f"POST {path} HTTP/1.1\r\n{lines}\r\n".encode() + sent


def answered(
    port: int, requests: Sequence[bytes], connections: int, seconds: float, core: int | None
) -> Answered:
    """What a server says to so many connections, which share out the requests and repeat them."""
    asked = {
        "port": port,
        "connections": connections,
        "seconds": seconds,
        "requests": [each.decode("latin-1") for each in requests],
    }
    with cores.on(core):
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.serving.load"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
    said, _ = process.communicate(json.dumps(asked))
    if process.returncode:
        raise RuntimeError("the requests were not answered as they should be")
    return Answered(**json.loads(said))


class Connection:
    """One connection, and the request that it has under way."""

    def __init__(self, port: int, requests: Sequence[bytes]) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._requests, self._next = requests, 0
        self._got = b""
        self.began = 0.0

    def ask(self) -> None:
        """Sends the next request."""
        sent = self._requests[self._next]
        self._next = (self._next + 1) % len(self._requests)
        self.began = time.perf_counter()
        self.socket.sendall(sent)

    def whole(self) -> bool:
        """Reads what there is; whether the answer is whole. Raises ValueError for any but a 200."""
        got = self._got + self.socket.recv(AT_ONCE)
        head = got.find(b"\r\n\r\n")
        if head >= 0:
            if not got.startswith(b"HTTP/1.1 200 "):
                raise ValueError(f"answered {got[:500]!r}")
            place = got.find(b"content-length: ")
            length = int(got[place + 16 : got.find(b"\r", place)])
            if len(got) >= head + 4 + length:
                self._got = b""
                return True
        elif not got:
            raise ValueError("the connection was closed")
        self._got = got
        return False


def run(port: int, requests: Sequence[bytes], connections: int, seconds: float) -> Answered:
    """Asks for so long."""
    selector = selectors.DefaultSelector()
    for place in range(connections):
        connection = Connection(port, requests[place::connections] or requests)
        selector.register(connection.socket, selectors.EVENT_READ, connection)
        connection.ask()
    took: list[float] = []
    start = time.perf_counter() + WARM_SECONDS
    worked: float | None = None
    while (now := time.perf_counter()) < start + seconds or len(took) < LEAST:
        if worked is None and now >= start:
            worked, start = time.process_time(), now
        ready = selector.select(PATIENCE_SECONDS)
        if not ready:
            raise ValueError(f"nothing was answered for {PATIENCE_SECONDS:g} s")
        for key, _ in ready:
            connection = key.data
            if connection.whole():
                if worked is not None and connection.began >= start:
                    took.append(time.perf_counter() - connection.began)
                connection.ask()
    lasted = time.perf_counter() - start
    assert worked is not None
    took.sort()
    return Answered(
        per_second=len(took) / lasted,
        p50_ms=took[len(took) // 2] * 1e3,
        p99_ms=took[len(took) * 99 // 100] * 1e3,
        busy=(time.process_time() - worked) / lasted,
    )


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    asked["requests"] = [each.encode("latin-1") for each in asked["requests"]]
    print(json.dumps(asdict(run(**asked))))
