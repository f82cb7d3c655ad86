"""Bars that were kept stay kept: twice is once, a change is a revision, a read is what an honest list would say."""

import calendar
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count, pairwise
from multiprocessing.connection import Connection as Pipe
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

import store.bars
import store.markets
from model.bars import BAR_SCHEMA, Bars, Market, Rejection, timeframe
from model.errors import BadBars
from store import database as db
from store.bars import IngestReport
from store.database import Engine
from store.tables import bars as table
from tests.model import synthetic

HOUR = timeframe("1h")
ETH = Market("ETHUSDT", "1h")
NOW = datetime(2024, 7, 1, tzinfo=UTC)
START = synthetic.START
BARS = synthetic.bars(60)
REPORT = IngestReport(ETH, 60, 0, 0, (), 0, START, START + timedelta(hours=59))

few_examples = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
fresh = (Market(f"M{number}", "1h") for number in count())


def kept(engine: Engine, market: Market = ETH, **which: Any) -> Bars:
    with db.read(engine) as conn:
        row = store.markets.need(conn, market)
        return store.bars.read(conn, row.id, timeframe(market.timeframe), **which)


def rows_stored(engine: Engine) -> int:
    with db.read(engine) as conn:
        return conn.scalar(select(func.count()).select_from(table)) or 0


def counted(engine: Engine, market: Market = ETH) -> int:
    with db.read(engine) as conn:
        return store.bars.count(conn, store.markets.need(conn, market).id)


def changed(bars: Bars, by: float = 1.0) -> Bars:
    return bars.with_columns(pl.col("volume") + by)


# ---------------------------------------------------------------- adding


def test_what_was_added_is_read_back_to_the_bit(database: Engine) -> None:
    assert store.bars.add(database, ETH, BARS, NOW) == REPORT
    assert kept(database).equals(BARS)
    assert kept(database).schema == BAR_SCHEMA


def test_adding_twice_is_adding_once(database: Engine) -> None:
    store.bars.add(database, ETH, BARS, NOW)
    assert store.bars.add(database, ETH, BARS, NOW) == replace(REPORT, added=0, repeated=60)
    assert rows_stored(database) == 60
    assert kept(database).equals(BARS)


def test_a_part_that_is_known_is_counted_apart(database: Engine) -> None:
    store.bars.add(database, ETH, BARS.head(25), NOW)
    report = store.bars.add(database, ETH, BARS.slice(20), NOW)
    assert (report.added, report.repeated, report.corrected) == (35, 5, 0)
    assert (report.first, report.last) == (BARS["ts"][20], BARS["ts"][59])
    assert kept(database).equals(BARS)


def test_a_changed_bar_is_a_further_revision_and_the_newest_serves(database: Engine) -> None:
    store.bars.add(database, ETH, BARS, NOW)
    first, second = changed(BARS.slice(10, 3)), changed(BARS.slice(11, 1), 2.0)
    assert store.bars.add(database, ETH, first, NOW) == replace(
        REPORT, added=0, corrected=3, first=BARS["ts"][10], last=BARS["ts"][12]
    )
    assert store.bars.add(database, ETH, second, NOW).corrected == 1
    expected = pl.concat([BARS.head(10), first.head(1), second, first.tail(1), BARS.slice(13)])
    assert kept(database).equals(expected)
    assert rows_stored(database) == 64
    assert counted(database) == 60


def test_a_bar_that_becomes_again_what_it_was_is_a_further_revision(database: Engine) -> None:
    for frame in (BARS, changed(BARS), BARS):
        report = store.bars.add(database, ETH, frame, NOW)
    assert report.corrected == 60
    assert kept(database).equals(BARS)


def test_what_was_known_at_a_time_can_be_read_afterwards(database: Engine) -> None:
    times = [NOW + timedelta(hours=i) for i in range(3)]
    frames = [BARS.head(40), changed(BARS.slice(30)), changed(BARS.slice(35, 10), 2.0)]
    states = []
    for moment, frame in zip(times, frames, strict=True):
        store.bars.add(database, ETH, frame, moment)
        states.append(kept(database))
    for moment, state in zip(times, states, strict=True):
        assert kept(database, recorded_by=moment).equals(state)
        assert kept(database, recorded_by=moment, last=7).equals(state.tail(7))
    assert kept(database, recorded_by=NOW - timedelta(seconds=1)).is_empty()


