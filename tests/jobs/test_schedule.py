"""When work is asked for: triggers as cron means them, rows as they are now, and markets that are due, no others."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from apscheduler.schedulers.background import BackgroundScheduler

import store.bars
import store.clock
import store.database
import store.jobs
import store.markets
import store.runs
import store.versions
from jobs import schedule
from model.bars import Market
from model.errors import BadInput
from model.features import WARMUP
from store.database import Engine
from store.schedules import Schedule
from store.settings import Settings
from tests.model import markets

MARKET = Market("ETHUSDT", "1h")
ENOUGH = WARMUP + schedule.LEAST_ROWS
NOW = datetime(2026, 1, 1, tzinfo=UTC)  # the machine's; the bars' clock is set apart
SETTINGS = Settings()


def row(
    kind: str = "retrain", trigger: str = "every 30s", enabled: bool = True, **params: object
) -> Schedule:
    """A schedule as the table has it."""
    return Schedule(1, kind, trigger, dict(params), enabled)


def fires(trigger: str, after: datetime, times: int) -> list[datetime]:
    """The next times of a trigger."""
    made, found = schedule.trigger(trigger), []
    previous, now = None, after
    for _ in range(times):
        previous = made.get_next_fire_time(previous, now)
        found.append(previous)
        now = previous + timedelta(microseconds=1)
    return found


@pytest.mark.parametrize("seconds", [1, 30, 86_400])
def test_every_n_seconds_is_that_far_apart(seconds: int) -> None:
    first, second = fires(f"every {seconds}s", NOW, 2)
    assert second - first == timedelta(seconds=seconds)


def test_a_cron_line_is_read_in_utc() -> None:
    assert fires("30 4 * * *", NOW, 2) == [NOW + timedelta(hours=4.5), NOW + timedelta(days=1, hours=4.5)]


@pytest.mark.parametrize(
    ("field", "days"),
    [
        *((str(day), {day % 7}) for day in range(8)),
        ("1-5", {1, 2, 3, 4, 5}),
        ("5-7", {5, 6, 0}),
        ("0-6/2", {0, 2, 4, 6}),
        ("0,3", {0, 3}),
        ("mon-fri", {1, 2, 3, 4, 5}),
        ("*", set(range(7))),
    ],
)
def test_weekdays_count_from_sunday_as_cron_counts_them(field: str, days: set[int]) -> None:
    assert {moment.isoweekday() % 7 for moment in fires(f"0 0 * * {field}", NOW, 14)} == days


@pytest.mark.parametrize(
    "text",
    ["", "every", "every 0s", "every 5m", "every -1s", "* * * *", "61 * * * *", "* * * * 8", "0 0 * * 6-2"],
)
def test_a_trigger_that_means_nothing_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(BadInput, match="every 30s"):
        schedule.trigger(text)


@pytest.fixture
def scheduler() -> Iterator[BackgroundScheduler]:
    """A scheduler that plans but never fires."""
    made = BackgroundScheduler(timezone="UTC")
    made.start(paused=True)
    yield made
    made.shutdown(wait=False)


def fire(_: Schedule) -> None:
    """What would happen."""


def test_the_scheduler_follows_the_rows_as_they_are(scheduler: BackgroundScheduler) -> None:
    def planned() -> dict[str, object]:
        return {job.id: job.args[0] for job in scheduler.get_jobs()}

    retrain, score = row("retrain"), row("score", "every 2s")
    assert schedule.follow(scheduler, [retrain, score], fire, NOW) == []
    assert planned() == {"retrain": retrain, "score": score}
    changed = row("retrain", "every 60s")
    assert schedule.follow(scheduler, [changed, row("score", enabled=False)], fire, NOW) == []
    assert planned() == {"retrain": changed}
    assert schedule.follow(scheduler, [], fire, NOW) == []
    assert planned() == {}


def test_a_row_that_stays_keeps_its_next_time(scheduler: BackgroundScheduler) -> None:
    schedule.follow(scheduler, [row()], fire, NOW)
    before = scheduler.get_job("retrain").next_run_time
    schedule.follow(scheduler, [row()], fire, NOW + timedelta(seconds=7))
    assert scheduler.get_job("retrain").next_run_time == before == NOW


def test_a_row_that_cannot_be_followed_is_named_and_stops_no_other(scheduler: BackgroundScheduler) -> None:
    refused = schedule.follow(
        scheduler, [row("retrain", "now and then"), row("dance"), row("score", "every 2s")], fire, NOW
    )
    assert [line.split(":")[0] for line in refused] == ["schedule retrain", "schedule dance"]
    assert [job.id for job in scheduler.get_jobs()] == ["score"]


@pytest.mark.parametrize("kind", schedule.FIRINGS)
def test_a_firing_never_runs_beside_itself_and_never_piles_up(
    scheduler: BackgroundScheduler, kind: str
) -> None:
    schedule.follow(scheduler, [row(kind)], fire, NOW)
    planned = scheduler.get_job(kind)
    assert (planned.max_instances, planned.coalesce) == (1, True)
    assert planned.misfire_grace_time == schedule.MISFIRE_GRACE_SECONDS


def fill(engine: Engine, count: int, market: Market = MARKET, age: timedelta = timedelta(0)) -> int:
    """Puts `count` bars of a market in, sets the clock `age` after the last close; gives the market's id."""
    bars = markets.bars(count, step=market.timeframe)
    close = bars["ts"][-1] + timedelta(hours=1)
    store.bars.add(engine, market, bars, close)
    store.clock.set(engine, close + age)
    with store.database.read(engine) as conn:
        return store.markets.need(conn, market).id


