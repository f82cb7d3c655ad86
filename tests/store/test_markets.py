"""Markets are rows, made once."""

import threading
from datetime import UTC, datetime

import pytest
from sqlalchemy import func, select

import store.markets
from model.bars import Market
from model.errors import NotFound
from store import database as db
from store.database import Engine
from store.tables import markets

NOW = datetime(2024, 7, 1, tzinfo=UTC)
LATER = datetime(2024, 7, 2, tzinfo=UTC)
ETH, BTC, DAILY = Market("ETHUSDT", "1h"), Market("BTCUSDT", "1h"), Market("ETHUSDT", "1d")


def test_a_market_is_made_once_and_then_found(database: Engine) -> None:
    with db.write(database) as conn:
        assert store.markets.find(conn, ETH) is None
        made = store.markets.ensure(conn, ETH, NOW)
    with db.write(database) as conn:
        assert store.markets.ensure(conn, ETH, LATER) == made
    with db.read(database) as conn:
        assert store.markets.find(conn, ETH) == store.markets.need(conn, ETH) == made
    assert (made.market, made.paused, made.created_at) == (ETH, False, NOW)


def test_an_unknown_market_is_named_with_the_command_that_makes_it(database: Engine) -> None:
    with db.read(database) as conn, pytest.raises(NotFound) as caught:
        store.markets.need(conn, Market("NOSUCH", "1h"))
    assert str(caught.value).startswith("no market NOSUCH 1h: ingest bars for it first, e.g. barprop ingest")


def test_a_symbol_has_a_market_for_each_timeframe(database: Engine) -> None:
    with db.write(database) as conn:
        rows = [store.markets.ensure(conn, market, NOW) for market in (ETH, BTC, DAILY)]
        assert len({row.id for row in rows}) == 3
    with db.read(database) as conn:
        assert [row.market for row in store.markets.all(conn)] == [BTC, DAILY, ETH]


def test_a_market_is_paused_and_goes_on(database: Engine) -> None:
    with db.write(database) as conn:
        eth, btc = (store.markets.ensure(conn, market, NOW) for market in (ETH, BTC))
        for paused in (True, False):
            store.markets.set_paused(conn, eth.id, paused)
            assert store.markets.need(conn, ETH).paused is paused
            assert store.markets.need(conn, BTC) == btc


def test_many_who_make_a_market_at_once_make_one(database: Engine) -> None:
    ready, made = threading.Barrier(4), []

    def make() -> None:
        ready.wait()
        with db.write(database) as conn:
            made.append(store.markets.ensure(conn, ETH, NOW).id)

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with db.read(database) as conn:
        assert conn.scalar(select(func.count()).select_from(markets)) == 1
    assert len(made) == 4
    assert len(set(made)) == 1
