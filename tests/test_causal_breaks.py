"""Gaps and jumps, live and in a backtest: the same bars have no number, and all others have the same one to the bit."""

from datetime import timedelta

import numpy as np
import polars as pl
import pytest

import jobs.retrain
import store.bars
import store.database
import store.jobs
import store.predictions
import store.versions
from jobs import executors
from model import backtest, bars, breaks, dataset, features, predictor
from model.bars import Bars
from model.breaks import AFTER_GAP, AFTER_JUMP
from model.predictions import Abstention, Prediction, Reason, Signal
from store.database import Engine
from store.settings import Settings, load
from tests.model import synthetic

MARKET = bars.market("SYNTHETIC", "1h")
HOUR = bars.timeframe("1h")
WINDOW = 400
FIRST = features.WARMUP + WINDOW + 1  # the first bar that is answered
OUTAGE, JUMP = FIRST + 40, FIRST + 130  # the bars after them
MISSING = 30
SETTINGS: Settings = load(training={"window_bars": WINDOW})


def broken_history() -> Bars:
    """Hourly bars with an outage, and some days later one bar in another unit."""
    made = synthetic.bars(FIRST + 460, seed=5, momentum=0.5)
    made = pl.concat([made[:OUTAGE], made[OUTAGE + MISSING :]])
    wrong = pl.when(pl.int_range(pl.len()) == JUMP).then(7.0).otherwise(1.0)
    return made.with_columns(pl.col(name) * wrong for name in ("open", "high", "low", "close"))


BARS = broken_history()


def trained(engine: Engine) -> int:
    """A version that answers from FIRST on."""
    now = HOUR.close_of(BARS["ts"][FIRST - 1])
    store.bars.add(engine, MARKET, BARS.head(FIRST), now)
    with store.database.read(engine) as conn:
        market_id = store.markets.need(conn, MARKET).id
    job = store.jobs.start(engine, "retrain", market_id, {}, "test", now, timedelta(minutes=5))
    result = executors.finish(
        engine, job, jobs.retrain.run(engine, job, SETTINGS, lambda: now, lambda share: None)
    )
    assert result["outcome"] == "promoted"
    assert result["breaks"] == {"gaps": 0, "jumps": 0, "rows_left_out": 0}
    return int(result["version"])


def test_live_and_in_a_backtest_the_same_bars_have_no_number(engine: Engine) -> None:
    version = trained(engine)
    loaded: dict[int, predictor.Predictor] = {}
    live: list[Signal] = []
    for i in range(FIRST, len(BARS)):
        now = HOUR.close_of(BARS["ts"][i])
        store.bars.add(engine, MARKET, BARS[i : i + 1], now)
        live.append(store.predictions.answer(engine, MARKET, now, loaded).signal)
    abstained = {FIRST + i: signal.reason for i, signal in enumerate(live) if isinstance(signal, Abstention)}
    gap = [i for i, reason in abstained.items() if reason is Reason.GAP]
    assert set(abstained.values()) <= {Reason.GAP, Reason.OUT_OF_DOMAIN}
    assert gap == [*range(OUTAGE, OUTAGE + MISSING), *range(JUMP, JUMP + 1 + AFTER_JUMP)]
    assert MISSING < AFTER_GAP

    config = jobs.retrain.config_of(SETTINGS, {})
    data = dataset.from_bars(BARS, HOUR, config)
    opened = np.searchsorted(BARS["ts"].dt.epoch("us").to_numpy(), data.closed_at - 3_600_000_000)
    rows = dict(zip(opened.tolist(), range(len(data)), strict=True))
    # that a break would end its label, the bar before it could not know; the newest bar's label is yet to come
    unknowing = {OUTAGE - 1, JUMP - 1, len(BARS) - 1}
    assert set(range(FIRST, len(BARS))) - rows.keys() == unknowing | set(gap)
    model = loaded[version].model
    asked = slice(min(place for i, place in rows.items() if i >= FIRST), len(data))
    doubts = SETTINGS.signals.caution(HOUR.length)
    said, refused, _ = backtest.answers(backtest.fresh(model), data, asked, doubts)
    compared = 0
    for i, signal in enumerate(live, FIRST):
        if i in rows:
            row = rows[i] - asked.start
            assert backtest.REASONS[refused[row]] == abstained.get(i)
            if isinstance(signal, Prediction):
                told = [signal.p_up, signal.expected_return, signal.price, *signal.interval]
                columns = (said.p_up, said.expected_return, said.price, said.low, said.high)
                assert told == [float(column[row]) for column in columns]
                compared += 1
    assert compared > 50

    # asked for a past bar, the same is said
    for i in (
        OUTAGE - 1,
        OUTAGE,
        OUTAGE + MISSING - 1,
        OUTAGE + MISSING,
        JUMP,
        JUMP + AFTER_JUMP,
        JUMP + AFTER_JUMP + 1,
    ):
        at = HOUR.close_of(BARS["ts"][i])
        again, _ = store.predictions.answer_at(engine, MARKET, at, now, loaded, version)
        assert again == live[i - FIRST]