def trained(engine: Engine, market_id: int, bars_until: datetime, outcome: str = "promoted") -> None:
    """A training run that read the bars closed by then."""
    with store.database.write(engine) as conn:
        job = store.jobs.ask(conn, "retrain", market_id, {}, NOW)
    claimed = store.jobs.claim(engine, "test", NOW, timedelta(seconds=30))
    assert claimed is not None
    assert claimed.id == job.id
    with store.database.write(engine) as conn:
        store.runs.add(
            conn,
            job_id=job.id,
            market_id=market_id,
            version_id=None,
            outcome=outcome,
            reason="a test",
            started_at=NOW,
            ended_at=NOW,
            bars_until=bars_until,
            scores={},
            curve=[],
            verdict="healthy",
        )
        store.jobs.succeed(conn, job.id, "test", NOW, {})


def asked(engine: Engine, now: datetime = NOW, **params: object) -> list[Market | None]:
    """Whose retrain a firing asks for."""
    params.setdefault("min_new_bars", 100)
    return [job.market for job in schedule.retrain(engine, SETTINGS, row(**params), now)]


def test_a_market_without_a_training_is_due_once_it_has_enough_bars(engine: Engine) -> None:
    fill(engine, ENOUGH - 1, Market("FEW", "1h"))
    fill(engine, ENOUGH, MARKET)
    assert asked(engine) == [MARKET]


def test_what_was_asked_for_is_not_asked_for_again(engine: Engine) -> None:
    fill(engine, ENOUGH)
    assert asked(engine) == [MARKET]
    assert asked(engine) == []
    assert store.jobs.claim(engine, "test", NOW, timedelta(seconds=30)) is not None
    assert asked(engine) == []  # it runs


def test_scheduled_work_gives_way_and_has_the_row_s_params(engine: Engine) -> None:
    fill(engine, ENOUGH)
    (job,) = schedule.retrain(engine, SETTINGS, row(min_new_bars=100, window=500), NOW)
    assert (job.priority, job.params) == (schedule.SCHEDULED, {"window": 500})


def test_a_paused_market_is_left_alone(engine: Engine) -> None:
    market_id = fill(engine, ENOUGH)
    with store.database.write(engine) as conn:
        store.markets.set_paused(conn, market_id, True)
    assert asked(engine) == []


@pytest.mark.parametrize(("hours", "due"), [(0.0, True), (2.0, True), (2.01, False), (1000.0, False)])
def test_a_stale_market_is_left_alone(engine: Engine, hours: float, due: bool) -> None:
    fill(engine, ENOUGH, age=timedelta(hours=hours))
    assert asked(engine) == [MARKET] * due


@pytest.mark.parametrize(("new", "due"), [(0, False), (99, False), (100, True), (300, True)])
def test_a_retrain_waits_for_new_bars(engine: Engine, new: int, due: bool) -> None:
    market_id = fill(engine, ENOUGH + 300)
    trained(engine, market_id, store.clock.now(engine) - timedelta(hours=new))
    assert asked(engine) == [MARKET] * due


