"""Bars, a network, and a database full of markets that it answers for."""

import os
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl

import store.bars
import store.database
import store.keys
import store.markets
import store.versions
from benchmarks import markets
from model import artifact, dataset, training
from model.artifact import Packed
from model.bars import Bars, Market, iso, timeframe
from model.config import TrainConfig
from model.features import DEFAULT, rows
from store.database import Engine

TIMEFRAME = "1h"
HOUR = timedelta(hours=1)
BARS = 1_100  # of a stored market
TAUGHT = 5_000  # bars that the network has learned from
BESIDE = Path(__file__).resolve().parents[3] / "shared" / "data"


def names(count: int) -> list[str]:
    """Symbols of so many markets."""
    return [f"COIN{place:03}" for place in range(count)]


@cache
def origin() -> tuple[str, Bars]:
    """What the bars are, and the bars: real ones of ETHUSDT by the hour where they are at hand, in the folder that
    BARPROP_REAL_BARS names or beside the checkout, else synthetic ones."""
    file = Path(os.environ.get("BARPROP_REAL_BARS") or BESIDE) / f"ETHUSDT_{TIMEFRAME}.parquet"
    if file.exists():
        return "real bars of ETHUSDT 1h", pl.read_parquet(file)
    return "synthetic bars", markets.planted(0, 12_000, lambda seen: 0.0, 0.0).bars


def newest(count: int, close: datetime) -> Bars:
    """The newest `count` bars, moved so that the last of them closes then."""
    tail = origin()[1].tail(count)
    return tail.with_columns(pl.col("ts") + (close - HOUR - tail["ts"][-1]))


def full_hour() -> datetime:
    """The newest hour that has passed."""
    return datetime.now(UTC).replace(minute=0, second=0, microsecond=0)


def wire(bars: Bars) -> list[dict[str, Any]]:
    """Bars as a request brings them."""
    return [{**bar, "ts": iso(bar["ts"])} for bar in bars.iter_rows(named=True)]


@cache
def network() -> Packed:
    """A version with the default settings."""
    config = TrainConfig()
    taught = rows(newest(TAUGHT + BARS, full_hour()).head(TAUGHT), timeframe(TIMEFRAME))
    fit = training.fit(dataset.build(taught, DEFAULT, config.horizon), config)
    arrays, manifest = training.contents(fit)
    return artifact.pack(arrays, manifest | {"held": {"rows": 0, "gain": 0.0, "gain_error": 0.0}})


def fill(engine: Engine, symbols: Iterable[str], bars: Bars) -> None:
    """Stores the same bars for each symbol, and the network as its champion."""
    now = datetime.now(UTC)
    packed, long_ago = network(), bars["ts"][0]
    for symbol in symbols:
        store.bars.add(engine, Market(symbol, TIMEFRAME), bars, now)
    with store.database.write(engine) as conn:
        for symbol in symbols:
            market_id = store.markets.need(conn, Market(symbol, TIMEFRAME)).id
            version = store.versions.add(conn, market_id, packed, None, long_ago)
            store.versions.record(conn, market_id, version, "champion", "first", long_ago, long_ago)


def key(engine: Engine) -> str:
    """A key that may ask for predictions."""
    with store.database.write(engine) as conn:
        return store.keys.create(conn, "benchmark", ["predict"], datetime.now(UTC))[1]
