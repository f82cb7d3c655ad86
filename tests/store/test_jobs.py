"""Laws of jobs: each is claimed once, a market's kind runs once at a time, and who lost a job cannot end it."""

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from sqlalchemy import delete, update
from sqlalchemy.exc import IntegrityError

import store.database
import store.jobs
from model.bars import Market
from model.errors import Busy, NotFound, QueueFull
from store.database import Engine
from store.jobs import Job
from store.tables import jobs
from tests.store.processes import SPAWN, at_once

NOW = datetime(2024, 7, 1, tzinfo=UTC)
LEASE = timedelta(seconds=30)
A, B = "worker-a", "worker-b"


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def ask(engine: Engine, kind: str, market_id: int | None, priority: int = 0, **params: Any) -> Job:
    with store.database.write(engine) as conn:
        return store.jobs.ask(conn, kind, market_id, params, NOW, priority)


def claim(engine: Engine, owner: str = A, now: datetime = NOW) -> Job:
    job = store.jobs.claim(engine, owner, now, LEASE)
    assert job is not None
    return job


def get(engine: Engine, job_id: int) -> Job:
    with store.database.read(engine) as conn:
        return store.jobs.get(conn, job_id)


def succeed(engine: Engine, job: Job, owner: str = A) -> None:
    with store.database.write(engine) as conn:
        store.jobs.succeed(conn, job.id, owner, after(1), {"ok": True})


def test_a_job_goes_from_queued_to_running_to_succeeded(database: Engine, market_id: int) -> None:
    asked = ask(database, "retrain", market_id, seed=7)
    assert (asked.state, asked.market, asked.params) == ("queued", Market("ETHUSDT", "1h"), {"seed": 7})
    assert (asked.progress, asked.owner, asked.lease_until) == (0.0, None, None)
    running = claim(database)
    assert (running.id, running.state, running.owner) == (asked.id, "running", A)
    assert (running.started_at, running.heartbeat_at, running.lease_until) == (NOW, NOW, NOW + LEASE)
    succeed(database, running)
    ended = get(database, asked.id)
    assert (ended.state, ended.progress, ended.result) == ("succeeded", 1.0, {"ok": True})
    assert (ended.ended_at, ended.lease_until) == (after(1), None)
    assert store.jobs.claim(database, A, NOW, LEASE) is None


def test_asked_for_goes_before_scheduled_and_older_before_newer(database: Engine, market_id: int) -> None:
    scheduled = [ask(database, kind, market_id, priority=1).id for kind in ("k1", "k2")]
    asked = [ask(database, kind, market_id, priority=0).id for kind in ("k3", "k4")]
    assert [claim(database).id for _ in range(4)] == asked + scheduled


def test_a_markets_kind_waits_while_it_runs_and_others_do_not(
    database: Engine, market_id: int, other_market_id: int
) -> None:
    first = ask(database, "retrain", market_id, seed=1)
    second = ask(database, "retrain", market_id, seed=2)
    other_kind = ask(database, "backtest", market_id)
    other_market = ask(database, "retrain", other_market_id)
    for_all = ask(database, "score", None, n=1)
    for_all_again = ask(database, "score", None, n=2)
    assert [claim(database).id for _ in range(4)] == [first.id, other_kind.id, other_market.id, for_all.id]
    assert store.jobs.claim(database, B, NOW, LEASE) is None
    succeed(database, first)
    assert claim(database, B).id == second.id
    succeed(database, for_all)
    assert claim(database, B).id == for_all_again.id


@pytest.mark.parametrize("of_market", [True, False])
def test_the_database_itself_refuses_a_second_run(database: Engine, market_id: int, of_market: bool) -> None:
    target = market_id if of_market else None
    ask(database, "retrain", target, seed=1)
    second = ask(database, "retrain", target, seed=2)
    claim(database)
    with pytest.raises(IntegrityError), store.database.write(database) as conn:
        conn.execute(update(jobs).where(jobs.c.id == second.id).values(state="running"))


