"""Laws of resampling: what a plain reading of the calendar says, and nothing that was not over by then."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model import resample as resampling
from model.bars import BAR_SCHEMA, Bars, timeframe
from model.errors import BadInput
from model.resample import resample
from tests import real_bars
from tests.model import markets

PAIRS = [
    ("1h", "4h"),
    ("1h", "1d"),
    ("60m", "1w"),
    ("1h", "1M"),
    ("1d", "1w"),
    ("1d", "1M"),
    ("5m", "1h"),
    ("7m", "49m"),
]

some_market = st.builds(
    lambda n, seed, step, skip, weekends, offset: markets.bars(
        n, seed, step=step, skip=skip, weekends=weekends, start=markets.START + timedelta(minutes=offset)
    ),
    st.integers(1, 900),
    st.integers(0, 10_000),
    st.just("1h"),
    st.sampled_from([0.0, 0.1, 0.7]),
    st.booleans(),
    st.sampled_from([0, 30]),
)


def begins(moment: datetime, to: str) -> datetime:
    """When the period that `moment` lies in begins, read off the calendar."""
    midnight = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    if to == "1M":
        return midnight.replace(day=1)
    if to == "1w":
        return midnight - timedelta(days=moment.weekday())
    if to == "1d":
        return midnight
    length = timeframe(to).length
    if timedelta(days=1) % length:
        midnight = datetime(1970, 1, 1, tzinfo=UTC)
    return midnight + (moment - midnight) // length * length


def by_hand(bars: Bars, step: str, to: str) -> Bars:
    """Bar by bar: a period holds the bars that close in it, and is over when the newest bar is."""
    periods: dict[datetime, list[dict[str, float]]] = {}
    rows = bars.to_dicts()
    for row in rows:
        last_moment = timeframe(step).close_of(row["ts"]) - timedelta(microseconds=1)
        periods.setdefault(begins(last_moment, to), []).append(row)
    made = [
        {
            "ts": opened,
            "open": held[0]["open"],
            "high": max(row["high"] for row in held),
            "low": min(row["low"] for row in held),
            "close": held[-1]["close"],
            "volume": float(np.sum([row["volume"] for row in held])),
        }
        for opened, held in periods.items()
        if timeframe(to).close_of(opened) <= timeframe(step).close_of(rows[-1]["ts"])
        and opened >= rows[0]["ts"]
    ]
    return pl.DataFrame(made, schema=BAR_SCHEMA)


def same(found: Bars, wanted: Bars) -> bool:
    """Equal to the bit."""
    return found.equals(wanted) and found.schema == wanted.schema


@pytest.mark.parametrize(("step", "to"), PAIRS)
def test_bars_are_what_the_calendar_says(step: str, to: str) -> None:
    bars = markets.bars(3_000, seed=3, step=step, skip=0.2)
    found = resample(bars, timeframe(step), timeframe(to))
    assert len(found) > 2
    wanted = by_hand(bars, step, to)
    assert same(found.drop("volume"), wanted.drop("volume"))
    # the order of adding is its own; it is the same each time, as the laws below say
    assert found["volume"].to_numpy() == pytest.approx(wanted["volume"].to_numpy(), rel=1e-12)


@given(bars=some_market, to=st.sampled_from(["4h", "1d", "1w", "1M", "5h"]), data=st.data())
@settings(max_examples=150, deadline=None)
def test_bars_cut_at_either_end_give_some_of_the_same(bars: Bars, to: str, data: st.DataObject) -> None:
    hour, longer = timeframe("1h"), timeframe(to)
    whole = resample(bars, hour, longer)
    wanted = by_hand(bars, "1h", to)
    assert same(whole.drop("volume"), wanted.drop("volume"))
    end = data.draw(st.integers(0, len(bars)))
    known = resample(bars.head(end), hour, longer)
    assert same(known, whole.head(len(known)))
    rest = resample(bars.slice(end), hour, longer)
    assert same(rest, whole.tail(len(rest)))
    assert len(known) + len(rest) >= len(whole) - 2


def test_an_unfinished_period_has_no_bar_until_its_close_has_passed() -> None:
    bars = markets.bars(9, start=datetime(2024, 1, 1, tzinfo=UTC))
    hour, four = timeframe("1h"), timeframe("4h")
    assert [len(resample(bars.head(n), hour, four)) for n in range(10)] == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2]
    # the last hour of the first period never came: it is over all the same once a later bar has closed
    without = bars.filter(pl.col("ts").dt.hour() != 3)
    assert [len(resample(without.head(n), hour, four)) for n in range(9)] == [0, 0, 0, 0, 1, 1, 1, 2, 2]


def test_bars_that_straddle_a_period_belong_to_the_one_they_close_in() -> None:
    bars = markets.bars(6, start=datetime(2024, 1, 1, 0, 30, tzinfo=UTC))
    found = resample(bars, timeframe("1h"), timeframe("2h"))
    assert found["ts"].to_list() == [datetime(2024, 1, 1, hour, tzinfo=UTC) for hour in (2, 4)]
    assert found["close"].to_list() == [bars["close"][2], bars["close"][4]]
    assert found["open"].to_list() == [bars["open"][1], bars["open"][3]]


def test_months_have_their_own_lengths() -> None:
    days = markets.bars(70, step="1d", start=datetime(2024, 1, 1, tzinfo=UTC))  # a leap year
    found = resample(days, timeframe("1d"), timeframe("1M"))
    assert found["close"].to_list() == [days["close"][30], days["close"][30 + 29]]
    assert len(resample(days.head(59), timeframe("1d"), timeframe("1M"))) == 1


def test_a_year_of_real_hours_gives_its_days() -> None:
    hours = real_bars.bars("ETHUSDT_1h").head(24 * 365)
    found = resample(hours, timeframe("1h"), timeframe("1d"))
    wanted = (
        hours.group_by_dynamic("ts", every="1d", closed="left", label="left")
        .agg(
            pl.col("open").first(),
            pl.col("high").max(),
            pl.col("low").min(),
            pl.col("close").last(),
            pl.len().alias("hours"),
        )
        .filter(pl.col("hours") == 24)
    )
    both = found.join(wanted, on="ts", suffix="_wanted")
    assert len(both) > 300
    for name in ("open", "high", "low", "close"):
        assert (both[name] == both[f"{name}_wanted"]).all()


@pytest.mark.parametrize(
    ("step", "to"),
    [
        ("1h", "60m"),
        ("4h", "1h"),
        ("4h", "6h"),
        ("1w", "1M"),
        ("7h", "1M"),
        ("1M", "1M"),
        ("1M", "1d"),
        ("2d", "1w"),
    ],
)
def test_a_timeframe_that_is_not_made_of_whole_ones_is_refused(step: str, to: str) -> None:
    with pytest.raises(BadInput, match=r"bars cannot be made of \w+ ones"):
        resample(markets.bars(50, step="1h"), timeframe(step), timeframe(to))


def test_no_bar_has_more_bars_than_is_said() -> None:
    for step, to in PAIRS:
        bars = markets.bars(3_000, step=step)
        most = resampling.most_bars_in_one(timeframe(step), timeframe(to))
        closes = bars.select(timeframe(step).closes(pl.col("ts")) - timedelta(microseconds=1)).to_series()
        counts = pl.Series([begins(moment, to) for moment in closes]).value_counts()["count"]
        assert counts.max() == most
