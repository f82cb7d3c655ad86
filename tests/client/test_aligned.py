"""Signals beside bars: none before it was known, none that has run out, none of a version that had seen what comes."""

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from barprop_client import Abstention, Client, Market, Prediction, reading
from barprop_client.aligned import Known, from_ledger, from_version, length, newest, position
from hypothesis import given
from hypothesis import strategies as st

from service.predictions import PREDICTION
from tests.client.protocol import Reply, Scripted

START = datetime(2024, 7, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


def said(as_of: datetime, timeframe: str = "1h", **more: Any) -> dict[str, Any]:
    market = {"symbol": "ETHUSDT", "timeframe": timeframe}
    return {**PREDICTION, "market": market, "as_of": as_of.isoformat(), **more}


def prediction(as_of: datetime, timeframe: str = "1h", **more: Any) -> Any:
    return reading.signal(said(as_of, timeframe, **more))


@given(
    st.lists(st.tuples(st.integers(0, 300), st.integers(0, 300)), max_size=12),
    st.lists(st.integers(0, 700), max_size=12),
)
def test_no_moment_sees_a_later_signal_and_each_sees_the_newest(
    signals: list[tuple[int, int]], moments: list[int]
) -> None:
    minute = timedelta(minutes=1)
    known = [
        Known(prediction(START + as_of * minute), START + (as_of + late) * minute) for as_of, late in signals
    ]
    closes = [START + moment * minute for moment in moments]
    for close, found in zip(closes, newest(known, closes), strict=True):
        seen = [each.signal.as_of for each in known if each.since <= close]
        best = max(seen, default=None)  # type: ignore[type-var]
        if best is None or close >= best + HOUR:
            assert found is None
        else:
            assert found is not None
            assert found.as_of == best


def test_a_signal_of_a_long_bar_holds_until_the_next_one_should_be_there() -> None:
    closes = [START + n * timedelta(minutes=15) for n in range(6)]
    found = newest([Known(prediction(START, "1h"), START)], closes)
    assert [each is not None for each in found] == [True, True, True, True, False, False]


def test_a_signal_that_was_served_late_counts_from_then_on(scripted: Scripted) -> None:
    rows = [
        said(START + 2 * HOUR, id=3, served_at=(START + 9 * HOUR).isoformat()),
        said(START + HOUR, id=2, served_at=(START + HOUR + timedelta(seconds=3)).isoformat()),
        said(START - HOUR, id=1, served_at=(START - HOUR).isoformat()),
    ]
    scripted.replies = [Reply({"items": rows, "next": None})]
    with Client(scripted.url) as client:
        known = from_ledger(client, "ETHUSDT", "1h", START)
    assert [each.since for each in known] == [START + 9 * HOUR, START + HOUR]


@pytest.mark.parametrize(("seen_until", "counts"), [(START, True), (START + HOUR, False)])
def test_a_version_is_not_asked_about_what_it_had_learned(
    scripted: Scripted, seen_until: datetime, counts: bool
) -> None:
    version = {
        "id": 7,
        "market": PREDICTION["market"],
        "role": "champion",
        "reason": None,
        "created_at": "2024-07-01T00:00:00Z",
        "sha256": "0",
        "manifest": {"seen_until": int(seen_until.timestamp()) * 1_000_000},
    }
    scripted.replies = [
        Reply({"items": [version], "next": None}),
        Reply(said(START, in_sample=False)),
        Reply(said(START, in_sample=True)),
    ]
    with Client(scripted.url) as client:
        known = from_version(client, "ETHUSDT", "1h", [START, START])
    assert len(known) == counts


def test_what_to_hold() -> None:
    abstention = Abstention(Market("ETHUSDT", "1h"), START, 7, "gap", "")
    assert math.isnan(position(None))
    assert position(abstention) == 0
    assert position(prediction(START, p_up=0.6, position=None)) == 1
    assert position(prediction(START, p_up=0.4, position=None)) == -1
    held: Prediction = prediction(START, p_up=0.6, position=0.3, pays_up_to_bps=8.0)
    assert position(held) == 0.3
    assert position(held, round_trip_bps=8.0) == 0.3
    assert position(held, round_trip_bps=8.1) == 0


def test_timeframes() -> None:
    assert [length(text) for text in ("5m", "4h", "1d")] == [timedelta(minutes=5), 4 * HOUR, 24 * HOUR]
    for wrong in ("", "h", "0m", "7x", "1h "):
        with pytest.raises(ValueError, match="timeframe"):
            length(wrong)
