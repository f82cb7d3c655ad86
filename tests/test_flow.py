"""A market's life under a simulated clock: bars come over HTTP, answers go out, and all else happens by its schedules."""

import math
import warnings
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pytest

import store.bars
import store.clock
import store.database
import store.jobs
import store.markets
import store.outcomes
import store.predictions
import store.runs
import store.versions
from jobs import executors, schedule
from model.bars import Bars, Market, iso, timeframe
from model.features import WARMUP
from service.app import create_app
from store.database import Engine
from store.schedules import Schedule
from store.settings import Settings
from tests.model import synthetic

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it asks for another HTTP client, which nothing here needs
    from fastapi.testclient import TestClient

MARKET = Market("SYNTHETIC", "1h")
ASK = {"symbol": "SYNTHETIC", "timeframe": "1h"}
HOUR = timeframe("1h")
KNOWN, LIVED, NEW_BARS = WARMUP + 700, 130, 50
SETTINGS = Settings(training={"window_bars": 600})  # type: ignore[arg-type]
SCHEDULES = {
    "score": Schedule(1, "score", "every 2s", {}, True),
    "retrain": Schedule(2, "retrain", "every 30s", {"min_new_bars": NEW_BARS}, True),
}


@pytest.fixture(scope="module")
def bars() -> Bars:
    """What is known at the start, and what is lived through."""
    return synthetic.bars(KNOWN + LIVED, seed=3, momentum=0.5)


@pytest.fixture(scope="module")
def lived(bars: Bars, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """A database after a life of LIVED bars: at each close the clock, the bar, the question, then the schedules."""
    engine = store.database.connect(f"sqlite:///{tmp_path_factory.mktemp('flow') / 'bars.db'}")
    store.database.upgrade(engine)
    start = HOUR.close_of(bars["ts"][KNOWN - 1])
    store.clock.set(engine, start)
    store.bars.add(engine, MARKET, bars.head(KNOWN), start)
    happen(engine)
    app = create_app(engine, SETTINGS, lambda: store.clock.now(engine))
    with TestClient(app, base_url="http://127.0.0.1") as client:
        for bar in bars.tail(LIVED).iter_rows(named=True):
            store.clock.set(engine, HOUR.close_of(bar["ts"]))
            pushed = client.post("/v1/bars", json={**ASK, "bars": [{**bar, "ts": iso(bar["ts"])}]})
            assert pushed.json()["added"] == 1
            assert client.post("/v1/predict", json=ASK).json()["kind"] == "prediction"
            happen(engine)
    yield engine
    engine.dispose()


def happen(engine: Engine) -> None:
    """Every schedule fires, and what was asked for is done."""
    for row in SCHEDULES.values():
        schedule.FIRINGS[row.kind](engine, SETTINGS, row, executors.machine_now())
    now, lease = executors.machine_now(), timedelta(seconds=60)
    while (job := store.jobs.claim(engine, "test", now, lease)) is not None:
        executors.perform(engine, job, SETTINGS, lambda: None)


def ledger(engine: Engine) -> list[dict[str, Any]]:
    """Every row, oldest first."""
    with store.database.read(engine) as conn:
        entries = store.predictions.page(conn, limit=10 * LIVED)
    return [store.predictions.entry_document(entry) for entry in reversed(entries)]


def test_every_bar_has_one_answer(lived: Engine, bars: Bars) -> None:
    assert [row["as_of"] for row in ledger(lived)] == [
        iso(HOUR.close_of(ts)) for ts in bars["ts"].tail(LIVED)
    ]


def test_every_answer_was_scored_by_what_came_of_it(lived: Engine, bars: Bars) -> None:
    closes = bars["close"].to_list()
    *answered, newest = ledger(lived)
    assert newest["outcome"] is None
    for i, row in enumerate(answered, start=KNOWN):
        log_return = math.log(closes[i + 1] / closes[i])
        p = row["p_up"] if log_return > 0 else 1 - row["p_up"]
        assert row["outcome"]["up"] == (log_return > 0)
        assert row["outcome"]["return"] == pytest.approx(log_return, rel=1e-12)
        assert row["outcome"]["log_loss"] == pytest.approx(-math.log(p), rel=1e-9)
        assert row["outcome"]["scored_at"] == iso(HOUR.close_of(bars["ts"][i + 1]))


def test_a_training_followed_every_so_many_new_bars_and_no_other(lived: Engine, bars: Bars) -> None:
    with store.database.read(lived) as conn:
        runs = [store.runs.of_version(conn, version.id) for version in store.versions.page(conn)][::-1]
    lasts = range(KNOWN - 1, KNOWN + LIVED, NEW_BARS)
    assert [run.bars_until for run in runs if run is not None] == [
        HOUR.close_of(bars["ts"][i]) for i in lasts
    ]


def test_each_answer_is_of_the_champion_of_its_bar(lived: Engine) -> None:
    with store.database.read(lived) as conn:
        market_id = store.markets.need(conn, MARKET).id
        champions = [row for row in store.versions.history(conn, market_id) if row.role == "champion"]
    assert champions[0].reason == "first"
    for row in ledger(lived):
        as_of = datetime.fromisoformat(row["as_of"])
        effective = [c.version for c in champions if c.effective_from <= as_of]
        assert row["version"] == effective[-1]


def test_no_champion_answers_for_a_bar_that_it_learned_from(lived: Engine) -> None:
    with store.database.read(lived) as conn:
        until = {v.id: datetime.fromisoformat(v.manifest["bars_until"]) for v in store.versions.page(conn)}
    assert all(until[row["version"]] <= datetime.fromisoformat(row["as_of"]) for row in ledger(lived))


def test_asked_again_about_the_past_the_version_says_the_same_to_the_bit(lived: Engine) -> None:
    predictors: dict[int, Any] = {}
    for row in ledger(lived):
        at = datetime.fromisoformat(row["as_of"])
        signal, in_sample = store.predictions.answer_at(lived, MARKET, at, at, predictors, row["version"])
        assert signal.p_up == row["p_up"]  # type: ignore[union-attr]
        assert not in_sample


def test_the_live_score_is_the_ledger_s_mean(lived: Engine) -> None:
    rows = [row for row in ledger(lived) if row["outcome"] is not None]
    for version in {row["version"] for row in rows}:
        with store.database.read(lived) as conn:
            live = store.outcomes.live(conn, version)
        losses = [row["outcome"]["log_loss"] for row in rows if row["version"] == version]
        assert live.rows == len(losses)
        assert live.log_loss == pytest.approx(float(np.mean(losses)))


def test_scoring_again_changes_nothing(lived: Engine) -> None:
    before = ledger(lived)
    assert schedule.score(lived, SETTINGS, SCHEDULES["score"], executors.machine_now()) == []
    assert ledger(lived) == before
