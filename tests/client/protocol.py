"""A small HTTP server that answers as a test says: refusals, silence, streams that break, in that order."""

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Reply:
    """One answer; with `chunks` it is a stream that ends after them, or, with `lasts`, when the test does."""

    document: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    chunks: Sequence[bytes] | None = None
    lasts: bool = False


# The connection is closed without an answer.
NOTHING = Reply(status=0)


@dataclass(frozen=True)
class Asked:
    """One request as it came; names of headers are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any


class Scripted:
    """Where the server is, what it was asked, and what it has left to say; the last reply is said again and again."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.asked: list[Asked] = []
        self.replies: list[Reply] = []
        self.over = threading.Event()

    def next(self) -> Reply:
        """The reply to the next request."""
        return self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]


def event(ident: int, document: dict[str, Any]) -> bytes:
    """A Signal as the stream sends it."""
    data = {**document, "id": ident, "served_at": "2024-07-01T00:00:01Z"}
    return f"id: {ident}\nevent: signal\ndata: {json.dumps(data)}\n\n".encode()


@contextmanager
def server() -> Iterator[Scripted]:
    """A server on a free port of this machine."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            length = int(self.headers.get("content-length", 0))
            body = json.loads(self.rfile.read(length)) if length else None
            headers = {name.lower(): value for name, value in self.headers.items()}
            scripted.asked.append(Asked(self.command, self.path, headers, body))
            say(self, scripted.next())

        do_GET = do_POST = do_DELETE = answer  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    def say(to: Handler, reply: Reply) -> None:
        if reply is NOTHING:
            to.close_connection = True
            return
        if reply.chunks is not None:
            headers, body = {"content-type": "text/event-stream", "connection": "close"}, b""
        else:
            kept = isinstance(reply.document, bytes)
            body = reply.document if kept else json.dumps(reply.document).encode()
            body = b"" if reply.status == 304 else body
            headers = {
                "content-type": "text/html" if kept else "application/json",
                "content-length": str(len(body)),
            }
        to.send_response(reply.status)
        for name, value in {**headers, **reply.headers}.items():
            to.send_header(name, value)
        to.end_headers()
        to.wfile.write(body)
        for chunk in reply.chunks or ():
            to.wfile.write(chunk)
            to.wfile.flush()
        if reply.lasts:
            scripted.over.wait(60)

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    scripted = Scripted(f"http://127.0.0.1:{listening.server_port}")
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield scripted
    finally:
        scripted.over.set()
        listening.shutdown()
        thread.join()
        listening.server_close()
