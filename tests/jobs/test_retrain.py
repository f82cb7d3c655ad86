"""Retraining: what it leaves in the database, and that what it refuses or never finished leaves nothing."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

import jobs.retrain
import store.bars
import store.database
import store.health
import store.jobs
import store.markets
import store.predictions
import store.runs
import store.versions
from jobs import executors
from model import artifact, bars
from model.config import config_from
from model.errors import Busy, TrainingFailed
from store.database import Engine
from store.settings import load
from tests.model import synthetic

MARKET = bars.market("SYNTHETIC", "1h")
HOUR = bars.timeframe("1h")
BARS = synthetic.bars(1_300, seed=2, momentum=0.4)
NOW = HOUR.close_of(BARS["ts"][-1])
SETTINGS = load(training={"window_bars": 800})


def ingest(engine: Engine, n: int = 1_300) -> int:
    store.bars.add(engine, MARKET, BARS.head(n), HOUR.close_of(BARS["ts"][n - 1]))
    with store.database.read(engine) as conn:
        return store.markets.need(conn, MARKET).id


def retrain(
    engine: Engine,
    market_id: int,
    now: datetime = NOW,
    progress: Callable[[float], None] = lambda share: None,
    **params: Any,
) -> dict[str, Any]:
    job = store.jobs.start(engine, "retrain", market_id, params, "test", now, timedelta(minutes=5))
    try:
        return executors.finish(engine, job, jobs.retrain.run(engine, job, SETTINGS, lambda: now, progress))
    except Exception:
        with store.database.write(engine) as conn:
            store.jobs.fail(conn, job.id, "test", now, "failed")
        raise


def test_it_leaves_a_version_its_run_its_health_and_its_role(database: Engine) -> None:
    market_id = ingest(database)
    result = retrain(database, market_id)
    assert result["outcome"] == "promoted"
    with store.database.read(database) as conn:
        version = store.versions.get(conn, result["version"])
        run = store.runs.last(conn, market_id)
        health = store.health.of_version(conn, result["version"])
        assert store.versions.champion(conn, market_id) == version.id
        arrays, manifest = artifact.unpack(store.versions.packed(conn, version.id))
    assert version.role == "champion"
    assert version.sha256 == result["sha256"] == artifact.digest(arrays)
    assert run is not None
    assert run.version_id == version.id
    assert run.bars_until == NOW
    assert len(run.curve) == len(health["epochs"]) >= 1
    assert health["verdict"] == result["gradient_health"]["verdict"]
    assert {"horizon", "config", "features_sha256", "fitted_until", "held", "libraries"} <= set(manifest)
    assert config_from(manifest["config"]).window == 800


def test_the_same_bars_and_settings_give_the_same_weights_and_no_second_opinion(engine: Engine) -> None:
    market_id = ingest(engine)
    one, two = retrain(engine, market_id), retrain(engine, market_id)
    assert one["sha256"] == two["sha256"]
    assert two["version"] != one["version"]


def test_the_first_answers_at_once_and_a_later_one_from_the_next_bar(engine: Engine) -> None:
    market_id = ingest(engine)
    first = retrain(engine, market_id)["version"]
    with store.database.read(engine) as conn:
        assert store.versions.champion(conn, market_id, NOW) == first
    second = retrain(engine, market_id, seed=1)
    with store.database.read(engine) as conn:
        assert store.versions.champion(conn, market_id, NOW) == first
        if second["outcome"] == "promoted":
            assert store.versions.champion(conn, market_id, NOW + HOUR.length) == second["version"]


def test_too_few_bars_fail_with_a_reason_and_leave_a_run_but_no_version(engine: Engine) -> None:
    market_id = ingest(engine, 300)
    now = HOUR.close_of(BARS["ts"][299])
    with pytest.raises(TrainingFailed, match="too few"):
        retrain(engine, market_id, now)
    with store.database.read(engine) as conn:
        run = store.runs.last(conn, market_id)
        assert store.versions.page(conn, market_id) == []
    assert run is not None
    assert run.outcome == "failed"
    assert "too few" in run.reason


def test_a_training_that_is_broken_off_leaves_no_trace(engine: Engine) -> None:
    market_id = ingest(engine)

    def break_off(share: float) -> None:
        raise KeyboardInterrupt

    job = store.jobs.start(engine, "retrain", market_id, {}, "test", NOW, timedelta(minutes=5))
    with pytest.raises(KeyboardInterrupt):
        jobs.retrain.run(engine, job, SETTINGS, lambda: NOW, break_off)
    with store.database.read(engine) as conn:
        assert store.versions.page(conn, market_id) == []
        assert store.runs.last(conn, market_id) is None
        assert store.versions.history(conn, market_id) == []


def test_a_job_that_was_taken_from_its_worker_leaves_no_trace(database: Engine) -> None:
    market_id = ingest(database)
    job = store.jobs.start(database, "retrain", market_id, {}, "test", NOW, timedelta(seconds=30))
    keep = jobs.retrain.run(database, job, SETTINGS, lambda: NOW, lambda share: None)
    assert store.jobs.reap(database, NOW + timedelta(seconds=31)) == [job.id]
    with pytest.raises(Busy, match="taken"):
        executors.finish(database, job, keep)
    with store.database.read(database) as conn:
        assert store.versions.page(conn, market_id) == []
        assert store.runs.last(conn, market_id) is None
        assert store.versions.champion(conn, market_id) is None
        assert store.jobs.get(conn, job.id).state == "failed"


def test_the_champions_own_weights_are_not_promoted_again(engine: Engine) -> None:
    market_id = ingest(engine)
    first = retrain(engine, market_id)
    again = retrain(engine, market_id)
    assert again["sha256"] == first["sha256"]
    assert again["outcome"] == "challenger"
    with store.database.read(engine) as conn:
        assert store.versions.champion(conn, market_id) == first["version"]


def test_bars_that_close_after_the_clock_are_not_read(engine: Engine) -> None:
    market_id = ingest(engine)
    earlier = HOUR.close_of(BARS["ts"][1_149])
    assert retrain(engine, market_id, earlier)["bars_until"] == bars.iso(earlier)


def test_a_warm_start_names_its_parent_and_a_cold_one_has_none(engine: Engine) -> None:
    market_id = ingest(engine)
    cold = retrain(engine, market_id)["version"]
    warm = retrain(engine, market_id, warm=True)["version"]
    with store.database.read(engine) as conn:
        assert store.versions.get(conn, cold).parent is None
        assert store.versions.get(conn, warm).parent == cold


def test_a_warm_start_without_a_champion_says_so(engine: Engine) -> None:
    with pytest.raises(TrainingFailed, match="has none"):
        retrain(engine, ingest(engine), warm=True)


def test_a_warm_start_from_a_damaged_champion_says_so(engine: Engine) -> None:
    market_id = ingest(engine)
    first = retrain(engine, market_id)["version"]
    with store.database.write(engine) as conn:
        conn.exec_driver_sql("UPDATE versions SET weights = zeroblob(8) WHERE id = ?", (first,))
    with pytest.raises(TrainingFailed, match="cannot go on from version"):
        retrain(engine, market_id, warm=True)


def test_a_candidate_that_answers_the_same_whatever_it_is_asked_is_never_champion(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = jobs.retrain.config_of
    monkeypatch.setattr(jobs.retrain, "config_of", lambda *given: replace(usual(*given), initialiser="zero"))
    market_id = ingest(engine)
    result = retrain(engine, market_id)
    assert result["outcome"] == "rejected"
    assert "the same whatever it is asked" in result["reason"]
    with store.database.read(engine) as conn:
        assert store.versions.champion(conn, market_id) is None


def test_a_champion_whose_weights_are_damaged_is_replaced(engine: Engine) -> None:
    market_id = ingest(engine)
    first = retrain(engine, market_id)["version"]
    with store.database.write(engine) as conn:
        conn.exec_driver_sql("UPDATE versions SET weights = zeroblob(8) WHERE id = ?", (first,))
    result = retrain(engine, market_id)
    assert result["outcome"] == "promoted"
    signal = store.predictions.answer(engine, MARKET, NOW, {}).signal
    assert signal.version in (first, result["version"])


def test_a_champion_that_was_named_during_the_training_is_not_overruled(engine: Engine) -> None:
    market_id = ingest(engine)
    first = retrain(engine, market_id)["version"]
    second = retrain(engine, market_id, seed=1)["version"]

    def name_another(share: float) -> None:
        with store.database.write(engine) as conn:
            store.versions.record(conn, market_id, second, "champion", "by hand", NOW, NOW)

    with store.database.write(engine) as conn:
        store.versions.record(conn, market_id, first, "champion", "by hand", NOW, NOW)
    third = retrain(engine, market_id, progress=name_another)
    assert third["outcome"] != "promoted"
    with store.database.read(engine) as conn:
        assert store.versions.champion(conn, market_id) == second
        assert store.versions.get(conn, third["version"]).role == third["outcome"]
