"""The laws of labels: by hand-made bars, and by a slow search through the bars themselves."""

import math
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.bars import timeframe
from model.errors import BadInput
from model.features import WARMUP, FeatureRows, rows
from model.labels import beyond, labels, triple_barrier
from tests.model import markets

HOUR = timeframe("1h")


def made(closes: list[float]) -> FeatureRows:
    """Hourly rows from 2024-01-01T00:00Z with these closes and no features."""
    ts = 1_704_067_200_000_000 + 3_600_000_000 * np.arange(len(closes))
    n = len(closes)
    prices, none = np.array(closes, float), np.zeros((n, 0))
    return FeatureRows(
        ts, ts + 3_600_000_000, none.astype(np.float32), np.ones(n), prices, none.astype(np.int8)
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


@settings(deadline=None)
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


# --- the dead zone


def test_a_move_on_the_edge_of_the_dead_zone_has_left_it() -> None:
    moves, scale = np.array([0.0, 0.5, -0.5, 0.49, -2.0]), np.array([1.0, 1.0, 1.0, 1.0, 8.0])
    assert beyond(moves, scale, 0.5).tolist() == [False, True, True, False, False]
    assert beyond(moves, scale, 0.0).all()


# --- triple barrier


def barriers(closes: list[float], horizon: int, upper: float, lower: float) -> list[tuple[float, int]]:
    """up and the place of the bar that decides, of hand-made rows whose bars are expected to move by 0.1."""
    of_rows = replace(made(closes), scale=np.full(len(closes), 0.1))
    found = triple_barrier(of_rows, horizon, upper, lower)
    places = np.searchsorted(of_rows.closed_at, found.known_at)
    return list(zip(found.up.tolist(), places.tolist(), strict=True))


def test_a_hand_made_market_with_barriers() -> None:
    """Over four bars a move of 0.2 is expected: the barriers are at +0.2 and -0.4, which is 122.2 and 67.0 from 100."""
    assert barriers([100, 122, 123, 60, 60, 60, 60], 4, 1.0, 2.0)[0] == (1, 2)
    assert barriers([100, 122, 67.1, 67, 130, 60, 60], 4, 1.0, 2.0)[0] == (0, 3)
    assert barriers([100, 99, 101, 102, 101, 200], 4, 1.0, 2.0)[0] == (1, 4)  # the sign at the horizon's end
    assert barriers([100, 99, 101, 102, 100, 200], 4, 1.0, 2.0)[0] == (0, 4)  # an equal close is no rise
    assert barriers([100, 99, 200, 102, 98, 200], 4, math.inf, 2.0)[0] == (0, 4)
    assert barriers([100, 99, 1, 102, 101, 200], 4, 1.0, math.inf)[0] == (1, 4)


def test_an_older_label_may_be_known_later() -> None:
    assert barriers([100, 101, 100, 150, 100, 100], 4, 2.0, 2.0)[:3] == [(1, 3), (0, 5), (1, 3)]
    assert barriers([100, 112, 89, 99, 101, 100], 4, 1.0, 1.0)[:2] == [(1, 4), (0, 2)]


def test_rows_behind_one_that_is_undecided_are_not_labelled() -> None:
    """The second is decided at once, but is there only for that: the first waits for its fourth bar."""
    assert barriers([100, 112, 89, 99], 4, 1.0, 1.0) == []
    assert barriers([100, 112, 89, 99, 101], 4, 1.0, 1.0) == [(1, 4), (0, 2)]


@settings(deadline=None)
@given(
    seed=st.integers(0, 1000),
    horizon=st.integers(1, 30),
    n=st.integers(0, 60),
    upper=st.one_of(st.floats(0.05, 3), st.just(math.inf)),
    lower=st.one_of(st.floats(0.05, 3), st.just(math.inf)),
)
def test_triple_barriers_agree_with_a_search_through_the_bars(
    seed: int, horizon: int, n: int, upper: float, lower: float
) -> None:
    bars = markets.bars(WARMUP + n, seed, skip=0.1, flat=0.2)
    of_rows = rows(bars, HOUR)
    found = triple_barrier(of_rows, horizon, upper, lower)
    close = bars["close"].to_list()[WARMUP:]
    closed_at = [HOUR.close_of(ts) for ts in bars["ts"][WARMUP:]]
    decided: list[tuple[bool, float, datetime]] = []
    for i in range(n):
        size = float(of_rows.scale[i]) * math.sqrt(horizon)
        for j in range(i + 1, min(i + horizon + 1, n)):
            move = math.log(close[j] / close[i])
            if move >= upper * size or move <= -lower * size or j == i + horizon:
                decided.append((close[j] > close[i], move, closed_at[j]))
                break
        else:
            break  # undecided: neither it nor a later row
    assert found.up.tolist() == [up for up, _, _ in decided]
    assert found.log_return.tolist() == pytest.approx([move for _, move, _ in decided], abs=1e-14)
    assert [datetime.fromtimestamp(micros // 1_000_000, UTC) for micros in found.known_at.tolist()] == [
        known for _, _, known in decided
    ]


def test_barriers_that_nothing_reaches_leave_the_labels_of_the_horizon_to_the_bit() -> None:
    of_rows = rows(markets.bars(WARMUP + 300, seed=5), HOUR)
    far, plain = triple_barrier(of_rows, 7, math.inf, math.inf), labels(of_rows, 7)
    for name in ("up", "log_return", "known_at"):
        assert getattr(far, name).tobytes() == getattr(plain, name).tobytes()
        assert not getattr(far, name).flags.writeable


def test_triple_barriers_never_change_as_bars_arrive() -> None:
    """Nor does it matter when one asks: what is labelled by a time is every row whose like, and all before, is known."""
    bars = markets.bars(WARMUP + 300, seed=2, skip=0.2)
    of_all = rows(bars, HOUR)
    whole = triple_barrier(of_all, 12, 0.6, 0.9)
    assert (np.diff(whole.known_at) < 0).any()
    for t in range(WARMUP + 1, len(bars), 11):
        part = triple_barrier(rows(bars[:t], HOUR), 12, 0.6, 0.9)
        now = of_all.closed_at[t - WARMUP - 1]
        assert len(part) == np.searchsorted(np.maximum.accumulate(whole.known_at), now, side="right")
        for name in ("up", "log_return", "known_at"):
            assert getattr(part, name).tobytes() == getattr(whole, name)[: len(part)].tobytes()


def test_a_barrier_that_is_not_above_0_is_refused() -> None:
    for upper, lower, said in ((0.0, 1.0, "upper barrier is 0.0"), (1.0, -1.0, "lower barrier is -1.0")):
        with pytest.raises(BadInput, match=said):
            triple_barrier(made([100, 101]), 2, upper, lower)
    with pytest.raises(BadInput, match="upper barrier is nan"):
        triple_barrier(made([100, 101]), 2, math.nan, 1.0)
    with pytest.raises(BadInput, match="a horizon of 0 bars"):
        triple_barrier(made([100, 101]), 0, 1.0, 1.0)
