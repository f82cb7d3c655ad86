"""Bars of exchanges into the store: what is missing and no more, each once, whatever ends it in between."""

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import polars as pl
import pytest

import jobs.fetch
import store.bars
import store.clock
import store.jobs
import store.markets
from jobs import executors, schedule
from jobs.sources import exchanges
from model.bars import TS, Bars, Market, iso, timeframe
from model.errors import BadBars, BadInput, Unreachable
from store import database as db
from store.database import Engine
from store.schedules import Schedule
from store.settings import Settings
from tests.jobs.exchange import HANGS, NOW, Binance, Fault, Time, rows, serving
from tests.model import synthetic
from tests.processes import kill_group, started
from tests.waiting import until

BTC = Market("BTCUSDT", "1h")
HOUR = timedelta(hours=1)
BARS = synthetic.bars(24 * 60 + 1)
CLOSED = BARS.head(24 * 60)
SINCE: datetime = BARS["ts"][0]
LEASE = timedelta(seconds=30)


@pytest.fixture
def binance() -> Iterator[Binance]:
    """An exchange whose answers have 200 bars."""
    with serving(Binance(rows(BARS), NOW, most=200)) as found:
        assert isinstance(found, Binance)
        yield found


def connected(binance: Binance) -> exchanges.Exchange:
    time = Time(NOW)
    return exchanges.connect(
        "binance", binance.options(), clock=time.clock, sleep=time.sleep, random=lambda: 0.5, attempts=2
    )


def backfill(engine: Engine, binance: Binance, since: datetime = SINCE, **more: Any) -> dict[str, Any]:
    return jobs.fetch.backfill(engine, BTC, connected(binance), binance.symbol, since, **more)


def kept(engine: Engine, market: Market = BTC) -> Bars:
    with db.read(engine) as conn:
        row = store.markets.need(conn, market)
        return store.bars.read(conn, row.id, timeframe(market.timeframe))


def starts(binance: Binance) -> list[datetime]:
    """The open times from which bars were asked for."""
    return pl.Series([int(query["startTime"]) * 1_000 for query in binance.asked]).cast(TS).to_list()


# ---------------------------------------------------------------- a market's past


def test_a_backfill_keeps_every_closed_bar_and_reports_all_pages_as_one(
    database: Engine, binance: Binance
) -> None:
    seen: list[float] = []
    report = backfill(database, binance, progress=seen.append)
    assert kept(database).equals(CLOSED)
    assert report == {
        "market": {"symbol": "BTCUSDT", "timeframe": "1h"},
        "added": 1_440,
        "repeated": 0,
        "corrected": 0,
        "rejected": [],
        "gaps": 0,
        "first": "2024-01-01T00:00:00Z",
        "last": "2024-02-29T23:00:00Z",
    }
    assert len(seen) == 8
    assert seen == sorted(seen)


def test_doing_it_twice_asks_for_a_few_bars_and_changes_nothing(database: Engine, binance: Binance) -> None:
    backfill(database, binance)
    binance.asked.clear()
    again = backfill(database, binance)
    assert (again["added"], again["repeated"], again["corrected"]) == (0, jobs.fetch.OVERLAP_BARS, 0)
    assert starts(binance) == [CLOSED["ts"][-jobs.fetch.OVERLAP_BARS]]


def test_a_correction_of_the_newest_bars_is_seen(database: Engine, binance: Binance) -> None:
    backfill(database, binance)
    binance.rows[-3][5] += 1.0  # volume
    assert backfill(database, binance)["corrected"] == 1
    assert kept(database)["volume"][-2] == binance.rows[-3][5]


def test_an_exchange_that_fails_midway_loses_nothing_and_the_next_try_goes_on(
    database: Engine, binance: Binance
) -> None:
    binance.faults.extend([None, None, None, Fault(503), Fault(503)])
    with pytest.raises(Unreachable, match="binance does not answer after 2 attempts: ExchangeNotAvailable"):
        backfill(database, binance)
    assert kept(database).equals(CLOSED.head(600))
    binance.asked.clear()
    assert backfill(database, binance)["added"] == 840
    assert starts(binance)[0] == CLOSED["ts"][600 - jobs.fetch.OVERLAP_BARS]
    assert kept(database).equals(CLOSED)


