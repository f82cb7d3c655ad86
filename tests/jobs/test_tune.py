"""The search as a job: what it counts, what it finds where something is to be found, and that it never looks at what judges."""

import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import jobs.backtest
import jobs.tune
import store.bars
import store.database
import store.jobs
import store.markets
import store.trials
from jobs import executors, proposals
from jobs.retrain import config_of
from model import bars, tuning
from model.errors import BadInput, TrainingFailed
from model.tuning import Range, Steps
from store.database import Engine
from store.settings import Settings, load
from tests.model import synthetic

MARKET = bars.market("SYNTHETIC", "1h")
HOUR = bars.timeframe("1h")
BARS = synthetic.bars(2_000, seed=2, momentum=0.8)
NOW = HOUR.close_of(BARS["ts"][-1])
QUICK = {"window_bars": 600, "hidden": (8,), "epochs": 3, "batch_rows": 32}
SETTINGS = load(training=QUICK, backtest={"refit_every_bars": 500})


def ingest(engine: Engine, history: bars.Bars = BARS) -> int:
    store.bars.add(engine, MARKET, history, NOW)
    with store.database.read(engine) as conn:
        return store.markets.need(conn, MARKET).id


def start(engine: Engine, market_id: int, **params: Any) -> store.jobs.Job:
    return store.jobs.start(engine, "tune", market_id, params, "test", NOW, timedelta(minutes=5))


def tune(
    engine: Engine,
    market_id: int,
    settings: Settings = SETTINGS,
    progress: Callable[[float], None] = lambda share: None,
    **params: Any,
) -> dict[str, Any]:
    job = start(engine, market_id, **params)
    try:
        return executors.finish(engine, job, jobs.tune.run(engine, job, settings, lambda: NOW, progress))
    except BaseException:
        with store.database.write(engine) as conn:
            store.jobs.fail(conn, job.id, "test", NOW, "failed")
        raise


def rows_of(engine: Engine, columns: str) -> list[tuple[Any, ...]]:
    with store.database.read(engine) as conn:
        return [tuple(row) for row in conn.exec_driver_sql(f"SELECT {columns} FROM trials ORDER BY id")]


def tried(said: dict[str, Any]) -> list[dict[str, Any]]:
    """Its trials without how long they took, which no seed decides."""
    return [{name: value for name, value in trial.items() if name != "seconds"} for trial in said["trials"]]


def test_every_trial_is_counted_with_what_it_earned(database: Engine) -> None:
    market_id = ingest(database)
    said = tune(database, market_id, trials=4)
    assert [trial["number"] for trial in said["trials"]] == [0, 1, 2, 3]
    kept = rows_of(database, "log_loss, sharpe_bar, rows")
    assert [row[:2] for row in kept] == [(t["log_loss"], t["sharpe_bar"]) for t in said["trials"]]
    assert kept[said["chosen"]["number"]][2] == said["inner"]["chosen"]["rows"] == said["inner"]["rows"]
    assert said["trials_counted"] == said["significance"]["trials"] == 4
    assert said["searched"] == list(tuning.SPACE)
    best = max(said["trials"], key=lambda trial: trial["gain_bar"])
    assert said["chosen"]["number"] == best["number"]
    assert said["chosen"]["params"] == best["params"]
    assert said["inner"]["last_judged"] < said["outer"]["first_judged"]
    assert said["outer"]["paired"]["rows"] > 400
    # the same search again tries nothing new
    assert tune(database, market_id, trials=4)["trials_counted"] == 4
    assert len(rows_of(database, "id")) == 8


def test_a_backtest_of_the_same_settings_is_the_same_way_and_deflated_by_the_others(engine: Engine) -> None:
    market_id = ingest(engine)
    tune(engine, market_id, trials=3)
    job = store.jobs.start(engine, "backtest", market_id, {}, "test", NOW, timedelta(minutes=5))
    walked = jobs.backtest.run(engine, job, SETTINGS, lambda: NOW, lambda share: None)
    assert executors.finish(engine, job, walked)["significance"]["trials"] == 3
    assert len({str(row) for row in rows_of(engine, "config")}) == 3


def test_the_default_is_tried_first_and_is_what_the_settings_say(engine: Engine) -> None:
    said = tune(engine, ingest(engine), trials=2)
    assert said["trials"][0]["params"] == tuning.point_of(config_of(SETTINGS, {}))


def test_the_same_seed_and_bars_give_the_same_trials_and_another_seed_others(engine: Engine) -> None:
    market_id = ingest(engine)
    one, two, other = (tune(engine, market_id, trials=13, seed=seed, only=["dropout"]) for seed in (1, 1, 2))
    assert tried(one) == tried(two)  # three of them after the ten that are drawn at random
    assert one["outer"] == two["outer"]
    assert tried(one)[0] == tried(other)[0]
    assert tried(one)[1:] != tried(other)[1:]


