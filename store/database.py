"""One database: its engine, its two kinds of transaction, and its schema's version.

SQLite runs with WAL, foreign keys, a busy timeout and `synchronous=FULL`. A writer begins IMMEDIATE: a deferred
transaction that turns into a write fails at once in spite of the timeout.
"""

import itertools
import selectors
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, DisconnectionError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import ConnectionPoolEntry

import migrations
from model.errors import BadInput, Unreachable

__all__ = [
    "Connection",
    "Engine",
    "at_head",
    "connect",
    "prepare",
    "read",
    "shown",
    "upgrade",
    "write",
]

BUSY_TIMEOUT_SECONDS = 30  # SQLite: how long a writer waits for another one
CONNECT_TIMEOUT_SECONDS = 10  # PostgreSQL: how long an address may stay silent
IDLE_SECONDS = 1.0  # PostgreSQL: after which a connection may be lost without a word

# Names of PostgreSQL's advisory locks: one critical section each. SQLite has one writer at a time anyway.
UPGRADE_LOCK = 0x6261_7270_0001
JOBS_LOCK = 0x6261_7270_0002
LEDGER_LOCK = 0x6261_7270_0003

# Where PostgreSQL tells whoever listens that something was committed.
CHANNEL = "barprop"
# A number of this process's newest commit, by engine and topic: another one after each, whichever thread committed.
_numbers = itertools.count(1)
_commits: WeakKeyDictionary[Engine, dict[str, int]] = WeakKeyDictionary()

_FORMS = "sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME"


def connect(url: str) -> Engine:
    """The engine of the database at `url` (`sqlite:///FILE` or `postgresql://…`). Raises BadInput, Unreachable."""
    address = _address(url)
    made = _ENGINES.get(address.get_backend_name())
    if made is None:
        raise BadInput(f"no support for {address.get_backend_name()} databases: {_FORMS}")
    engine = made(address)
    _commits[engine] = {}
    return engine


def _address(url: str) -> URL:
    try:
        return make_url(url)
    except (ArgumentError, ValueError):
        # neither the text nor the cause is shown: a mistyped address may still hold its password
        raise BadInput(f"the database's address is not one: {_FORMS}") from None


def shown(url: str) -> str:
    """`url` as a user may see it: without its password and its options."""
    return _shown(_address(url))


def _shown(address: URL) -> str:
    return address.set(query={}).render_as_string(hide_password=True)


def _postgresql(address: URL) -> Engine:
    # a bare postgresql:// means psycopg 3, the driver that is installed
    engine = create_engine(
        address.set(drivername="postgresql+psycopg"),
        isolation_level="AUTOCOMMIT",  # BEGIN is ours to say, see below
        hide_parameters=True,  # errors are logged, and a parameter may be a key's hash
        connect_args={"connect_timeout": CONNECT_TIMEOUT_SECONDS},
    )

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        kind: _Transaction | None = connection.get_execution_options().get("barprop")
        if kind is None:
            return
        begin = ["BEGIN" if kind.writes else "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"]
        if kind.writes:  # heard once this has committed
            begin += [f"NOTIFY {CHANNEL}, '{topic}'" for topic in {"", kind.topic}]
        if kind.lock is not None:
            begin.append(f"SELECT pg_advisory_xact_lock({kind.lock})")
        # all in one: each way to the server and back costs as much as a statement
        connection.exec_driver_sql("; ".join(begin), execution_options={"no_parameters": True})

    @event.listens_for(engine, "checkin")
    def _used(_connection: Any, record: ConnectionPoolEntry) -> None:
        record.info["used"] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def _alive(connection: Any, record: ConnectionPoolEntry, _proxy: Any) -> None:
        """Asks a connection whether it is still there, unless it was used just now and nothing has come by it since: a
        server that goes says so."""
        idle = time.monotonic() - record.info.get("used", time.monotonic())
        if idle < IDLE_SECONDS and not _has_news(connection):
            return
        try:
            engine.dialect.do_ping(connection)
        except engine.dialect.loaded_dbapi.Error as error:
            raise DisconnectionError from error  # the pool takes another one

    return engine


def _has_news(connection: Any) -> bool:
    """Whether anything has come by a connection that asks for nothing."""
    with selectors.DefaultSelector() as selector:  # no bare select: it takes no large numbers
        selector.register(connection, selectors.EVENT_READ)
        return bool(selector.select(0))


