"""Laws of inputs: a row sees what had closed when it closed, of every market and timeframe, and nothing else."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from model import dataset, resample
from model.bars import TS, Bars, Market, Timeframe, timeframe
from model.breaks import AFTER_JUMP
from model.config import TrainConfig, config_from
from model.errors import BadInput, TrainingFailed
from model.features import (
    BASE,
    DEFAULT,
    GIVEN,
    HISTORY,
    JUMPED,
    SHORT,
    STALE,
    WARMUP,
    FeatureRows,
    FeatureSet,
    Input,
    feature_set_from,
    frames,
    inputs,
    last_row,
    reach,
    rows,
)
from tests.model import markets

HOUR, FOUR = timeframe("1h"), timeframe("4h")
BTC, INDEX = Market("BTCUSDT", "1h"), Market("INDEX", "30m")
SOME = ("return_3", "z_24", "volume_3")
SET = FeatureSet(
    ("return_1", "hour_sin"),
    (Input("BTCUSDT", "60m", SOME), Input(None, "4h", SOME), Input("INDEX", "30m", ("return_24",))),
)
SUNDAY = datetime(2021, 3, 7, tzinfo=UTC)

Cheat = Callable[[pytest.MonkeyPatch], None]


def bits(found: FeatureRows, row: slice = slice(None)) -> tuple[bytes, ...]:
    """All of some rows, to the bit."""
    arrays = (found.ts, found.closed_at, found.X, found.scale, found.close, found.inputs)
    return tuple(array[row].tobytes() for array in arrays)


def closed_by(bars: Bars, step: Timeframe, micros: int) -> Bars:
    return bars.filter(step.closes(pl.col("ts")).dt.epoch("us") <= micros)


def worlds(
    n: int = 1_500, seed: int = 1, skip: float = 0.1, late: int = 0, weekends: bool = True
) -> tuple[Bars, dict[Market, Bars]]:
    """A market's bars and those of two others, which end some hours earlier and have gaps of their own."""
    own = markets.bars(n, seed)
    btc = markets.bars(
        n + 100, seed + 1, skip=skip, start=markets.START - timedelta(days=3), weekends=weekends
    )
    index = markets.bars(3 * n, seed + 2, step="30m", skip=skip, start=markets.START - timedelta(days=20))
    end = HOUR.close_of(own["ts"][-1]) - timedelta(hours=late)
    return own, {
        BTC: btc.filter(pl.col("ts") < end),
        INDEX: index.filter(pl.col("ts") < end),
    }


some_world = st.builds(
    worlds,
    st.integers(1_100, 1_700),
    st.integers(0, 10_000),
    st.sampled_from([0.0, 0.1, 0.6]),
    st.integers(0, 300),
    st.booleans(),
)


def test_an_input_stands_beside_the_markets_own_columns() -> None:
    assert SET.columns == (
        *("return_1", "hour_sin", "BTCUSDT 1h return_3", "BTCUSDT 1h z_24", "BTCUSDT 1h volume_3"),
        *("4h return_3", "4h z_24", "4h volume_3", "INDEX 30m return_24"),
    )
    assert DEFAULT.columns == DEFAULT.names
    own, others = worlds()
    found = rows(own, HOUR, SET, others)
    assert found.X.shape == (len(own) - WARMUP, len(SET.columns))
    assert np.isfinite(found.X[found.usable]).all()
    assert found.usable.sum() > 300
    for array in (found.X, found.inputs):
        assert not array.flags.writeable


