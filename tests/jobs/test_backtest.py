"""The backtest as a job: its document, what is kept of it, and that it reads no more than it needs."""

import io
import json
from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

import jobs.backtest
import store.backtests
import store.bars
import store.database
import store.jobs
import store.markets
from jobs import executors
from model import features
from model.bars import Market
from model.breaks import AFTER_JUMP
from model.errors import BadInput, TrainingFailed
from store.database import Engine
from store.settings import Settings, load
from tests import real_bars
from tests.jobs.test_retrain import BARS, HOUR, NOW, ingest

SETTINGS = load(training={"window_bars": 600}, backtest={"refit_every_bars": 150})


def backtest(engine: Engine, market_id: int, settings: Settings = SETTINGS, **params: Any) -> dict[str, Any]:
    job = store.jobs.start(engine, "backtest", market_id, params, "test", NOW, timedelta(minutes=5))
    return executors.finish(
        engine, job, jobs.backtest.run(engine, job, settings, lambda: NOW, lambda share: None)
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
    assert said["trading"]["buy_and_hold"]["trades"] == 1


def test_a_planted_wrong_unit_earns_nothing_and_changes_nothing_but_the_masked_rows(engine: Engine) -> None:
    """Against the same market without it, traded by hand, bar by bar, and out of it where rows were left out."""
    cheap = load(backtest={"fee_bps": 0.4, "slippage_bps": 0.1})
    wrong = 850
    place = pl.when(pl.int_range(pl.len()) == wrong).then(7.0).otherwise(1.0)
    planted = BARS.with_columns(pl.col(name) * place for name in ("open", "high", "low", "close"))
    said, rows = {}, {}
    for symbol, bars in (("PLAIN", BARS), ("PLANTED", planted)):
        market = Market(symbol, "1h")
        store.bars.add(engine, market, bars, NOW)
        with store.database.read(engine) as conn:
            market_id = store.markets.need(conn, market).id
        # one training, before the planted bar
        said[symbol] = backtest(engine, market_id, cheap, window=500, refit_every=10_000)
        with store.database.read(engine) as conn:
            of_it = "SELECT predictions FROM backtests WHERE market_id = ?"
            blob = conn.exec_driver_sql(of_it, (market_id,)).scalar_one()
        rows[symbol] = pl.read_parquet(io.BytesIO(bytes(blob)))
    left_out = 1 + 1 + AFTER_JUMP  # the bar before, itself, and those whose features see it or the way back
    assert said["PLAIN"]["breaks"] == {"gaps": 0, "jumps": 0, "rows_left_out": 0}
    assert said["PLANTED"]["breaks"] == {"gaps": 0, "jumps": 2, "rows_left_out": left_out}
    both = rows["PLAIN"].join(rows["PLANTED"], on="as_of", how="inner", maintain_order="left")
    assert len(both) == len(rows["PLANTED"]) == len(rows["PLAIN"]) - left_out
    for column in ("expected_return", "price", "close", "log_return"):
        assert both[f"{column}_right"].to_numpy() == pytest.approx(both[column].to_numpy(), rel=1e-4)
    # afterwards calibration has seen fewer outcomes, those of the rows that were left out
    until = both.filter(pl.col("as_of") <= HOUR.close_of(BARS["ts"][wrong - 2]))
    assert len(until) > 50
    for column in ("p_up", "low", "high"):
        assert until[f"{column}_right"].to_list() == until[column].to_list()
        assert both[f"{column}_right"].to_numpy() == pytest.approx(both[column].to_numpy(), rel=0.02)

    # what the version would have abstained from is not traded
    told = both.with_columns(
        pl.when(pl.col("reason_right").is_null()).then("expected_return_right").otherwise(0.0)
    )
    expected = dict(told.select("as_of", "expected_return_right").iter_rows())
    costs = cheap.backtest
    each_way = (costs.fee_bps + costs.slippage_bps) / 10_000
    first = BARS["ts"].search_sorted(rows["PLAIN"]["as_of"][0] - HOUR.length)
    last = BARS["ts"].search_sorted(rows["PLAIN"]["as_of"][-1] - HOUR.length)
    assert first < wrong - 50
    capital, hold, held = 1.0, 1.0, 0.0
    for i in range(first, last + 1):
        opened = BARS["open"][i + 1]
        change = (BARS["open"][i + 2] if i < last else BARS["close"][i + 1]) / opened - 1
        if {i + 1, i + 2} & {wrong, wrong + 1}:
            change = 0.0  # from, to or within a bar into which the price jumped
        e = expected.get(HOUR.close_of(BARS["ts"][i]), 0.0)
        position = float(np.sign(e)) if abs(e) > 2 * each_way or np.sign(e) == np.sign(held) else 0.0
        growth = 1 + position * change
        capital *= (1 - abs(position - held) * each_way) * growth
        held = position * (1 + change) / growth  # a share of the capital that it has become
        hold *= 1 + change
    capital *= 1 - abs(held) * each_way
    hold *= (1 - each_way) ** 2
    trading = said["PLANTED"]["trading"]
    assert trading["strategy"]["net_return"] == pytest.approx(capital - 1, rel=1e-6)
    assert trading["buy_and_hold"]["net_return"] == pytest.approx(hold - 1, rel=1e-6)
    assert trading["strategy"]["trades"] >= 4


def test_no_room_to_judge_is_said_with_the_numbers(engine: Engine) -> None:
    with pytest.raises(TrainingFailed, match="after 5000 to train on"):
        backtest(engine, ingest(engine), window=5_000)


def test_a_market_that_is_younger_than_the_window_is_judged_by_half_of_its_rows(engine: Engine) -> None:
    market_id = ingest(engine)
    settings = load(training={"window_bars": 10_000})
    job = store.jobs.start(engine, "backtest", market_id, {}, "test", NOW, timedelta(minutes=5))
    said = executors.finish(
        engine, job, jobs.backtest.run(engine, job, settings, lambda: NOW, lambda share: None)
    )
    assert said["policy"]["first"] == (len(BARS) - features.WARMUP - 1) // 2
    assert said["rows"] >= said["policy"]["first"] - 2


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


def test_the_newest_bars_are_judged_whatever_the_first_training_had(engine: Engine) -> None:
    said = backtest(engine, ingest(engine), first=300, last=200)
    assert said["rows"] == 200


def test_policy_and_baselines_of_the_job_go_before_the_settings(engine: Engine) -> None:
    market_id = ingest(engine)
    said = backtest(engine, market_id, policy="sign", baselines=["no_change"])
    assert set(said["scores"]) == {"model", "base_rate", "no_change"}
    with store.database.read(engine) as conn:
        (described,) = conn.exec_driver_sql("SELECT config FROM backtests").scalars()
    assert json.loads(described)["trading"] == SETTINGS.portfolio.chosen("sign").document()
    usual = backtest(engine, market_id)
    assert usual["trading"]["strategy"] != said["trading"]["strategy"]
    assert usual["scores"]["model"] == said["scores"]["model"]


def test_a_window_that_grows_has_no_length(engine: Engine) -> None:
    with pytest.raises(BadInput, match="leave one of them out"):
        backtest(engine, ingest(engine), window=500, expanding=True)


def test_why_no_refit_may_answer_is_said(engine: Engine) -> None:
    with pytest.raises(TrainingFailed, match=r"the last of \d+: .* too few to fit, stop and judge on"):
        backtest(engine, ingest(engine), window=60)
