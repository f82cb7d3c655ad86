"""One causal engine: what is served live, bar by bar, is to the bit what the backtest says of the same bars."""

from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest

import jobs.retrain
import store.bars
import store.database
import store.jobs
import store.predictions
import store.schedules
from jobs import executors
from model import backtest, bars, dataset, features
from model.bars import Bars
from model.portfolio import policies
from model.portfolio.policies import Forecasts
from model.predictions import Prediction
from store.database import Engine
from store.loaded import Versions
from store.settings import Settings, load
from tests.model import synthetic

MARKET = bars.market("SYNTHETIC", "1h")
HOUR = bars.timeframe("1h")
WINDOW, REFIT_EVERY = 500, 60
BARS = synthetic.bars(features.WARMUP + WINDOW + 200, seed=5, momentum=0.5)
SETTINGS: Settings = load(training={"window_bars": WINDOW})


def lived(engine: Engine, history: Bars) -> dict[datetime, Prediction]:
    """What was served for each bar, with a retrain at the close of every REFIT_EVERY-th one."""
    served: dict[datetime, Prediction] = {}
    predictors: Versions = {}
    first = features.WARMUP + WINDOW  # the bar at whose close a whole window of rows has known labels
    store.bars.add(engine, MARKET, history.head(first), HOUR.close_of(history["ts"][first - 1]))
    with store.database.read(engine) as conn:
        market_id = store.markets.need(conn, MARKET).id
    for i in range(first, len(history)):
        now = HOUR.close_of(history["ts"][i])
        store.bars.add(engine, MARKET, history[i : i + 1], now)
        signal = store.predictions.answer(engine, MARKET, now, predictors).signal
        if isinstance(signal, Prediction):
            served[signal.as_of] = signal
        if (i - first) % REFIT_EVERY == 0:
            lease = timedelta(minutes=5)
            job = store.jobs.start(engine, "retrain", market_id, {}, "test", now, lease)
            keep = jobs.retrain.run(engine, job, SETTINGS, lambda now=now: now, lambda share: None)  # type: ignore[misc]
            executors.finish(engine, job, keep)
    return served


def walked(history: Bars) -> tuple[dataset.Dataset, backtest.Result]:
    config = jobs.retrain.config_of(SETTINGS, {})
    data = dataset.from_bars(history, HOUR, config)
    return data, backtest.run(data, config, backtest.Policy(REFIT_EVERY))


def test_the_backtest_says_to_the_bit_what_was_served_live(engine: Engine) -> None:
    served = lived(engine, BARS)
    _, result = walked(BARS)
    compared, positions = 0, []
    for i, closed_at in enumerate(result.data.closed_at.tolist()):
        as_of = store.tables.EPOCH + closed_at * store.tables.MICROSECOND
        live = served[as_of]
        said = result.said
        assert (live.p_up, live.expected_return, live.price, *live.interval) == (
            said.p_up[i],
            said.expected_return[i],
            said.price[i],
            said.low[i],
            said.high[i],
        )
        positions.append(live.position)
        compared += 1
    assert compared >= 190
    policy, costs = SETTINGS.portfolio.chosen(), SETTINGS.backtest.costs()
    forecasts = Forecasts(result.said.p_up, result.said.expected_return, result.data.scale)
    held = policies.positions(policy, costs, forecasts)
    assert positions == held.tolist()
    assert len(set(held.tolist())) > 1
    assert {refit.outcome for refit in result.refits} >= {"promoted"}


@pytest.mark.parametrize("cut", [1, 37, 100])
def test_cutting_the_end_of_the_range_changes_no_earlier_row(cut: int) -> None:
    _, whole = walked(BARS)
    _, shorter = walked(BARS.head(len(BARS) - cut))
    n = len(shorter.data)
    assert n == len(whole.data) - cut
    for name in ("p_up", "expected_return", "low", "high", "base_rate"):
        assert (getattr(shorter.said, name) == getattr(whole.said, name)[:n]).all()


def test_corrupting_the_future_changes_no_earlier_row() -> None:
    at = len(BARS) - 80
    future = BARS[at:].with_columns(
        pl.col(name) * 1.05 for name in ("open", "high", "low", "close", "volume")
    )
    _, clean = walked(BARS)
    _, corrupt = walked(pl.concat([BARS[:at], future]))
    last_clean = int(
        np.searchsorted(clean.data.closed_at, store.tables.micros(HOUR.close_of(BARS["ts"][at - 1])))
    )
    assert (clean.said.p_up[: last_clean + 1] == corrupt.said.p_up[: last_clean + 1]).all()
    assert (clean.said.p_up[last_clean + 1 :] != corrupt.said.p_up[last_clean + 1 :]).any()


def test_a_planted_signal_is_found_and_noise_is_called_noise() -> None:
    def verdict(momentum: float) -> bool | None:
        history = synthetic.bars(2_600, seed=11, momentum=momentum)
        _, result = walked(history)
        return backtest.judge(result.data, result.said).gain.skill

    assert verdict(0.5) is True
    assert verdict(0.0) is False
