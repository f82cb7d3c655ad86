"""The laws of features. Every row of FEATURES stands trial in each of them; none is excused."""

import math
import os
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import talib
from hypothesis import given, settings
from hypothesis import strategies as st

from model.bars import Timeframe, timeframe
from model.errors import BadBars, BadInput
from model.features import (
    BLOCK,
    DEFAULT,
    FEATURES,
    HISTORY,
    SCALE_NEEDS,
    WARMUP,
    Feature,
    FeatureRows,
    FeatureSet,
    check,
    frames,
    last_row,
    rows,
    table,
    unmet_needs,
)
from tests import real_bars
from tests.model import markets, twins

HOUR = timeframe("1h")
DAY = timeframe("1d")
ALL = tuple(FEATURES.values())
REAL = {"ETHUSDT_1h": "1h", "EURUSD_1h": "1h", "GOOG_1d": "1d", "BTCPERP_1m": "1m", "GBPUSD_1m": "1m"}

MARKETS = {
    "plain": markets.bars(1600, seed=1),
    "gaps": markets.bars(1600, seed=2, skip=0.3),
    "weekends": markets.bars(1600, seed=3, weekends=False),
    "flat": markets.bars(1600, seed=4, flat=0.5),
    "no_volume": markets.bars(1200, seed=5).with_columns(volume=pl.lit(0.0)),
    "satoshis": markets.bars(1200, seed=6, unit=3e-8, volume=1e12, flat=0.2),
    "whole_coins_in_dust": markets.bars(1200, seed=7, unit=9e6, volume=1e-6, flat=0.2),
    "standstill": markets.bars(1200, seed=8, flat=1.1),
}

some_market = st.builds(
    markets.bars,
    st.integers(WARMUP + 1, 2400),
    st.integers(0, 10_000),
    start=st.integers(0, 2000).map(lambda hours: markets.START + timedelta(hours=hours)),
    skip=st.sampled_from([0.0, 0.0, 0.05, 0.6]),
    weekends=st.booleans(),
    flat=st.sampled_from([0.0, 0.0, 0.3]),
)


def bits(found: FeatureRows, row: slice = slice(None)) -> tuple[bytes, ...]:
    """All of some rows, to the bit."""
    return tuple(
        array[row].tobytes() for array in (found.ts, found.closed_at, found.X, found.scale, found.close)
    )


def exact(bars: pl.DataFrame, step: Timeframe = HOUR) -> pl.DataFrame:
    """All features and the scale in float64, before X rounds them, by the one rule for frames."""
    parts = [
        frames.compute(bars, step, ALL, first, end).tail(end - first)
        for first, end in pairwise(frames.edges(bars, step))
    ]
    return pl.concat(parts).rename({"_scale": "scale"})


@pytest.fixture(scope="module", params=MARKETS)
def twin_pairs(request: pytest.FixtureRequest) -> list[tuple[dict[str, float], dict[str, float]]]:
    """(computed, twin) of 40 bars of a market, all features of a bar at once."""
    bars = MARKETS[request.param]
    computed = exact(bars)
    places = np.random.default_rng(0).integers(WARMUP, len(bars), 40).tolist()
    return [
        (
            computed.row(t, named=True),
            twins.values(bars[t - WARMUP : t + 1], computed["_closed_at"][t]),
        )
        for t in places
    ]


# --- what the features are


def test_there_are_at_least_forty_features_and_each_says_what_it_is() -> None:
    assert len(FEATURES) >= 40
    for name, feature in FEATURES.items():
        assert feature.name == name
        assert re.fullmatch(r"[a-z][a-z0-9_]*", name)
        assert feature.group
        assert len(feature.about) > 10


@pytest.mark.parametrize("name", [*FEATURES, "scale"])
def test_a_feature_agrees_with_its_slow_twin(
    name: str, twin_pairs: list[tuple[dict[str, float], dict[str, float]]]
) -> None:
    for computed, twin in twin_pairs:
        # a jump leaves 1e-19 in a running sum; a standstill after it measures that by a floor of 1e-12
        assert computed[name] == pytest.approx(twin[name], rel=1e-8, abs=1e-6)


