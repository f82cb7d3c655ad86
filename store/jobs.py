"""Jobs: one row an execution of a kind of work, claimed under a lease. The row decides who works.

Every change of state names the state and the owner that it expects, so that whoever lost a job cannot end it.
A market's kind never runs twice at once: two unique indexes say so, and claims come one at a time (SQLite has one
writer; on PostgreSQL they hold one lock). Times here are the machine's, never a demo's clock.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, exists, func, select, update

from model.bars import Market, iso
from model.errors import Busy, NotFound, QueueFull
from store import database
from store.database import Engine
from store.tables import jobs, markets

# What a job leaves: written in the very transaction that ends the job, so that one which lost its lease leaves nothing.
Keep = Callable[[Connection], dict[str, Any]]


@dataclass(frozen=True)
class Job:
    """One execution, as its row was when it was read."""

    id: int
    kind: str
    market: Market | None  # None: a kind that is not about one market
    market_id: int | None  # None for a market without bars, too
    state: str  # queued, running, succeeded, failed, cancelled
    priority: int  # 0: asked for, 1: scheduled
    params: dict[str, Any]
    progress: float  # 0 to 1
    requested_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    heartbeat_at: datetime | None
    lease_until: datetime | None
    owner: str | None
    cancel_asked: bool
    error: str | None
    result: dict[str, Any] | None


def document(job: Job) -> dict[str, Any]:
    """The job as JSON has it, the same from a command and from a route."""

    def moment(at: datetime | None) -> str | None:
        return None if at is None else iso(at)

    return {
        "id": job.id,
        "kind": job.kind,
        "market": None if job.market is None else asdict(job.market),
        "state": job.state,
        "progress": job.progress,
        "error": job.error,
        "priority": job.priority,
        "params": job.params,
        "requested_at": moment(job.requested_at),
        "started_at": moment(job.started_at),
        "ended_at": moment(job.ended_at),
        "heartbeat_at": moment(job.heartbeat_at),
        "cancel_asked": job.cancel_asked,
        "result": job.result,
    }


def _select() -> Select[Any]:
    market = (markets.c.symbol, markets.c.timeframe)
    return select(jobs, *market).outerjoin(markets, markets.c.id == jobs.c.market_id)


def _job(row: Row[Any]) -> Job:
    values = dict(row._mapping)
    symbol, timeframe = values.pop("symbol"), values.pop("timeframe")
    if symbol is None:  # a market without bars has no row yet, so it is named by the job itself
        symbol, timeframe = (values["params"].get(name) for name in ("symbol", "timeframe"))
    return Job(market=None if symbol is None else Market(symbol, timeframe), **values)


def ask(
    conn: Connection,
    kind: str,
    market_id: int | None,
    params: Mapping[str, Any],
    now: datetime,
    priority: int = 0,
    most: int | None = None,
) -> Job:
    """Queues a job. An equal one that still waits is returned instead, at the more urgent of both priorities.

    Raises QueueFull where `most` jobs that were asked for wait already; scheduled ones are as many as markets are.
    """
    database.alone(conn, database.JOBS_LOCK)
    waiting = conn.scalar(
        select(jobs.c.id)
        .where(
            jobs.c.state == "queued",
            jobs.c.kind == kind,
            jobs.c.market_id == market_id,
            jobs.c.params == dict(params),
        )
        .order_by(jobs.c.id)
        .limit(1)
    )
    if waiting is not None:
        urgent = update(jobs).where(jobs.c.id == waiting, jobs.c.priority > priority)
        conn.execute(urgent.values(priority=priority))
        return get(conn, waiting)
    if most is not None and (wait := _waiting(conn)) >= most:
        raise QueueFull(
            f"{wait} jobs wait already, and at most {most} may (jobs.max_queued): ask again later"
        )
    return get(conn, _insert(conn, kind, market_id, params, now, priority))


def _waiting(conn: Connection) -> int:
    """How many jobs that somebody asked for are queued."""
    asked = select(func.count()).select_from(jobs).where(jobs.c.state == "queued", jobs.c.priority == 0)
    return conn.scalar(asked) or 0


def _insert(
    conn: Connection,
    kind: str,
    market_id: int | None,
    params: Mapping[str, Any],
    now: datetime,
    priority: int,
) -> int:
    statement = jobs.insert().values(
        kind=kind,
        market_id=market_id,
        state="queued",
        priority=priority,
        params=dict(params),
        progress=0.0,
        requested_at=now,
        cancel_asked=False,
    )
    key = conn.execute(statement).inserted_primary_key
    assert key is not None
    return int(key[0])


def claim(engine: Engine, owner: str, now: datetime, lease: timedelta) -> Job | None:
    """Makes the next queued job this owner's, running, until `now + lease`; None where there is nothing to do.

    Asked for goes before scheduled, then older before newer; a job whose market's kind already runs waits.
    """
    same = jobs.alias("same")
    runs = exists().where(
        same.c.state == "running",
        same.c.kind == jobs.c.kind,
        same.c.market_id.is_not_distinct_from(jobs.c.market_id),
    )
    free = (
        select(jobs.c.id).where(jobs.c.state == "queued", ~runs).order_by(jobs.c.priority, jobs.c.id).limit(1)
    )
    with database.read(engine) as conn:  # most looks find nothing, and need not wait for a writer
        if conn.scalar(free) is None:
            return None
    with database.write(engine, lock=database.JOBS_LOCK) as conn:
        while (job_id := conn.scalar(free)) is not None:
            if _take(conn, job_id, owner, now, lease):
                return get(conn, job_id)
    return None


def _take(conn: Connection, job_id: int, owner: str, now: datetime, lease: timedelta) -> bool:
    """Whether the queued job is now this owner's; it is not where it was cancelled meanwhile."""
    queued = update(jobs).where(jobs.c.id == job_id, jobs.c.state == "queued")
    taken = queued.values(
        state="running", owner=owner, started_at=now, heartbeat_at=now, lease_until=now + lease
    )
    return conn.execute(taken).rowcount == 1


