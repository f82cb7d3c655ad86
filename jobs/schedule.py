"""When work happens by itself: rows of `schedules` as triggers, and what each firing asks for.

Add a kind of scheduled work by adding a row to FIRINGS. A firing only asks; a job row says the rest. What is
asked for is what is due: a paused market, one whose bars are stale and one without new bars get nothing.
"""

import logging
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger

import jobs.fetch
import jobs.ingest
import jobs.score
import model.bars
import store.backtests
import store.bars
import store.clock
import store.database
import store.jobs
import store.markets
import store.runs
import store.versions
from model.errors import BadInput
from model.features import HISTORY, WARMUP, feature_set_from
from store.database import Connection, Engine
from store.jobs import Job
from store.markets import MarketRow
from store.schedules import Schedule
from store.settings import Settings

log = logging.getLogger(__name__)

Params = dict[str, Any]

# What each kind of scheduled work can be told, and the least that it may be.
LEAST: dict[str, dict[str, int]] = {
    "score": {},
    "ingest": {},
    "fetch": {},
    "retrain": {"min_new_bars": 1, "window": 1, "seed": 0},
    "backtest": {"min_new_bars": 1, "window": 1, "refit_every": 1, "last": 1},
}

SCHEDULED = 1  # the priority of scheduled work; what somebody asked for is 0 and goes first
MISFIRE_GRACE_SECONDS = 60  # a firing that comes later than this is left out; the next one asks for the same

# Fewer bars than this past the features' warm-up are not worth a training, nor a window, nor a judgement.
LEAST_ROWS = 300
# A scheduled backtest judges so many of the newest bars, where its schedule's `last` does not say otherwise.
JUDGED_BARS = 5_000
# After a failure the same work is not asked for again for so long: a fault that stays must not become a loop.
BACK_OFF = timedelta(minutes=10)

_EVERY = re.compile(r"every ([1-9][0-9]{0,6})s")
# Cron counts days from Sunday = 0 (and 7), the trigger's own numbers from Monday; names mean the same in both.
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat", "sun")
_EXAMPLES = "'every 30s', or five cron fields in UTC such as '0 * * * *'"


def trigger(text: str) -> BaseTrigger:
    """The trigger that a schedule's text names: "every Ns", or a cron line in UTC. Raises BadInput."""
    every = _EVERY.fullmatch(text)
    if every is not None:
        return IntervalTrigger(seconds=int(every[1]), timezone=UTC)
    fields = text.split()
    if len(fields) != 5:
        raise BadInput(f"unknown trigger {text!r}: {_EXAMPLES}")
    minute, hour, day, month, weekday = fields
    try:
        return CronTrigger(
            minute=minute, hour=hour, day=day, month=month, day_of_week=_days(weekday), timezone=UTC
        )
    except (ValueError, IndexError) as error:
        raise BadInput(f"unknown trigger {text!r}: {error}; {_EXAMPLES}") from error


def _days(field: str) -> str:
    """A cron line's weekdays by name. A range is listed day by day, since 5-7 would end before it starts."""
    listed = []
    for part in field.split(","):
        span = re.fullmatch(r"([0-7])(?:-([0-7])(?:/([1-7]))?)?", part)
        if span is None:
            listed.append(part)
        else:
            first, last, step = int(span[1]), int(span[2] or span[1]), int(span[3] or 1)
            listed += _DAYS[first : last + 1 : step] or [part]
    return ",".join(listed)


def check(kind: str, params: Params) -> None:
    """Raises BadInput where there is no such scheduled work, or it cannot be told that."""
    if kind not in FIRINGS:
        raise BadInput(f"no such schedule: {kind}; one of {', '.join(FIRINGS)}")
    known = LEAST[kind]
    for name, value in params.items():
        if name not in known:
            raise BadInput(f"{kind} has no parameter {name!r}: {', '.join(known) or 'it takes none'}")
        if isinstance(value, bool) or not isinstance(value, int) or value < known[name]:
            raise BadInput(f"{name} is a whole number from {known[name]} on, not {value!r}")


def follow(
    scheduler: BackgroundScheduler, rows: Sequence[Schedule], fire: Callable[[Schedule], None], now: datetime
) -> list[str]:
    """Makes the scheduler follow the rows as they are; what could not be followed, one line each.

    An interval fires at once when it is new or changed, a cron line at its next time.
    """
    wanted = {row.kind: row for row in rows if row.enabled}
    kept = set()
    for planned in scheduler.get_jobs():
        if planned.args == (wanted.get(planned.id),):
            kept.add(planned.id)
        else:
            planned.remove()
    refused = []
    for kind, row in wanted.items():
        if kind in kept:
            continue
        try:
            if kind not in FIRINGS:
                raise BadInput(f"no such kind of scheduled work; one of {', '.join(FIRINGS)}")
            when = trigger(row.trigger)
        except BadInput as error:
            refused.append(f"schedule {kind}: {error}")
            continue
        at_once = {"next_run_time": now} if isinstance(when, IntervalTrigger) else {}
        scheduler.add_job(
            fire,
            when,
            args=(row,),
            id=kind,
            coalesce=True,
            max_instances=1,
            misfire_grace_time=MISFIRE_GRACE_SECONDS,
            **at_once,
        )
    return refused


def score(engine: Engine, settings: Settings, schedule: Schedule, now: datetime) -> list[Job]:
    """Scores what matured. It is light and comes every few seconds, so it runs here and has no job row."""
    jobs.score.run(engine, store.clock.now(engine))
    return []