def test_no_trial_depends_on_the_bars_that_judge(engine: Engine, tmp_path: Path) -> None:
    """Which are turned upside down, while the choice stays what it was, to the bit."""
    whole = tune(engine, ingest(engine), trials=5)
    first = pl.Series([whole["outer"]["first_judged"]]).str.to_datetime(time_zone="UTC").item()
    outer = BARS["ts"] >= first
    level = float(BARS.filter(outer)["open"][0]) ** 2
    flipped = BARS.with_columns(
        open=pl.when(outer).then(level / pl.col("open")).otherwise(pl.col("open")),
        close=pl.when(outer).then(level / pl.col("close")).otherwise(pl.col("close")),
        high=pl.when(outer).then(level / pl.col("low")).otherwise(pl.col("high")),
        low=pl.when(outer).then(level / pl.col("high")).otherwise(pl.col("low")),
        volume=pl.when(outer).then(7.0).otherwise(pl.col("volume")),
    )
    other = store.database.connect(f"sqlite:///{tmp_path / 'other.db'}")
    store.database.upgrade(other)
    said = tune(other, ingest(other, flipped), trials=5)
    other.dispose()
    assert tried(said) == tried(whole)
    assert said["chosen"] == whole["chosen"]
    assert said["inner"] == whole["inner"]
    assert said["outer"]["default"] != whole["outer"]["default"]


