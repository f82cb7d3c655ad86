"""Both databases: a law of the store holds on SQLite and on PostgreSQL, or it is none."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import store.database
from store.database import Engine
from tests import postgres as real_postgres


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a PostgreSQL server that runs for the whole session."""
    with real_postgres.server() as url:
        yield url


@pytest.fixture
def postgres(postgres_server: str) -> Iterator[str]:
    """The URL of an empty PostgreSQL database."""
    with real_postgres.fresh(postgres_server) as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, once of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'bars.db'}"
    return str(request.getfixturevalue("postgres"))


@pytest.fixture
def database(url: str) -> Iterator[Engine]:
    """A database after the real migrations, once of each kind."""
    engine = store.database.connect(url)
    store.database.upgrade(engine)
    yield engine
    engine.dispose()