def test_holes_are_filled_those_near_to_each_other_by_the_same_requests(
    database: Engine, binance: Binance
) -> None:
    """Someone ingested a file of the newest bars before, and bars were lost in the midst of it."""
    had = pl.concat([CLOSED.slice(600, 10), CLOSED.slice(620, 100), CLOSED.slice(1_430, 10)])
    store.bars.add(database, BTC, had, NOW)
    binance.most = 1_000
    assert backfill(database, binance)["added"] == 1_440 - len(had)
    assert kept(database).equals(CLOSED)
    assert starts(binance) == [SINCE, SINCE + 1_000 * HOUR]


def test_what_is_rejected_is_summed_by_reason_and_gaps_between_pages_count(
    database: Engine, binance: Binance
) -> None:
    """A price below zero on two pages, and a bar that is there twice with different values."""
    binance.rows = rows(pl.concat([BARS.head(200), BARS.slice(210)]))
    binance.rows[3][3] = binance.rows[403][3] = -1.0
    twice = [*binance.rows[50][:5], 7.0]
    binance.edit = lambda found: found + [twice for row in found if row[0] == twice[0]]
    report = backfill(database, binance)
    assert [(found["reason"], found["rows"]) for found in report["rejected"]] == [
        ("conflicting_duplicate", 2),
        ("not_positive", 2),
    ]
    assert report["rejected"][1]["first"] == "2024-01-01T03:00:00Z"
    assert report["gaps"] == 4  # three bars that were refused, and the hole that begins with a page
    assert report["added"] == 1_440 - 10 - 3


def test_no_bar_at_all_is_an_answer_without_a_market(database: Engine, binance: Binance) -> None:
    report = backfill(database, binance, since=NOW)
    assert (report["added"], report["first"], report["last"]) == (0, None, None)
    with db.read(database) as conn:
        assert store.markets.all(conn) == []


def test_bars_that_are_not_of_the_timeframe_are_refused_with_their_place(
    database: Engine, binance: Binance
) -> None:
    binance.rows = rows(synthetic.bars(100, every=timedelta(minutes=5)))
    with pytest.raises(BadBars, match=r"^binance BTC/USDT: the usual step between these bars is 0:05:00"):
        backfill(database, binance)


def test_a_kill_in_the_midst_loses_nothing_and_doubles_nothing(
    database: Engine, url: str, binance: Binance
) -> None:
    binance.faults.extend([None, None, HANGS])
    env = {
        "BARPROP_DATABASE__URL": url,
        "BARPROP_SOURCES__EXCHANGES": json.dumps({"binance": {**binance.options(), "rateLimit": 1}}),
    }
    command = ["ingest", "BTCUSDT", "1h", "--exchange", "binance", "--exchange-symbol", "BTC/USDT"]
    command += ["--since", "2024-01-01", "--json"]
    with started(*command, env=env) as process:
        until(lambda: len(binance.asked) == 3)
        kill_group(process)
    assert kept(database).equals(CLOSED.head(400))
    with started(*command, env=env) as process:
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert '"added": 1040' in out
    assert kept(database).equals(CLOSED)
    with db.read(database) as conn:  # a bar that was doubled would have a further revision
        assert store.bars.count(conn, store.markets.need(conn, BTC).id) == 1_440
        assert conn.exec_driver_sql("SELECT count(*), max(revision) FROM bars").one() == (1_440, 0)


# ---------------------------------------------------------------- which stretches


def opens(*indices: int) -> pl.Series:
    return pl.Series([SINCE + index * HOUR for index in indices], dtype=TS)


FAR = jobs.fetch.NEAR_BARS + 100


