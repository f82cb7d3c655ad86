"""Train/serve parity: a bar has the same row to the bit, whoever asks and by whatever path."""

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import store.bars
import store.database
import store.markets
from model import features
from model.bars import Market, timeframe
from model.errors import BadBars
from model.features import (
    FEATURES,
    HISTORY,
    WARMUP,
    Feature,
    FeatureRows,
    FeatureSet,
    frames,
    last_row,
    rows,
)
from store.database import Engine
from tests import real_bars
from tests.model import markets, synthetic
from tests.model.markets import MARKETS

HOUR = timeframe("1h")
DAY = timeframe("1d")
EVERY = FeatureSet(tuple(FEATURES))
REAL = {"ETHUSDT_1h": "1h", "EURUSD_1h": "1h", "GOOG_1d": "1d", "BTCPERP_1m": "1m", "GBPUSD_1m": "1m"}

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


@settings(max_examples=40, deadline=None)
@given(some_market, st.data())
def test_the_newest_row_is_to_the_bit_that_of_the_whole_history(
    bars: pl.DataFrame, data: st.DataObject
) -> None:
    whole = rows(bars, HOUR, EVERY)
    for t in data.draw(st.lists(st.integers(WARMUP + 1, len(bars)), min_size=1, max_size=8)):
        expected = bits(whole, slice(t - 1 - WARMUP, t - WARMUP))
        assert bits(last_row(bars[:t], HOUR, EVERY)) == expected
        assert bits(last_row(bars[:t].tail(HISTORY), HOUR, EVERY)) == expected
        more = data.draw(st.integers(HISTORY, HISTORY + 600))
        assert bits(last_row(bars[:t].tail(more), HOUR, EVERY)) == expected


@settings(max_examples=20, deadline=None)
@given(some_market, st.lists(st.integers(1, 700), min_size=1, max_size=6))
def test_appended_bars_change_no_earlier_row(bars: pl.DataFrame, steps: list[int]) -> None:
    whole = rows(bars, HOUR, EVERY)
    for t in np.minimum(np.cumsum(steps), len(bars)).tolist():
        assert bits(rows(bars[:t], HOUR, EVERY)) == bits(whole, slice(0, max(0, t - WARMUP)))


@settings(max_examples=20, deadline=None)
@given(some_market, st.integers(0, 1500))
def test_a_history_cut_at_its_front_keeps_the_bits_from_its_768th_bar_on(
    bars: pl.DataFrame, front: int
) -> None:
    whole, part = rows(bars, HOUR, EVERY), rows(bars[front:], HOUR, EVERY)
    kept = max(0, len(bars) - front - HISTORY + 1)
    assert bits(part, slice(len(part) - kept, None)) == bits(whole, slice(len(whole) - kept, None))


@pytest.mark.parametrize("market", ["plain", "gaps", "weekends", "flat"])
def test_bar_by_bar_gives_the_bits_of_the_whole(market: str) -> None:
    bars = MARKETS[market]
    whole = rows(bars, HOUR, EVERY)
    first_block = frames.edges(bars, HOUR)[1]
    for t in [
        *range(WARMUP + 1, WARMUP + 40),
        *range(first_block - 20, first_block + 60),
        *range(1350, 1450),
    ]:
        if t > WARMUP:
            assert bits(last_row(bars[:t], HOUR, EVERY)) == bits(whole, slice(t - 1 - WARMUP, t - WARMUP))


def test_it_does_not_matter_how_the_frame_was_put_together(tmp_path: Path) -> None:
    bars = MARKETS["gaps"]
    expected = bits(rows(bars, HOUR, EVERY))
    bars.write_parquet(tmp_path / "bars.parquet", row_group_size=100)
    one_by_one = pl.concat([bars[i : i + 1] for i in range(300)] + [bars[300:777], bars[777:]], rechunk=False)
    sliced = pl.concat([MARKETS["plain"], bars, bars]).slice(len(MARKETS["plain"]), len(bars))
    rebuilt = pl.DataFrame(bars.rows(), schema=bars.schema, orient="row")
    assert one_by_one.n_chunks() > 300
    for same in (pl.read_parquet(tmp_path / "bars.parquet"), one_by_one, sliced, rebuilt):
        assert bits(rows(same, HOUR, EVERY)) == expected
        assert bits(last_row(same, HOUR, EVERY)) == bits(rows(bars, HOUR, EVERY), slice(-1, None))