@pytest.mark.parametrize("market", REAL)
def test_all_features_agree_with_their_slow_twins_on_real_bars(market: str) -> None:
    bars, step = real_bars.bars(market).head(2100), timeframe(REAL[market])
    computed, found = exact(bars, step), rows(bars, step)
    for t in np.random.default_rng(1).integers(WARMUP, len(bars), 60).tolist():
        twin = twins.values(bars[t - WARMUP : t + 1], computed["_closed_at"][t])
        assert computed.select(list(twin)).row(t) == pytest.approx(tuple(twin.values()), rel=1e-9, abs=1e-9)
        assert found.X[t - WARMUP].tolist() == pytest.approx(
            [twin[name] for name in FEATURES], rel=1e-6, abs=1e-7
        )


def test_features_agree_with_talib_on_real_bars() -> None:
    bars = real_bars.bars("ETHUSDT_1h").head(BLOCK * 2)
    high, low, close = (bars[name].to_numpy() for name in ("high", "low", "close"))
    x = np.log(close)
    k14, d14 = talib.STOCHF(high, low, close, 14, 3)
    upper, middle, _ = talib.BBANDS(x, 96, 1, 1)  # deviations of the population, not of a sample
    expected = {
        "stochastic_14": k14 / 50 - 1,
        "stochastic_14_3": d14 / 50 - 1,
        "position_48": talib.WILLR(high, low, close, 48) / 50 + 1,
        "z_96": (x - middle) / (upper - middle) / math.sqrt(96 / 95),
        "up_fraction_12": talib.SMA(np.sign(np.diff(x, prepend=np.nan)), 12),
        "return_24": np.log(1 + talib.ROCP(close, 24)) / (exact(bars)["scale"].to_numpy() * math.sqrt(24)),
    }
    for name, theirs in expected.items():
        ours = exact(bars)[name].to_numpy()[WARMUP:]
        np.testing.assert_allclose(ours, theirs[WARMUP:], rtol=1e-7, atol=1e-9, err_msg=name)


def test_the_hour_is_that_of_the_close() -> None:
    bars = markets.bars(WARMUP + 24, start=datetime(2024, 1, 1, tzinfo=UTC))  # a Monday
    found = rows(bars, HOUR)
    moments = [datetime.fromtimestamp(micros / 1e6, UTC) for micros in found.closed_at.tolist()]
    hour = np.array([moment.hour / 24 for moment in moments])
    weekday = np.array([(moment.weekday() + moment.hour / 24) / 7 for moment in moments])
    for name, turn in {"hour": hour, "weekday": weekday}.items():
        at = list(FEATURES).index(f"{name}_sin")
        np.testing.assert_allclose(found.X[:, at], np.sin(2 * math.pi * turn), atol=1e-6)
        np.testing.assert_allclose(found.X[:, at + 1], np.cos(2 * math.pi * turn), atol=1e-6)
    assert found.closed_at[0] == found.ts[0] + 3_600_000_000


# --- bounds


@pytest.mark.parametrize("market", MARKETS)
def test_every_feature_is_finite_and_bounded(market: str) -> None:
    found = rows(MARKETS[market], HOUR)
    assert np.isfinite(found.X).all()
    assert np.abs(found.X).max() <= table.CLIP
    assert (found.scale >= table.LEAST_VOLATILITY).all()


@pytest.mark.parametrize("market", [*REAL, "BNBUSDT_1h", "ORCL_1d"])
def test_every_feature_is_finite_and_bounded_on_real_bars(market: str) -> None:
    found = rows(real_bars.bars(market), timeframe(market.split("_")[1]))
    assert np.isfinite(found.X).all()
    assert np.abs(found.X).max() <= table.CLIP