@pytest.mark.parametrize(
    ("had", "spans"),
    [
        ([], [(0, None)]),
        ([0, 1, 2], [(0, None)]),
        (list(range(20)), [(15, None)]),
        ([*range(5), *range(FAR, FAR + 10)], [(5, None)]),
        (
            [*range(5), *range(8, FAR), *range(2 * FAR, 3 * FAR)],
            [(5, 8), (FAR, 2 * FAR), (3 * FAR - 5, None)],
        ),
        (list(range(FAR, 3 * FAR)), [(0, FAR), (3 * FAR - 5, None)]),
    ],
)
def test_only_stretches_without_bars_are_asked_for_and_near_ones_together(
    had: list[int], spans: list[tuple[int, int | None]]
) -> None:
    expected = [(SINCE + a * HOUR, None if b is None else SINCE + b * HOUR) for a, b in spans]
    assert jobs.fetch.missing(opens(*had), SINCE, None, "1h") == expected


def test_what_lies_before_since_or_after_until_is_none_of_it() -> None:
    had = opens(*range(3 * FAR))
    since, end = SINCE + 10 * HOUR + HOUR / 2, SINCE + 30 * HOUR
    assert jobs.fetch.missing(had, since, end, "1h") == [(SINCE + 25 * HOUR, end)]
    assert jobs.fetch.missing(had, SINCE - HOUR, None, "1h")[0] == (SINCE - HOUR, SINCE)


# ---------------------------------------------------------------- the job


def source(market: Market = BTC, symbol: str = "BTC/USDT", **more: Any) -> dict[str, Any]:
    return {
        "symbol": market.symbol,
        "timeframe": market.timeframe,
        "exchange": "binance",
        "exchange_symbol": symbol,
        "since": SINCE,
        **more,
    }


def settings(binance: Binance, *sources: dict[str, Any]) -> Settings:
    options = {"binance": {**binance.options(), "rateLimit": 0}}
    return Settings(sources={"markets": sources or (source(),), "exchanges": options, "attempts": 1})  # type: ignore[arg-type]


def run(engine: Engine, told: Settings, at: datetime = NOW) -> dict[str, Any]:
    """One fetch from claim to end."""
    job = store.jobs.start(engine, "fetch", None, {}, "me", at, LEASE)
    try:
        keep = jobs.fetch.run(engine, job, told, lambda: at, lambda done: None)
    except Exception as error:
        with db.write(engine) as conn:
            store.jobs.fail(conn, job.id, "me", at, str(error))
        raise
    with db.write(engine) as conn:
        result = keep(conn)
        store.jobs.succeed(conn, job.id, "me", at, result)
    return result


def test_a_fetch_brings_the_past_and_then_what_is_new(database: Engine, binance: Binance) -> None:
    assert run(database, settings(binance))["markets"][0]["added"] == 1_440
    assert kept(database).equals(CLOSED)
    assert run(database, settings(binance)) == {"markets": [], "failed": []}  # nothing has closed since
    binance.now += HOUR
    binance.asked.clear()
    (report,) = run(database, settings(binance), binance.now)["markets"]
    assert (report["added"], report["repeated"]) == (1, jobs.fetch.OVERLAP_BARS)
    assert kept(database).equals(BARS)
    assert len(binance.asked) == 1


def test_after_a_gap_it_goes_on_from_the_newest_bar(database: Engine, binance: Binance) -> None:
    store.bars.add(database, BTC, CLOSED.slice(100, 200), NOW)
    run(database, settings(binance))
    assert kept(database).equals(CLOSED.slice(100))  # what lies before is the command's
    assert starts(binance)[0] == CLOSED["ts"][300 - jobs.fetch.OVERLAP_BARS]


def test_a_market_that_cannot_be_brought_keeps_no_other_from_it(database: Engine, binance: Binance) -> None:
    told = settings(binance, source(Market("DOGE", "1h"), "DOGE/USDT"), source())
    result = run(database, told)
    assert [report["added"] for report in result["markets"]] == [1_440]
    assert result["failed"] == [
        {
            "market": {"symbol": "DOGE", "timeframe": "1h"},
            "error": "binance has no symbol 'DOGE/USDT'",
        }
    ]
    binance.faults.append(Fault(503))
    with pytest.raises(BadInput, match="DOGE"):
        run(database, told, NOW + HOUR)