def test_markets_do_not_touch_each_other(database: Engine) -> None:
    other = Market("ETHUSDT", "2h")
    two_hours = synthetic.bars(9, seed=1, every=timedelta(hours=2))
    store.bars.add(database, ETH, BARS, NOW)
    assert store.bars.add(database, other, two_hours, NOW).added == 9
    assert kept(database).equals(BARS)
    assert kept(database, other).equals(two_hours)


def test_refused_rows_are_counted_and_the_others_kept(database: Engine) -> None:
    bad = BARS.with_columns(close=pl.when(pl.col("ts") == BARS["ts"][7]).then(None).otherwise("close"))
    report = store.bars.add(database, ETH, bad, NOW)
    assert report.added == 59
    assert report.rejected == (Rejection("not_finite", 1, BARS["ts"][7]),)
    assert report.gaps == 1


def moved(frame: Bars, **by: float) -> Bars:
    return frame.with_columns(pl.col("ts") + timedelta(**by))


@pytest.mark.parametrize("minutes", [-29, -1, 1, 29])
def test_a_bar_that_overlaps_a_kept_one_is_refused_and_changes_nothing(
    database: Engine, minutes: int
) -> None:
    store.bars.add(database, ETH, BARS, NOW)
    stray = moved(BARS[30:31], minutes=minutes)
    with pytest.raises(BadBars, match="not one row can be kept: 1 overlap"):
        store.bars.add(database, ETH, stray, NOW)
    assert kept(database).equals(BARS)
    later = pl.concat([stray, moved(BARS.tail(2), hours=1)])
    report = store.bars.add(database, ETH, later, NOW)
    assert (report.added, report.repeated, report.corrected) == (1, 0, 1)
    assert report.rejected == (Rejection("overlap", 1, stray["ts"][0]),)
    assert (report.first, report.last) == (BARS["ts"][-1], BARS["ts"][-1] + timedelta(hours=1))
    assert counted(database) == rows_stored(database) - 1 == 61


def test_overlaps_within_a_file_and_with_kept_bars_are_counted_together(database: Engine) -> None:
    store.bars.add(database, ETH, BARS.head(30), NOW)
    strays = pl.concat([moved(BARS[i : i + 1], minutes=7 + i) for i in (5, 35)])
    report = store.bars.add(database, ETH, pl.concat([BARS.slice(28), strays]), NOW)
    assert (report.added, report.repeated, report.gaps) == (30, 2, 0)
    assert report.rejected == (Rejection("overlap", 2, strays["ts"][0]),)
    assert report.first == BARS["ts"][28]
    assert kept(database).equals(BARS)


def test_overlaps_are_found_across_transactions(database: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store.bars, "CHUNK_ROWS", 7)
    store.bars.add(database, ETH, pl.concat([BARS[:20], BARS[40:]]), NOW)
    strays = moved(BARS[10:30], minutes=17)
    report = store.bars.add(database, ETH, strays, NOW)
    assert report.rejected == (Rejection("overlap", 10, strays["ts"][0]),)
    assert (report.added, report.first) == (10, strays["ts"][10])
    report = store.bars.add(database, ETH, BARS, NOW)
    assert report.rejected == (Rejection("overlap", 10, BARS["ts"][20]),)
    assert (report.added, report.repeated, report.corrected) == (10, 40, 0)
    assert kept(database).equals(pl.concat([BARS[:20], strays[10:], BARS[30:]]))


def test_days_of_23_and_25_hours_and_months_are_kept_side_by_side(database: Engine) -> None:
    zone = ZoneInfo("Europe/Berlin")
    days = [datetime(2023, 1, 1, tzinfo=zone) + timedelta(days=day) for day in range(400)]
    months = [datetime(2022, 1, 1, tzinfo=UTC).replace(month=month) for month in range(1, 13)]
    for name, opens in (("1d", days), ("1M", months)):
        made = synthetic.bars(len(opens)).with_columns(
            ts=pl.Series([ts.astimezone(UTC) for ts in opens], dtype=BAR_SCHEMA["ts"])
        )
        market = Market("CALENDAR", name)
        for part in made.iter_slices(1 if name == "1M" else 37):
            assert store.bars.add(database, market, part, NOW).added == len(part)
        assert kept(database, market).equals(made)


