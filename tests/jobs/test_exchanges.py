"""ccxt against exchanges on this machine: only closed bars, none lost, none twice, whatever the exchange does."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import polars as pl
import pytest

from jobs.sources import exchanges
from jobs.sources.exchanges import Page
from model.bars import BAR_SCHEMA, Bars, timeframe
from model.errors import BadInput, Unreachable
from tests.jobs.exchange import HANGS, NOW, Binance, Exchange, Fault, Kraken, Time, rows, serving
from tests.model import synthetic

HOUR = timedelta(hours=1)
BARS = synthetic.bars(24 * 60 + 1)  # the last one opened half an hour ago, at 2024-03-01T00:00
CLOSED = BARS.head(24 * 60)
SINCE: datetime = BARS["ts"][0]


@pytest.fixture(params=[Binance, Kraken])
def exchange(request: pytest.FixtureRequest) -> Iterator[Exchange]:
    """Each of the exchanges."""
    with serving(request.param(rows(BARS), NOW)) as found:
        yield found


@pytest.fixture
def binance() -> Iterator[Binance]:
    """The one that has more statuses to misbehave with."""
    with serving(Binance(rows(BARS), NOW)) as found:
        assert isinstance(found, Binance)
        yield found


def connected(
    exchange: Any, time: Time | None = None, attempts: int = 4, **options: Any
) -> exchanges.Exchange:
    time = time or Time(NOW)
    return exchanges.connect(
        exchange.name,
        {**exchange.options(), **options},
        clock=time.clock,
        sleep=time.sleep,
        random=lambda: 0.5,
        attempts=attempts,
    )


def all_pages(exchange: Any, time: Time | None = None, every: str = "1h", **span: Any) -> list[Page]:
    span = {"since": SINCE, "until": None} | span
    # ours is short only where the exchange will let us wait
    found = connected(exchange, time, timeout=700 if HANGS in exchange.faults else 30_000)
    return list(exchanges.pages(found, exchange.symbol, timeframe(every), **span))


def brought(pages: list[Page]) -> Bars:
    return pl.concat([page.bars for page in pages])


# ---------------------------------------------------------------- what comes


def test_closed_bars_come_once_each_in_order_and_the_unfinished_one_never(exchange: Exchange) -> None:
    pages = all_pages(exchange)
    assert brought(pages).equals(CLOSED)
    assert brought(pages).schema == BAR_SCHEMA
    assert len(pages) >= 2
    assert [page.done for page in pages] == sorted(page.done for page in pages)
    assert pages[-1].done == pytest.approx(1.0, abs=0.01)


def test_pages_shorter_than_asked_for_are_not_the_end(exchange: Exchange) -> None:
    exchange.most = 170
    pages = all_pages(exchange)
    assert brought(pages).equals(CLOSED)
    assert len(pages) >= 9


@pytest.mark.parametrize("first", [1, 500])
def test_from_a_time_and_until_a_close(exchange: Exchange, first: int) -> None:
    since, until = CLOSED["ts"][first], CLOSED["ts"][1_300]
    found = brought(all_pages(exchange, since=since, until=until))
    assert found.equals(CLOSED.slice(first, 1_300 - first))  # the bar that closes then is the last
    between = brought(all_pages(exchange, since=since - HOUR / 2, until=until + HOUR / 2))
    assert between.equals(found)


def test_a_hole_longer_than_a_page_is_stepped_over(exchange: Exchange) -> None:
    """An exchange that gives a window of time has nothing at all in some; another gives the next bars at once."""
    kept = pl.concat([BARS.head(10), BARS.tail(20)])
    exchange.rows = rows(kept)
    assert brought(all_pages(exchange)).equals(kept.head(29))
    windows = connected(exchange)
    fetch = windows.api.fetch_ohlcv

    def of_a_window(symbol: str, every: str, since: int, limit: int) -> list[Any]:
        return [row for row in fetch(symbol, every, since, limit) if row[0] < since + limit * 3_600_000]

    windows.api.fetch_ohlcv = of_a_window
    pages = list(exchanges.pages(windows, exchange.symbol, timeframe("1h"), SINCE))
    assert brought(pages).equals(kept.head(29))


def test_an_exchange_that_does_not_reach_back_says_so(
    exchange: Exchange, caplog: pytest.LogCaptureFixture
) -> None:
    exchange.reach = 101
    assert brought(all_pages(exchange)).equals(CLOSED.tail(100))
    assert f"no bars of {exchange.symbol} 1h from 2024-01-01T00:00:00Z to 2024-02-25T20:00:00Z" in caplog.text


def test_bars_in_any_order_and_twice_are_given_as_they_are_and_lose_none(exchange: Exchange) -> None:
    exchange.edit = lambda found: [*reversed(found), *found[:3]]
    exchange.most = 100
    found = brought(all_pages(exchange))
    assert found.unique().sort("ts").equals(CLOSED)


def test_months_follow_the_calendar(binance: Binance) -> None:
    opens = pl.datetime_range(
        datetime(2023, 1, 1, tzinfo=UTC), datetime(2024, 2, 1, tzinfo=UTC), "1mo", eager=True
    )
    months = BARS.head(14).with_columns(ts=opens.cast(BAR_SCHEMA["ts"]))
    binance.rows, binance.most = rows(months), 5
    assert brought(all_pages(binance, every="1M", since=opens[0])).equals(months)
    binance.now -= HOUR  # the exchange is still in February
    assert brought(all_pages(binance, every="1M", since=opens[0])).equals(months.head(13))


# ---------------------------------------------------------------- whose clock


@pytest.mark.parametrize("off", [timedelta(minutes=-45), timedelta(hours=30), timedelta(days=-300)])
def test_bars_are_judged_by_the_exchange_s_clock_and_that_is_said(
    exchange: Exchange, caplog: pytest.LogCaptureFixture, off: timedelta
) -> None:
    pages = all_pages(exchange, Time(NOW + off))
    assert brought(pages).equals(CLOSED)
    side = "ahead of" if off > timedelta(0) else "behind"
    said = re.search(rf"clock is (\d+) s {side} that of {exchange.name}", caplog.text)
    assert said is not None
    assert int(said[1]) == pytest.approx(
        abs(off).total_seconds(), abs=5
    )  # the exchange's stands, ours goes on
    for page in pages:  # the machine's time, but nothing closes after it
        assert page.now >= page.bars["ts"].max() + HOUR  # type: ignore[operator]
        assert page.now >= NOW + off


def test_a_clock_that_is_right_is_not_spoken_of(exchange: Exchange, caplog: pytest.LogCaptureFixture) -> None:
    all_pages(exchange, Time(NOW + timedelta(seconds=2)))
    assert caplog.text == ""


def test_a_bar_that_closes_while_it_is_asked_for_is_asked_for_again(binance: Binance) -> None:
    """What was sent before the close is unfinished, however late it is looked at."""
    binance.now = NOW.replace(minute=59, second=59) - HOUR
    time = Time(binance.now)

    def slow(found: list[Any]) -> list[Any]:
        time.now += timedelta(seconds=5)
        unfinished = [row for row in found if row[0] + 3_600_000 > binance.now.timestamp() * 1_000]
        binance.now += timedelta(seconds=5)
        return [[row[0], *(1.0 for _ in row[1:])] if row in unfinished else row for row in found]

    binance.edit = slow
    pages = all_pages(binance, time, since=CLOSED["ts"][-10])
    assert [len(page.bars) for page in pages] == [9, 1]
    assert brought(pages).equals(CLOSED.tail(10))


# ---------------------------------------------------------------- what goes wrong on the way

TRANSIENT = {
    "429": Fault(429, '{"code":-1003,"msg":"Too much request weight used"}'),
    "418": Fault(418, '{"code":-1003,"msg":"Way too much request weight used"}'),
    "503": Fault(503, "<html>Service Unavailable</html>", {"Content-Type": "text/html"}),
    "500": Fault(500, ""),
    "502": Fault(502, "<html>bad gateway</html>"),
    "a time-out": HANGS,
    "a web page": Fault(200, "<html>maintenance</html>", {"Content-Type": "text/html"}),
    "half an answer": Fault(200, '[[1704067200000,"100.0","101'),
    "no answer": Fault(200, ""),
    "another form": Fault(200, '{"bars": 3}'),
    "an empty object": Fault(200, "{}"),
    "rows of nonsense": Fault(200, '[["yesterday","x"],[null,null]]'),
}


@pytest.mark.parametrize("name", TRANSIENT)
def test_what_passes_is_waited_for_and_nothing_is_lost(binance: Binance, name: str) -> None:
    time = Time(NOW)
    binance.faults.extend([None, TRANSIENT[name], TRANSIENT[name]])
    assert brought(all_pages(binance, time)).equals(CLOSED)
    assert [query["startTime"] for query in binance.asked].count(binance.asked[1]["startTime"]) == 3
    assert {0.75, 1.5} <= set(time.slept)  # half of it fixed, half by chance


KRAKEN = {
    "rate": Fault(200, '{"error":["EAPI:Rate limit exceeded"]}'),
    "busy": Fault(200, '{"error":["EService:Busy"]}'),
    "unavailable": Fault(200, '{"error":["EService:Unavailable"]}'),
    "520": Fault(520, "<html>"),
}


@pytest.mark.parametrize("name", KRAKEN)
def test_so_it_is_where_errors_come_in_an_envelope(name: str) -> None:
    with serving(Kraken(rows(BARS), NOW)) as kraken:
        kraken.faults.extend([KRAKEN[name], None, KRAKEN[name]])
        assert brought(all_pages(kraken)).equals(CLOSED)


@pytest.mark.parametrize("status", [429, 418])
@pytest.mark.parametrize(
    "headers",
    [
        {"Retry-After": "120"},
        {"Retry-After": "Fri, 01 Mar 2024 00:02:30 GMT", "Date": "Fri, 01 Mar 2024 00:00:30 GMT"},
    ],
)
def test_retry_after_is_kept_and_then_a_little(
    binance: Binance, status: int, headers: dict[str, str]
) -> None:
    time = Time(NOW)
    binance.faults.append(Fault(status, "{}", headers))
    assert brought(all_pages(binance, time)).equals(CLOSED)
    assert 120.25 in time.slept


def test_a_retry_after_belongs_to_its_own_request(binance: Binance) -> None:
    time = Time(NOW)
    binance.faults.extend([Fault(429, "{}", {"Retry-After": "120"}), HANGS])
    all_pages(binance, time)
    assert len([seconds for seconds in time.slept if seconds >= 120]) == 1


def test_who_bars_us_for_long_is_not_waited_for(binance: Binance) -> None:
    time = Time(NOW)
    binance.faults.append(Fault(418, "{}", {"Retry-After": "259200"}))
    with pytest.raises(Unreachable, match="binance wants no more requests for 259200 s"):
        all_pages(binance, time)
    assert sum(time.slept) < 2


def test_what_does_not_pass_ends_after_the_attempts_and_earlier_pages_are_there(binance: Binance) -> None:
    binance.faults.extend([None, *[TRANSIENT["503"]] * 4])
    pages = exchanges.pages(connected(binance), binance.symbol, timeframe("1h"), SINCE)
    assert len(next(pages).bars) == 1_000
    with pytest.raises(Unreachable, match=r"^binance does not answer after 4 attempts: ExchangeNotAvailable"):
        next(pages)


@pytest.mark.parametrize("status", [403, 404, 451])
def test_what_stays_is_not_tried_again(binance: Binance, status: int) -> None:
    binance.faults.append(Fault(status, "{}"))
    with pytest.raises(Unreachable, match=rf"binance refuses to answer: .*{status}"):
        all_pages(binance)
    assert len(binance.asked) == 1


def test_back_off_grows_and_has_its_bounds() -> None:
    with serving(Binance(rows(BARS), NOW)) as binance:
        exchange = connected(binance)
    low, high = ([exchanges._wait(_lucky(exchange, luck), n, 0.0) for n in range(1, 12)] for luck in (0, 1))
    assert low[:4] == [0.5, 1, 2, 4]
    assert high[:4] == [1, 2, 4, 8]
    assert max(high) == exchanges.LONGEST_BACK_OFF_SECONDS


def _lucky(exchange: exchanges.Exchange, luck: float) -> exchanges.Exchange:
    return replace(exchange, random=lambda: luck)


def test_an_exchange_that_is_not_there_is_unreachable() -> None:
    with serving(Binance(rows(BARS), NOW)) as gone:
        pass
    time = Time(NOW)
    with pytest.raises(Unreachable, match="binance does not answer after 4 attempts: NetworkError") as caught:
        all_pages(gone, time)
    assert "\n" not in str(caught.value)
    assert len(time.slept) >= 3


def test_requests_keep_the_exchange_s_own_distance(exchange: Exchange) -> None:
    least = {"binance": 0.4, "kraken": 1.2}[exchange.name]  # of its rate limit, for a request of bars
    exchange.most = 300
    for limit_ms in (2_000, 4_000):
        time = Time(NOW)
        found = connected(exchange, time, rateLimit=limit_ms)
        moments = []
        for _ in exchanges.pages(found, exchange.symbol, timeframe("1h"), SINCE):
            moments.append(time.now)
            time.now += timedelta(seconds=0.5)  # the work counts
        apart = [(after - before).total_seconds() for before, after in pairwise(moments)]
        assert apart == pytest.approx([least * limit_ms / 1_000] * len(apart))


# ---------------------------------------------------------------- what cannot be


def test_a_symbol_that_is_not_traded_is_named_with_the_one_that_is(exchange: Exchange) -> None:
    with pytest.raises(BadInput, match=rf"{exchange.name} has no symbol 'btc-us.*'; try '{exchange.symbol}'"):
        list(exchanges.pages(connected(exchange), exchange.symbol.replace("/", "-").lower(), timeframe("1h"), SINCE))  # fmt: skip
    with pytest.raises(BadInput, match=rf"{exchange.name} has no symbol 'DOGE/USDT'$"):
        list(exchanges.pages(connected(exchange), "DOGE/USDT", timeframe("1h"), SINCE))
    assert exchange.asked == []


def test_a_timeframe_that_it_has_not_is_named_with_those_that_it_has(exchange: Exchange) -> None:
    with pytest.raises(BadInput, match=rf"{exchange.name} has no bars of 7h: .*1h, .*1d"):
        all_pages(exchange, every="7h")


def test_what_the_exchange_itself_refuses_is_told(binance: Binance) -> None:
    binance.faults.append(Fault(400, json.dumps({"code": -1121, "msg": "Invalid symbol."})))
    with pytest.raises(BadInput, match=r"binance: BadSymbol: binance .*Invalid symbol"):
        all_pages(binance)
    assert len(binance.asked) == 1


@pytest.mark.parametrize("name", ["nosuch", "Exchange", "base"])
def test_an_unknown_exchange_is_refused_by_name(name: str) -> None:
    time = Time(NOW)
    with pytest.raises(BadInput, match=f"ccxt knows no exchange '{name}'"):
        exchanges.connect(name, {}, clock=time.clock, sleep=time.sleep, random=lambda: 0.5, attempts=1)


def test_markets_are_asked_for_once_for_all_pages(exchange: Exchange) -> None:
    found = connected(exchange)
    for _ in range(3):
        list(exchanges.pages(found, exchange.symbol, timeframe("1h"), CLOSED["ts"][-5]))
    info = [path for path in exchange.paths if path.endswith(("exchangeInfo", "AssetPairs"))]
    assert len(info) == 1