def test_sixty_minutes_are_an_hour() -> None:
    assert Input("BTCUSDT", "60m") == Input("BTCUSDT", "1h")
    with pytest.raises(BadInput, match="BTCUSDT 1h is there more than once"):
        FeatureSet(("return_1",), (Input("BTCUSDT", "60m", ("z_24",)), Input("BTCUSDT", "1h", ("z_48",))))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("BTC/USDT", "1h"), "try 'BTCUSDT'"),
        (("BTCUSDT", "1x"), "unknown timeframe"),
        (("BTCUSDT", "1h", ("nonsense",)), "unknown feature 'nonsense'"),
        (("BTCUSDT", "1h", ()), "one feature or more"),
    ],
)
def test_an_input_that_cannot_be_is_refused(given: Any, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        Input(*given)


def test_the_hash_tells_inputs_apart_and_is_what_it_was_without() -> None:
    base = [[name, expr.meta.serialize(format="json")] for step in BASE for name, expr in step.items()]
    own = [[each.name, each.needs, each.expr.meta.serialize(format="json")] for each in DEFAULT.features]
    assert DEFAULT.sha256 == hashlib.sha256(json.dumps([WARMUP, base, own]).encode()).hexdigest()
    sets = [
        FeatureSet(("z_24",), given)
        for given in (
            (),
            (Input("A", "1h", SOME),),
            (Input("B", "1h", SOME),),
            (Input("A", "4h", SOME),),
            (Input(None, "4h", SOME),),
            (Input("A", "1h", SOME[::-1]),),
            (Input("A", "1h", SOME), Input("B", "1h", SOME)),
            (Input("B", "1h", SOME), Input("A", "1h", SOME)),
        )
    ]
    assert len({each.sha256 for each in sets}) == len(sets)


def test_a_training_says_its_inputs_and_older_ones_had_none() -> None:
    config = TrainConfig(inputs=SET.inputs)
    document = config.document()
    document["inputs"] = [{**each, "features": list(each["features"])} for each in document["inputs"]]
    assert config_from(document) == config
    del document["inputs"]
    assert config_from(document) == TrainConfig()
    manifest = {"features": SET.names, "inputs": [asdict(each) for each in SET.inputs]}
    assert feature_set_from(manifest) == SET
    assert feature_set_from({"features": DEFAULT.names}) == DEFAULT
    with pytest.raises(BadInput, match="a symbol, a timeframe and features"):
        feature_set_from({**manifest, "inputs": [{"market": "BTCUSDT"}]})


@given(world=some_world, data=st.data())
@settings(max_examples=20, deadline=None)
def test_the_newest_row_is_the_row_of_the_whole_history(
    world: tuple[Bars, dict[Market, Bars]], data: st.DataObject
) -> None:
    own, others = world
    whole = rows(own, HOUR, SET, others)
    for _ in range(3):
        t = data.draw(st.integers(WARMUP + 1, len(own)))
        expected = bits(whole, slice(t - 1 - WARMUP, t - WARMUP))
        now = int(whole.closed_at[t - 1 - WARMUP])
        # what else is kept already does not matter, nor what is not kept any more
        known = {
            BTC: closed_by(others[BTC], HOUR, now).tail(HISTORY),
            INDEX: closed_by(others[INDEX], timeframe("30m"), now).tail(HISTORY + 11),
        }
        assert bits(last_row(own.head(t), HOUR, SET, others)) == expected
        assert bits(last_row(own.head(t).tail(reach(SET, HOUR)), HOUR, SET, known)) == expected
        assert bits(rows(own.head(t), HOUR, SET, known), slice(-1, None)) == expected


def test_rows_of_a_history_cut_at_its_front_keep_their_bits() -> None:
    own, others = worlds(5_000, seed=4)
    whole = rows(own, HOUR, SET, others)
    kept = 5_000 - reach(SET, HOUR) - 500
    cut = own.slice(500)
    first = int(HOUR.close_of(cut["ts"][0]).timestamp() * 1_000_000)
    seen = {
        market: pl.concat(
            [
                closed_by(bars, step, first).tail(HISTORY),
                bars.filter(step.closes(pl.col("ts")).dt.epoch("us") > first),
            ]
        )
        for (market, bars), step in zip(others.items(), (HOUR, timeframe("30m")), strict=True)
    }
    assert bits(rows(cut, HOUR, SET, seen), slice(-kept, None)) == bits(whole, slice(-kept, None))
    few = rows(own, HOUR, SET, others, newest=2_000)
    assert bits(few, slice(-1_000, None)) == bits(whole, slice(-1_000, None))


def test_a_row_sees_the_newest_bar_that_had_closed() -> None:
    """Against an as-of join that is written out."""
    own, others = worlds(1_400, seed=7)
    found = rows(own, HOUR, SET, others)
    computed = {
        0: (others[BTC], HOUR, Input("BTCUSDT", "1h", SOME)),
        1: (resample.resample(own, HOUR, FOUR), FOUR, Input(None, "4h", SOME)),
        2: (others[INDEX], timeframe("30m"), Input("INDEX", "30m", ("return_24",))),
    }
    column = 2
    for place, (bars, step, each) in computed.items():
        theirs = frames.rows(bars, step, each.feature_set)
        for i, now in enumerate(found.closed_at.tolist()):
            past = [j for j, closed in enumerate(theirs.closed_at.tolist()) if closed <= now]
            if not past:
                assert found.inputs[i, place] == SHORT
                assert np.isnan(found.X[i, column : column + len(each.features)]).all()
                continue
            seen = found.X[i, column : column + len(each.features)]
            assert (seen == theirs.X[past[-1]]).all()
        column += len(each.features)


def corrupted(bars: Bars, step: Timeframe, now: int, rng: np.random.Generator, truncate: bool) -> Bars:
    """The same up to a moment, and then nothing, or something else."""
    known = closed_by(bars, step, now)
    future = bars.slice(len(known))
    if truncate:
        return known
    factor = pl.Series(np.exp(rng.normal(0.0, 0.5, len(future))))
    return pl.concat([known, future.with_columns(pl.col("open", "high", "low", "close", "volume") * factor)])


def moved(seed: int, skip: float = 0.1) -> list[str]:
    """Which columns, of rows that had closed by some moments, change with what came after these."""
    rng = np.random.default_rng(seed)
    own, others = worlds(1_500, seed=seed, skip=skip)
    honest = rows(own, HOUR, SET, others)
    found = []
    for cut in rng.integers(900, len(own) - 1, 4).tolist():
        now = int(honest.closed_at[cut - WARMUP])
        n = cut - WARMUP + 1
        for truncate in (True, False):
            steps = {BTC: HOUR, INDEX: timeframe("30m")}
            other = rows(
                corrupted(own, HOUR, now, rng, truncate),
                HOUR,
                SET,
                {
                    market: corrupted(bars, steps[market], now, rng, truncate)
                    for market, bars in others.items()
                },
            )
            differs = (honest.X[:n].view(np.uint32) != other.X[:n].view(np.uint32)).any(axis=0)
            found += [SET.columns[i] for i in np.flatnonzero(differs)]
            if (honest.inputs[:n] != other.inputs[:n]).any():
                found.append("standing")
    return found


@pytest.mark.parametrize("seed", range(3))
def test_the_future_of_no_market_and_timeframe_changes_a_row(seed: int) -> None:
    assert moved(seed) == []


def by_open_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bar of four hours counts from when it opens."""

    def broken(closed_at: NDArray[np.int64], known_at: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.searchsorted(known_at - np.diff(known_at).min(initial=1 << 62), closed_at, side="right") - 1

    monkeypatch.setattr(inputs, "as_of", broken)


def unfinished(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bar of four hours is there as soon as it has begun, and stands at its left end."""

    def broken(bars: Bars, step: Timeframe, to: Timeframe) -> Bars:
        made = bars.group_by_dynamic("ts", every=to.every).agg(
            pl.col("open").first(),
            pl.col("high").max(),
            pl.col("low").min(),
            pl.col("close").last(),
            pl.col("volume").sum(),
        )
        # moved by a period, so that the honest join takes it from its opening on
        return made.with_columns(ts=pl.col("ts") - to.length).cast({"ts": TS})

    monkeypatch.setattr(resample, "resample", broken)


def nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bar that is nearest in time, be it later."""

    def broken(closed_at: NDArray[np.int64], known_at: NDArray[np.int64]) -> NDArray[np.int64]:
        after = np.searchsorted(known_at, closed_at).clip(0, len(known_at) - 1)
        before = (after - 1).clip(0)
        later = known_at[after] - closed_at <= closed_at - known_at[before]
        return np.where(later, after, before)

    monkeypatch.setattr(inputs, "as_of", broken)


@pytest.mark.parametrize(
    ("cheat", "columns"), [(by_open_time, "4h"), (by_open_time, "BTC"), (unfinished, "4h"), (nearest, "BTC")]
)
def test_a_planted_look_ahead_is_seen(cheat: Cheat, columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cheat(monkeypatch)
    assert [name for name in moved(0, skip=0.6) if name.startswith(columns)]


def test_an_input_with_too_few_bars_is_short() -> None:
    own, others = worlds(1_500, seed=2, skip=0.0)
    found = rows(own, HOUR, SET, {**others, BTC: others[BTC].tail(400)})
    first = int(HOUR.close_of(others[BTC].tail(400)["ts"][WARMUP]).timestamp() * 1_000_000)
    assert (found.inputs[:, 0] == np.where(found.closed_at < first, SHORT, GIVEN)).all()
    assert (
        last_row(own, HOUR, SET, {**others, BTC: others[BTC].head(WARMUP)}).inputs == [[SHORT, GIVEN, GIVEN]]
    ).all()
    assert (last_row(own, HOUR, SET, {INDEX: others[INDEX]}).inputs == [[SHORT, GIVEN, GIVEN]]).all()


def test_another_market_is_stale_two_of_its_timeframes_after_its_newest_close() -> None:
    own, others = worlds(1_500, seed=2, skip=0.0)
    closed = HOUR.close_of(others[BTC]["ts"][-20])
    found = rows(own, HOUR, SET, {**others, BTC: others[BTC].head(-19)})
    old = (found.closed_at - int(closed.timestamp() * 1_000_000)) / 3_600_000_000
    assert (found.inputs[:, 0][old > -1_000] == np.where(old[old > -1_000] > 2, STALE, GIVEN)).all()
    assert (found.inputs[:, 0] == STALE).sum() == 17
    assert not found.usable[-17:].any()
    assert found.usable[-18]


def test_a_weekend_does_not_make_another_market_stale_and_a_wednesday_does() -> None:
    own = markets.bars(2_400, 1, start=SUNDAY)
    stocks = markets.bars(1_800, 2, start=SUNDAY, weekends=False)
    feature_set = FeatureSet(("return_1",), (Input("STOCKS", "1h", SOME),))
    lost = stocks.filter(
        ~pl.col("ts").is_between(SUNDAY + timedelta(days=87, hours=3), SUNDAY + timedelta(days=87, hours=12))
    )
    for bars, stale in ((stocks, 0), (lost, 8)):
        found = rows(own, HOUR, feature_set, {Market("STOCKS", "1h"): bars})
        after = found.closed_at > (SUNDAY + timedelta(days=40)).timestamp() * 1_000_000
        assert (found.inputs[after, 0] == STALE).sum() == stale


def test_an_input_does_not_count_while_its_features_stand_on_a_jump() -> None:
    own, others = worlds(2_200, seed=2, skip=0.0)
    factor = pl.when(pl.int_range(pl.len()) >= 1_500).then(1_000.0).otherwise(1.0)
    bad = others[BTC].with_columns(pl.col(name) * factor for name in ("open", "high", "low", "close"))
    world = {**others, BTC: bad}
    found = rows(own, HOUR, SET, world)
    opened = int(bad["ts"][1_500].timestamp() * 1_000_000)
    behind = (found.closed_at - opened) // 3_600_000_000
    jumped = (behind > 0) & (behind <= AFTER_JUMP)
    assert (found.inputs[jumped, 0] == JUMPED).all()
    # made-up markets have jumps of their own
    assert (found.inputs[~jumped] == rows(own, HOUR, SET, others).inputs[~jumped]).all()
    assert not found.usable[jumped].any()
    for t in [*(np.flatnonzero(jumped)[[0, 100, -1]] + WARMUP + 1).tolist(), len(own)]:
        now = int(found.closed_at[t - 1 - WARMUP])
        known = {**others, BTC: closed_by(bad, HOUR, now).tail(HISTORY)}
        assert bits(last_row(own.head(t), HOUR, SET, known)) == bits(found, slice(t - 1 - WARMUP, t - WARMUP))


def test_what_is_usual_is_judged_by_the_newest_bars_alone() -> None:
    """A market that closed at weekends once, and does no more for longer than an answer looks back."""
    own = markets.bars(2_500, 1, start=SUNDAY)
    hours = pl.col("ts") - SUNDAY
    often = markets.bars(2_500, 2, start=SUNDAY).filter(
        (hours > timedelta(days=7 * 6)) | (pl.col("ts").dt.weekday() < 6),
        ~hours.is_between(timedelta(days=83), timedelta(days=85), closed="left"),  # a weekend
    )
    others = {Market("STOCKS", "1h"): often}
    feature_set = FeatureSet(("return_1",), (Input("STOCKS", "1h", SOME),))
    found = rows(own, HOUR, feature_set, others)
    weekend = (SUNDAY + timedelta(days=83)).timestamp() * 1_000_000
    late = (found.closed_at > weekend + 2 * 3_600_000_000) & (found.closed_at <= weekend + 48 * 3_600_000_000)
    assert (found.inputs[late, 0] == STALE).all()
    t = int(np.flatnonzero(late)[20]) + WARMUP + 1
    known = {
        market: bars.filter(pl.col("ts") < own["ts"][t - 1]).tail(HISTORY) for market, bars in others.items()
    }
    assert bits(last_row(own.head(t), HOUR, feature_set, known)) == bits(
        found, slice(t - 1 - WARMUP, t - WARMUP)
    )


@pytest.mark.parametrize("skip", [0.0, 0.3])
def test_the_bars_within_reach_suffice_wherever_a_block_ends(skip: float) -> None:
    feature_set = FeatureSet(("return_1",), (Input(None, "4h", DEFAULT.names),))
    own = markets.bars(7_000, 8, skip=skip)
    whole = rows(own, HOUR, feature_set)
    block = 512 * 4 * 3_600_000_000
    # a row needs the most bars where the newest of four hours is the last of its block
    ends = np.flatnonzero(np.diff(whole.closed_at // block)) + 1
    compared = 0
    for end in ends[ends > 4_000].tolist():
        for t in range(WARMUP + end - 1, WARMUP + end + 6):
            tail = own.head(t).tail(reach(feature_set, HOUR))
            # numbers of float32 seldom show that a frame began elsewhere, so the bars are counted too
            assert len(resample.resample(tail, HOUR, FOUR)) >= HISTORY
            assert bits(last_row(tail, HOUR, feature_set)) == bits(whole, slice(t - 1 - WARMUP, t - WARMUP))
            compared += 1
    assert compared


def test_a_longer_timeframe_of_a_markets_own_is_never_late() -> None:
    own = markets.bars(1_600, 3)
    broken = pl.concat([own.head(1_300), own.tail(200)])
    found = rows(broken, HOUR, FeatureSet(("return_1",), (Input(None, "4h"),)))
    assert (found.inputs[4 * (WARMUP + 1) :, 0] == GIVEN).all()


def test_what_a_markets_own_bars_cannot_make_is_refused() -> None:
    own = markets.bars(400)
    for each, said in (
        (Input(None, "1h"), "1h bars cannot be made of 1h ones"),
        (Input(None, "90m"), "90m bars cannot be made of 1h ones"),
        (Input(None, "1M"), "keep bars of 1M as a market, and name its symbol"),
    ):
        feature_set = FeatureSet(("return_1",), (each,))
        for refused in (lambda s=feature_set: rows(own, HOUR, s), lambda s=feature_set: reach(s, HOUR)):
            with pytest.raises(BadInput, match=said):
                refused()
    assert reach(DEFAULT, HOUR) == HISTORY


def test_a_training_learns_from_rows_with_all_inputs_and_labels_keep_their_bars() -> None:
    own, others = worlds(1_500, seed=5, skip=0.0)
    hole = others[BTC].filter(~pl.col("ts").is_between(own["ts"][1_300], own["ts"][1_310]))
    config = TrainConfig(features=SET.names, inputs=SET.inputs, horizon=3, jump_z=1e6)
    data = dataset.from_bars(own, HOUR, config, others={**others, BTC: hole})
    full = dataset.from_bars(own, HOUR, config, others=others)
    kept = np.isin(full.closed_at, data.closed_at)
    missing = full.closed_at[~kept]
    # two hours after the newest close the input does not count any more, until the next one has closed
    opened = int(own["ts"][1_300].timestamp() * 1_000_000)
    assert ((missing - opened) // 3_600_000_000).tolist() == list(range(3, 12))
    for name in ("known_at", "log_return", "up", "close"):
        assert (getattr(full, name)[kept] == getattr(data, name)).all()
    with pytest.raises(
        TrainingFailed, match="no row has its input BTCUSDT 1h: of BTCUSDT 1h fewer than 257 bars"
    ):
        dataset.from_bars(own, HOUR, config, others={**others, BTC: hole.head(100)})
    older = markets.bars(600, 9, start=markets.START - timedelta(days=60))
    with pytest.raises(TrainingFailed, match="too old each time"):
        dataset.from_bars(own, HOUR, config, others={**others, BTC: older})