def _sqlite(address: URL) -> Engine:
    path = address.database
    if path and path != ":memory:" and not path.startswith("file:"):
        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Unreachable(f"cannot make the folder of the database {path}: {error.strerror}") from error
    engine = create_engine(
        address.set(drivername="sqlite"),
        hide_parameters=True,
        connect_args={"timeout": BUSY_TIMEOUT_SECONDS},
    )

    @event.listens_for(engine, "connect")
    def _prepare(connection: sqlite3.Connection, _record: Any) -> None:
        connection.isolation_level = None  # BEGIN is ours to say, see below
        _wal(connection)
        for pragma in ("foreign_keys=ON", "synchronous=FULL"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        kind: _Transaction | None = connection.get_execution_options().get("barprop")
        if kind is None:
            return
        connection.exec_driver_sql(f"PRAGMA busy_timeout={kind.patience_seconds * 1000:.0f}")
        # a write in a reader's transaction would fail only when somebody else writes: refuse it always
        connection.exec_driver_sql(f"PRAGMA query_only={'OFF' if kind.writes else 'ON'}")
        connection.exec_driver_sql(f"BEGIN {'IMMEDIATE' if kind.writes else 'DEFERRED'}")

    return engine


_ENGINES = {"sqlite": _sqlite, "postgresql": _postgresql, "postgres": _postgresql}


def _wal(connection: sqlite3.Connection) -> None:
    """Turns WAL on. SQLite does not wait here by itself when two processes open a fresh file at once."""
    deadline = time.monotonic() + BUSY_TIMEOUT_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


@dataclass(frozen=True)
class _Transaction:
    """What a transaction begins with."""

    writes: bool
    patience_seconds: float = BUSY_TIMEOUT_SECONDS
    lock: int | None = None
    topic: str = ""


@contextmanager
def _begun(engine: Engine, kind: _Transaction) -> Iterator[Connection]:
    with (
        _reached(engine),
        engine.connect() as plain,
        plain.execution_options(barprop=kind) as connection,
        connection.begin(),
    ):
        yield connection


@contextmanager
def read(engine: Engine) -> Iterator[Connection]:
    """A transaction that only reads: one consistent view. Raises Unreachable."""
    with _begun(engine, _Transaction(writes=False)) as connection:
        yield connection


@contextmanager
def glance(engine: Engine) -> Iterator[Connection]:
    """For one statement that reads, which needs no view beside itself. Raises Unreachable."""
    with _reached(engine), engine.connect() as connection:
        yield connection


@contextmanager
def write(
    engine: Engine,
    patience_seconds: float = BUSY_TIMEOUT_SECONDS,
    *,
    lock: int | None = None,
    topic: str = "",
) -> Iterator[Connection]:
    """A transaction that may write. It has committed when the block is left without an error. Raises Unreachable; on
    SQLite where another writer takes longer than `patience_seconds`.

    No other transaction holds `lock` meanwhile. Whoever watches the database hears of it, those that watch `topic` too.
    """
    with _begun(engine, _Transaction(True, patience_seconds, lock, topic)) as connection:
        yield connection
    for each in {"", topic}:
        _commits[engine][each] = next(_numbers)


def newest_commit(engine: Engine, topic: str = "") -> int:
    """A number that is another one after each commit of this process to that database, or of that topic."""
    return _commits[engine].get(topic, 0)


def alone(connection: Connection, lock: int) -> None:
    """Waits until no other transaction holds `lock`, and holds it to the end of this one."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": lock})


@contextmanager
def _reached(engine: Engine) -> Iterator[None]:
    where = _shown(engine.url)
    try:
        yield
    except IntegrityError:
        raise  # the database answered, and rightly refused
    except PoolTimeout as error:
        raise Unreachable(f"the database {where} does not answer: all its connections are in use") from error
    except DBAPIError as error:
        trouble = _trouble(error)
        if trouble is None:
            raise
        raise Unreachable(f"the database {where} {trouble}") from error


# What SQLite and PostgreSQL say, and what it means to a user; asked in this order.
_TROUBLES = {
    "no such table": "has no tables yet, or not all: run `barprop db upgrade`",
    "no such column": "has an older schema: run `barprop db upgrade`",
    "has no column named": "has an older schema: run `barprop db upgrade`",
    "not a database": "is not a SQLite file",
    "malformed": "is damaged: restore it from a backup",
    "unable to open": "cannot be opened: its folder must exist and be writable",
    "readonly": "may only be read: its file and folder must be writable",
    "database is locked": "is busy: another program has been writing to it for too long",
}
_TROUBLES_BY_SQLSTATE = {
    "42P01": "has no tables yet, or not all: run `barprop db upgrade`",
    "42703": "has an older schema: run `barprop db upgrade`",
}


def _trouble(error: DBAPIError) -> str | None:
    """Why the database cannot serve, or None where the statement was at fault."""
    kind = type(error).__name__
    reason = str(error.orig).strip().splitlines()[0] if str(error.orig).strip() else "it does not say why"
    state = getattr(error.orig, "sqlstate", None)
    if state in _TROUBLES_BY_SQLSTATE:
        return _TROUBLES_BY_SQLSTATE[state]
    if kind == "ProgrammingError":
        return f"refuses: {reason}" if state == "42501" else None  # 42501: no permission
    for said, meaning in _TROUBLES.items():
        if said in reason:
            return meaning
    return f"does not answer: {reason}" if kind in ("OperationalError", "InternalError") else None


def alembic_config(connection: Connection | None = None) -> Config:
    """Alembic's configuration, found beside the installed migrations; `connection` is what it works on."""
    config = Config()
    # Alembic reads a percent sign in a path as the beginning of a variable
    config.set_main_option("script_location", str(Path(migrations.__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def upgrade(engine: Engine) -> None:
    """Brings the schema to its newest revision; doing it twice, or from two processes, is doing it once."""
    with write(engine, lock=UPGRADE_LOCK) as connection:
        try:
            command.upgrade(alembic_config(connection), "head")
        except CommandError as error:
            raise Unreachable(
                f"the database {_shown(engine.url)} has a schema that this program does not know: "
                "it was upgraded by a newer one"
            ) from error


def at_head(engine: Engine) -> bool:
    """Whether the schema is the one that this program was built for. Raises Unreachable."""
    with read(engine) as connection:
        # it makes a table of its own each time, for which the engine would keep its statements
        own = connection.execution_options(compiled_cache=None)
        return MigrationContext.configure(own).get_current_revision() == _head()


@cache
def _head() -> str | None:
    return ScriptDirectory.from_config(alembic_config()).get_current_head()


def prepare(engine: Engine) -> None:
    """Makes the database ready for a command: SQLite is upgraded, PostgreSQL must be at head. Raises Unreachable."""
    if at_head(engine):
        return
    if engine.dialect.name != "sqlite":
        raise Unreachable(
            f"the database {_shown(engine.url)} has not the schema of this program: run `barprop db upgrade`"
        )
    upgrade(engine)