hostile_price = st.sampled_from([1e-8, 0.5, 1.0, 1.0 + 1e-12, 1.0001, 100.0, 1e7])
hostile_volume = st.sampled_from([0.0, 0.0, 1e-9, 1.0, 1e15])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(hostile_price, st.integers(1, 120), hostile_volume), min_size=1, max_size=30))
def test_no_market_makes_a_feature_leave_its_bounds(stretches: list[tuple[float, int, float]]) -> None:
    price = np.concatenate([np.full(length, price) for price, length, _ in stretches])
    volume = np.concatenate([np.full(length, volume) for _, length, volume in stretches])
    price, volume = (np.resize(array, 700) for array in (price, volume))
    before = np.concatenate([price[:1], price[:-1]])
    bars = markets.bars(700).with_columns(
        open=before, high=np.maximum(before, price), low=np.minimum(before, price), close=price, volume=volume
    )
    found = rows(bars, HOUR)
    assert np.isfinite(found.X).all()
    assert np.abs(found.X).max() <= table.CLIP
    assert np.isfinite(found.scale).all()
    assert (found.scale >= table.LEAST_VOLATILITY).all()


@pytest.mark.parametrize("seed", [0, 28, 49])
def test_dust_after_floods_of_volume_leaves_features_in_bounds(seed: int) -> None:
    # of seeds 0 to 59, 28 and 49 make the running sum forget the dust: mean 0 where the largest volume is not
    rng = np.random.default_rng(seed)
    flood = np.where(rng.random(300) < 0.3, rng.lognormal(25, 3, 300), rng.choice([0, 1e-9, 1e-3], 300))
    dust = rng.choice([0, 1e-9], 400)
    bars = markets.bars(700, seed).with_columns(volume=np.concatenate([flood, dust]))
    found = rows(bars, HOUR)
    assert np.isfinite(found.X).all()
    assert np.abs(found.X).max() <= table.CLIP
    relative = frames.with_base(bars, HOUR)["relative_volume"]
    assert relative.is_between(0, table.VOLUME_WINDOW * (1 + 1e-9)).all()


def test_features_are_of_order_one_on_an_ordinary_market() -> None:
    # a market so even that neither floors nor bounds are met
    rng = np.random.default_rng(0)
    bars = markets.bars(6000)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, 6000)))
    open_ = np.concatenate([[100], close[:-1]]) * np.exp(rng.normal(0, 0.001, 6000))
    bars = bars.with_columns(
        open=open_,
        high=np.maximum(open_, close) * np.exp(rng.exponential(0.005, 6000)),
        low=np.minimum(open_, close) * np.exp(-rng.exponential(0.005, 6000)),
        close=close,
        volume=rng.lognormal(0, 1, 6000),
    )
    deviation = dict(zip(FEATURES, rows(bars, HOUR).X.std(axis=0).tolist(), strict=True))
    assert {name: sd for name, sd in deviation.items() if not 0.04 < sd < 3} == {}


# --- rows


def test_rows_are_the_bars_with_a_full_warmup() -> None:
    bars = MARKETS["gaps"]
    found = rows(bars, HOUR)
    assert len(found) == len(bars) - WARMUP
    assert found.X.shape == (len(found), len(FEATURES))
    assert found.X.dtype == np.float32
    assert found.ts.tolist() == bars["ts"].dt.epoch("us").to_list()[WARMUP:]
    assert (found.closed_at - found.ts == 3_600_000_000).all()
    assert found.close.tolist() == bars["close"].to_list()[WARMUP:]
    for array in (found.ts, found.closed_at, found.X, found.scale, found.close):
        assert not array.flags.writeable


@pytest.mark.parametrize("n", [0, 1, WARMUP])
def test_without_a_full_warmup_there_is_no_row(n: int) -> None:
    bars = markets.bars(500).head(n)
    for found in (rows(bars, HOUR), last_row(bars, HOUR)):
        assert len(found) == 0
        assert found.X.shape == (0, len(FEATURES))