def test_asking_twice_is_asking_once_until_it_runs(database: Engine, market_id: int) -> None:
    first = ask(database, "retrain", market_id, priority=1, seed=7, warm=True)
    assert ask(database, "retrain", market_id, priority=1, warm=True, seed=7) == first
    assert ask(database, "retrain", market_id, seed=8).id != first.id
    assert ask(database, "retrain", None, seed=7, warm=True).id != first.id
    urgent = ask(database, "retrain", market_id, priority=0, seed=7, warm=True)
    assert (urgent.id, urgent.priority) == (first.id, 0)
    assert ask(database, "retrain", market_id, priority=1, seed=7, warm=True).priority == 0
    assert claim(database).id == first.id
    assert ask(database, "retrain", market_id, seed=7, warm=True).id != first.id


def test_a_full_queue_takes_what_it_has_already_and_nothing_new(database: Engine, market_id: int) -> None:
    def asked(most: int | None = 2, priority: int = 0, **params: Any) -> Job:
        with store.database.write(database) as conn:
            return store.jobs.ask(conn, "retrain", market_id, params, NOW, priority, most)

    for number in range(5):
        asked(None, 1, seed=100 + number)  # scheduled ones do not count
    first, _ = asked(seed=1), asked(seed=2)
    with pytest.raises(QueueFull, match=r"2 jobs wait already, and at most 2 may \(jobs.max_queued\)"):
        asked(seed=3)
    assert asked(seed=1).id == first.id
    assert asked(None, 1, seed=3).state == "queued"  # nor is scheduled work refused
    assert claim(database).id == first.id
    assert asked(seed=4).state == "queued"  # what runs waits no more


