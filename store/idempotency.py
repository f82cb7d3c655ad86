"""Requests that named themselves: who asks the same again within a day is given the first answer, and nothing happens twice.

A name is taken in a transaction before the work begins, and its answer is kept after the work has committed. Whoever
is killed in between leaves a name without an answer, which the next one takes over after a minute: the work may have
been done by then, so it is done once, or, after a kill, perhaps once more. Times are the machine's.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

from sqlalchemy import ColumnElement, Connection, and_, delete, select, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite

from store import database
from store.database import Engine
from store.tables import idempotency_keys as keys

KEPT_FOR = timedelta(hours=24)
# Without an answer for so long, whoever had the name is taken for dead.
ABANDONED_AFTER = timedelta(seconds=60)
# So many old rows go as a new one comes: more than come, and few enough not to be felt.
PRUNED = 20


@dataclass(frozen=True)
class Turn:
    """A name that is this request's own: to be answered, or given back."""

    actor: str
    key: str
    since: datetime


@dataclass(frozen=True)
class Answer:
    """What a request was answered."""

    status: int
    headers: dict[str, str]
    body: bytes


class Refusal(Enum):
    """Why a name cannot be had."""

    OTHER_REQUEST = "it names another request"
    UNDER_WAY = "the first request is under way"


def begin(
    engine: Engine, actor: str, key: str, request_sha256: str, now: datetime
) -> Turn | Answer | Refusal:
    """Takes the name for this request, or gives the answer that it has already."""
    with database.write(engine) as conn:
        found = _begin(conn, Turn(actor, key, now), request_sha256)
        if isinstance(found, Turn):
            _prune(conn, now)
        return found


def keep(engine: Engine, turn: Turn, answer: Answer) -> None:
    """Keeps the answer, unless somebody has taken the name over meanwhile."""
    values = {"status": answer.status, "headers": answer.headers, "body": answer.body}
    with database.write(engine) as conn:
        conn.execute(update(keys).where(_held(turn)).values(values))


def forget(engine: Engine, turn: Turn) -> None:
    """Gives the name back, as nothing came of the request that should be told again."""
    with database.write(engine) as conn:
        conn.execute(delete(keys).where(_held(turn)))


def _begin(conn: Connection, turn: Turn, request_sha256: str) -> Turn | Answer | Refusal:
    named = and_(keys.c.actor == turn.actor, keys.c.key == turn.key)
    mine = {"request_sha256": request_sha256, "created_at": turn.since}
    insert = postgresql.insert if conn.dialect.name == "postgresql" else sqlite.insert
    values = {"actor": turn.actor, "key": turn.key, **mine}
    new = insert(keys).values(values).on_conflict_do_nothing().returning(keys.c.key)
    row = None
    while row is None:  # it may have been given back since the insert saw it
        if conn.scalar(new) is not None:
            return turn
        row = conn.execute(select(keys).where(named).with_for_update()).one_or_none()
    age = turn.since - row.created_at
    if age < KEPT_FOR:
        if row.request_sha256 != request_sha256:
            return Refusal.OTHER_REQUEST
        if row.status is not None:
            return Answer(row.status, row.headers, row.body)
        if age < ABANDONED_AFTER:
            return Refusal.UNDER_WAY
    conn.execute(update(keys).where(named).values(**mine, status=None, headers=None, body=None))
    return turn


def _held(turn: Turn) -> ColumnElement[bool]:
    return and_(
        keys.c.actor == turn.actor,
        keys.c.key == turn.key,
        keys.c.created_at == turn.since,
    )


def _prune(conn: Connection, now: datetime) -> None:
    name = (keys.c.actor, keys.c.key)
    old = select(*name).where(keys.c.created_at <= now - KEPT_FOR).order_by(keys.c.created_at).limit(PRUNED)
    # those that another transaction holds are left to it: two that wait for each other would be a deadlock
    conn.execute(delete(keys).where(tuple_(*name).in_(old.with_for_update(skip_locked=True))))
