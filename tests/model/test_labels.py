"""The laws of labels: by hand-made bars, and by a slow search through the bars themselves."""

import math
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.bars import timeframe
from model.errors import BadInput
from model.features import WARMUP, FeatureRows, rows
from model.labels import labels
from tests.model import markets

HOUR = timeframe("1h")


def made(closes: list[float]) -> FeatureRows:
    """Hourly rows from 2024-01-01T00:00Z with these closes and no features."""
    ts = 1_704_067_200_000_000 + 3_600_000_000 * np.arange(len(closes))
    n = len(closes)
    return FeatureRows(
        ts, ts + 3_600_000_000, np.zeros((n, 0), np.float32), np.ones(n), np.array(closes, float)
    )


def test_a_hand_made_market() -> None:
    found = labels(made([100, 110, 110, 99, 100]), 1)
    assert found.up.tolist() == [1, 0, 0, 1]  # an equal close is no rise
    expected = [math.log(1.1), 0, math.log(0.9), math.log(100 / 99)]
    assert found.log_return.tolist() == pytest.approx(expected, abs=1e-15)
    assert [datetime.fromtimestamp(micros / 1e6, UTC).hour for micros in found.known_at] == [2, 3, 4, 5]


def test_a_horizon_of_two_bars() -> None:
    found = labels(made([100, 110, 90, 111, 90]), 2)
    assert found.up.tolist() == [0, 1, 0]
    assert found.log_return.tolist() == pytest.approx([math.log(0.9), math.log(111 / 110), 0], abs=1e-15)
    assert [datetime.fromtimestamp(micros / 1e6, UTC).hour for micros in found.known_at] == [3, 4, 5]


@given(st.integers(0, 1000), st.integers(1, 30), st.integers(0, 60), st.booleans())
def test_labels_agree_with_a_search_through_the_bars(seed: int, horizon: int, n: int, weekends: bool) -> None:
    bars = markets.bars(WARMUP + n, seed, weekends=weekends, skip=0.1, flat=0.2)
    of_rows = rows(bars, HOUR)
    found = labels(of_rows, horizon)
    assert len(found) == max(0, len(of_rows) - horizon)
    opened = bars["ts"].dt.epoch("us").to_list()
    for i in range(len(found)):
        now = opened.index(int(of_rows.ts[i]))
        then = now + horizon  # bars, however long the gap between them
        move = bars["close"][then] / bars["close"][now]
        assert found.up[i] == (bars["close"][then] > bars["close"][now])
        assert found.log_return[i] == pytest.approx(math.log(move), abs=1e-14)
        assert found.known_at[i] == opened[then] + 3_600_000_000


def test_labels_never_change_as_bars_arrive() -> None:
    bars = markets.bars(WARMUP + 300, seed=2, skip=0.2)
    whole = labels(rows(bars, HOUR), 7)
    for t in range(WARMUP, len(bars), 11):
        part = labels(rows(bars[:t], HOUR), 7)
        assert part.up.tobytes() == whole.up[: len(part)].tobytes()
        assert part.log_return.tobytes() == whole.log_return[: len(part)].tobytes()
        assert part.known_at.tobytes() == whole.known_at[: len(part)].tobytes()


def test_a_label_is_known_only_after_its_row() -> None:
    of_rows = rows(markets.bars(WARMUP + 200, seed=3, weekends=False), HOUR)
    for horizon in (1, 5, 24):
        found = labels(of_rows, horizon)
        assert (found.known_at - of_rows.closed_at[: len(found)] >= horizon * 3_600_000_000).all()


@pytest.mark.parametrize("n", [0, 1, 3])
def test_rows_with_no_known_outcome_have_no_label(n: int) -> None:
    found = labels(made([100.0] * n), 3)
    assert len(found) == 0
    assert [a.dtype.name for a in (found.up, found.log_return, found.known_at)] == [
        "float32",
        "float64",
        "int64",
    ]


def test_labels_are_read_only_values_of_their_own() -> None:
    of_rows = made([100, 101, 102])
    found = labels(of_rows, 1)
    for array in (found.up, found.log_return, found.known_at):
        assert not array.flags.writeable
        assert not np.shares_memory(array, of_rows.closed_at)


@pytest.mark.parametrize("horizon", [0, -1])
def test_a_horizon_below_one_bar_is_refused(horizon: int) -> None:
    with pytest.raises(BadInput, match=f"a horizon of {horizon} bars looks at nothing"):
        labels(made([100, 101]), horizon)


def test_labels_of_real_shape_match_polars() -> None:
    bars = markets.bars(WARMUP + 500, seed=4)
    found = labels(rows(bars, HOUR), 3)
    after = bars["close"].shift(-3)[WARMUP:-3]
    assert found.up.tolist() == (after > bars["close"][WARMUP:-3]).cast(pl.Float32).to_list()