def test_a_feature_set_chooses_and_orders_columns() -> None:
    bars = MARKETS["plain"]
    names = tuple(sorted(FEATURES, reverse=True)[:7])
    chosen, everything = rows(bars, HOUR, FeatureSet(names)), rows(bars, HOUR)
    for column, name in enumerate(names):
        assert chosen.X[:, column].tobytes() == everything.X[:, list(FEATURES).index(name)].tobytes()


def test_months_close_by_the_calendar() -> None:
    n = WARMUP + 30
    months = [datetime(1990 + i // 12, 1 + i % 12, 1, tzinfo=UTC) for i in range(n)]
    bars = markets.bars(n).with_columns(ts=pl.Series(months, dtype=pl.Datetime("us", "UTC")))
    found = rows(bars, timeframe("1M"))
    assert (found.closed_at[:-1] == found.ts[1:]).all()
    assert bits(last_row(bars, timeframe("1M"))) == bits(found, slice(-1, None))


# --- the same bits, whoever asks


@settings(max_examples=40, deadline=None)
@given(some_market, st.data())
def test_the_newest_row_is_to_the_bit_that_of_the_whole_history(
    bars: pl.DataFrame, data: st.DataObject
) -> None:
    whole = rows(bars, HOUR)
    for t in data.draw(st.lists(st.integers(WARMUP + 1, len(bars)), min_size=1, max_size=8)):
        expected = bits(whole, slice(t - 1 - WARMUP, t - WARMUP))
        assert bits(last_row(bars[:t], HOUR)) == expected
        assert bits(last_row(bars[:t].tail(HISTORY), HOUR)) == expected
        more = data.draw(st.integers(HISTORY, HISTORY + 600))
        assert bits(last_row(bars[:t].tail(more), HOUR)) == expected


@settings(max_examples=20, deadline=None)
@given(some_market, st.lists(st.integers(1, 700), min_size=1, max_size=6))
def test_appended_bars_change_no_earlier_row(bars: pl.DataFrame, steps: list[int]) -> None:
    whole = rows(bars, HOUR)
    for t in np.minimum(np.cumsum(steps), len(bars)).tolist():
        assert bits(rows(bars[:t], HOUR)) == bits(whole, slice(0, max(0, t - WARMUP)))


@settings(max_examples=20, deadline=None)
@given(some_market, st.integers(0, 1500))
def test_a_history_cut_at_its_front_keeps_the_bits_from_its_768th_bar_on(
    bars: pl.DataFrame, front: int
) -> None:
    whole, part = rows(bars, HOUR), rows(bars[front:], HOUR)
    kept = max(0, len(bars) - front - HISTORY + 1)
    assert bits(part, slice(len(part) - kept, None)) == bits(whole, slice(len(whole) - kept, None))


@pytest.mark.parametrize("market", ["plain", "gaps", "weekends", "flat"])
def test_bar_by_bar_gives_the_bits_of_the_whole(market: str) -> None:
    bars = MARKETS[market]
    whole = rows(bars, HOUR)
    first_block = frames.edges(bars, HOUR)[1]
    for t in [
        *range(WARMUP + 1, WARMUP + 40),
        *range(first_block - 20, first_block + 60),
        *range(1350, 1450),
    ]:
        if t > WARMUP:
            assert bits(last_row(bars[:t], HOUR)) == bits(whole, slice(t - 1 - WARMUP, t - WARMUP))


def test_it_does_not_matter_how_the_frame_was_put_together(tmp_path: Path) -> None:
    bars = MARKETS["gaps"]
    expected = bits(rows(bars, HOUR))
    bars.write_parquet(tmp_path / "bars.parquet", row_group_size=100)
    one_by_one = pl.concat([bars[i : i + 1] for i in range(300)] + [bars[300:777], bars[777:]], rechunk=False)
    sliced = pl.concat([MARKETS["plain"], bars, bars]).slice(len(MARKETS["plain"]), len(bars))
    rebuilt = pl.DataFrame(bars.rows(), schema=bars.schema, orient="row")
    assert one_by_one.n_chunks() > 300
    for same in (pl.read_parquet(tmp_path / "bars.parquet"), one_by_one, sliced, rebuilt):
        assert bits(rows(same, HOUR)) == expected
        assert bits(last_row(same, HOUR)) == bits(rows(bars, HOUR), slice(-1, None))


def test_bits_do_not_depend_on_the_number_of_threads(tmp_path: Path) -> None:
    bars = MARKETS["plain"]
    bars.write_parquet(tmp_path / "bars.parquet")
    program = (
        "import sys, polars as pl\n"
        "from model.bars import Timeframe, timeframe\n"
        "from model.features import rows\n"
        "found = rows(pl.read_parquet(sys.argv[1]), timeframe('1h'))\n"
        "print(found.X.tobytes().hex() + found.scale.tobytes().hex())\n"
    )
    ours = rows(bars, HOUR)
    for threads in ("1", "2", "5"):
        answer = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path / "bars.parquet")],
            env={**os.environ, "POLARS_MAX_THREADS": threads, "PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True,
            text=True,
            check=True,
        )
        assert answer.stdout.strip() == ours.X.tobytes().hex() + ours.scale.tobytes().hex()


