"""Replays: every stored bar once, in the order of the closes, never sooner than its pace says."""

import math
from datetime import UTC, datetime, timedelta

import pytest

import store.bars
from jobs.sources import replay
from model.bars import Market, timeframe
from model.errors import BadInput, NotFound
from store.database import Engine
from tests.model import markets

DAILY, HOURLY = Market("A", "1d"), Market("B", "1h")
BARS = {DAILY: markets.bars(3, step="1d"), HOURLY: markets.bars(60)}
NOW = datetime(2030, 1, 1, tzinfo=UTC)


class Seconds:
    """A stopwatch that stands until somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def lived(pace: replay.Pace, work: float = 0.0) -> list[tuple[float, datetime]]:
    """When each close was given out, where each costs so many seconds of work."""
    time, found = Seconds(), []
    for close, _ in replay.replay(BARS, pace, clock=time.clock, sleep=time.sleep):
        found.append((time.now, close))
        time.now += work
    return found


def test_every_bar_comes_once_in_order_of_its_close() -> None:
    moments = replay.timeline(BARS)
    closes = [close for close, _ in moments]
    assert closes == sorted(set(closes))
    brought = [(market, bar["ts"]) for _, known in moments for market, bar in known]
    assert len(brought) == len(set(brought)) == 63
    for close, known in moments:
        for market, bar in known:
            assert timeframe(market.timeframe).close_of(bar["ts"]) == close


@pytest.mark.parametrize("speed", [1.0, 3_600.0, 1e6])
def test_closes_are_as_far_apart_as_they_were_at_any_speed(speed: float) -> None:
    given = lived(replay.at_speed(speed))
    start = given[0][1]
    for moment, close in given:
        assert moment == pytest.approx((close - start).total_seconds() / speed)


def test_infinitely_fast_waits_for_nothing() -> None:
    given = lived(replay.at_speed(math.inf))
    assert [close for _, close in given] == [close for close, _ in replay.timeline(BARS)]
    assert given[-1][0] == 0.0


def test_evenly_paced_a_gap_takes_no_longer() -> None:
    gappy = {DAILY: markets.bars(10, step="1d").filter([True] * 5 + [False] * 3 + [True] * 2)}
    time = Seconds()
    moments = list(replay.replay(gappy, replay.evenly(4.0), clock=time.clock, sleep=time.sleep))
    assert time.now == pytest.approx((len(moments) - 1) / 4)


def test_what_is_late_is_not_hurried_after() -> None:
    fast, slow = lived(replay.evenly(10.0), work=0.04), lived(replay.evenly(10.0), work=0.5)
    assert fast[-1][0] == pytest.approx(0.1 * (len(fast) - 1))  # work counts towards the wait
    assert slow[-1][0] == pytest.approx(0.5 * (len(slow) - 1))


@pytest.mark.parametrize("speed", [0.0, -1.0, math.nan])
def test_a_speed_that_is_none_is_refused(speed: float) -> None:
    with pytest.raises(BadInput, match="above 0"):
        replay.at_speed(speed)


def test_stored_bars_are_their_newest_revisions_within_the_closes_asked_for(database: Engine) -> None:
    for market, bars in BARS.items():
        store.bars.add(database, market, bars, NOW)
    corrected = BARS[HOURLY].with_columns(volume=BARS[HOURLY]["volume"] + 1)
    store.bars.add(database, HOURLY, corrected, NOW + timedelta(days=1))
    found = replay.stored(database, BARS)
    assert found[HOURLY].equals(corrected)
    assert found[DAILY].equals(BARS[DAILY])
    closes = [corrected["ts"][at] + timedelta(hours=1) for at in (10, 20)]
    some = replay.stored(database, [HOURLY], closed_from=closes[0], closed_by=closes[1])
    assert some[HOURLY].equals(corrected.slice(10, 11))
    with pytest.raises(NotFound, match="NOSUCH 1h"):
        replay.stored(database, [Market("NOSUCH", "1h")])
