"""The time that service and worker go by: the machine's, or the row of a demo that replays the past."""

from collections.abc import Callable
from datetime import UTC, datetime

from sqlalchemy import select, update

from model.errors import Unreachable
from store import database
from store.changes import Watch
from store.database import Engine
from store.tables import EPOCH, MICROSECOND, clock

ONLY = 1  # the id of the one row
TOPIC = "clock"  # by which a watch tells that it was set
_SET = select(clock.c.now).where(clock.c.id == ONLY)


def now(engine: Engine) -> datetime:
    """The demo's time where there is one, else the machine's."""
    with database.read(engine) as conn:
        moment = conn.scalar(_SET)
    return datetime.now(UTC) if moment is None else moment


def followed(watch: Watch) -> Callable[[], datetime]:
    """The time as `now` has it, asked of the database again only where something was committed; while that is away, by
    what was known."""
    seen: tuple[object, datetime | None] = None, None

    def told() -> datetime:
        nonlocal seen
        try:
            mark = watch.mark(TOPIC)
            if mark != seen[0]:
                moment = watch.number(f"SELECT now FROM clock WHERE id = {ONLY}")  # noqa: S608
                seen = mark, None if moment is None else EPOCH + moment * MICROSECOND
        except Unreachable:
            if seen[0] is None:
                raise
        return seen[1] or datetime.now(UTC)

    return told


def set(engine: Engine, moment: datetime) -> None:
    """From here on it is `moment` for all who use this database, until it is set again."""
    with database.write(engine, topic=TOPIC) as conn:
        if conn.execute(update(clock).where(clock.c.id == ONLY).values(now=moment)).rowcount == 0:
            conn.execute(clock.insert().values(id=ONLY, now=moment))