def test_daily_stamps_that_follow_summer_time_keep_their_bits() -> None:
    bars = markets.days_of_summer_time(2300)
    per_block = np.diff(frames.edges(bars, DAY))
    assert 1 in per_block  # 513 bars fell into a block of 512 days
    whole = rows(bars, DAY)
    for t in [
        *np.cumsum(per_block).tolist(),
        *np.random.default_rng(0).integers(WARMUP + 1, 2300, 40).tolist(),
    ]:
        if t > WARMUP:
            assert bits(last_row(bars[:t].tail(HISTORY), DAY)) == bits(
                whole, slice(t - 1 - WARMUP, t - WARMUP)
            )


def test_overlapping_bars_are_refused() -> None:
    minutes = markets.bars(HISTORY + 40, step="1m")
    for function in (rows, last_row):
        with pytest.raises(BadBars, match="bars overlap: 768 or more of 1h within the time of 512"):
            function(minutes, HOUR)


@pytest.mark.parametrize("market", REAL)
def test_real_bars_give_the_newest_row_the_bits_of_the_whole(market: str) -> None:
    bars, step = real_bars.bars(market), timeframe(REAL[market])
    whole = rows(bars, step)
    for t in np.random.default_rng(5).integers(WARMUP + 1, len(bars), 60).tolist():
        assert bits(last_row(bars[max(0, t - HISTORY) : t], step)) == bits(
            whole, slice(t - 1 - WARMUP, t - WARMUP)
        )


# --- no look-ahead

C, R = pl.col("close"), pl.col("log_return")
CHEATS = {
    "next_bar": C.shift(-1) / C - 1,
    "next_bar_filled": (C.shift(-1) / C - 1).fill_null(0.0),
    "far_ahead": C.shift(-40) / C - 1,
    "centred_rolling": C.rolling_mean(5, center=True) / C,
    "whole_mean": C / C.mean(),
    "whole_deviation": R / R.std(),
    "whole_rank": C.rank() / pl.len(),
    "whole_maximum": C / C.max(),
    "whole_scaling": (C - C.min()) / (C.max() - C.min()),
    "backward_fill": pl.when(C.shift(1) < C).then(C).fill_null(strategy="backward") / C,
    "interpolated": pl.when(pl.int_range(pl.len()) % 7 == 0).then(C).interpolate() / C,
    "reversed": C.reverse() / C,
    "cumulated_backwards": R.cum_sum(reverse=True),
    "next_time": (pl.col("ts").shift(-1) - pl.col("ts")).dt.total_hours().fill_null(1),
    "number_of_bars": C * 0 + pl.len(),
    "next_volume": pl.col("volume").shift(-1).log1p().fill_null(0.0),
    "sorted": C.sort() / C,
    "python_lambda": C.map_batches(lambda s: s / s[-1], return_dtype=pl.Float64),
}


