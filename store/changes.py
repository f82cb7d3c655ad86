"""Whether anything was committed to a database since somebody looked, whoever committed it.

What a process keeps in memory is good as long as the mark stands that it was read under. SQLite is asked each time,
which takes microseconds, whatever the topic; PostgreSQL tells who listens, within a few milliseconds of a commit.
"""

import threading
from collections import Counter
from typing import Any

from sqlalchemy import text

from model.errors import Unreachable
from store import database
from store.database import Engine

# How long PostgreSQL may be silent before it is asked whether it is still there, and the pause after it was not.
SILENCE_SECONDS = 1.0
AGAIN_SECONDS = 0.2


class SqliteWatch:
    """One connection that only asks: above all for the number that moves with every commit of any other."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._connection = engine.raw_connection()
        self._cursor: Any = self._connection.cursor()

    def mark(self, _topic: str = "") -> object:
        """Equal to an earlier one as long as nothing was committed in between. Raises Unreachable."""
        return self.number("PRAGMA data_version")

    def number(self, sql: str) -> Any:
        """The one number that this finds; None where it finds nothing. Raises Unreachable."""
        with self._lock:
            try:
                rows = self._cursor.execute(sql).fetchall()  # to its end, which ends its view of the database
            except Exception as error:
                raise Unreachable(f"the database does not answer: {error}") from error
        return rows[0][0] if rows else None

    def close(self) -> None:
        """Gives the connection back."""
        with self._lock:
            self._connection.close()


class PostgresWatch:
    """A thread that listens."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._began = 0  # how often it began to listen: what came before was not heard
        self._heard: Counter[str] = Counter()  # how many commits, by topic
        self._fault: str | None = "it has not been reached yet"
        self._stop, self._first = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._listen, name="changes", daemon=True)
        self._thread.start()
        self._first.wait(database.CONNECT_TIMEOUT_SECONDS)

    def mark(self, topic: str = "") -> object:
        """Equal to an earlier one as long as nothing (of that topic) was committed in between. Raises Unreachable."""
        if self._fault is not None:
            raise Unreachable(f"the database does not answer: {self._fault}")
        return self._began, self._heard[topic], database.newest_commit(self._engine, topic)

    def number(self, sql: str) -> Any:
        """The one number that this finds; None where it finds nothing. Raises Unreachable."""
        with database.glance(self._engine) as conn:
            return conn.exec_driver_sql(sql).scalar()

    def close(self) -> None:
        """Ends the thread."""
        self._stop.set()
        self._thread.join()

    def _listen(self) -> None:
        while not self._stop.is_set():
            try:
                self._hear()
            except Exception as error:  # whatever it is, the database is not heard
                self._fault = " ".join(str(error).split())
                self._first.set()
                self._stop.wait(AGAIN_SECONDS)

    def _hear(self) -> None:
        with self._engine.connect() as connection:
            connection.exec_driver_sql(f"LISTEN {database.CHANNEL}")
            driver: Any = connection.connection.driver_connection
            self._began += 1
            self._fault = None
            self._first.set()
            while not self._stop.is_set():
                told = list(driver.notifies(timeout=SILENCE_SECONDS, stop_after=1))
                self._heard.update(each.payload for each in told)
                if not told:
                    connection.execute(text("SELECT 1"))


Watch = SqliteWatch | PostgresWatch


def watch(engine: Engine) -> Watch:
    """A watch over the database of `engine`."""
    return PostgresWatch(engine) if engine.dialect.name == "postgresql" else SqliteWatch(engine)
