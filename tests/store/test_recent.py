"""The newest bars in memory: whatever was pushed, by whomever and in whatever order, they are those of the database."""

from datetime import timedelta
from itertools import count

import polars as pl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import store.bars
import store.database
import store.markets
import store.predictions
import store.recent
from model.bars import Bars, Market, timeframe
from store.database import Engine
from store.recent import LAST, Recent
from tests.model import synthetic

HOUR = timeframe("1h")
BARS = synthetic.bars(LAST + 60, seed=3)
NOW = HOUR.close_of(BARS["ts"][-1])
fresh = (Market(f"R{number}", "1h") for number in count())

# who does it: the process itself, or another one, whose memory is its own
move = st.one_of(
    st.tuples(st.just("push"), st.integers(1, 4), st.booleans()),  # bars that come next
    st.tuples(st.just("skip"), st.integers(1, 3), st.booleans()),  # a bar after a hole
    st.tuples(st.just("fill"), st.just(0), st.booleans()),  # what is missing
    st.tuples(st.just("again"), st.integers(1, 5), st.booleans()),  # the newest once more
    st.tuples(st.just("correct"), st.integers(1, 5), st.booleans()),
    st.tuples(st.just("pause"), st.just(0), st.booleans()),  # moves the mark, and no bar
    st.tuples(st.just("read"), st.just(0), st.just(True)),
)


def newest(engine: Engine, market: Market, recent: Recent | None) -> Bars:
    with store.database.read(engine) as conn:
        row = store.markets.need(conn, market)
        return store.predictions._newest(conn, row, HOUR, {} if recent is None else recent)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(begun=st.sampled_from([1, 5, LAST - 2, LAST + 3]), moves=st.lists(move, min_size=1, max_size=14))
def test_they_are_those_of_the_database(
    database: Engine, begun: int, moves: list[tuple[str, int, bool]]
) -> None:
    market, recent, twin = next(fresh), Recent(), next(fresh)
    there, missing = begun, list[int]()
    store.bars.add(database, market, BARS[:begun], NOW, None, recent)
    store.bars.add(database, twin, BARS[:begun], NOW)
    for step, (kind, n, own) in enumerate(moves, 1):
        pushed: Bars | None = None
        if kind == "push":
            pushed, there = BARS[there : there + n], there + n
        elif kind == "skip":
            missing += range(there, there + n)
            pushed, there = BARS[there + n : there + n + 1], there + n + 1
        elif kind == "fill":
            pushed, missing = BARS[missing], []
        elif kind == "again":
            pushed = BARS[max(0, there - n) : there]
        elif kind == "correct":
            pushed = BARS[max(0, there - n) : there].with_columns(volume=pl.col("volume") + n)
        elif kind == "pause":
            with store.database.write(database) as conn:
                store.markets.set_paused(conn, store.markets.need(conn, market).id, own)
        if pushed is not None and len(pushed):
            store.bars.add(database, market, pushed, NOW, None, recent if own else None)
            store.bars.add(database, twin, pushed, NOW)
        if kind != "read" and step < len(moves):
            continue  # nobody looks, and memory falls behind
        known = newest(database, market, recent)
        assert known.equals(newest(database, market, None))
        assert known.equals(newest(database, twin, None))


def test_a_bar_that_comes_next_is_not_read_again(database: Engine) -> None:
    market, recent = next(fresh), Recent()
    store.bars.add(database, market, BARS[:LAST], NOW)
    newest(database, market, recent)
    for at in range(LAST, LAST + 3):
        store.bars.add(database, market, BARS[at : at + 1], NOW, None, recent)
        with store.database.read(database) as conn:
            changes = store.markets.need(conn, market).changes
        kept = store.recent.at(recent, market, changes)
        assert kept is not None
        assert kept.equals(BARS[at + 1 - LAST : at + 1])


def test_a_bar_that_overlaps_the_newest_is_refused_all_the_same(database: Engine) -> None:
    market, recent = next(fresh), Recent()
    store.bars.add(database, market, BARS[:20], NOW)
    newest(database, market, recent)
    near = BARS[20:22].with_columns(ts=pl.col("ts") - timedelta(minutes=40))
    report = store.bars.add(database, market, near, NOW, None, recent)
    assert [(found.reason, found.rows) for found in report.rejected] == [("overlap", 1)]
    assert newest(database, market, recent).equals(newest(database, market, None))


def test_only_so_many_markets_are_kept() -> None:
    recent = Recent()
    for number in range(store.recent.MOST + 5):
        store.recent.keep(recent, Market(f"M{number}", "1h"), 1, BARS[:3])
    assert len(recent) == store.recent.MOST
    assert store.recent.at(recent, Market("M0", "1h"), 1) is None
    assert store.recent.at(recent, Market(f"M{store.recent.MOST}", "1h"), 1) is not None


def test_bars_that_fill_a_hole_are_read_in_their_place(database: Engine) -> None:
    market, recent = next(fresh), Recent()
    store.bars.add(database, market, pl.concat([BARS[:20], BARS[23:25]]), NOW)
    newest(database, market, recent)
    store.bars.add(database, market, BARS[20:23], NOW, None, recent)
    assert newest(database, market, recent).equals(BARS[:25])