@pytest.mark.parametrize("market", MARKETS)
def test_cutting_or_corrupting_the_future_changes_no_feature(market: str) -> None:
    assert check(MARKETS[market], HOUR, ALL, seed=0, cuts=8) == ()


@pytest.mark.parametrize("market", REAL)
def test_cutting_or_corrupting_the_future_of_real_bars_changes_no_feature(market: str) -> None:
    assert check(real_bars.bars(market), timeframe(REAL[market]), ALL, seed=3, cuts=12) == ()


@pytest.mark.parametrize("cheat", CHEATS)
def test_a_feature_that_looks_ahead_is_caught(cheat: str) -> None:
    bars = MARKETS["gaps"]
    found = check(
        bars, HOUR, [*ALL, Feature(cheat, "cheat", 200, "looks ahead", CHEATS[cheat])], seed=1, cuts=6
    )
    assert found
    assert {finding.feature for finding in found} == {cheat}
    for finding in found:
        assert finding.first_moved < finding.cut
        assert finding.kind in {"truncated", "scaled", "shuffled", "replaced"}
        assert {finding.first_moved, finding.cut} <= set(bars["ts"])


def test_the_first_bar_that_moved_is_named() -> None:
    bars = MARKETS["plain"]
    found = check(bars, HOUR, [Feature("peek", "cheat", 3, "two bars on", C.shift(-2))], seed=1, cuts=5)
    assert found
    assert {finding.cut - finding.first_moved for finding in found} == {timedelta(hours=2)}


def test_the_check_repeats_itself() -> None:
    cheat = [Feature("peek", "cheat", 3, "the next bar", C.shift(-1))]
    once = check(MARKETS["plain"], HOUR, cheat, seed=4, cuts=5)
    assert once == check(MARKETS["plain"], HOUR, cheat, seed=4, cuts=5)
    assert once != check(MARKETS["plain"], HOUR, cheat, seed=5, cuts=5)


def test_the_check_refuses_what_it_cannot_judge() -> None:
    with pytest.raises(BadBars, match="257 bars are too few to judge features by: 258 or more are needed"):
        check(markets.bars(257), HOUR, ALL, seed=0, cuts=3)
    wrong = Feature("typo", "mine", 3, "no such column", pl.col("clsoe") / C)
    for function in (check, unmet_needs):
        with pytest.raises(BadInput, match=r"feature 'typo' cannot be computed: .*clsoe"):
            function(MARKETS["plain"], HOUR, [*ALL, wrong], seed=0, cuts=3)


# --- no more history than stated


@pytest.mark.parametrize("market", MARKETS)
def test_every_feature_states_all_the_history_it_looks_at(market: str) -> None:
    assert unmet_needs(MARKETS[market], HOUR, ALL, seed=0, cuts=25) == ()


@pytest.mark.parametrize("market", REAL)
def test_every_feature_states_all_the_history_it_looks_at_on_real_bars(market: str) -> None:
    assert unmet_needs(real_bars.bars(market), timeframe(REAL[market]), ALL, seed=0, cuts=25) == ()


def test_no_feature_states_more_history_than_it_looks_at() -> None:
    # volatile bars, then hardly any movement: here the longer run's volatility is the floor of all others
    volatile = markets.bars(500, seed=11)
    calm = markets.bars(500, seed=12, start=volatile["ts"][-1] + HOUR.length).with_columns(
        (pl.col(price) / volatile["close"][-1]).pow(0.002) for price in ("open", "high", "low", "close")
    )
    # two bars, since a window of 192 prices is never so still that the floor shows the 193rd
    short = [Feature(f.name, f.group, f.needs - 2, f.about, f.expr) for f in ALL if f.needs > 2]
    found = unmet_needs(pl.concat([volatile, calm]), HOUR, short, seed=2, cuts=60)
    assert {finding.feature for finding in found} == {f.name for f in short}
    assert {f.name for f in ALL if f.needs <= 2} == {
        "close_location", "hour_sin", "hour_cos", "weekday_sin", "weekday_cos",
    }  # fmt: skip


