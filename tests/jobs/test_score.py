"""Scoring: an answer gets its outcome when its bar is known, not before, and once."""

from datetime import timedelta

import jobs.score
import store.bars
import store.database
import store.jobs
import store.markets
import store.predictions
from jobs import executors
from model.bars import Market
from store.database import Engine
from store.settings import Settings
from tests.model import markets

MARKET = Market("ETHUSDT", "1h")
HOUR = timedelta(hours=1)


def test_an_answer_is_scored_when_its_outcome_is_known_and_once(engine: Engine) -> None:
    bars = markets.bars(901)
    close = bars["ts"][-1]  # of the last bar but one
    store.bars.add(engine, MARKET, bars.head(900), close)
    with store.database.read(engine) as conn:
        market_id = store.markets.need(conn, MARKET).id
    job = store.jobs.start(engine, "retrain", market_id, {}, "test", executors.machine_now(), HOUR)
    executors.perform(engine, job, Settings(), lambda: None)
    answer = store.predictions.answer(engine, MARKET, close, {})
    assert jobs.score.run(engine, close + HOUR) == 0  # its time has come, its bar has not
    store.bars.add(engine, MARKET, bars.tail(1), close + HOUR)
    assert jobs.score.run(engine, close + HOUR - timedelta(seconds=1)) == 0
    assert jobs.score.run(engine, close + HOUR) == 1
    assert jobs.score.run(engine, close + 2 * HOUR) == 0
    with store.database.read(engine) as conn:
        (entry,) = store.predictions.page(conn)
    assert entry.id == answer.id
    assert entry.outcome is not None
    assert entry.outcome.up == (bars["close"][-1] > bars["close"][-2])
    assert entry.outcome.scored_at == close + HOUR
