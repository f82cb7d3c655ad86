"""Markets for laws of the store."""

from datetime import UTC, datetime

import pytest

import store.database
from store.database import Engine
from store.tables import markets


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
