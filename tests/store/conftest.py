"""Both databases: a law of the store holds on SQLite and on PostgreSQL, or it is none."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

import store.database
from store.database import Engine
from store.tables import markets
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


@pytest.fixture
def market_id(database: Engine) -> int:
    """The row of ETHUSDT 1h."""
    return add_market(database, "ETHUSDT")


@pytest.fixture
def other_market_id(database: Engine, market_id: int) -> int:
    """The row of BTCUSDT 1h."""
    return add_market(database, "BTCUSDT")


def add_market(engine: Engine, symbol: str) -> int:
    """A market's row, written without the help of what is under test."""
    created_at = datetime(2024, 1, 1, tzinfo=UTC)
    row = {"symbol": symbol, "timeframe": "1h", "paused": False, "created_at": created_at}
    with store.database.write(engine) as conn:
        key = conn.execute(markets.insert().values(row)).inserted_primary_key
    assert key is not None
    return int(key[0])
