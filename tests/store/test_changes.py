"""Laws of the watch: whoever commits moves the mark, and nothing else does."""

import time
from datetime import UTC, datetime

import store.bars
import store.changes
import store.clock
import store.database
import store.markets
from model.bars import Market
from store.database import Engine
from tests.service.conftest import CLOSE, walk
from tests.waiting import until

ETH = Market("ETHUSDT", "1h")


def test_a_commit_of_another_process_moves_the_mark_and_reading_does_not(database: Engine, url: str) -> None:
    watch, other = store.changes.watch(database), store.database.connect(url)
    try:
        time.sleep(0.05)
        before = watch.mark()
        with store.database.read(database) as conn:
            store.markets.all(conn)
        assert watch.mark() == before
        store.bars.add(other, ETH, walk(3), CLOSE)
        until(lambda: watch.mark() != before, 5)
    finally:
        watch.close()
        other.dispose()


def test_an_own_commit_moves_the_mark_at_once(database: Engine) -> None:
    watch = store.changes.watch(database)
    try:
        for count in (3, 4, 5):
            before = watch.mark()
            store.bars.add(database, ETH, walk(count), CLOSE)
            assert watch.mark() != before
    finally:
        watch.close()


def test_the_mark_of_a_market_moves_with_bars_pause_and_promotions_alone(database: Engine) -> None:
    def mark() -> int:
        with store.database.read(database) as conn:
            return store.markets.marks(conn)[ETH]

    store.bars.add(database, ETH, walk(3), CLOSE)
    first = mark()
    store.bars.add(database, ETH, walk(3), CLOSE)  # the same again
    store.bars.add(database, Market("BTCUSDT", "1h"), walk(3), CLOSE)
    assert mark() == first
    with store.database.write(database) as conn:
        store.markets.set_paused(conn, store.markets.need(conn, ETH).id, True)
    assert mark() > first
    second = mark()
    store.bars.add(database, ETH, walk(4), datetime.now(UTC))
    assert mark() > second


def test_on_postgresql_the_mark_of_the_clock_moves_when_it_is_set_and_at_no_other_commit(
    postgres: str,
) -> None:
    database, other = store.database.connect(postgres), store.database.connect(postgres)
    store.database.upgrade(database)
    watch = store.changes.watch(database)
    try:
        time.sleep(0.1)
        clock, any_commit = watch.mark(store.clock.TOPIC), watch.mark()
        store.bars.add(other, ETH, walk(3), CLOSE)
        until(lambda: watch.mark() != any_commit, 5)
        assert watch.mark(store.clock.TOPIC) == clock
        store.clock.set(other, CLOSE)
        until(lambda: watch.mark(store.clock.TOPIC) != clock, 5)
        clock = watch.mark(store.clock.TOPIC)
        store.clock.set(database, CLOSE)  # its own, at once
        assert watch.mark(store.clock.TOPIC) != clock
    finally:
        watch.close()
        database.dispose()
        other.dispose()


def test_the_time_that_is_followed_is_the_one_that_was_set(database: Engine, url: str) -> None:
    watch, other = store.changes.watch(database), store.database.connect(url)
    try:
        told = store.clock.followed(watch)
        assert abs(told() - datetime.now(UTC)).total_seconds() < 5
        for moment in (CLOSE, CLOSE.replace(year=2031, microsecond=17)):
            store.clock.set(other, moment)
            until(lambda moment=moment: told() == moment, 5)  # type: ignore[misc]
            assert told() == store.clock.now(database)
    finally:
        watch.close()
        other.dispose()
