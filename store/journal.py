"""The journal: rows of the ledger that were answered while the database was away, synced to a local file each.

They are delivered in their order once the database is back; twice is once, as the ledger keeps one row an answer. One
file a process, locked while that lives: what a killed one left is delivered by the next.
"""

import base64
import fcntl
import hashlib
import json
import logging
import os
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from sqlalchemy.exc import IntegrityError

import store.database
import store.predictions
from model.errors import Unreachable
from store.database import Engine
from store.tables import EPOCH, MICROSECOND, micros

log = logging.getLogger(__name__)

# What JSON has no form of its own for.
_MOMENT, _BYTES = "moment", "bytes"


class Journal:
    """The journal of one process. Safe for threads."""

    def __init__(
        self,
        folder: Path,
        engine: Engine,
        most_rows: int,
        note: Callable[[int, int], None] = lambda waiting, refused: None,
    ) -> None:
        """Of the database of `engine`, in a folder of its own under `folder`; nothing is made before the first row. `note`
        is told how many rows wait, and how many more the ledger has refused, whenever either may have changed."""
        named = hashlib.sha256(store.database.shown(str(engine.url)).encode()).hexdigest()[:16]
        self._folder = folder / named
        self._engine = engine
        self.most_rows = most_rows
        self._note = note
        self._lock = threading.Lock()
        self._file: IO[bytes] | None = None
        self._rows: dict[tuple[Any, ...], Mapping[str, Any]] = {}  # as they wait, by what they answer

    @property
    def waiting(self) -> int:
        """How many rows wait to be delivered."""
        return len(self._rows)

    def append(self, row: Mapping[str, Any]) -> None:
        """Keeps a row until the ledger has it; the same answer twice is once. It is on the disk when this returns. Raises
        Unreachable where it cannot be kept."""
        answers = row["market_id"], row["as_of"], row["answer"]
        with self._lock:
            if answers in self._rows:
                return
            if len(self._rows) >= self.most_rows:
                raise Unreachable(
                    f"the database does not answer, and the journal is full: {self.most_rows} rows wait for it"
                )
            try:
                self._write(_line(row), micros(row["served_at"]))
            except OSError as error:
                raise Unreachable(
                    f"the database does not answer, and the journal in {self._folder} cannot be written: {error.strerror}"
                ) from error
            self._rows[answers] = row
            self._note(len(self._rows), 0)

    def deliver(self) -> int:
        """Puts what waits into the ledger, in its order, and what killed processes left before it; says how many rows
        those were. Raises Unreachable where the database went away again: then all of it goes on waiting."""
        delivered = sum(self._deliver_left(path) for path in self._left())
        with self._lock:
            rows = dict(self._rows)
        for answers, row in rows.items():
            self._put(row)
            with self._lock:
                del self._rows[answers]
        with self._lock:
            self._note(len(self._rows), 0)
            if self._file is not None and not self._rows:  # else it is emptied next time: twice is once
                _empty(self._file)
        return delivered + len(rows)

    def close(self) -> None:
        """Lets the file go, and removes it where nothing waits in it."""
        with self._lock:
            if self._file is None:
                return
            if not self._rows:
                Path(self._file.name).with_suffix(".journal").unlink(missing_ok=True)
            self._file.close()
            self._file = None

    def _write(self, line: bytes, begun: int) -> None:
        if self._file is None:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._file = _locked_file(self._folder, begun)
        end = self._file.tell()
        try:
            self._file.write(line)
            os.fsync(self._file.fileno())
        except OSError:  # half a line must not stand before the next
            self._file.truncate(end)
            self._file.seek(end)
            raise

    def _left(self) -> list[Path]:
        """The files of processes that are no more, oldest first."""
        return sorted(self._folder.glob("*.journal"))  # by the time at which they were begun

    def _deliver_left(self, path: Path) -> int:
        try:
            file = path.open("r+b")
        except FileNotFoundError:  # another process was quicker
            return 0
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return 0  # its process lives: it may be this one
            delivered, damaged = 0, False
            for row in _rows(file.read(), path):
                if row is None:
                    damaged = True
                    continue
                self._put(row)
                delivered += 1
            if damaged:  # somebody may still read what no program can
                path.rename(path.with_suffix(".damaged"))
            else:
                path.unlink(missing_ok=True)
        if delivered:
            log.warning(
                "%d rows of the ledger were delivered that a process had left in its journal", delivered
            )
        return delivered

    def _put(self, row: Mapping[str, Any]) -> None:
        """Puts a row into the ledger. One that the database refuses, say that its market is gone since a backup was put
        back, is set aside, so that it holds up no other."""
        try:
            if store.predictions.keep_row(self._engine, row) is None:
                log.info("the ledger had an answer for %s already", row["as_of"])
        except IntegrityError:
            with (self._folder / "refused").open("ab") as aside:
                aside.write(_line(row))
                aside.flush()
                os.fsync(aside.fileno())
            self._note(self.waiting, 1)
            log.error("the ledger refuses a row of the journal; it was set aside in %s", self._folder)


def _locked_file(folder: Path, begun: int) -> IO[bytes]:
    """A new file of a journal, named so that files sort by when they were begun; nobody sees it before it is locked."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    name = f"{begun}-{os.getpid()}-{os.urandom(4).hex()}"
    hidden = folder / f"{name}.new"
    file = hidden.open("xb", buffering=0)
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    hidden.rename(folder / f"{name}.journal")
    _sync_folder(folder)
    return file


def _line(row: Mapping[str, Any]) -> bytes:
    def told(value: Any) -> Any:
        if isinstance(value, datetime):
            return {_MOMENT: micros(value)}
        return {_BYTES: base64.b64encode(value).decode()} if isinstance(value, bytes) else value

    text = json.dumps({name: told(value) for name, value in row.items()}).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _rows(content: bytes, path: Path) -> Iterator[dict[str, Any] | None]:
    """The rows of a file, None for a damaged one. What a kill left half written was never acknowledged."""

    def value(told: Any) -> Any:
        if not isinstance(told, dict):
            return told
        return EPOCH + told[_MOMENT] * MICROSECOND if _MOMENT in told else base64.b64decode(told[_BYTES])

    *lines, half = content.split(b"\n")
    for number, line in enumerate(lines, 1):
        check, _, text = line.partition(b" ")
        if check != b"%08x" % zlib.crc32(text):
            log.error("line %d of the journal %s is damaged and cannot be delivered", number, path)
            yield None
            continue
        yield {name: value(told) for name, told in json.loads(text).items()}
    if half:
        log.info("the journal %s ends in half a line, which nobody was answered", path)


def _empty(file: IO[bytes]) -> None:
    file.truncate(0)
    file.seek(0)
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