def test_an_abstention_says_what_is_broken(engine: Engine) -> None:
    version = trained(engine)
    now = HOUR.close_of(BARS["ts"][-1])
    store.bars.add(engine, MARKET, BARS, now)

    def detail(i: int) -> str:
        at = HOUR.close_of(BARS["ts"][i])
        signal, _ = store.predictions.answer_at(engine, MARKET, at, now, {}, version)
        assert isinstance(signal, Abstention)
        return signal.detail

    after_gap, after_jump = (bars.iso(BARS["ts"][i]) for i in (OUTAGE, JUMP))
    assert detail(OUTAGE + 5) == f"30 bars are missing before {after_gap}"
    change = BARS["close"][JUMP] / BARS["close"][JUMP - 1] - 1
    assert detail(JUMP) == f"the price jumped by +{100 * change:.0f}% into the bar of {after_jump}"
    # of several the newest
    assert detail(JUMP + 9).startswith("the price jumped by -86% into the bar of ")


def test_a_bar_that_is_corrected_breaks_nothing_any_more(engine: Engine) -> None:
    version = trained(engine)
    now = HOUR.close_of(BARS["ts"][-1])
    store.bars.add(engine, MARKET, BARS, now)
    with store.database.read(engine) as conn:
        market_id = store.markets.need(conn, MARKET).id
        found = store.breaks.all(conn, market_id, HOUR, breaks.JUMP_Z)
    assert [each.kind for each in found] == ["gap", "jump", "jump"]
    assert found == breaks.find(BARS, HOUR).listed(BARS["ts"])
    right = BARS[JUMP : JUMP + 1].with_columns(pl.col(name) / 7 for name in ("open", "high", "low", "close"))
    assert store.bars.add(engine, MARKET, right, now).corrected == 1
    with store.database.read(engine) as conn:
        (left,) = store.breaks.all(conn, market_id, HOUR, breaks.JUMP_Z)
    assert left == found[0]
    at = HOUR.close_of(BARS["ts"][JUMP + 10])
    signal, _ = store.predictions.answer_at(engine, MARKET, at, now, {}, version)
    assert isinstance(signal, Prediction)


@pytest.mark.parametrize("read_on", [True, False])
def test_a_habit_that_is_older_than_the_newest_bars_is_looked_up(engine: Engine, read_on: bool) -> None:
    """Weekends of bars of six minutes, 1,200 apart, the newest of which begins the newest HISTORY bars."""
    length = bars.timeframe("6m")
    weeks = 5 if read_on else 3
    opens = [
        synthetic.START + timedelta(weeks=week) + i * length.length
        for week in range(weeks)
        for i in range(1_200 if week < weeks - 1 else 10)
    ]
    made = synthetic.bars(len(opens)).with_columns(ts=pl.Series(opens, dtype=bars.TS))
    market = bars.market("WEEKS", "6m")
    now = length.close_of(opens[-1])
    store.bars.add(engine, market, made, now)
    with store.database.read(engine) as conn:
        market_id = store.markets.need(conn, market).id
        tail = store.bars.read(conn, market_id, length, last=features.HISTORY)
        assert breaks.find(tail, length).under(tail["ts"]) is not None
        found, ts = store.breaks.beside(conn, market_id, length, tail, 1, breaks.JUMP_Z)
        under = found.under(ts)
    assert (under is None) == read_on