def test_a_paused_market_is_left_alone(database: Engine, binance: Binance) -> None:
    run(database, settings(binance))
    with db.write(database) as conn:
        store.markets.set_paused(conn, store.markets.need(conn, BTC).id, True)
    binance.asked.clear()
    assert run(database, settings(binance), NOW + 5 * HOUR) == {"markets": [], "failed": []}
    assert binance.asked == []


# ---------------------------------------------------------------- the job that brings one market's past


def past(engine: Engine, told: Settings, market: Market = BTC, **params: str) -> dict[str, Any]:
    """One backfill from claim to end, of a market that may have no bars."""
    with db.read(engine) as conn:
        row = store.markets.find(conn, market)
    named = {"symbol": market.symbol, "timeframe": market.timeframe, **params}
    job = store.jobs.start(engine, "backfill", row and row.id, named, "me", NOW, LEASE)
    return executors.finish(
        engine, job, executors.KINDS["backfill"](engine, job, told, lambda: NOW, lambda done: None)
    )


def test_a_backfill_job_brings_a_markets_past_from_its_source(database: Engine, binance: Binance) -> None:
    told = settings(binance)
    middle, end = CLOSED["ts"][1_000], CLOSED["ts"][1_200]
    report = past(database, told, since=iso(middle), until=iso(end))
    assert kept(database).equals(CLOSED.slice(1_000, 200))
    assert report["added"] == 200
    report = past(database, told, since=iso(SINCE))
    assert kept(database).equals(CLOSED)
    assert report["added"] == 1_240
    assert past(database, told, since=iso(SINCE))["added"] == 0


def test_a_backfill_job_of_a_market_without_a_source_says_so(engine: Engine, binance: Binance) -> None:
    with pytest.raises(BadInput, match="ETHUSDT 1h has no source in the settings of this worker"):
        past(engine, settings(binance), Market("ETHUSDT", "1h"), since=iso(SINCE))


# ---------------------------------------------------------------- its schedule

ROW = Schedule(5, "fetch", "every 10s", {}, True)


def asked(engine: Engine, told: Settings, at: datetime) -> bool:
    store.clock.set(engine, at)
    return bool(schedule.fetch(engine, told, ROW, at))


def test_without_a_source_nothing_is_asked_for(engine: Engine) -> None:
    assert not asked(engine, Settings(), NOW)


def test_a_fetch_is_asked_for_when_a_bar_has_closed_and_once(engine: Engine, binance: Binance) -> None:
    told = settings(binance)
    assert asked(engine, told, NOW)
    assert not asked(engine, told, NOW)  # it waits
    with db.write(engine) as conn:
        store.jobs.cancel(conn, 1, NOW)
    run(engine, told)
    assert not asked(engine, told, NOW + HOUR / 2 - timedelta(seconds=1))
    assert asked(engine, told, NOW + HOUR / 2)


def test_the_longer_a_bar_is_overdue_the_more_seldom_it_is_asked_for(
    engine: Engine, binance: Binance
) -> None:
    """The exchange has stopped trading: its clock goes on, no bar comes."""
    told = settings(binance)
    run(engine, told)
    binance.rows.pop()
    at = close = NOW + HOUR / 2
    waits = []
    for _ in range(60):
        before = at
        while not asked(engine, told, at):
            at += timedelta(seconds=10)
        waits.append((at - before).total_seconds())
        with db.write(engine) as conn:
            (job, *_) = store.jobs.page(conn)
            store.jobs.cancel(conn, job.id, at)
        binance.now = at
        run(engine, told, at)
    assert waits[0] == 0
    assert waits[1:] == sorted(waits[1:])
    assert max(waits) <= 3_600 + 10
    assert at - close < timedelta(hours=24)


def test_a_source_that_is_new_is_asked_at_once(engine: Engine, binance: Binance) -> None:
    run(engine, settings(binance))
    store.bars.add(engine, Market("OLD", "1h"), CLOSED.head(10), NOW)
    assert asked(engine, settings(binance, source(), source(Market("OLD", "1h"))), NOW)
