"""One database: its engine, its two kinds of transaction, and its schema's version.

SQLite runs with WAL, foreign keys, a busy timeout and `synchronous=FULL`. A writer begins IMMEDIATE: a deferred
transaction that turns into a write fails at once in spite of the timeout.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, OperationalError

import migrations
from model.errors import BadInput, Unreachable

BUSY_TIMEOUT_SECONDS = 30


def connect(url: str) -> Engine:
    """The engine of the database at `url` (`sqlite:///FILE` or `postgresql://…`). Raises BadInput, Unreachable."""
    try:
        address = make_url(url)
    except ArgumentError as error:
        raise BadInput(f"not a database address: {url!r}; sqlite:///FILE or postgresql://USER@HOST/NAME") from error
    if address.get_backend_name() == "sqlite":
        return _sqlite(url, address.database)
    if address.get_backend_name() == "postgresql":
        # a bare postgresql:// means psycopg 3, the driver that is installed
        return create_engine(address.set(drivername="postgresql+psycopg"), pool_pre_ping=True)
    raise BadInput(f"no support for {address.get_backend_name()} databases; sqlite or postgresql")


def _sqlite(url: str, path: str | None) -> Engine:
    if path and path != ":memory:":
        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Unreachable(f"cannot make the folder of the database {path}: {error.strerror}") from error
    engine = create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_SECONDS})

    @event.listens_for(engine, "connect")
    def _prepare(connection: sqlite3.Connection, _record: Any) -> None:
        connection.isolation_level = None  # BEGIN is ours to say, see below
        for pragma in ("journal_mode=WAL", "foreign_keys=ON", "synchronous=FULL"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        mode = "IMMEDIATE" if connection.get_execution_options().get("writes") else "DEFERRED"
        connection.exec_driver_sql(f"BEGIN {mode}")

    return engine


@contextmanager
def read(engine: Engine) -> Iterator[Connection]:
    """A transaction that only reads: one consistent view."""
    with _reached(engine), engine.connect() as connection, connection.begin():
        yield connection


@contextmanager
def write(engine: Engine) -> Iterator[Connection]:
    """A transaction that may write. It has committed when the block is left without an error."""
    with _reached(engine), engine.connect() as connection:
        connection = connection.execution_options(writes=True)
        with connection.begin():
            yield connection


@contextmanager
def _reached(engine: Engine) -> Iterator[None]:
    try:
        yield
    except OperationalError as error:
        where = engine.url.render_as_string(hide_password=True)
        reason = str(error.orig).strip().splitlines()[0] if error.orig else "no reason given"
        if "no such table" in reason:
            raise Unreachable(f"the database {where} has no tables yet: run `barprop db upgrade`") from error
        raise Unreachable(f"the database {where} does not answer: {reason}") from error


def alembic_config(connection: Connection | None = None) -> Config:
    """Alembic's configuration, found beside the installed migrations; `connection` is what it works on."""
    folder = Path(migrations.__file__).parent
    config = Config()
    config.set_main_option("script_location", str(folder))
    config.attributes["connection"] = connection
    return config


def upgrade(engine: Engine) -> None:
    """Brings the schema to its newest revision; doing it twice is doing it once."""
    with write(engine) as connection:
        command.upgrade(alembic_config(connection), "head")


def at_head(engine: Engine) -> bool:
    """Whether the schema is the one that this program was built for."""
    head = ScriptDirectory.from_config(alembic_config()).get_current_head()
    with read(engine) as connection:
        return MigrationContext.configure(connection).get_current_revision() == head


def prepare(engine: Engine) -> None:
    """Makes the database ready for a command: SQLite is upgraded, PostgreSQL must be at head. Raises Unreachable."""
    if at_head(engine):
        return
    if engine.dialect.name != "sqlite":
        raise Unreachable("the database's schema is not the one of this program: run `barprop db upgrade`")
    upgrade(engine)
