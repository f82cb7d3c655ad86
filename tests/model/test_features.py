"""The laws of features. Every row of FEATURES stands trial in each of them; none is excused."""

import json
import math
import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.bars import Timeframe, timeframe
from model.errors import BadInput
from model.features import (
    BLOCK,
    DEFAULT,
    FEATURES,
    HISTORY,
    SCALE_NEEDS,
    WARMUP,
    Feature,
    FeatureSet,
    columns,
    frames,
    last_row,
    parts,
    rows,
    table,
)
from tests import real_bars
from tests.model import markets, twins
from tests.model.markets import MARKETS

HOUR = timeframe("1h")
ALL = tuple(FEATURES.values())
EVERY = FeatureSet(tuple(FEATURES))
REAL = {"ETHUSDT_1h": "1h", "EURUSD_1h": "1h", "GOOG_1d": "1d", "BTCPERP_1m": "1m", "GBPUSD_1m": "1m"}


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


def test_there_are_at_least_sixty_features_and_each_says_what_it_is() -> None:
    assert len(FEATURES) >= 60
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
    computed, found = exact(bars, step), rows(bars, step, EVERY)
    for t in np.random.default_rng(1).integers(WARMUP, len(bars), 60).tolist():
        twin = twins.values(bars[t - WARMUP : t + 1], computed["_closed_at"][t])
        assert computed.select(list(twin)).row(t) == pytest.approx(tuple(twin.values()), rel=1e-9, abs=1e-9)
        assert found.X[t - WARMUP].tolist() == pytest.approx(
            [twin[name] for name in FEATURES], rel=1e-6, abs=1e-7
        )


def test_the_hour_is_that_of_the_close() -> None:
    bars = markets.bars(WARMUP + 24, start=datetime(2024, 1, 1, tzinfo=UTC))  # a Monday
    found = rows(bars, HOUR, EVERY)
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
    found = rows(MARKETS[market], HOUR, EVERY)
    assert np.isfinite(found.X).all()
    assert np.abs(found.X).max() <= columns.CLIP
    assert (found.scale >= columns.LEAST_VOLATILITY).all()


@pytest.mark.parametrize("market", [*REAL, "BNBUSDT_1h", "ORCL_1d"])
def test_every_feature_is_finite_and_bounded_on_real_bars(market: str) -> None:
    found = rows(real_bars.bars(market), timeframe(market.split("_")[1]), EVERY)
    assert np.isfinite(found.X).all()
    assert np.abs(found.X).max() <= columns.CLIP


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
    found = rows(bars, HOUR, EVERY)
    assert np.isfinite(found.X).all()
    assert np.abs(found.X).max() <= columns.CLIP
    assert np.isfinite(found.scale).all()
    assert (found.scale >= columns.LEAST_VOLATILITY).all()


@pytest.mark.parametrize("seed", [0, 28, 49])
def test_dust_after_floods_of_volume_leaves_features_in_bounds(seed: int) -> None:
    # of seeds 0 to 59, 28 and 49 make the running sum forget the dust: mean 0 where the largest volume is not
    rng = np.random.default_rng(seed)
    flood = np.where(rng.random(300) < 0.3, rng.lognormal(25, 3, 300), rng.choice([0, 1e-9, 1e-3], 300))
    dust = rng.choice([0, 1e-9], 400)
    bars = markets.bars(700, seed).with_columns(volume=np.concatenate([flood, dust]))
    found = rows(bars, HOUR, EVERY)
    assert np.isfinite(found.X).all()
    assert np.abs(found.X).max() <= columns.CLIP
    relative = columns.with_base(bars, HOUR)["relative_volume"]
    assert relative.is_between(0, columns.VOLUME_WINDOW * (1 + 1e-9)).all()


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
    deviation = dict(zip(FEATURES, rows(bars, HOUR, EVERY).X.std(axis=0).tolist(), strict=True))
    assert {name: sd for name, sd in deviation.items() if not 0.04 < sd < 3} == {}


# --- rows


def test_rows_are_the_bars_with_a_full_warmup() -> None:
    bars = MARKETS["gaps"]
    found = rows(bars, HOUR, EVERY)
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
    for found in (rows(bars, HOUR, EVERY), last_row(bars, HOUR, EVERY)):
        assert len(found) == 0
        assert found.X.shape == (0, len(FEATURES))


def test_a_feature_set_chooses_and_orders_columns() -> None:
    bars = MARKETS["plain"]
    names = tuple(sorted(FEATURES, reverse=True)[:7])
    chosen, everything = rows(bars, HOUR, FeatureSet(names)), rows(bars, HOUR, EVERY)
    for column, name in enumerate(names):
        assert chosen.X[:, column].tobytes() == everything.X[:, list(FEATURES).index(name)].tobytes()


