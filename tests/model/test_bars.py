"""What a bar is, when it is known, and which rows are refused."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import accumulate, pairwise
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model import bars
from model.bars import BAR_SCHEMA, Market, Rejection, check, timeframe
from model.errors import BadBars, BadInput
from tests.model import synthetic

HOUR, DAY = timeframe("1h"), timeframe("1d")
START = datetime(2024, 1, 1, tzinfo=UTC)
LATER = datetime(2025, 1, 1, tzinfo=UTC)
SOUND = {"ts": START, "open": 10.0, "high": 12.0, "low": 9.0, "close": 11.0, "volume": 5.0}


def frame(*rows: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame([{**SOUND, **row} for row in rows], schema=BAR_SCHEMA)


# ---------------------------------------------------------------- timeframes and markets


@pytest.mark.parametrize(
    ("text", "name", "length"),
    [
        ("1s", "1s", timedelta(seconds=1)),
        ("60s", "1m", timedelta(minutes=1)),
        ("90s", "90s", timedelta(seconds=90)),
        ("60m", "1h", timedelta(hours=1)),
        ("240m", "4h", timedelta(hours=4)),
        ("24h", "1d", timedelta(days=1)),
        ("7d", "1w", timedelta(weeks=1)),
        ("1M", "1M", timedelta(days=30)),
    ],
)
def test_equal_durations_are_one_timeframe(text: str, name: str, length: timedelta) -> None:
    assert (timeframe(text).name, timeframe(text).length) == (name, length)
    assert timeframe(timeframe(text).name) == timeframe(text)


@pytest.mark.parametrize(
    "text", ["", "h", "0h", "01h", "1", "1H", "1x", "-1h", "1 h", "2M", "31d", "5w", "1h\n", "99999s"]
)
def test_an_unknown_timeframe_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="unknown timeframe"):
        timeframe(text)


def test_a_market_is_spelled_in_one_way() -> None:
    assert bars.market("ETHUSDT", "60m") == Market("ETHUSDT", "1h") == bars.market("ETHUSDT", "1h")
    assert str(bars.market("ETHUSDT", "60m")) == "ETHUSDT 1h"


@pytest.mark.parametrize(("symbol", "suggestion"), [("BTC/USDT", "BTCUSDT"), (".x", "x"), ("a b", "ab")])
def test_a_refused_symbol_gets_a_suggestion(symbol: str, suggestion: str) -> None:
    with pytest.raises(BadInput, match=f"try '{suggestion}'"):
        bars.market(symbol, "1h")
    assert bars.market(suggestion, "1h").symbol == suggestion


@pytest.mark.parametrize("symbol", ["", "///", "x" * 33])
def test_a_symbol_that_cannot_be_kept_is_refused(symbol: str) -> None:
    with pytest.raises(BadInput, match="is not usable"):
        bars.market(symbol, "1h")


def test_a_bar_closes_one_timeframe_after_it_opened_and_a_month_by_the_calendar() -> None:
    assert timeframe("4h").close_of(START) == START + timedelta(hours=4)
    month = timeframe("1M")
    closes = [month.close_of(datetime(2024, number, 1, tzinfo=UTC)) for number in range(1, 13)]
    assert closes == [*(datetime(2024, number, 1, tzinfo=UTC) for number in range(2, 13)), LATER]


@pytest.mark.parametrize("text", ["1m", "1h", "1d", "1w", "1M"])
def test_closes_of_a_column_are_those_of_its_bars(text: str) -> None:
    opens = pl.Series("ts", [START, datetime(2024, 2, 1, tzinfo=UTC)], dtype=bars.TS)
    column = opens.to_frame().select(timeframe(text).closes(pl.col("ts"))).to_series()
    assert column.to_list() == [timeframe(text).close_of(ts) for ts in opens]


# ---------------------------------------------------------------- rows that are refused

NAN, INFINITE = float("nan"), float("inf")
BROKEN: dict[str, list[dict[str, Any]]] = {
    "no_time": [{"ts": None}, {"ts": None, "close": NAN}],
    "not_finite": [
        *({name: None} for name in ("open", "high", "low", "close", "volume")),
        *({name: NAN} for name in ("open", "high", "low", "close", "volume")),
        {"high": INFINITE},
        {"low": -INFINITE},
    ],
    "not_positive": [{"open": 0.0, "low": 0.0}, {"low": -1.0}, {"volume": -1.0}],
    "high_low_contradiction": [{"high": 10.9}, {"low": 10.1}, {"high": 8.0}, {"open": 12.1}, {"close": 8.9}],
    "future": [{"ts": LATER + timedelta(days=1)}],
    "unclosed": [{"ts": LATER - timedelta(minutes=30)}, {"ts": LATER}],
}


@pytest.mark.parametrize(
    ("reason", "row"), [(reason, row) for reason, rows in BROKEN.items() for row in rows]
)
def test_a_row_that_breaks_a_rule_is_counted_under_it_and_costs_itself_alone(
    reason: str, row: dict[str, Any]
) -> None:
    other = {"ts": START + timedelta(hours=1)}
    kept, rejected = check(frame(row, other), HOUR, LATER)
    assert kept.equals(frame(other))
    assert rejected == (Rejection(reason, 1, row.get("ts", START)),)


def test_a_bar_that_closes_now_is_known_now() -> None:
    kept, _ = check(frame({}), HOUR, START + timedelta(hours=1))
    assert len(kept) == 1
    kept, rejected = check(frame({}), HOUR, START + timedelta(hours=1) - timedelta(microseconds=1))
    assert len(kept) == 0
    assert rejected == (Rejection("unclosed", 1, START),)


def test_a_flat_bar_and_one_without_volume_are_sound() -> None:
    flat = {"open": 10.0, "high": 10.0, "low": 10.0, "close": 10.0, "volume": 0.0}
    kept, rejected = check(frame(flat), HOUR, LATER)
    assert kept.equals(frame(flat))
    assert rejected == ()


def test_rounding_in_the_last_place_is_no_contradiction() -> None:
    kept, rejected = check(frame({"high": 11.0 * (1 - 1e-12), "low": 9.0}), HOUR, LATER)
    assert (len(kept), rejected) == (1, ())


def test_rejections_name_the_earliest_row_of_each_reason() -> None:
    rows = [{"ts": START + timedelta(hours=h), "close": NAN if h % 2 else -1.0} for h in (5, 4, 3, 2)]
    _, rejected = check(frame(*rows, {}), HOUR, LATER)
    assert rejected == (
        Rejection("not_finite", 2, START + timedelta(hours=3)),
        Rejection("not_positive", 2, START + timedelta(hours=2)),
    )


def test_a_bar_given_twice_is_one_and_contradicting_ones_are_none() -> None:
    other, third = ({"ts": START + timedelta(hours=h)} for h in (1, 2))
    kept, rejected = check(frame(third, {}, other, {"close": 10.5}, other, third), HOUR, LATER)
    assert kept.equals(frame(other, third))
    assert rejected == (Rejection("conflicting_duplicate", 2, START),)


def test_a_sound_row_is_not_contradicted_by_a_broken_one() -> None:
    kept, rejected = check(frame({}, {"close": NAN}), HOUR, LATER)
    assert kept.equals(frame({}))
    assert rejected == (Rejection("not_finite", 1, START),)


row = st.fixed_dictionaries(
    {
        "ts": st.none() | st.integers(0, 6).map(lambda h: START + timedelta(hours=h)),
        "close": st.sampled_from([11.0, 10.5, 13.0, 0.0, NAN, None]),
    }
)


@settings(deadline=None)
@given(rows=st.lists(row, max_size=7), data=st.data())
def test_every_row_is_kept_or_counted_once_in_whatever_order(
    rows: list[dict[str, Any]], data: st.DataObject
) -> None:
    kept, rejected = check(frame(*rows), HOUR, LATER)
    distinct: dict[datetime, set[float]] = {}  # sound closes by open time, counted by hand
    for entry in rows:
        if entry["ts"] is not None and entry["close"] in (11.0, 10.5):
            distinct.setdefault(entry["ts"], set()).add(entry["close"])
    assert kept["ts"].to_list() == sorted(ts for ts, closes in distinct.items() if len(closes) == 1)
    broken = sum(entry["ts"] is None or entry["close"] not in (11.0, 10.5) for entry in rows)
    conflicting = sum(len(closes) for closes in distinct.values() if len(closes) > 1)
    assert sum(found.rows for found in rejected) == broken + conflicting
    shuffled = data.draw(st.permutations(rows))
    again, rejected_again = check(frame(*shuffled), HOUR, LATER)
    assert again.equals(kept)
    assert rejected_again == rejected


# ---------------------------------------------------------------- the rows as a whole


@pytest.mark.parametrize(("step", "fits"), [("1h", True), ("30m", False), ("4h", False), ("1d", False)])
def test_bars_of_another_timeframe_are_refused_as_a_whole(step: str, fits: bool) -> None:
    made = synthetic.bars(30, every=timeframe(step).length)
    if fits:
        assert check(made, HOUR, LATER)[0].equals(made)
    else:
        with pytest.raises(
            BadBars, match=r"the usual step between these bars is .*, which is not the timeframe 1h"
        ):
            check(made, HOUR, LATER)


def at_steps(*steps: int) -> pl.DataFrame:
    """Bars that opened so many hours apart."""
    return frame(*({"ts": START + timedelta(hours=hour)} for hour in accumulate(steps, initial=0)))


@pytest.mark.parametrize(
    "steps",
    [
        [30, 3, 17, 400, 9, 3, 81, 5, 33],  # corrections, here and there
        [1, 5, 1, 7, 1, 9, 1, 4, 1, 12],
    ],
)
def test_scattered_bars_fit_by_what_all_their_steps_are_multiples_of(steps: list[int]) -> None:
    scattered = at_steps(*steps)
    assert check(scattered, HOUR, LATER)[0].equals(scattered)
    with pytest.raises(BadBars, match="not the timeframe 30m"):
        check(scattered, timeframe("30m"), LATER)
    with pytest.raises(BadBars, match="not the timeframe 2h"):
        check(scattered, timeframe("2h"), LATER)


@pytest.mark.parametrize(
    "steps",
    [
        [4, 12, 4, 20, 8, 16, 8, 4, 12, 24],  # four hours, with gaps
        [24, 24, 23, 24, 24, 72, 25, 24, 24, 24],  # days at a midnight that moves
        [24] * 4 + [72] + [24] * 4 + [73],
    ],
)
def test_longer_bars_with_gaps_are_not_taken_for_scattered_ones(steps: list[int]) -> None:
    with pytest.raises(BadBars, match="not the timeframe 1h"):
        check(at_steps(*steps), HOUR, LATER)


def test_a_few_bars_do_not_tell_their_timeframe() -> None:
    made = synthetic.bars(bars.STEPS_TO_JUDGE_TIMEFRAME, every=timedelta(hours=4))
    assert check(made, HOUR, LATER)[0].equals(made)


def test_months_of_28_to_31_days_are_months() -> None:
    opens = [datetime(year, month, 1, tzinfo=UTC) for year in (2022, 2023) for month in range(1, 13)]
    assert len(check(frame(*({"ts": ts} for ts in opens)), timeframe("1M"), LATER)[0]) == 24


def test_gaps_are_steps_longer_than_one_and_a_half_bars() -> None:
    hours = (0, 1, 2, 4, 5, 30)
    made = frame(*({"ts": START + timedelta(hours=h)} for h in hours))
    assert bars.gaps(made, HOUR) == 2
    assert bars.gaps(made.head(1), HOUR) == bars.gaps(made.clear(), HOUR) == 0


# ---------------------------------------------------------------- bars that overlap


def at_minutes(*minutes: int) -> pl.DataFrame:
    """Bars that opened so many minutes after START."""
    return frame(*({"ts": START + timedelta(minutes=minute)} for minute in minutes))


@pytest.mark.parametrize(
    ("minutes", "kept"),
    [
        ([0, 60, 90, 120], [0, 60, 90, 120]),  # half an hour is not closer than half of one
        ([0, 60, 91, 120], [0, 60, 120]),
        ([0, 60, 61, 119, 120, 180], [0, 60, 120, 180]),
        ([0, 25], []),  # nobody can tell which is right
        ([0, 25, 240], [0, 240]),
        ([-180, 0, 25, 205, 300, 320, 400], [-180, 0, 205, 300, 400]),  # 0, 25 and 20: 3, 2 and 1 of them
        ([0, 60, 70, 80, 100, 110, 120, 200], [0, 60, 120, 200]),  # those in between fall with what is usual
        ([0, 59, 118, 177], [0, 59, 118, 177]),
    ],
)
def test_of_bars_that_overlap_those_stay_whose_place_is_usual(minutes: list[int], kept: list[int]) -> None:
    sound, rejected = check(at_minutes(*minutes), HOUR, LATER)
    assert sound.equals(at_minutes(*kept))
    gone = sorted(set(minutes) - set(kept))
    first = [START + timedelta(minutes=minute) for minute in gone[:1]]
    assert rejected == tuple(Rejection("overlap", len(gone), ts) for ts in first)


def test_a_file_of_half_of_the_timeframe_is_refused_as_a_whole_and_not_bar_by_bar() -> None:
    with pytest.raises(BadBars, match="the usual step between these bars is 0:20:00"):
        check(at_minutes(*range(0, 400, 20)), HOUR, LATER)


def test_days_whose_midnight_moves_do_not_overlap_but_one_at_noon_does() -> None:
    zone = ZoneInfo("America/New_York")
    midnights = [datetime(2023, 1, 1, tzinfo=zone) + timedelta(days=day) for day in range(360)]
    days = frame(*({"ts": midnight.astimezone(UTC)} for midnight in midnights))
    assert check(days, DAY, LATER)[0].equals(days)
    noon = frame({"ts": datetime(2023, 7, 1, 12, tzinfo=UTC)})
    kept, rejected = check(pl.concat([days, noon]), DAY, LATER)
    assert kept.equals(days)
    assert rejected == (Rejection("overlap", 1, noon["ts"][0]),)


def test_months_do_not_overlap_but_one_in_the_middle_does() -> None:
    opens = [datetime(year, month, 1, tzinfo=UTC) for year in (2022, 2023) for month in range(1, 13)]
    months = frame(*({"ts": ts} for ts in opens))
    for number in range(1, 13):
        middle = frame({"ts": datetime(2023, number, 13, tzinfo=UTC)})
        kept, rejected = check(pl.concat([middle, months]), timeframe("1M"), LATER)
        assert kept.equals(months)
        assert rejected == (Rejection("overlap", 1, middle["ts"][0]),)


@given(minutes=st.lists(st.integers(0, 400), unique=True, max_size=12))
@settings(deadline=None)
def test_what_is_kept_does_not_overlap_and_is_not_given_up_without_need(minutes: list[int]) -> None:
    scattered = at_minutes(*minutes)
    try:
        kept, rejected = check(scattered, HOUR, LATER)
    except BadBars:
        assert len(minutes) > bars.STEPS_TO_JUDGE_TIMEFRAME
        return
    ordered = sorted(minutes)
    left = [round((ts - START) / timedelta(minutes=1)) for ts in kept["ts"]]
    assert all(b - a >= 30 for a, b in pairwise(left))
    assert len(left) + sum(found.rows for found in rejected) == len(minutes)
    shared = Counter(minute % 60 for minute in minutes)
    for gone in set(minutes) - set(left):  # each had a neighbour that is no less usual
        assert any(0 < abs(gone - m) < 30 and shared[m % 60] >= shared[gone % 60] for m in ordered)
    alone = [m for m in minutes if all(m == n or abs(m - n) >= 30 for n in minutes)]
    assert set(alone) <= set(left)


@given(kept=st.sets(st.integers(0, 40)), ts=st.sets(st.integers(-5, 45), min_size=1))
def test_what_overlaps_kept_bars_is_told_by_looking_at_each(kept: set[int], ts: set[int]) -> None:
    quarter = timedelta(minutes=15) // timedelta(microseconds=1)
    given_, those = (np.array(sorted(each), np.int64) * quarter for each in (ts, kept))
    expected = [one not in kept and any(abs(one - other) < 2 for other in kept) for one in sorted(ts)]
    assert bars.overlap(given_, those, HOUR).tolist() == expected


# ---------------------------------------------------------------- staleness


def opened(unit: timedelta, *steps: int) -> pl.Series:
    """Open times that lie so many units apart."""
    return pl.Series([START + at * unit for at in accumulate(steps, initial=0)], dtype=bars.TS)


def late_after(opens: pl.Series, length: bars.Timeframe) -> timedelta:
    """How long after the newest close its bar is too old, where two timeframes are allowed."""
    return bars.stale_from(opens, length, 2.0) - length.close_of(opens[-1])


WEEK = [1] * 119 + [49]  # of hourly currency: from Sunday evening to Friday evening
FLAWED = [1] * 30 + [20] + [1] * 69 + [49]  # the same with an outage
NIGHT = [1] * 6 + [18]  # of a share's seven hours a day
NIGHTS = NIGHT * 4 + [1] * 6 + [66]
DAYS = [1, 1, 1, 1, 3]
HABITS = {
    "no pause": (HOUR, [1] * 300, 1),
    "a single bar": (HOUR, [], 1),
    "one outage": (HOUR, [1] * 90 + [81] + [1] * 90, 1),
    "many outages": (HOUR, [step for length in range(40, 60) for step in [1] * 30 + [length]], 1),
    "a weekend that begins": (HOUR, WEEK * 4 + [1] * 119, 49),
    "in the midst of a week": (HOUR, WEEK * 4 + [1] * 50, 1),
    "where an outage was once": (HOUR, WEEK * 3 + FLAWED + [1] * 30, 1),
    "where an outage was twice": (HOUR, WEEK * 2 + FLAWED * 2 + [1] * 30, 1),
    "a weekend after a change of clocks": (HOUR, WEEK * 3 + [1] * 119 + [48] + WEEK + [1] * 119, 49),
    "a night that begins": (HOUR, NIGHTS * 4 + [1] * 6, 18),
    "a weekend after a day of seven hours": (HOUR, NIGHTS * 4 + NIGHT * 4 + [1] * 6, 66),
    "in the midst of a day": (HOUR, NIGHTS * 4 + [1] * 3, 1),
    "a Friday": (DAY, DAYS * 30 + [1] * 4, 3),
    "a Wednesday": (DAY, DAYS * 30 + [1] * 2, 1),
    "months": (timeframe("1M"), [1] * 40, 1),
}


@pytest.mark.parametrize("name", HABITS)
def test_a_step_that_comes_back_is_a_habit_and_an_outage_is_none(name: str) -> None:
    length, steps, usual = HABITS[name]
    assert late_after(opened(length.length, *steps), length) == (usual + 1) * length.length


def test_days_of_23_and_25_hours_are_days() -> None:
    zone = ZoneInfo("America/New_York")
    midnights = [datetime(2023, 1, 1, tzinfo=zone) + timedelta(days=day) for day in range(700)]
    opens = pl.Series([midnight.astimezone(UTC) for midnight in midnights], dtype=bars.TS)
    assert late_after(opens, DAY) == timedelta(days=2)


@pytest.mark.parametrize("after", [0.5, 1.0, 2.0, 7.5])
def test_a_patience_of_more_timeframes_is_longer_by_them(after: float) -> None:
    opens = opened(HOUR.length, *WEEK * 6)
    assert (
        bars.stale_from(opens, HOUR, after) == bars.stale_from(opens, HOUR, 1.0) + (after - 1) * HOUR.length
    )


@given(
    steps=st.lists(st.integers(1, 5), min_size=1, max_size=60), every=st.sampled_from([7, 28, 56, 84, 168])
)
def test_only_steps_from_this_place_in_the_week_make_a_habit(steps: list[int], every: int) -> None:
    """Against a count by hand; bars of `every` hours, so that places in the week recur soon."""
    unit = timedelta(hours=every)
    length = bars.Timeframe("made", f"{every}h", unit)
    opens = opened(unit, *steps)
    week = 168
    at = [every * sum(steps[:k]) % week for k in range(len(steps) + 1)]
    here = [
        step for k, step in enumerate(steps) if min((at[k] - at[-1]) % week, (at[-1] - at[k]) % week) <= 1
    ]
    usual = max([1, *(step for step in here if here.count(step) >= 3)])
    assert late_after(opens, length) == (usual + 1) * unit


# ---------------------------------------------------------------- moments


def test_moments_are_written_in_utc_and_read_back() -> None:
    tokyo = datetime(2024, 7, 1, 9, tzinfo=ZoneInfo("Asia/Tokyo"))
    assert bars.iso(tokyo) == bars.iso(tokyo.astimezone(UTC).replace(tzinfo=None)) == "2024-07-01T00:00:00Z"
    assert bars.utc(datetime.fromisoformat(bars.iso(tokyo))) == tokyo
