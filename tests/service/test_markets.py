"""The list of markets, and of the breaks in their bars."""

from datetime import timedelta

import polars as pl
import pytest
from fastapi.testclient import TestClient

import store.bars
from store.database import Engine
from tests.service.conftest import CLOSE, ETH, problem, walk


def test_without_markets_the_list_is_empty(client: TestClient) -> None:
    assert client.get("/v1/markets").json() == {"items": [], "next": None}


def test_a_market_tells_its_bars_and_who_answers(client: TestClient, market_id: int) -> None:
    expected = {
        "market": {"symbol": "ETHUSDT", "timeframe": "1h"},
        "paused": False,
        "created_at": "2024-07-01T00:00:00Z",
        "bars": 1100,
        "last_close": "2024-07-01T00:00:00Z",
        "champion": None,
    }
    assert client.get("/v1/markets").json() == {"items": [expected], "next": None}


def test_a_champion_is_named(client: TestClient, champion: int) -> None:
    assert client.get("/v1/markets").json()["items"][0]["champion"] == champion


def test_gaps_and_jumps_are_listed_newest_first(client: TestClient, engine: Engine) -> None:
    bars = walk()
    wrong = pl.when(pl.int_range(pl.len()) == 900).then(7.0).otherwise(1.0)
    bars = bars.with_columns(pl.col(name) * wrong for name in ("open", "high", "low", "close"))
    store.bars.add(engine, ETH, pl.concat([bars[:500], bars[520:]]), CLOSE)
    listed = client.get("/v1/markets/ETHUSDT/1h/breaks").json()
    back, there, gap = listed["items"]
    assert listed["next"] is None
    assert (back["kind"], there["kind"], gap["kind"]) == ("jump", "jump", "gap")
    assert there["size"] == pytest.approx(1.95, abs=0.02)
    assert back["size"] == pytest.approx(-1.95, abs=0.02)
    first_after = CLOSE - timedelta(hours=1_100 - 520)
    assert gap == {"kind": "gap", "ts": first_after.isoformat().replace("+00:00", "Z"), "size": 20.0}


def test_a_market_without_breaks_has_an_empty_list_and_an_unknown_one_none(
    client: TestClient, market_id: int
) -> None:
    assert client.get("/v1/markets/ETHUSDT/60m/breaks").json() == {"items": [], "next": None}
    assert problem(client.get("/v1/markets/NOSUCH/1h/breaks"))["status"] == 404
