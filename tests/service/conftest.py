"""The service as a client sees it: the real app over a fresh database, with a clock that a test sets."""

import warnings
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from fastapi import FastAPI

import store.bars
import store.database
import store.markets
import store.settings
import store.versions
from model import artifact, dataset, training
from model.artifact import Packed
from model.bars import BAR_SCHEMA, Bars, Market, timeframe
from model.features import DEFAULT, rows
from service.app import create_app
from store.database import Engine
from store.settings import Settings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it asks for another HTTP client, which nothing here needs
    from fastapi.testclient import TestClient

CLOSE = datetime(2024, 7, 1, tzinfo=UTC)  # of the newest bar that fixtures store
ETH = Market("ETHUSDT", "1h")
BARS = 1_100
HERE = "http://127.0.0.1:8000"


class Clock:
    """The time that a test has set."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        """That time."""
        return self.now


def walk(count: int = BARS, close: datetime = CLOSE, seed: int = 7) -> Bars:
    """A random walk of hourly bars, the newest of which closes at `close`."""
    rng = np.random.default_rng(seed)
    closes = 3000 * np.exp(np.cumsum(rng.normal(0, 0.004, count)))
    opens = np.concatenate([[3000.0], closes[:-1]])
    spread = np.exp(np.abs(rng.normal(0, 0.001, count)))
    first = close - count * timedelta(hours=1)
    return pl.DataFrame(
        {
            "ts": [first + i * timedelta(hours=1) for i in range(count)],
            "open": opens,
            "high": np.maximum(opens, closes) * spread,
            "low": np.minimum(opens, closes) / spread,
            "close": closes,
            "volume": rng.uniform(1, 2, count),
        },
        schema=BAR_SCHEMA,
    )


def bar(ts: datetime, price: float = 3000.0) -> dict[str, str | float]:
    """A bar as a request brings it."""
    return {"ts": ts.isoformat(), "open": price, "high": price, "low": price, "close": price, "volume": 1.0}


@pytest.fixture(scope="session")
def packed() -> Packed:
    """A version, trained in a second on a random walk."""
    kept = timeframe("1h")
    config = training.TrainConfig(hidden=(8,), epochs=2, patience=1)
    fit = training.fit(dataset.build(rows(walk(), kept), DEFAULT, 1), config)
    arrays, manifest = training.contents(fit)
    arrays["calibration"][3] = 1e9  # so that the bars that tests add lie in its domain
    return artifact.pack(arrays, manifest | {"held": {"rows": 0, "gain": 0.0, "gain_error": 0.0}})


@pytest.fixture
def clock() -> Clock:
    """Twenty minutes after the newest bar's close."""
    return Clock(CLOSE + timedelta(minutes=20))


@pytest.fixture
def settings(engine: Engine) -> Settings:
    """The defaults, on the test's own database."""
    return store.settings.load(database={"url": str(engine.url)})


@pytest.fixture
def app(engine: Engine, settings: Settings, clock: Clock) -> FastAPI:
    """The service."""
    return create_app(engine, settings, clock)


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    """A client on the same machine."""
    with TestClient(app, base_url=HERE, raise_server_exceptions=False) as made:
        yield made


@pytest.fixture
def market_id(engine: Engine) -> int:
    """ETHUSDT 1h with 1,100 bars and no version."""
    store.bars.add(engine, ETH, walk(), CLOSE)
    with store.database.read(engine) as conn:
        return store.markets.need(conn, ETH).id


@pytest.fixture
def champion(engine: Engine, market_id: int, packed: Packed) -> int:
    """The version that answers for ETHUSDT 1h."""
    return add_version(engine, market_id, packed, "champion")


def add_version(engine: Engine, market_id: int, packed: Packed, role: store.versions.Role | None) -> int:
    """A further version, in that role since long ago."""
    long_ago = CLOSE - timedelta(days=30)
    with store.database.write(engine) as conn:
        version = store.versions.add(conn, market_id, packed, None, long_ago)
        if role is not None:
            store.versions.record(conn, market_id, version, role, "first", long_ago, long_ago)
    return version


def problem(response: object) -> dict[str, object]:
    """The problem document of a response, of the form that every problem has."""
    assert response.headers["content-type"] == "application/problem+json"  # type: ignore[attr-defined]
    document: dict[str, object] = response.json()  # type: ignore[attr-defined]
    assert document["status"] == response.status_code  # type: ignore[attr-defined]
    assert {"type", "title", "status", "detail"} <= set(document)
    assert str(document["type"]).startswith("/problems/")
    assert "Traceback" not in str(document)
    return document