def test_a_rate_at_which_nothing_is_learned_is_left_for_one_that_learns(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sign of a return is the sign of the next one in four of five bars: at 1e-7 a network learns nothing of it."""
    file = tmp_path / "config.toml"
    monkeypatch.setenv("BARPROP_CONFIG", str(file))
    file.write_text("")
    stuck = load(training={**QUICK, "learning_rate": 1e-7}, backtest={"refit_every_bars": 500})
    said = tune(engine, ingest(engine), stuck, trials=8, only=["learning_rate"])
    assert said["chosen"]["params"]["learning_rate"] > 1e-4
    assert said["outer"]["verdict"]["better"] is True
    assert said["outer"]["verdict"]["text"].startswith("better than the default on rows that no choice saw")
    assert said["outer"]["chosen"]["log_loss"] < said["outer"]["default"]["log_loss"]
    assert said["outer"]["chosen"]["log_loss"] > 0.45  # that of knowing the rule would be 0.5 at least

    # pasted, the settings are what was chosen
    file.write_text(said["chosen"]["settings"])
    pasted = load(training=QUICK, backtest={"refit_every_bars": 500})
    chosen = tuning.config_at(config_of(stuck, {}), said["chosen"]["params"])
    assert config_of(pasted, {}) == chosen != config_of(stuck, {})


def test_whatever_is_chosen_can_be_pasted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    default = config_of(load(), {})
    point = {"learning_rate": 1e-5, "width": 16, "depth": 4, "dropout": 0.1, "window": 500, "horizon": 8}
    chosen = tuning.config_at(default, point)
    file = tmp_path / "config.toml"
    file.write_text(jobs.tune.settings_for(default, chosen))
    monkeypatch.setenv("BARPROP_CONFIG", str(file))
    assert config_of(load(), {}) == chosen
    assert jobs.tune.settings_for(default, default) == ""


def test_a_trial_that_fails_is_counted_with_its_reason_and_ends_nothing(engine: Engine) -> None:
    """The default's window is too narrow to be divided; every other one is wide enough."""
    narrow = load(training={**QUICK, "window_bars": 200}, backtest={"refit_every_bars": 500})
    said = tune(engine, ingest(engine), narrow, trials=12, only=["window"])
    first, *others = said["trials"]
    assert "200 rows with features and a known label are too few to fit, stop and judge on" in first["failed"]
    assert first["z"] is None
    assert {trial["params"]["window"] for trial in others} == {500, 1_000}
    assert [trial["failed"] for trial in others] == [None, None]
    assert said["chosen"]["number"] > 0
    assert said["outer"]["default"] is None
    assert said["outer"]["verdict"]["better"] is None
    assert rows_of(engine, "rows, log_loss, sharpe_bar")[0] == (0, None, None)
    assert said["trials_counted"] == 3


def test_where_every_trial_fails_the_reason_is_told(engine: Engine) -> None:
    narrow = load(training={**QUICK, "window_bars": 200})
    with pytest.raises(
        TrainingFailed,
        match=r"none of 3 trials came to an end; the first: no training gave .* too few to fit",
    ):
        tune(engine, ingest(engine), narrow, trials=3, only=["dropout"])
    assert len(rows_of(engine, "id")) == 3


def test_bars_too_few_to_be_divided_are_refused(engine: Engine) -> None:
    with pytest.raises(TrainingFailed, match="too few to search"):
        tune(engine, ingest(engine, BARS.head(600)), trials=2, last=50)


class Interrupt:
    """Ctrl-C once so much is done."""

    def __init__(self, at: float, times: int = 1, before: Callable[[], object] = lambda: None) -> None:
        self.at, self.left, self.before = at, times, before

    def __call__(self, done: float) -> None:
        if done >= self.at and self.left:
            self.left -= 1
            self.before()
            raise KeyboardInterrupt


def test_an_interrupt_ends_the_search_and_what_it_found_is_judged(engine: Engine) -> None:
    market_id = ingest(engine)
    whole = tune(engine, market_id, trials=10)
    said = tune(engine, market_id, progress=Interrupt(0.9 * 3.01 / 10), trials=10)
    assert said["stopped"] == "interrupted"
    assert whole["stopped"] is None
    assert tried(said) == tried(whole)[:3]
    assert len(rows_of(engine, "id")) == 10 + 3
    assert said["outer"]["chosen"] is not None


def test_another_interrupt_ends_the_job_and_one_before_anything_was_found_does_too(engine: Engine) -> None:
    market_id = ingest(engine)
    for at, times in ((0.9 * 2.01 / 10, 2), (0.0, 1)):
        with pytest.raises(KeyboardInterrupt):
            tune(engine, market_id, progress=Interrupt(at, times), trials=10)
    assert len(rows_of(engine, "id")) == 2  # kept as they came


def test_a_cancelled_search_ends_at_once(database: Engine) -> None:
    market_id = ingest(database)

    def cancel() -> None:
        with store.database.write(database) as conn:
            job = store.jobs.last(conn, market_id, "tune")
            assert job is not None
            store.jobs.cancel(conn, job.id, NOW)

    with pytest.raises(KeyboardInterrupt):
        tune(database, market_id, progress=Interrupt(0.9 * 2.01 / 10, before=cancel), trials=10)
    assert len(rows_of(database, "id")) == 2


def test_when_the_time_is_over_no_trial_begins(engine: Engine) -> None:
    said = tune(engine, ingest(engine), trials=50, timeout=1e-9)
    assert (len(said["trials"]), said["stopped"]) == (1, "timeout")
    assert said["chosen"]["number"] == 0
    assert said["chosen"]["settings"] == ""
    assert "default stays" in said["outer"]["verdict"]["text"]


def test_only_the_newest_bars_are_used_where_that_is_asked_for(engine: Engine) -> None:
    said = tune(engine, ingest(engine), trials=2, last=1_200, judge=0.2, only=["dropout"])
    assert said["outer"]["rows"] == 1_200 * 0.2
    assert said["inner"]["rows"] <= 1_200 * 0.8 / 2
    whole = tune(engine, ingest(engine), trials=2, judge=0.2, only=["dropout"])
    assert whole["outer"]["last_judged"] == said["outer"]["last_judged"]
    assert whole["inner"]["rows"] > 1_200 * 0.8 / 2


def test_progress_only_rises_and_comes_to_its_end(engine: Engine) -> None:
    seen: list[float] = []
    tune(engine, ingest(engine), progress=seen.append, trials=3)
    assert seen == sorted(seen)
    assert seen[-1] == pytest.approx(1.0)


def test_without_optuna_it_says_what_to_install(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(BadInput, match=r"optuna is not there: pip install '\.\[tune\]'"):
        tune(engine, ingest(engine), trials=2)


SPACE = {"learning_rate": Range(1e-4, 1e-1, log=True), "depth": Steps((1, 2, 4, 8))}
START = {"learning_rate": 0.012345, "depth": 4}


def answered(seed: int, count: int) -> list[dict[str, float]]:
    """The points that are proposed where the objective is best at a rate of 0.01 and 8 layers."""
    given = proposals.points(SPACE, START, seed)
    points = [next(given)]
    for _ in range(count - 1):
        rate, depth = points[-1]["learning_rate"], points[-1]["depth"]
        points.append(given.send(None if depth == 2 else -abs(np.log10(rate) + 2) + depth))
    return [dict(point) for point in points]


def test_proposals_begin_where_they_are_told_to_and_stay_in_their_space() -> None:
    points = answered(3, 40)
    assert points[0] == START
    for point in points[1:]:
        assert 1e-4 <= point["learning_rate"] <= 1e-1
        assert point["learning_rate"] == float(f"{point['learning_rate']:.3g}")
        assert point["depth"] in SPACE["depth"].values  # type: ignore[union-attr]
    assert points == answered(3, 40)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_proposals_gather_where_the_answers_are_good_and_keep_away_from_failures(seed: int) -> None:
    late = answered(seed, 60)[-20:]
    depths = [point["depth"] for point in late]
    assert depths.count(8) >= 10  # at random 5, and so many in 1 of 70
    assert depths.count(2) <= 4