def test_a_training_that_failed_waits_for_new_bars_too(engine: Engine) -> None:
    market_id = fill(engine, ENOUGH)
    trained(engine, market_id, store.clock.now(engine), outcome="failed")
    assert asked(engine) == []


def test_a_failed_job_is_not_asked_for_again_at_once(engine: Engine) -> None:
    fill(engine, ENOUGH)
    assert asked(engine) == [MARKET]
    job = store.jobs.claim(engine, "test", NOW, timedelta(seconds=30))
    assert job is not None
    with store.database.write(engine) as conn:
        store.jobs.fail(conn, job.id, "test", NOW, "it broke")
    assert asked(engine, NOW + schedule.BACK_OFF - timedelta(seconds=1)) == []
    assert asked(engine, NOW + schedule.BACK_OFF) == [MARKET]


def test_only_a_backtest_makes_a_backtest_undue(engine: Engine) -> None:
    market_id = fill(engine, 1_300)
    trained(engine, market_id, store.clock.now(engine))
    (job,) = schedule.backtest(engine, SETTINGS, row("backtest", min_new_bars=100), NOW)
    assert (job.kind, job.market) == ("backtest", MARKET)


@pytest.mark.parametrize(
    ("bars", "params"),
    [
        (WARMUP + 2 * schedule.LEAST_ROWS - 1, None),
        (WARMUP + 2 * schedule.LEAST_ROWS, {"last": 5_000}),
        (WARMUP + 40_000, {"last": 5_000}),
    ],
)
def test_a_market_is_backtested_once_half_of_its_bars_are_enough(bars: int, params: object) -> None:
    assert schedule._backtest_of(SETTINGS, {}, bars) == params


def test_a_schedule_s_own_window_stands(engine: Engine) -> None:
    fill(engine, 1_300)
    (job,) = schedule.backtest(engine, SETTINGS, row("backtest", window=400, last=300, refit_every=100), NOW)
    assert job.params == {"window": 400, "last": 300, "refit_every": 100}


def test_scoring_leaves_no_job_row(engine: Engine) -> None:
    fill(engine, ENOUGH)
    assert schedule.score(engine, SETTINGS, row("score"), NOW) == []
    with store.database.read(engine) as conn:
        assert store.jobs.page(conn) == []


def test_an_ingest_is_asked_for_where_the_inbox_holds_something_new(engine: Engine, tmp_path: Path) -> None:
    inbox = tmp_path / "inbox"
    settings = Settings(jobs={"inbox": inbox})  # type: ignore[arg-type]
    soon = datetime.now(UTC) + timedelta(minutes=1)  # files just written are left alone
    with pytest.raises(BadInput, match="no folder"):
        schedule.ingest(engine, settings, row("ingest"), soon)
    inbox.mkdir()
    assert schedule.ingest(engine, settings, row("ingest"), soon) == []
    markets.bars(10).write_parquet(inbox / "ETHUSDT_1h.parquet")
    (job,) = schedule.ingest(engine, settings, row("ingest"), soon)
    assert (job.kind, job.market) == ("ingest", None)
    assert schedule.ingest(engine, settings, row("ingest"), soon) == []  # it waits
    assert schedule.ingest(engine, SETTINGS, row("ingest"), soon) == []  # no inbox is set


@pytest.mark.parametrize(
    ("kind", "params"),
    [
        ("retrain", {"min_new_bars": "abc"}),
        ("retrain", {"min_new_bars": 0}),
        ("retrain", {"foo": 1}),
        ("backtest", {"last": True}),
        ("score", {"last": 1}),
        ("dance", {}),
    ],
)
def test_work_is_told_nothing_that_it_cannot_use(kind: str, params: dict[str, object]) -> None:
    with pytest.raises(BadInput):
        schedule.check(kind, params)


def test_every_kind_of_scheduled_work_says_what_it_can_be_told(engine: Engine) -> None:
    assert set(schedule.LEAST) == set(schedule.FIRINGS)
    with store.database.read(engine) as conn:
        for kept in store.schedules.all(conn):
            schedule.check(kept.kind, kept.params)