def start(
    engine: Engine,
    kind: str,
    market_id: int | None,
    params: Mapping[str, Any],
    owner: str,
    now: datetime,
    lease: timedelta,
) -> Job:
    """Asks for a job and claims it in one, for a command line. Raises Busy where that market's kind runs."""
    with database.write(engine, lock=database.JOBS_LOCK) as conn:
        _reap(conn, now)  # nobody else may be there to do it
        running = conn.execute(
            _select().where(
                jobs.c.state == "running",
                jobs.c.kind == kind,
                jobs.c.market_id == market_id,
            )
        ).one_or_none()
        if running is not None:
            job = _job(running)
            of = "" if job.market is None else f" of {job.market}"
            raise Busy(f"a {kind}{of} runs already: job {job.id}, {job.progress:.0%} done")
        job_id = _insert(conn, kind, market_id, params, now, priority=0)
        _take(conn, job_id, owner, now, lease)
        return get(conn, job_id)


def beat(engine: Engine, job_id: int, owner: str, now: datetime, lease: timedelta, progress: float) -> bool:
    """Renews the lease and keeps the progress. False: stop, since a cancel was asked or the job is not this owner's.

    A lease that ran out while nobody took the job is renewed: a machine that slept goes on where it was.
    """
    with database.write(engine) as conn:
        cancel_asked = conn.scalar(
            update(jobs)
            .where(_held(job_id, owner))
            .values(heartbeat_at=now, lease_until=now + lease, progress=progress)
            .returning(jobs.c.cancel_asked)
        )
    return cancel_asked is False


def _held(job_id: int, owner: str) -> Any:
    return and_(jobs.c.id == job_id, jobs.c.owner == owner, jobs.c.state == "running")


def succeed(conn: Connection, job_id: int, owner: str, now: datetime, result: Mapping[str, Any]) -> None:
    """Ends the job well. Raises Busy where it is no longer this owner's: what the transaction did is then undone."""
    if not _end(conn, job_id, owner, now, state="succeeded", progress=1.0, result=dict(result)):
        raise Busy(f"job {job_id} was taken from its worker, so its result is not kept")


