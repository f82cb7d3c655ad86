"""A service on a real socket, and a reader of its stream of Signals."""

import json
import queue
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI

from service.cli import serve
from tests.waiting import until


@contextmanager
def listening(app: FastAPI) -> Iterator[str]:
    """The address of `app`, which a real server in a thread answers for."""
    socket = serve.bind("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, loop="uvloop", http="httptools", log_config=None))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]})
    thread.start()
    until(lambda: server.started, 10)
    try:
        yield serve.address(socket)
    finally:
        app.state.stopping = True
        server.should_exit = True
        thread.join()


@dataclass
class Reader:
    """What a stream has brought, as the rules of server-sent events have it."""

    events: queue.Queue[dict[str, Any]] = field(default_factory=queue.Queue)
    comments: list[str] = field(default_factory=list)
    last_id: int | None = None  # as a browser would send it back
    ended: bool = False

    def next(self, seconds: float = 20.0) -> dict[str, Any]:
        """The next Signal."""
        return self.events.get(timeout=seconds)

    def all(self, count: int, seconds: float = 20.0) -> list[int]:
        """The ids of the next so many Signals."""
        return [self.next(seconds)["id"] for _ in range(count)]

    def take(self, line: str, block: dict[str, str]) -> None:
        """Takes one line."""
        if line.startswith(":"):
            self.comments.append(line[1:].strip())
        elif line:
            name, _, value = line.partition(": ")
            assert name in ("id", "event", "data", "retry")
            block[name] = value
        else:
            self.last_id = int(block["id"])
            if "data" in block:
                assert block["event"] == "signal"
                document = json.loads(block["data"])
                assert document["id"] == self.last_id
                self.events.put(document)
            block.clear()


@contextmanager
def reading(
    url: str, query: str = "", last: int | str | None = None, key: str | None = None
) -> Iterator[Reader]:
    """A reader of the stream, which it has opened; it goes when the block is left."""
    headers = {} if last is None else {"last-event-id": str(last)}
    headers |= {} if key is None else {"authorization": f"Bearer {key}"}
    reader, left = Reader(), threading.Event()

    def read() -> None:
        block: dict[str, str] = {}
        with (
            httpx.Client(timeout=60) as client,
            client.stream("GET", f"{url}/v1/signals{query}", headers=headers) as response,
        ):
            assert response.status_code == 200, response.read()
            assert response.headers["content-type"].startswith("text/event-stream")
            assert response.headers["cache-control"] == "no-store"
            assert response.headers["x-accel-buffering"] == "no"
            closing.append(response)
            try:
                for line in response.iter_lines():
                    reader.take(line, block)
            except (httpx.HTTPError, httpx.StreamError, OSError):
                if not left.is_set():
                    raise
        reader.ended = True

    closing: list[httpx.Response] = []
    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    until(lambda: reader.comments or not thread.is_alive(), 10)
    assert reader.comments, "the stream did not open"
    try:
        yield reader
    finally:
        left.set()
        if not reader.ended:
            stream = closing[0].extensions["network_stream"].get_extra_info("socket")
            stream.shutdown(2)
        thread.join(10)


def push(url: str, bar: dict[str, Any], symbol: str = "ETHUSDT", key: str | None = None) -> float:
    """Pushes a bar, and tells when it began."""
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    began = time.perf_counter()
    body = {"symbol": symbol, "timeframe": "1h", "bars": [bar]}
    answer = httpx.post(f"{url}/v1/bars", json=body, headers=headers, timeout=60)
    assert answer.status_code == 200, answer.text
    return began
