"""Server-sent events out of bytes, however they are cut. Pure."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

# A CR at the very end may be half of a CRLF.
_LINE_END = re.compile(rb"\r\n|\n|\r(?!\Z)")


@dataclass(frozen=True)
class Event:
    """One event, of a kind and with its data."""

    kind: str
    data: str


class Events:
    """The events of one connection, the last id it named, and how long to wait before the next one is opened."""

    def __init__(self) -> None:
        self.retry_seconds = 0.0
        self.last_id: str | None = None
        self._rest = b""
        self._kind = ""
        self._data: list[str] = []
        self._id: str | None = None

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """The events that `chunk` completes. A comment, which is what a heartbeat is, completes none."""
        *lines, self._rest = _LINE_END.split(self._rest + chunk)
        for line in lines:
            if line:
                self._field(*line.decode(errors="replace").partition(":"))
            else:
                found = Event(self._kind or "message", "\n".join(self._data)) if self._data else None
                self.last_id, self._kind, self._data = self._id, "", []
                if found is not None:
                    yield found

    def _field(self, name: str, _: str, value: str) -> None:
        value = value.removeprefix(" ")
        if name == "event":
            self._kind = value
        elif name == "data":
            self._data.append(value)
        elif name == "id":
            self._id = value
        elif name == "retry" and value.isdecimal():
            self.retry_seconds = int(value) / 1000
