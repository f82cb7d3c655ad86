"""The backtest as a job: its document, what is kept of it, and that it reads no more than it needs."""

import io
from datetime import timedelta
from typing import Any

import polars as pl
import pytest

import jobs.backtest
import store.backtests
import store.database
import store.jobs
from jobs import executors
from model import features
from model.errors import TrainingFailed
from store.database import Engine
from store.settings import load
from tests import real_bars
from tests.jobs.test_retrain import BARS, HOUR, NOW, ingest

SETTINGS = load(training={"window_bars": 600}, backtest={"refit_every_bars": 150})


def backtest(engine: Engine, market_id: int, **params: Any) -> dict[str, Any]:
    job = store.jobs.start(engine, "backtest", market_id, params, "test", NOW, timedelta(minutes=5))
    return executors.finish(
        engine, job, jobs.backtest.run(engine, job, SETTINGS, lambda: NOW, lambda share: None)
    )


def test_the_document_and_every_prediction_are_kept(database: Engine) -> None:
    market_id = ingest(database)
    said = backtest(database, market_id)
    assert said["rows"] == said["scores"]["model"]["rows"] == said["scores"]["base_rate"]["rows"]
    assert said["first_judged"] < said["last_judged"]
    assert {"strategy", "buy_and_hold"} <= set(said["trading"])
    with store.database.read(database) as conn:
        kept = store.backtests.last(conn, market_id)
        blob = conn.exec_driver_sql("SELECT predictions FROM backtests").scalar_one()
    assert kept is not None
    assert kept["scores"] == said["scores"]
    rows = pl.read_parquet(io.BytesIO(bytes(blob)))
    assert len(rows) == said["rows"]
    brier = ((rows["p_up"] - rows["up"].cast(pl.Float64)) ** 2).mean()
    assert brier == pytest.approx(said["scores"]["model"]["brier"])


def test_judging_only_the_newest_bars_says_the_same_of_them(engine: Engine) -> None:
    """Fewer bars are read for it; refits fall on other bars, so only the outcomes and the count are the same."""
    market_id = ingest(engine)
    said = backtest(engine, market_id, last=200)
    assert said["rows"] <= 200
    assert said["last_judged"] == backtest(engine, market_id)["last_judged"]


def test_buy_and_hold_is_bought_at_the_next_open_and_sold_at_the_last_close(engine: Engine) -> None:
    said = backtest(engine, ingest(engine))
    first = next(
        i
        for i, ts in enumerate(BARS["ts"])
        if HOUR.close_of(ts).isoformat()[:19] == said["first_judged"][:19]
    )
    opened, closed = BARS["open"][first + 1], BARS["close"][-1]
    cost = SETTINGS.backtest.fee_bps + SETTINGS.backtest.slippage_bps
    expected = closed / opened - 1
    assert said["trading"]["buy_and_hold"]["net_return"] == pytest.approx(expected, abs=4 * cost / 10_000)
    assert said["trading"]["buy_and_hold"]["trades"] == 2


def test_no_room_to_judge_is_said_with_the_numbers(engine: Engine) -> None:
    with pytest.raises(TrainingFailed, match="window of 5000"):
        backtest(engine, ingest(engine), window=5_000)


def test_a_market_that_is_younger_than_the_window_is_judged_by_half_of_its_rows(engine: Engine) -> None:
    market_id = ingest(engine)
    settings = load(training={"window_bars": 10_000})
    job = store.jobs.start(engine, "backtest", market_id, {}, "test", NOW, timedelta(minutes=5))
    said = executors.finish(
        engine, job, jobs.backtest.run(engine, job, settings, lambda: NOW, lambda share: None)
    )
    assert said["window"] == (len(BARS) - features.WARMUP - 1) // 2
    assert said["rows"] >= said["window"] - 2


def test_real_hourly_bars_have_the_skill_that_was_found_in_them(engine: Engine) -> None:
    """The whole of it on real bars, a tenth as long as the published figure's."""
    import store.bars
    import store.markets
    from model import bars

    market = bars.market("ETHUSDT", "1h")
    history = real_bars.bars("ETHUSDT_1h").head(16_000)
    now = HOUR.close_of(history["ts"][-1])
    store.bars.add(engine, market, history, now)
    with store.database.read(engine) as conn:
        market_id = store.markets.need(conn, market).id
    job = store.jobs.start(
        engine, "backtest", market_id, {"window": 10_000, "refit_every": 1_000}, "t", now, timedelta(1)
    )
    said = executors.finish(
        engine, job, jobs.backtest.run(engine, job, load(), lambda: now, lambda share: None)
    )
    assert said["scores"]["model"]["log_loss"] < said["scores"]["base_rate"]["log_loss"]
    assert said["verdict"]["skill"] is True
    # the best honest figure known for such bars is about 0.685: much lower means that the future leaked
    assert said["scores"]["model"]["log_loss"] > 0.675
