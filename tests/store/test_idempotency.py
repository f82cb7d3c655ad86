"""Laws of named requests: one of many has the turn, its answer is given to all others, and a dead one blocks nobody for long."""

import os
import threading
from datetime import UTC, datetime, timedelta
from multiprocessing.synchronize import Barrier

import pytest
from sqlalchemy import func, select

import store.database
import store.idempotency
from store.database import Engine
from store.idempotency import ABANDONED_AFTER, KEPT_FOR, PRUNED, Answer, Refusal, Turn
from store.tables import idempotency_keys
from tests.store.processes import SPAWN, at_once

NOW = datetime(2024, 7, 1, tzinfo=UTC)
SHA, OTHER = "a" * 64, "b" * 64
ANSWER = Answer(202, {"content-type": "application/json", "location": "/v1/jobs/1"}, b'{"id": 1}')
MOMENT = timedelta(microseconds=1)


def begin(
    engine: Engine, now: datetime = NOW, key: str = "k", sha: str = SHA, actor: str = "loopback"
) -> Turn | Answer | Refusal:
    return store.idempotency.begin(engine, actor, key, sha, now)


def turn(engine: Engine, now: datetime = NOW, key: str = "k", sha: str = SHA) -> Turn:
    found = begin(engine, now, key, sha)
    assert isinstance(found, Turn)
    return found


def count(engine: Engine) -> int:
    with store.database.read(engine) as conn:
        return conn.scalar(select(func.count()).select_from(idempotency_keys)) or 0


def test_the_first_has_the_turn_and_who_comes_after_gets_its_answer(database: Engine) -> None:
    mine = turn(database)
    assert begin(database, NOW + MOMENT) is Refusal.UNDER_WAY
    store.idempotency.keep(database, mine, ANSWER)
    assert begin(database, NOW + KEPT_FOR - MOMENT) == ANSWER


@pytest.mark.parametrize("answered", [True, False])
def test_a_name_is_of_one_request_alone(database: Engine, answered: bool) -> None:
    mine = turn(database)
    if answered:
        store.idempotency.keep(database, mine, ANSWER)
    assert begin(database, NOW + 2 * ABANDONED_AFTER, sha=OTHER) is Refusal.OTHER_REQUEST


def test_each_actor_has_names_of_its_own(database: Engine) -> None:
    store.idempotency.keep(database, turn(database), ANSWER)
    assert isinstance(begin(database, actor="bp_other", sha=OTHER), Turn)


def test_a_name_that_was_given_back_is_free(database: Engine) -> None:
    store.idempotency.forget(database, turn(database))
    assert isinstance(begin(database, sha=OTHER), Turn)


def test_who_died_is_taken_over_from_and_cannot_answer_any_more(database: Engine) -> None:
    dead = turn(database)
    assert begin(database, NOW + ABANDONED_AFTER - MOMENT) is Refusal.UNDER_WAY
    heir = turn(database, NOW + ABANDONED_AFTER)
    assert begin(database, NOW + ABANDONED_AFTER) is Refusal.UNDER_WAY  # one heir
    store.idempotency.keep(database, dead, Answer(500, {}, b"late"))
    store.idempotency.forget(database, dead)
    assert begin(database, NOW + ABANDONED_AFTER) is Refusal.UNDER_WAY
    store.idempotency.keep(database, heir, ANSWER)
    store.idempotency.forget(database, dead)
    assert begin(database, NOW + ABANDONED_AFTER) == ANSWER


@pytest.mark.parametrize("sha", [SHA, OTHER])
def test_after_a_day_a_name_is_free_again(database: Engine, sha: str) -> None:
    store.idempotency.keep(database, turn(database), ANSWER)
    again = turn(database, NOW + KEPT_FOR, sha=sha)
    assert begin(database, NOW + KEPT_FOR, sha=sha) is Refusal.UNDER_WAY
    store.idempotency.keep(database, again, ANSWER)
    assert begin(database, NOW + KEPT_FOR, sha=sha) == ANSWER


def test_old_rows_go_as_new_ones_come_a_few_at_a_time(database: Engine) -> None:
    for number in range(PRUNED + 5):
        turn(database, key=f"old {number}")
    later = NOW + KEPT_FOR
    turn(database, later - MOMENT, key="younger")
    assert count(database) == PRUNED + 6  # not one is a day old
    turn(database, later, key="new")
    assert count(database) == 5 + 2
    turn(database, later, key="newer")
    assert count(database) == 3


def test_of_many_threads_one_has_the_turn(database: Engine) -> None:
    found: list[object] = []
    barrier = threading.Barrier(8)

    def ask() -> None:
        barrier.wait()
        found.append(begin(database))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(isinstance(one, Turn) for one in found) == 1
    assert found.count(Refusal.UNDER_WAY) == 7


TURNS = 40


def _race(barrier: Barrier, url: str) -> None:
    """Takes what turns it can of names that others want too, and answers each by its own number."""
    engine = store.database.connect(url)
    begin(engine, key="warm up")
    barrier.wait()
    for number in range(TURNS):
        found = begin(engine, key=f"race {number}")
        if isinstance(found, Turn):
            store.idempotency.keep(engine, found, Answer(200, {}, str(os.getpid()).encode()))
            with store.database.write(engine) as conn:  # the work, which a second one would do again
                conn.exec_driver_sql("INSERT INTO done (number) VALUES (%d)" % number)  # noqa: UP031


def test_of_many_processes_one_has_the_turn(database: Engine, url: str) -> None:
    with store.database.write(database) as conn:
        conn.exec_driver_sql("CREATE TABLE done (number INTEGER)")
    at_once(_race, (url,), (url,), (url,))
    with store.database.read(database) as conn:
        done = [row[0] for row in conn.exec_driver_sql("SELECT number FROM done ORDER BY number")]
    assert done == list(range(TURNS))
    assert all(isinstance(begin(database, key=f"race {number}"), Answer) for number in range(TURNS))


def _die(url: str) -> None:
    begin(store.database.connect(url))
    os.kill(os.getpid(), 9)


def test_a_process_that_was_killed_leaves_its_turn_to_the_next(database: Engine, url: str) -> None:
    process = SPAWN.Process(target=_die, args=(url,))
    process.start()
    process.join(60)
    assert process.exitcode == -9
    assert begin(database, NOW + MOMENT) is Refusal.UNDER_WAY
    assert isinstance(begin(database, NOW + ABANDONED_AFTER), Turn)
