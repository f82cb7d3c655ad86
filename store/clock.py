"""The time that service and worker go by: the machine's, or the row of a demo that replays the past."""

from datetime import UTC, datetime

from sqlalchemy import select, update

from store import database
from store.database import Engine
from store.tables import clock

ONLY = 1  # the id of the one row


def now(engine: Engine) -> datetime:
    """The demo's time where there is one, else the machine's."""
    with database.read(engine) as conn:
        moment = conn.scalar(select(clock.c.now).where(clock.c.id == ONLY))
    return datetime.now(UTC) if moment is None else moment


def set(engine: Engine, moment: datetime) -> None:
    """From here on it is `moment` for all who use this database, until it is set again."""
    with database.write(engine) as conn:
        if conn.execute(update(clock).where(clock.c.id == ONLY).values(now=moment)).rowcount == 0:
            conn.execute(clock.insert().values(id=ONLY, now=moment))