def fail(conn: Connection, job_id: int, owner: str, now: datetime, error: str) -> bool:
    """Ends the job with the reason, in one line; False where it is no longer this owner's."""
    return _end(conn, job_id, owner, now, state="failed", error=error)


def cancelled(conn: Connection, job_id: int, owner: str, now: datetime) -> bool:
    """Ends the job as cancelled; False where it is no longer this owner's."""
    return _end(conn, job_id, owner, now, state="cancelled")


def _end(conn: Connection, job_id: int, owner: str, now: datetime, **values: Any) -> bool:
    ended = update(jobs).where(_held(job_id, owner)).values(ended_at=now, lease_until=None, **values)
    return conn.execute(ended).rowcount == 1


def cancel(conn: Connection, job_id: int, now: datetime) -> Job:
    """Cancels a queued job at once and asks a running one to stop; an ended one stays. Raises NotFound."""
    of_id = update(jobs).where(jobs.c.id == job_id)
    conn.execute(of_id.where(jobs.c.state == "queued").values(state="cancelled", ended_at=now))
    conn.execute(of_id.where(jobs.c.state == "running").values(cancel_asked=True))
    return get(conn, job_id)


def reap(engine: Engine, now: datetime) -> list[int]:
    """Fails the running jobs whose lease ran out, since their worker died; gives their ids."""
    with database.read(engine) as conn:
        if conn.scalar(select(func.count()).select_from(jobs).where(_lapsed(now))) == 0:
            return []
    with database.write(engine) as conn:
        return _reap(conn, now)


def _lapsed(now: datetime) -> Any:
    return and_(jobs.c.state == "running", jobs.c.lease_until < now)


def _reap(conn: Connection, now: datetime) -> list[int]:
    reaped = []
    for row in conn.execute(select(jobs.c.id, jobs.c.heartbeat_at).where(_lapsed(now)).order_by(jobs.c.id)):
        error = f"its worker died: no heartbeat since {iso(row.heartbeat_at)}"
        # asked again in the statement: a heartbeat may have come in between
        ended = update(jobs).where(jobs.c.id == row.id, _lapsed(now))
        if conn.execute(ended.values(state="failed", ended_at=now, lease_until=None, error=error)).rowcount:
            reaped.append(row.id)
    return reaped


def get(conn: Connection, job_id: int) -> Job:
    """That job. Raises NotFound."""
    row = conn.execute(_select().where(jobs.c.id == job_id)).one_or_none()
    if row is None:
        raise NotFound(f"no job {job_id}")
    return _job(row)


def page(
    conn: Connection, market_id: int | None = None, before_id: int | None = None, limit: int = 50
) -> list[Job]:
    """Up to `limit` jobs, newest first, of one market or all; `before_id` continues after a page's last."""
    statement = _select().order_by(jobs.c.id.desc()).limit(limit)
    if market_id is not None:
        statement = statement.where(jobs.c.market_id == market_id)
    if before_id is not None:
        statement = statement.where(jobs.c.id < before_id)
    return [_job(row) for row in conn.execute(statement)]


def last(conn: Connection, market_id: int | None, kind: str) -> Job | None:
    """The newest job of that market's kind, in whatever state."""
    of_kind = _select().where(jobs.c.kind == kind, jobs.c.market_id == market_id)
    row = conn.execute(of_kind.order_by(jobs.c.id.desc()).limit(1)).one_or_none()
    return None if row is None else _job(row)


def last_succeeded(conn: Connection, market_id: int | None, kind: str) -> Job | None:
    """The newest job of that market's kind that ended well."""
    of_kind = _select().where(jobs.c.kind == kind, jobs.c.market_id == market_id, jobs.c.state == "succeeded")
    row = conn.execute(of_kind.order_by(jobs.c.id.desc()).limit(1)).one_or_none()
    return None if row is None else _job(row)