def test_many_who_ask_at_once_do_not_overfill_the_queue(database: Engine, market_id: int) -> None:
    barrier, refused = threading.Barrier(8), list[int]()

    def one(seed: int) -> None:
        barrier.wait()
        try:
            with store.database.write(database) as conn:
                store.jobs.ask(conn, "retrain", market_id, {"seed": seed}, NOW, most=3)
        except QueueFull:
            refused.append(seed)

    threads = [threading.Thread(target=one, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 5
    with store.database.read(database) as conn:
        assert len(store.jobs.page(conn)) == 3


def test_a_job_of_a_market_without_bars_names_it_itself(database: Engine) -> None:
    asked = ask(database, "backfill", None, symbol="NEW", timeframe="1h")
    assert (asked.market, asked.market_id) == (Market("NEW", "1h"), None)
    assert ask(database, "backfill", None, symbol="NEW", timeframe="1h") == asked


def test_a_command_line_starts_at_once_or_is_told_who_is_busy(database: Engine, market_id: int) -> None:
    waiting = ask(database, "retrain", market_id, seed=1)
    mine = store.jobs.start(database, "retrain", market_id, {"seed": 2}, A, NOW, LEASE)
    assert (mine.state, mine.owner, mine.params) == ("running", A, {"seed": 2})
    with pytest.raises(Busy, match=rf"a retrain of ETHUSDT 1h runs already: job {mine.id}, 0% done"):
        store.jobs.start(database, "retrain", market_id, {}, B, NOW, LEASE)
    assert store.jobs.claim(database, B, NOW, LEASE) is None
    succeed(database, mine)
    assert claim(database, B).id == waiting.id


def test_a_command_line_does_not_wait_for_the_dead(database: Engine, market_id: int) -> None:
    dead = store.jobs.start(database, "retrain", market_id, {}, A, NOW, LEASE)
    mine = store.jobs.start(database, "retrain", market_id, {}, B, after(31), LEASE)
    assert mine.owner == B
    assert get(database, dead.id).state == "failed"


def test_a_heartbeat_renews_the_lease_and_keeps_the_progress(database: Engine, market_id: int) -> None:
    job = claim_new(database, market_id)
    assert store.jobs.beat(database, job.id, A, after(20), LEASE, 0.25)
    held = get(database, job.id)
    assert (held.heartbeat_at, held.lease_until, held.progress) == (after(20), after(50), 0.25)
    assert store.jobs.reap(database, after(49)) == []
    assert get(database, job.id) == held


def claim_new(engine: Engine, market_id: int | None) -> Job:
    ask(engine, "retrain", market_id)
    return claim(engine)


def test_a_dead_workers_job_is_failed_once_after_its_lease(database: Engine, market_id: int) -> None:
    job = claim_new(database, market_id)
    assert store.jobs.reap(database, after(30)) == []  # a lease holds through its last moment
    assert store.jobs.reap(database, after(31)) == [job.id]
    assert store.jobs.reap(database, after(32)) == []
    failed = get(database, job.id)
    assert (failed.state, failed.ended_at) == ("failed", after(31))
    assert failed.error == "its worker died: no heartbeat since 2024-07-01T00:00:00Z"


def lose_to_reaping(engine: Engine, job: Job) -> None:
    store.jobs.reap(engine, after(31))


def lose_to_another(engine: Engine, job: Job) -> None:
    with store.database.write(engine) as conn:
        conn.execute(update(jobs).where(jobs.c.id == job.id).values(owner=B))


@pytest.mark.parametrize("lose", [lose_to_reaping, lose_to_another])
def test_who_lost_a_job_cannot_change_it(
    database: Engine, market_id: int, lose: Callable[[Engine, Job], None]
) -> None:
    job = claim_new(database, market_id)
    lose(database, job)
    before = get(database, job.id)
    assert not store.jobs.beat(database, job.id, A, after(32), LEASE, 0.9)
    with store.database.write(database) as conn:
        assert not store.jobs.fail(conn, job.id, A, after(32), "late")
        assert not store.jobs.cancelled(conn, job.id, A, after(32))
    with pytest.raises(Busy, match="was taken from its worker"), store.database.write(database) as conn:
        store.jobs.succeed(conn, job.id, A, after(32), {})
    assert get(database, job.id) == before


def test_a_lost_jobs_work_is_undone_with_its_success(database: Engine, market_id: int) -> None:
    job = claim_new(database, market_id)
    store.jobs.reap(database, after(31))
    with contextlib.suppress(Busy), store.database.write(database) as conn:
        store.jobs.ask(conn, "backtest", market_id, {}, after(32))  # stands for any work of the job's
        store.jobs.succeed(conn, job.id, A, after(32), {})
    with store.database.read(database) as conn:
        assert store.jobs.last(conn, market_id, "backtest") is None


@pytest.mark.parametrize("end", [store.jobs.fail, store.jobs.cancelled])
def test_an_ended_job_stays_as_it_ended(database: Engine, market_id: int, end: Callable[..., bool]) -> None:
    job = claim_new(database, market_id)
    succeed(database, job)
    ended = get(database, job.id)
    with store.database.write(database) as conn:
        assert not end(conn, job.id, A, after(9), *(["no"] if end is store.jobs.fail else []))
        assert store.jobs.cancel(conn, job.id, after(9)) == ended
    assert get(database, job.id) == ended


def test_cancelling_ends_a_queued_job_at_once_and_asks_a_running_one(
    database: Engine, market_id: int
) -> None:
    queued = ask(database, "retrain", market_id)
    with store.database.write(database) as conn:
        gone = store.jobs.cancel(conn, queued.id, after(1))
    assert (gone.state, gone.ended_at, gone.cancel_asked) == ("cancelled", after(1), False)
    assert store.jobs.claim(database, A, NOW, LEASE) is None
    job = claim_new(database, market_id)
    with store.database.write(database) as conn:
        told = store.jobs.cancel(conn, job.id, after(1))
    assert (told.state, told.cancel_asked) == ("running", True)
    assert not store.jobs.beat(database, job.id, A, after(2), LEASE, 0.5)
    with store.database.write(database) as conn:
        assert store.jobs.cancelled(conn, job.id, A, after(3))
    assert get(database, job.id).state == "cancelled"


def test_a_job_that_is_cancelled_while_it_is_claimed_does_not_run(database: Engine, market_id: int) -> None:
    first, second = (ask(database, kind, market_id) for kind in ("retrain", "backtest"))
    claimed: list[Job] = []
    with store.database.write(database) as conn:
        store.jobs.cancel(conn, first.id, NOW)
        claiming = threading.Thread(target=lambda: claimed.append(claim(database)))
        claiming.start()
        claiming.join(0.5)
        assert claimed == []  # it waits for this transaction
    claiming.join()
    assert [job.id for job in claimed] == [second.id]
    assert get(database, first.id).state == "cancelled"


def test_what_is_not_there_is_not_found(database: Engine) -> None:
    with store.database.write(database) as conn:
        with pytest.raises(NotFound, match="no job 99"):
            store.jobs.get(conn, 99)
        with pytest.raises(NotFound, match="no job 99"):
            store.jobs.cancel(conn, 99, NOW)
        assert store.jobs.last(conn, None, "retrain") is None


def test_pages_cover_every_job_once_newest_first(
    database: Engine, market_id: int, other_market_id: int
) -> None:
    ids = [ask(database, "retrain", (market_id, other_market_id)[n % 2], n=n).id for n in range(7)]
    seen: list[int] = []
    with store.database.read(database) as conn:
        while page := store.jobs.page(conn, None, seen[-1] if seen else None, 3):
            seen += [job.id for job in page]
        of_one = [job.id for job in store.jobs.page(conn, market_id)]
        newest = store.jobs.last(conn, market_id, "retrain")
    assert seen == ids[::-1]
    assert of_one == ids[::2][::-1]
    assert newest is not None
    assert newest.id == ids[6]


def test_a_job_as_json(database: Engine, market_id: int) -> None:
    job = claim_new(database, market_id)
    assert store.jobs.document(job) == {
        "id": job.id,
        "kind": "retrain",
        "market": {"symbol": "ETHUSDT", "timeframe": "1h"},
        "state": "running",
        "progress": 0.0,
        "error": None,
        "priority": 0,
        "params": {},
        "requested_at": "2024-07-01T00:00:00Z",
        "started_at": "2024-07-01T00:00:00Z",
        "ended_at": None,
        "heartbeat_at": "2024-07-01T00:00:00Z",
        "cancel_asked": False,
        "result": None,
    }
    assert store.jobs.document(ask(database, "score", None))["market"] is None


# Processes at once: what is claimed, and when it ran, as each process saw it.
Span = tuple[
    int, int | None, str, float, float
]  # job, market, kind, from, until (the machine's monotonic clock)


def test_processes_at_once_claim_every_job_once_and_never_run_a_markets_kind_twice(
    database: Engine, market_id: int, other_market_id: int, url: str, tmp_path: Path
) -> None:
    asked = [
        ask(database, kind, target, n=n).id
        for n in range(10)
        for kind, target in (("retrain", market_id), ("retrain", other_market_id), ("score", None))
    ]
    owners = ("w1", "w2", "w3")
    at_once(_work, *[(url, owner, str(tmp_path / owner)) for owner in owners])
    done: list[Span] = [span for owner in owners for span in json.loads((tmp_path / owner).read_text())]
    assert sorted(job_id for job_id, *_ in done) == asked
    for kind, target in {(kind, target) for _, target, kind, _, _ in done}:
        of_kind = sorted((start, end) for _, t, k, start, end in done if (k, t) == (kind, target))
        assert all(end <= start for (_, end), (start, _) in pairwise(of_kind))
    with store.database.read(database) as conn:
        ended = store.jobs.page(conn, limit=100)
    assert {job.state for job in ended} == {"succeeded"}
    assert all(job.result == {"by": job.owner} for job in ended)


def _work(barrier: Barrier, url: str, owner: str, report: str) -> None:
    engine = store.database.connect(url)
    done: list[Span] = []
    barrier.wait()
    idle = 0
    while idle < 20:
        job = store.jobs.claim(engine, owner, datetime.now(UTC), LEASE)
        if job is None:
            idle += 1
            time.sleep(0.005)
            continue
        idle, began = 0, time.monotonic()
        assert store.jobs.beat(engine, job.id, owner, datetime.now(UTC), LEASE, 0.5)
        until = time.monotonic()
        with store.database.write(engine) as conn:
            store.jobs.succeed(conn, job.id, owner, datetime.now(UTC), {"by": owner})
        done.append((job.id, job.market_id, job.kind, began, until))
    Path(report).write_text(json.dumps(done))


def test_processes_that_ask_for_the_same_at_once_ask_once(database: Engine, market_id: int, url: str) -> None:
    at_once(_ask_many, *[(url, market_id)] * 3)
    with store.database.read(database) as conn:
        numbers = [job.params["n"] for job in store.jobs.page(conn, limit=100)]
    assert sorted(numbers) == list(range(10))


def _ask_many(barrier: Barrier, url: str, market_id: int) -> None:
    engine = store.database.connect(url)
    for number in range(10):
        barrier.wait()
        ask(engine, "retrain", market_id, n=number)


def test_a_worker_that_is_killed_leaves_a_job_that_is_failed_and_the_next_one_runs(
    database: Engine, market_id: int, url: str
) -> None:
    first = ask(database, "retrain", market_id, seed=1)
    second = ask(database, "retrain", market_id, seed=2)
    ours, theirs = SPAWN.Pipe()
    process = SPAWN.Process(target=_claim_and_hold, args=(url, theirs), daemon=True)
    process.start()
    assert ours.poll(60)
    assert ours.recv() == first.id
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)  # while it holds the job, and a transaction that writes
    process.join(60)
    assert get(database, first.id).state == "running"
    assert store.jobs.claim(database, B, after(5), LEASE) is None
    assert store.jobs.reap(database, after(31)) == [first.id]
    assert claim(database, B, after(31)).id == second.id


def _claim_and_hold(url: str, pipe: Connection) -> None:
    engine = store.database.connect(url)
    job = store.jobs.claim(engine, A, NOW, LEASE)
    assert job is not None
    with store.database.write(engine) as conn:
        store.jobs.succeed(conn, job.id, A, NOW, {"never": "committed"})
        pipe.send(job.id)
        time.sleep(600)


class Jobs(RuleBasedStateMachine):
    """Jobs in the database beside the same jobs in a list, told what to do in any order."""

    engine: Engine
    markets: tuple[int | None, ...]

    def __init__(self) -> None:
        super().__init__()
        with store.database.write(self.engine) as conn:
            conn.execute(delete(jobs))
        self.now = NOW
        self.rows: list[dict[str, Any]] = []  # the oracle

    places = st.integers(0, 2)
    kinds = st.sampled_from(["retrain", "backtest"])
    owners = st.sampled_from([A, B])
    picks = st.integers(0, 5)

    def running(self, kind: str, market: int | None) -> list[dict[str, Any]]:
        return [r for r in self.rows if (r["state"], r["kind"], r["market"]) == ("running", kind, market)]

    def pick(self, pick: int) -> dict[str, Any] | None:
        return self.rows[-1 - pick] if pick < len(self.rows) else None

    @rule(seconds=st.sampled_from([1, 20, 31]))
    def time_passes(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @rule(kind=kinds, place=places, seed=st.integers(0, 1), priority=st.integers(0, 1))
    def ask(self, kind: str, place: int, seed: int, priority: int) -> None:
        market, params = self.markets[place], {"seed": seed}
        with store.database.write(self.engine) as conn:
            job = store.jobs.ask(conn, kind, market, params, self.now, priority)
        same = [
            row
            for row in self.rows
            if (row["state"], row["kind"], row["market"], row["params"]) == ("queued", kind, market, params)
        ]
        if same:
            assert job.id == same[0]["id"]
            same[0]["priority"] = min(priority, same[0]["priority"])
        else:
            self.rows.append(
                {"id": job.id, "kind": kind, "market": market, "params": params, "priority": priority}
                | {"state": "queued", "owner": None, "lease": None, "cancel": False}
            )

    @rule(owner=owners)
    def claim(self, owner: str) -> None:
        job = store.jobs.claim(self.engine, owner, self.now, LEASE)
        free = [r for r in self.rows if r["state"] == "queued" and not self.running(r["kind"], r["market"])]
        if not free:
            assert job is None
            return
        first = min(free, key=lambda row: (row["priority"], row["id"]))
        assert job is not None
        assert job.id == first["id"]
        first |= {"state": "running", "owner": owner, "lease": self.now + LEASE}

    @rule(kind=kinds, place=places, owner=owners)
    def start(self, kind: str, place: int, owner: str) -> None:
        market = self.markets[place]
        stuck = self.running(kind, market)
        alive = [row for row in stuck if row["lease"] >= self.now]
        if alive:
            with pytest.raises(Busy):
                store.jobs.start(self.engine, kind, market, {}, owner, self.now, LEASE)
            return
        job = store.jobs.start(self.engine, kind, market, {}, owner, self.now, LEASE)
        self.lapse()
        self.rows.append(
            {"id": job.id, "kind": kind, "market": market, "params": {}, "priority": 0, "state": "running"}
            | {"owner": owner, "lease": self.now + LEASE, "cancel": False}
        )

    def lapse(self) -> list[int]:
        lapsed = [r for r in self.rows if r["state"] == "running" and r["lease"] < self.now]
        for row in lapsed:
            row["state"] = "failed"
        return [row["id"] for row in lapsed]

    @rule()
    def reap(self) -> None:
        assert sorted(store.jobs.reap(self.engine, self.now)) == sorted(self.lapse())

    @rule(pick=picks, owner=owners)
    def beat(self, pick: int, owner: str) -> None:
        row = self.pick(pick)
        if row is None:
            return
        held = row["state"] == "running" and row["owner"] == owner
        goes_on = store.jobs.beat(self.engine, row["id"], owner, self.now, LEASE, 0.5)
        assert goes_on == (held and not row["cancel"])
        if held:
            row["lease"] = self.now + LEASE

    @rule(pick=picks, owner=owners, how=st.sampled_from(["succeeded", "failed", "cancelled"]))
    def end(self, pick: int, owner: str, how: str) -> None:
        row = self.pick(pick)
        if row is None:
            return
        held = row["state"] == "running" and row["owner"] == owner
        try:
            with store.database.write(self.engine) as conn:
                if how == "succeeded":
                    store.jobs.succeed(conn, row["id"], owner, self.now, {})
                    ended = True
                elif how == "failed":
                    ended = store.jobs.fail(conn, row["id"], owner, self.now, "it broke")
                else:
                    ended = store.jobs.cancelled(conn, row["id"], owner, self.now)
        except Busy:
            ended = False
        assert ended == held
        if held:
            row["state"] = how

    @rule(pick=picks)
    def cancel(self, pick: int) -> None:
        row = self.pick(pick)
        if row is None:
            return
        with store.database.write(self.engine) as conn:
            store.jobs.cancel(conn, row["id"], self.now)
        if row["state"] == "queued":
            row["state"] = "cancelled"
        elif row["state"] == "running":
            row["cancel"] = True

    @invariant()
    def the_rows_are_the_list(self) -> None:
        with store.database.read(self.engine) as conn:
            kept = {
                job.id: (job.state, job.owner, job.priority, job.cancel_asked)
                for job in store.jobs.page(conn, limit=1000)
            }
        assert kept == {
            row["id"]: (row["state"], row["owner"], row["priority"], row["cancel"]) for row in self.rows
        }


def test_jobs_behave_like_a_list_of_jobs(database: Engine, market_id: int, other_market_id: int) -> None:
    class OnThisDatabase(Jobs):
        engine = database
        markets = (market_id, other_market_id, None)

    run_state_machine_as_test(
        OnThisDatabase,
        settings=settings(
            max_examples=15, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