# --- in parts


@pytest.mark.parametrize("name", FEATURES)
def test_the_parts_put_together_are_the_expression(name: str) -> None:
    split, whole = FEATURES[name].parts, parts.serialised(FEATURES[name].expr)
    text = parts.serialised(split.rest)
    for column in sorted(split.windows, key=len, reverse=True):
        assert parts.serialised(split.windows[column]) == column
        text = text.replace(json.dumps({"Column": column}, separators=(",", ":"), ensure_ascii=False), column)
    assert text == whole
    # nothing but windows is computed in frames, so that no built-in feature is slow unseen
    for column in split.running:
        function = json.loads(column)["Function"]["function"]
        assert function == "Shift" or "RollingExpr" in function


@pytest.mark.parametrize(
    "expr",
    [
        pl.col("close").tanh(),
        pl.col("close").shift(-1),
        pl.col("close") - pl.col("close").mean(),
        pl.col("close").rolling_mean(5).over("open"),
        pl.col("close") / pl.col("close").ewm_mean(alpha=0.1),
    ],
)
def test_what_is_not_known_stays_whole(expr: pl.Expr) -> None:
    split = parts.parted(expr, columns.REACHES, WARMUP)
    assert split.rest.meta.output_name() == parts.serialised(expr)
    assert list(split.windows) == [parts.serialised(expr)]


def test_a_reach_is_how_many_earlier_bars_an_exact_window_looks_at() -> None:
    x, r = pl.col("close"), pl.col("log_return")
    for expr, far in (
        (x, 0),
        (x.shift(3), 3),
        (x.rolling_min(10), 9),
        ((x.rolling_max(10) - x.shift(12)).shift(2), 14),
        (r.shift(4) * 2, 5),  # a return is of two closes
        (x.rolling_sum(6, weights=[1.0] * 6), 5),
        (x.rolling_sum(6), None),
        (x.rolling_std(6).shift(1), None),
        (x.rolling_min(11, center=True), None),
        (pl.col("volatility").shift(1), None),
        (x.tanh(), None),
    ):
        assert parts.reach(expr, columns.REACHES) == far, str(expr)


numbers = st.sampled_from([0.0, -0.0, 1.0, -1.0, math.nan, math.inf, -math.inf, 1e-300, 3e17, 0.1])


@settings(max_examples=60, deadline=None)
@given(st.lists(numbers, min_size=40, max_size=90), st.integers(1, 20), st.integers(0, 15), st.data())
def test_exact_windows_have_the_same_bits_wherever_a_history_begins(
    values: list[float], k: int, front: int, data: st.DataObject
) -> None:
    x = pl.col("x")
    weights = data.draw(st.lists(st.floats(-2, 2, allow_subnormal=False), min_size=k, max_size=k))
    windows = [x.shift(k), x.rolling_min(k), x.rolling_max(k), x.rolling_sum(k, weights=weights)]
    history = pl.DataFrame({"x": values})
    for expr in windows:
        assert parts.reach(expr, {"x": 0}) is not None
        whole, cut = history.select(expr)["x"].to_numpy(), history[front:].select(expr)["x"].to_numpy()
        assert whole[front + k :].tobytes() == cut[k:].tobytes(), str(expr)


@settings(max_examples=60, deadline=None)
@given(st.sets(st.integers(1, 200), min_size=1, max_size=8), st.integers(0, 10_000))
def test_an_extreme_made_of_shorter_ones_is_the_extreme(windows: set[int], seed: int) -> None:
    bars = markets.bars(WARMUP + 300, seed, flat=0.3)
    asked = [
        extreme
        for k in windows
        for price in ("high", "low")
        for each in (pl.col(price).rolling_min(k), pl.col(price).rolling_max(k))
        for extreme in parts.parted(each, columns.REACHES, WARMUP).extremes
    ]
    frame = bars
    for step in parts.in_turn(asked):
        frame = frame.with_columns_seq(**step)
    assert len(asked) == 4 * len(windows)
    for each in asked:
        expected = bars.select(parts.alone(each)).to_series()
        assert (frame[each.name][each.window - 1 :] == expected[each.window - 1 :]).all()


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


def test_what_trained_versions_stand_on_stays_as_it_is() -> None:
    # a row that is added to FEATURES is not used where nobody says so
    assert len(DEFAULT.names) == 68
    assert not {"rsi_14", "macd_12_26", "entropy_24"} & set(DEFAULT.names)
    assert {"rsi_14", "macd_12_26", "entropy_24"} < set(FEATURES)


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
    first, calm, *rest = columns.BASE
    monkeypatch.setattr(
        table, "SHARED", columns.definitions([first, {**calm, "calm": calm["calm"] * 2}, *rest])
    )
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