REFUSED = {
    "nothing": (BARS.clear(), "no rows"),
    "not closed yet": (BARS, "not one row can be kept: 59 future (first 2024-01-01T01:00:00Z), 1 unclosed (first 2024"),
    "no prices": (BARS.with_columns(close=pl.lit(-1.0)), "not one row can be kept: 60 not_positive (first 2024-01-01T00"),
    "no times": (BARS.with_columns(ts=pl.lit(None, BAR_SCHEMA["ts"])), "not one row can be kept: 60 no_time"),
    "another timeframe": (synthetic.bars(60, every=timedelta(minutes=5)), "the usual step between these bars is 0:05:00"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_frame_leaves_no_trace(database: Engine, name: str) -> None:
    frame, reason = REFUSED[name]
    with pytest.raises(BadBars) as caught:
        store.bars.add(database, ETH, frame, START if name == "not closed yet" else NOW)
    assert str(caught.value).startswith(reason)
    with db.read(database) as conn:
        assert store.markets.all(conn) == []
    assert rows_stored(database) == 0


@few_examples
@given(order=st.permutations(range(30)))
def test_the_order_of_rows_changes_nothing(engine: Engine, order: Sequence[int]) -> None:
    market, shuffled = next(fresh), BARS.head(30)[list(order)]
    report = store.bars.add(engine, market, shuffled, NOW)
    assert report == replace(REPORT, market=market, added=30, last=START + timedelta(hours=29))
    assert kept(engine, market).equals(BARS.head(30))


@few_examples
@given(cuts=st.lists(st.integers(0, 60), max_size=6), seed=st.integers(0, 99))
def test_any_split_into_files_gives_the_same_bars(engine: Engine, cuts: list[int], seed: int) -> None:
    market = next(fresh)
    parts = [BARS[a:b] for a, b in pairwise(sorted({0, 60, *cuts}))]
    parts = [parts[at] for at in pl.Series(range(len(parts))).shuffle(seed)]
    reports = [store.bars.add(engine, market, part, NOW) for part in parts]
    assert sum(report.added for report in reports) == 60
    assert kept(engine, market).equals(BARS)


def test_more_rows_than_one_transaction_takes(engine: Engine) -> None:
    many = synthetic.bars(2 * store.bars.CHUNK_ROWS + 1, every=timedelta(seconds=30))
    market = Market("MANY", "30s")
    store.bars.add(engine, market, many[store.bars.CHUNK_ROWS - 5 : store.bars.CHUNK_ROWS + 5], NOW)
    report = store.bars.add(engine, market, many, NOW)
    assert (report.added, report.repeated, report.corrected) == (len(many) - 10, 10, 0)
    assert kept(engine, market).equals(many)


def test_a_report_is_a_json_document(database: Engine) -> None:
    bad = pl.concat(
        [
            BARS,
            BARS.head(1).with_columns(ts=pl.lit(None, BAR_SCHEMA["ts"])),
            BARS.head(1).with_columns(ts=NOW),
        ]
    )
    document = store.bars.add(database, ETH, bad, NOW).document()
    assert json.loads(json.dumps(document)) == {
        "market": {"symbol": "ETHUSDT", "timeframe": "1h"},
        "added": 60,
        "repeated": 0,
        "corrected": 0,
        "rejected": [
            {"reason": "no_time", "rows": 1, "first": None},
            {"reason": "unclosed", "rows": 1, "first": "2024-07-01T00:00:00Z"},
        ],
        "gaps": 0,
        "first": "2024-01-01T00:00:00Z",
        "last": "2024-01-03T11:00:00Z",
    }  # fmt: skip


# ---------------------------------------------------------------- reading

Windows = st.fixed_dictionaries(
    {},
    optional={
        "closed_by": st.integers(-2, 14).map(lambda half: START + half * timedelta(minutes=30)),
        "closed_from": st.integers(-2, 14).map(lambda half: START + half * timedelta(minutes=30)),
        "recorded_by": st.integers(-1, 9).map(lambda i: NOW + timedelta(hours=i)),
        "last": st.integers(0, 8),
    },
)


@few_examples
@given(
    written=st.lists(st.tuples(st.integers(0, 5), st.integers(1, 3)), min_size=1, max_size=9),
    windows=st.lists(Windows, min_size=1, max_size=5),
)
def test_a_read_is_what_an_honest_list_would_say(
    engine: Engine, written: list[tuple[int, int]], windows: list[dict[str, Any]]
) -> None:
    market = next(fresh)
    history: list[tuple[datetime, dict[str, Any]]] = []  # when it was recorded, and the bar
    for at, (hour, volume) in enumerate(written):
        bar = {**BARS.row(hour, named=True), "volume": float(volume)}
        store.bars.add(engine, market, pl.DataFrame([bar], schema=BAR_SCHEMA), NOW + timedelta(hours=at))
        history.append((NOW + timedelta(hours=at), bar))
    for window in windows:
        newest: dict[datetime, dict[str, Any]] = {}
        for recorded_at, bar in history:
            closed_at = bar["ts"] + HOUR.length
            if recorded_at <= window.get("recorded_by", recorded_at) and window.get(
                "closed_from", closed_at
            ) <= closed_at <= window.get("closed_by", closed_at):
                newest[bar["ts"]] = bar
        expected = [newest[ts] for ts in sorted(newest)]
        if "last" in window:
            expected = expected[len(expected) - min(window["last"], len(expected)) :]
        assert kept(engine, market, **window).rows(named=True) == expected


def test_the_newest_bars_are_found_below_many_revisions(database: Engine) -> None:
    store.bars.add(database, ETH, BARS, NOW)
    for by in range(1, 9):
        store.bars.add(database, ETH, changed(BARS.tail(4), float(by)), NOW)
    assert kept(database, last=10).equals(pl.concat([BARS[50:56], changed(BARS.tail(4), 8.0)]))


def test_a_month_is_known_when_the_next_one_begins(database: Engine) -> None:
    opens = [datetime(2024, month, 1, tzinfo=UTC) for month in range(1, 7)]
    months = synthetic.bars(6).with_columns(ts=pl.Series(opens, dtype=BAR_SCHEMA["ts"]))
    market = Market("MONTHLY", "1M")
    store.bars.add(database, market, months, NOW)
    for at, close in enumerate([*opens[1:], NOW]):
        assert kept(database, market, closed_by=close).equals(months.head(at + 1))
        assert kept(database, market, closed_by=close - timedelta(microseconds=1)).equals(months.head(at))
        assert kept(database, market, closed_from=close).equals(months[at:])


def test_counts_and_times_are_of_bars_not_of_revisions(database: Engine) -> None:
    store.bars.add(database, ETH, BARS, NOW)
    store.bars.add(database, ETH, changed(BARS.tail(9)), NOW)
    with db.read(database) as conn:
        ident = store.markets.need(conn, ETH).id
        assert store.bars.newest(conn, ident) == BARS["ts"][-1]
        assert store.bars.count(conn, ident) == 60
        for limit in (0, 1, 8, 9, 10, 99):
            assert store.bars.count_after(conn, ident, BARS["ts"][50], limit) == min(limit, 9)
        assert store.bars.open_times(conn, ident, 12).equals(BARS["ts"].tail(12))
        assert store.bars.open_times(conn, ident, 99).equals(BARS["ts"])
        assert store.bars.newest(conn, ident + 1) is None
        assert store.bars.count(conn, ident + 1) == store.bars.count_after(conn, ident + 1, START, 9) == 0
        assert store.bars.open_times(conn, ident + 1, 5).is_empty()
        assert store.bars.read(conn, ident + 1, HOUR).schema == BAR_SCHEMA


month_stamps = st.lists(
    st.timedeltas(timedelta(0), timedelta(days=150)).map(
        lambda since: datetime(2023, 11, 1, tzinfo=UTC) + since
    )
    | st.sampled_from(
        [datetime(2024, 1, day, hour, tzinfo=UTC) for day in (28, 29, 30, 31) for hour in (0, 9)]
    ),
    min_size=1,
    max_size=7,  # fewer than tell their timeframe
    unique=True,
)


def month_later(at: datetime) -> datetime:
    """The same day and time of the next month, or its last day where it is too short: by the calendar module."""
    year, month = (at.year + 1, 1) if at.month == 12 else (at.year, at.month + 1)
    return at.replace(year=year, month=month, day=min(at.day, calendar.monthrange(year, month)[1]))


@few_examples
@given(stamps=month_stamps, last=st.integers(0, 8), data=st.data())
def test_a_month_is_read_by_a_time_if_and_only_if_it_has_closed_by_then(
    engine: Engine, stamps: list[datetime], last: int, data: st.DataObject
) -> None:
    market = Market(next(fresh).symbol, "1M")
    stamps = sorted(stamps)
    months = synthetic.bars(len(stamps)).with_columns(ts=pl.Series(stamps, dtype=BAR_SCHEMA["ts"]))
    with db.write(engine) as conn:  # as they are: bars so close to each other are refused
        row = store.markets.ensure(conn, market, NOW)
        opened = months["ts"].dt.epoch("us").to_list()
        store.bars._insert(conn, row.id, opened, months, [0] * len(months), NOW)
    near = data.draw(st.sampled_from(stamps).map(month_later))
    for at in (near, near - timedelta(microseconds=1), near + timedelta(hours=9)):
        past = [ts for ts in stamps if month_later(ts) <= at]
        assert kept(engine, market, closed_by=at)["ts"].to_list() == past
        assert (
            kept(engine, market, closed_by=at, last=last)["ts"].to_list() == past[max(len(past) - last, 0) :]
        )
        since = [ts for ts in stamps if month_later(ts) >= at]
        assert kept(engine, market, closed_from=at)["ts"].to_list() == since


@few_examples
@given(adds=st.lists(st.lists(st.integers(0, 59), min_size=1, max_size=9), min_size=1, max_size=6))
def test_the_count_is_that_of_the_distinct_bars(engine: Engine, adds: list[list[int]]) -> None:
    market = next(fresh)
    for volume, at in enumerate(adds, 1):
        frame = BARS[sorted(set(at))].with_columns(volume=pl.lit(float(volume % 2)))
        # scattered bars come one by one: what they say of their timeframe is not the question here
        for one in frame.iter_slices(1):
            store.bars.add(engine, market, one, NOW)
    assert counted(engine, market) == len({hour for at in adds for hour in at})


@pytest.mark.parametrize("few", [0, 500])
def test_bars_far_apart_are_judged_beside_what_is_kept(
    database: Engine, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    monkeypatch.setattr(store.bars, "FEW_ROWS", few)
    store.bars.add(database, ETH, BARS, NOW)
    ends = pl.concat([changed(BARS.head(1)), changed(BARS.tail(1)), BARS.slice(30, 1)])
    report = store.bars.add(database, ETH, ends, NOW)
    assert (report.added, report.repeated, report.corrected) == (0, 1, 2)
    assert kept(database).equals(pl.concat([changed(BARS.head(1)), BARS[1:59], changed(BARS.tail(1))]))


def test_few_bars_far_apart_read_none_between(database: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    store.bars.add(database, ETH, BARS, NOW)
    read, rows = [], store.bars._rows

    def noting(*asked: Any) -> Any:
        found = rows(*asked)
        read.append(len(found))
        return found

    monkeypatch.setattr(store.bars, "_rows", noting)
    store.bars.add(database, ETH, pl.concat([BARS.head(1), BARS.tail(1)]), NOW)
    assert read == [2]


# ---------------------------------------------------------------- several at once, and killed

MANY = synthetic.bars(120_000, every=timedelta(seconds=10))
MANY_MARKET = Market("MANY", "10s")


def add_many(url: str, ready: Any, answer: Pipe, seed: int) -> None:
    """What a process of its own does: the same bars, in an order of its own."""
    engine = db.connect(url)
    ready.wait()
    report = store.bars.add(engine, MANY_MARKET, MANY.sample(fraction=1.0, shuffle=True, seed=seed), NOW)
    answer.send((report.added, report.repeated, report.corrected))
    engine.dispose()


def test_two_processes_that_add_the_same_at_once_both_succeed(database: Engine, url: str) -> None:
    spawn = multiprocessing.get_context("spawn")
    ready = spawn.Barrier(2)
    pipes = [spawn.Pipe(duplex=False) for _ in range(2)]
    workers = [
        spawn.Process(target=add_many, args=(url, ready, sender, seed))
        for seed, (_, sender) in enumerate(pipes)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0, 0]
    answers = [receiver.recv() for receiver, _ in pipes]
    assert [sum(answer) for answer in answers] == [len(MANY)] * 2
    assert [sum(counts) for counts in zip(*answers, strict=True)] == [len(MANY), len(MANY), 0]
    assert rows_stored(database) == counted(database, MANY_MARKET) == len(MANY)
    assert kept(database, MANY_MARKET).equals(MANY)


ADDING = "import sys; from tests.store import test_bars as t; t.store.bars.add(t.db.connect(sys.argv[1]), t.MANY_MARKET, t.MANY, t.NOW)"


def test_a_kill_loses_no_chunk_that_was_committed(engine: Engine) -> None:
    process = subprocess.Popen([sys.executable, "-c", ADDING, engine.url.render_as_string()])
    deadline = time.monotonic() + 60
    while rows_stored(engine) == 0 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    left = kept(engine, MANY_MARKET)
    assert len(left) % store.bars.CHUNK_ROWS == 0 or len(left) == len(MANY)
    assert len(left) > 0
    assert left.equals(MANY.head(len(left)))
    assert counted(engine, MANY_MARKET) == len(left)
    report = store.bars.add(engine, MANY_MARKET, MANY, NOW)
    assert (report.added, report.repeated) == (len(MANY) - len(left), len(left))
    assert kept(engine, MANY_MARKET).equals(MANY)
