"""When which kind of work is asked for. Every database starts with the rows that its first migration wrote."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, select, update

from model.errors import BadInput
from store.tables import schedules

LONGEST_TRIGGER = 64


@dataclass(frozen=True)
class Schedule:
    """One kind of work and what sets it off: `every Ns`, or a cron line of five fields in UTC."""

    id: int
    kind: str
    trigger: str
    params: dict[str, Any]
    enabled: bool


def all(conn: Connection) -> list[Schedule]:
    """Every schedule, by id."""
    columns = (
        schedules.c.id,
        schedules.c.kind,
        schedules.c.trigger,
        schedules.c.params,
        schedules.c.enabled,
    )
    return [Schedule(*row) for row in conn.execute(select(*columns).order_by(schedules.c.id))]


def set(
    conn: Connection, kind: str, trigger: str, params: Mapping[str, Any], enabled: bool, now: datetime
) -> Schedule:
    """Sets that kind's one schedule. What a trigger means is judged where it is followed. Raises BadInput."""
    if not 0 < len(trigger) <= LONGEST_TRIGGER:
        raise BadInput(f"a trigger has 1 to {LONGEST_TRIGGER} characters: 'every 30s' or '0 * * * *'")
    values = {
        "trigger": trigger,
        "params": dict(params),
        "enabled": enabled,
        "updated_at": now,
        "due_at": None,
    }
    if conn.execute(update(schedules).where(schedules.c.kind == kind).values(values)).rowcount == 0:
        conn.execute(schedules.insert().values(kind=kind, **values))
    return next(schedule for schedule in all(conn) if schedule.kind == kind)


def note_due(conn: Connection, due: Mapping[str, datetime]) -> None:
    """Notes when each kind is to fire next."""
    if due:
        statement = (
            update(schedules).where(schedules.c.kind == bindparam("fired")).values(due_at=bindparam("at"))
        )
        conn.execute(statement, [{"fired": kind, "at": at} for kind, at in due.items()])


def overdue(conn: Connection, before: datetime) -> dict[str, datetime]:
    """The kinds that should have fired before that moment and did not, or failed; each with when it should have."""
    late = select(schedules.c.kind, schedules.c.due_at).where(
        schedules.c.enabled, schedules.c.due_at < before
    )
    return dict(conn.execute(late.order_by(schedules.c.id)).all())