def test_bits_do_not_depend_on_the_number_of_threads(tmp_path: Path) -> None:
    bars = MARKETS["plain"]
    bars.write_parquet(tmp_path / "bars.parquet")
    program = (
        "import sys, polars as pl\n"
        "from model.bars import Timeframe, timeframe\n"
        "from model.features import FEATURES, FeatureSet, rows\n"
        "every = FeatureSet(tuple(FEATURES))\n"
        "found = rows(pl.read_parquet(sys.argv[1]), timeframe('1h'), every)\n"
        "print(found.X.tobytes().hex() + found.scale.tobytes().hex())\n"
    )
    ours = rows(bars, HOUR, EVERY)
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
    whole = rows(bars, DAY, EVERY)
    for t in [
        *np.cumsum(per_block).tolist(),
        *np.random.default_rng(0).integers(WARMUP + 1, 2300, 40).tolist(),
    ]:
        if t > WARMUP:
            assert bits(last_row(bars[:t].tail(HISTORY), DAY, EVERY)) == bits(
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
    whole = rows(bars, step, EVERY)
    for t in np.random.default_rng(5).integers(WARMUP + 1, len(bars), 60).tolist():
        assert bits(last_row(bars[max(0, t - HISTORY) : t], step, EVERY)) == bits(
            whole, slice(t - 1 - WARMUP, t - WARMUP)
        )


def test_months_close_by_the_calendar() -> None:
    n = WARMUP + 30
    months = [datetime(1990 + i // 12, 1 + i % 12, 1, tzinfo=UTC) for i in range(n)]
    bars = markets.bars(n).with_columns(ts=pl.Series(months, dtype=pl.Datetime("us", "UTC")))
    found = rows(bars, timeframe("1M"), EVERY)
    assert (found.closed_at[:-1] == found.ts[1:]).all()
    assert bits(last_row(bars, timeframe("1M"), EVERY)) == bits(found, slice(-1, None))


# --- whatever the path


def months(n: int) -> pl.DataFrame:
    opens = [datetime(1960 + i // 12, 1 + i % 12, 1, tzinfo=UTC) for i in range(n)]
    return markets.bars(n, seed=n).with_columns(ts=pl.Series(opens, dtype=pl.Datetime("us", "UTC")))


KINDS = {
    "continuous": (HOUR, lambda n, seed: markets.bars(n, seed)),
    "gaps": (HOUR, lambda n, seed: markets.bars(n, seed, skip=0.3)),
    "sessions": (HOUR, lambda n, seed: markets.bars(n, seed, weekends=False)),
    "minutes": (timeframe("1m"), lambda n, seed: markets.bars(n, seed, step="1m", flat=0.3)),
    "months": (timeframe("1M"), lambda n, seed: months(min(n, 700))),
    "summer time": (DAY, lambda n, seed: markets.days_of_summer_time(n)),
}


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(KINDS)), st.integers(0, 10_000), st.data())
def test_a_row_is_the_same_whatever_way_its_bars_came(kind: str, seed: int, data: st.DataObject) -> None:
    step, make = KINDS[kind]
    bars = make(data.draw(st.integers(WARMUP + 2, 1900)), seed)
    whole = rows(bars, step, EVERY)
    # as they were appended: one by one, a handful, a thousand; the newest row is asked for after each
    sizes = data.draw(
        st.lists(st.sampled_from([1, 1, 2, 7, 60, 511, 512, 513, 1000]), min_size=1, max_size=12)
    )
    chunks, at = [bars[: WARMUP - 3]], WARMUP - 3
    for size in sizes:
        chunks.append(bars[at : at + size])
        at = min(at + size, len(bars))
        held = pl.concat(chunks, rechunk=data.draw(st.booleans()))
        expected = bits(whole, slice(max(0, at - 1 - WARMUP), max(0, at - WARMUP)))
        kept = data.draw(st.integers(HISTORY, 2 * HISTORY))
        for given_ in (
            held,
            held.tail(kept),
            bars[:at].tail(HISTORY),
            pl.DataFrame(held.to_dicts(), held.schema),
        ):
            assert bits(last_row(given_, step, EVERY)) == expected
        assert bits(rows(held, step, EVERY)) == bits(whole, slice(0, max(0, at - WARMUP)))


def test_a_row_is_the_same_after_a_restart(tmp_path: Path) -> None:
    program = (
        "import sys, polars as pl\n"
        "from model.bars import timeframe\n"
        "from model.features import FEATURES, FeatureSet, last_row\n"
        "bars = pl.read_parquet(sys.argv[1])\n"
        "for t in map(int, sys.argv[2:]):\n"
        "    row = last_row(bars[:t].tail(768), timeframe('1h'), FeatureSet(tuple(FEATURES)))\n"
        "    print(row.X.tobytes().hex() + row.scale.tobytes().hex())\n"
    )
    bars = MARKETS["gaps"]
    bars.write_parquet(tmp_path / "bars.parquet")
    whole, ends = rows(bars, HOUR, EVERY), [WARMUP + 1, 700, 701, 1024, len(bars)]
    answer = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "bars.parquet"), *map(str, ends)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=True,
    )
    expected = [
        whole.X[t - 1 - WARMUP].tobytes().hex() + whole.scale[t - 1 - WARMUP].tobytes().hex() for t in ends
    ]
    assert answer.stdout.split() == expected


def test_a_row_is_the_same_through_the_database(database: Engine) -> None:
    market, bars = Market("ETHUSDT", "1h"), MARKETS["gaps"]
    whole, at = rows(bars, HOUR, EVERY), 0
    for size in (700, 1, 1, 300, 24, 1):
        chunk = bars[at : at + size].sample(fraction=1.0, shuffle=True, seed=size)
        store.bars.add(database, market, chunk, datetime(2030, 1, 1, tzinfo=UTC))
        at += size
        with store.database.read(database) as conn:
            market_id = store.markets.need(conn, market).id
            newest = store.bars.read(conn, market_id, HOUR, last=HISTORY)
            everything = store.bars.read(conn, market_id, HOUR)
        assert bits(last_row(newest, HOUR, EVERY)) == bits(whole, slice(at - 1 - WARMUP, at - WARMUP))
        assert bits(rows(everything, HOUR, EVERY)) == bits(whole, slice(0, at - WARMUP))


# --- many frames at a time

_C, _V, _R = pl.col("close"), pl.col("relative_volume"), pl.col("log_return")
ODD = [
    Feature(f"odd_{place}", "odd", WARMUP, "as no built-in feature has it", expr)
    for place, expr in enumerate(
        (
            pl.col("low").rolling_min(200).rolling_max(100) / _C,  # reaches further than a frame's warm-up
            pl.col("low").rolling_min(5, min_samples=2).shift(2) / _C,
            _V.rolling_max(10) - _V.shift(3),
            (_C / _C.shift(1) - 1).fill_null(1.0).rolling_sum(3, weights=[1.0, -0.5, 0.25]),
            (_C / _C.rolling_median(20)).tanh(),
            (pl.col("ts").dt.hour() > 12),
            (_R > 0).cum_sum() % 7,
            pl.when(_R.shift(250).is_null()).then(1.0).otherwise(_R.rolling_std(30)),
            _R.shift(1).fill_null(1e6).rolling_mean(20),
            pl.lit(0.5),
        )
    )
]


@pytest.mark.parametrize("market", MARKETS)
def test_many_frames_at_a_time_have_the_bits_of_each_alone(market: str) -> None:
    bars, features = MARKETS[market], [*FEATURES.values(), *ODD]
    blocks = [block for block in pairwise(frames.edges(bars, HOUR)) if block[1] > WARMUP]
    assert len(blocks) > 1
    many = frames.together(bars, HOUR, features, blocks)
    alone = pl.concat([frames.together(bars, HOUR, features, [block]) for block in blocks])
    assert many.columns == alone.columns
    for column in many.columns:  # in float64, before rows round them
        assert many[column].to_numpy().tobytes() == alone[column].to_numpy().tobytes(), column


@pytest.mark.parametrize("count", [1, 2, 3, 100, 511, 513, 700])
def test_a_few_newest_rows_are_to_the_bit_those_of_the_whole_history(count: int) -> None:
    bars = synthetic.bars(2_900, seed=3)
    for cut in (0, 1, 37, 300, 511):
        history = bars.head(len(bars) - cut)
        whole = features.rows(history, timeframe("1h"))
        for known in (history, history.tail(features.HISTORY + count - 1)):
            few = features.last_rows(known, timeframe("1h"), features.DEFAULT, count)
            for name in ("ts", "closed_at", "X", "scale", "close"):
                assert getattr(few, name).tobytes() == getattr(whole, name)[-count:].tobytes(), (name, cut)


def test_of_too_few_bars_there_are_as_many_newest_rows_as_there_are() -> None:
    for n, found in ((0, 0), (features.WARMUP, 0), (features.WARMUP + 1, 1), (features.WARMUP + 4, 4)):
        few = features.last_rows(synthetic.bars(500, seed=3).head(n), timeframe("1h"), features.DEFAULT, 9)
        assert len(few) == found