def ingest(engine: Engine, settings: Settings, schedule: Schedule, now: datetime) -> list[Job]:
    """Asks for an ingest where the inbox holds a file that was not taken yet. Raises BadInput without a folder."""
    inbox = settings.jobs.inbox
    if inbox is None:
        return []
    if not inbox.is_dir():
        raise BadInput(f"the inbox {inbox} is no folder")
    if not jobs.ingest.waiting(engine, inbox, now):
        return []
    with store.database.write(engine) as conn:
        if _held_back(conn, None, schedule.kind, now):
            return []
        return [store.jobs.ask(conn, schedule.kind, None, {}, now, SCHEDULED)]


def fetch(engine: Engine, settings: Settings, schedule: Schedule, now: datetime) -> list[Job]:
    """Asks for a fetch where a market with a source should have a new bar."""
    if not settings.sources.markets or not jobs.fetch.waiting(engine, settings, store.clock.now(engine), now):
        return []
    with store.database.write(engine) as conn:
        if _held_back(conn, None, schedule.kind, now):
            return []
        return [store.jobs.ask(conn, schedule.kind, None, {}, now, SCHEDULED)]


def retrain(engine: Engine, settings: Settings, schedule: Schedule, now: datetime) -> list[Job]:
    """Asks for a retrain of each market that has enough new bars since its last training."""
    return _ask(engine, settings, schedule, now, _trained_until, _retrain_of)


def backtest(engine: Engine, settings: Settings, schedule: Schedule, now: datetime) -> list[Job]:
    """Asks for a backtest of each market that has enough new bars since its last backtest."""
    return _ask(engine, settings, schedule, now, _judged_until, _backtest_of)


Firing = Callable[[Engine, Settings, Schedule, datetime], list[Job]]

# `now` is the machine's time: it measures back-offs, not bars.
FIRINGS: dict[str, Firing] = {
    "score": score,
    "ingest": ingest,
    "fetch": fetch,
    "retrain": retrain,
    "backtest": backtest,
}


def _ask(
    engine: Engine,
    settings: Settings,
    schedule: Schedule,
    now: datetime,
    done_until: Callable[[Connection, int], datetime | None],
    params_of: Callable[[Settings, Params, int], Params | None],
) -> list[Job]:
    """Asks for work of each market that is due. `params_of` has the job's parameters for a market of so many bars,
    or None where those are too few."""
    given = {name: value for name, value in schedule.params.items() if name != "min_new_bars"}
    min_new_bars = int(schedule.params.get("min_new_bars", 1))
    clock = store.clock.now(engine)
    due = []
    with store.database.read(engine) as conn:
        for row in store.markets.all(conn):
            if row.paused or not _fresh(conn, row, clock, settings):
                continue
            params = params_of(settings, given, store.bars.count(conn, row.id))
            if (
                params is not None
                and _new_bars(conn, row.id, done_until(conn, row.id), min_new_bars)
                and not _held_back(conn, row.id, schedule.kind, now)
            ):
                due.append((row.id, params))
    asked = []
    for market_id, params in due:
        with store.database.write(engine) as conn:
            asked.append(store.jobs.ask(conn, schedule.kind, market_id, params, now, SCHEDULED))
    return asked


def _retrain_of(settings: Settings, given: Params, bars: int) -> Params | None:
    return given if bars >= WARMUP + LEAST_ROWS else None


def _backtest_of(settings: Settings, given: Params, bars: int) -> Params | None:
    """As soon as there are enough to train on, and as many to judge; a young market is trained on half of what it has."""
    rows = bars - WARMUP
    first = given.get("window", min(settings.training.window_bars, rows // 2))
    return None if min(first, rows - first) < LEAST_ROWS else {"last": JUDGED_BARS, **given}


def _fresh(conn: Connection, row: MarketRow, clock: datetime, settings: Settings) -> bool:
    opens = store.bars.open_times(conn, row.id, HISTORY)
    kept = model.bars.timeframe(row.market.timeframe)
    return clock <= model.bars.stale_from(opens, kept, settings.service.stale_after_timeframes)


def _new_bars(conn: Connection, market_id: int, done_until: datetime | None, least: int) -> bool:
    return done_until is None or store.bars.count_after(conn, market_id, done_until, least) >= least


def _held_back(conn: Connection, market_id: int | None, kind: str, now: datetime) -> bool:
    """Whether that work is under way or waits already, or failed just now."""
    last = store.jobs.last(conn, market_id, kind)
    if last is None:
        return False
    if last.state == "failed":
        return last.ended_at is not None and now < last.ended_at + BACK_OFF
    return last.state in ("queued", "running")


def _trained_until(conn: Connection, market_id: int) -> datetime | None:
    """The open time of the newest bar that the last training read; None where there was none, or where what came of
    it fits today's features no more."""
    run = store.runs.last(conn, market_id)
    if run is None or (run.version_id is not None and _outdated(conn, run.version_id)):
        return None
    return _before(run.bars_until)


def _outdated(conn: Connection, version_id: int) -> bool:
    """Whether a version's features are defined otherwise by now: then it may not answer, and waits for no new bars."""
    manifest = store.versions.get(conn, version_id).manifest
    try:
        return bool(feature_set_from(manifest).sha256 != manifest["features_sha256"])
    except BadInput:
        return True


def _judged_until(conn: Connection, market_id: int) -> datetime | None:
    last = store.backtests.last(conn, market_id)
    return None if last is None else _before(datetime.fromisoformat(last["last_judged"]))


def _before(close: datetime) -> datetime:
    """A moment after which only bars open that were not closed at `close`."""
    return close - timedelta(microseconds=1)