@pytest.mark.parametrize(
    "expr",
    [
        C.rolling_mean(6) / C,
        C / C.shift(5),
        C / C.shift(400),
        C.cum_sum() / C,
        C.ewm_mean(span=3) / C,
        C.cum_count() / 500,
        R.rolling_mean(5).rolling_mean(2),
    ],
)
def test_a_feature_that_needs_more_bars_than_it_states_is_caught(expr: pl.Expr) -> None:
    feature = Feature("short", "mine", 5, "states five bars", expr)
    assert [(f.feature, f.needs) for f in unmet_needs(MARKETS["plain"], HOUR, [*ALL, feature], 0, 5)] == [
        ("short", 5)
    ]


def test_a_value_that_is_not_finite_is_an_unmet_need() -> None:
    feature = Feature("undefined", "mine", 5, "0 / 0 where nothing moves", (C - C) / (C - C))
    assert len(unmet_needs(MARKETS["plain"], HOUR, [feature], seed=0, cuts=5)) == 1


@pytest.mark.parametrize("needs", [0, -1, WARMUP + 1])
def test_a_feature_needs_between_one_bar_and_the_warmup(needs: int) -> None:
    with pytest.raises(BadInput, match=f"feature 'odd' needs {needs} bars: 1 to 256 are given"):
        Feature("odd", "mine", needs, "", C)


# --- the set and its hash


def test_a_feature_set_knows_what_it_needs() -> None:
    assert FeatureSet(("close_location",)).needs == SCALE_NEEDS  # the scale comes with every row
    assert FeatureSet(("volume_144",)).needs == 96 + 143
    assert DEFAULT.needs <= WARMUP
    assert HISTORY == WARMUP + BLOCK == 768


@pytest.mark.parametrize("names", [(), ("return_1", "return_1"), ("return_1", "no_such")])
def test_a_wrong_feature_set_is_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(BadInput):
        FeatureSet(names)


def test_a_changed_definition_changes_the_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("return_1", "z_24")
    hashes = {FeatureSet(names).sha256, FeatureSet(names[::-1]).sha256, FeatureSet(names[:1]).sha256}
    z = FEATURES["z_24"]
    for changed in (
        Feature("z_24", "level", z.needs - 1, z.about, z.expr),
        Feature("z_24", "level", z.needs, z.about, FEATURES["z_48"].expr),  # only a window differs
        Feature("z_24", "level", z.needs, z.about, z.expr.clip(-1, 1)),
    ):
        monkeypatch.setitem(FEATURES, "z_24", changed)
        hashes.add(FeatureSet(names).sha256)
    monkeypatch.setitem(FEATURES, "z_24", z)
    other = {**table.BASE[1], "calm": table.BASE[1]["calm"] * 2}
    monkeypatch.setattr(table, "BASE", (table.BASE[0], other, table.BASE[2]))
    hashes.add(FeatureSet(names).sha256)
    assert len(hashes) == 7
    monkeypatch.undo()
    monkeypatch.setitem(FEATURES, "z_24", Feature("z_24", "renamed group", z.needs, "other words", z.expr))
    assert FeatureSet(names).sha256 in hashes  # words are not a definition


def test_the_hash_is_the_same_in_another_process() -> None:
    program = "from model.features import DEFAULT; print(DEFAULT.sha256)"
    answer = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout.strip() == DEFAULT.sha256


# --- the documentation


def test_the_documentation_lists_every_feature_as_it_is() -> None:
    text = (Path(__file__).parents[2] / "docs" / "features.md").read_text()
    listed = [line for line in text.splitlines() if line.startswith("| `")]
    expected = [f"| `{f.name}` | {f.group} | {f.needs} | {f.about} |" for f in ALL]
    assert listed == expected
