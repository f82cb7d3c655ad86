"""Signs of life of the workers, by which others know whether anybody does what happens by itself."""

from datetime import datetime, timedelta

from sqlalchemy import Connection, delete, func, select, update

from store.tables import workers

# One that ended without a word is forgotten after so long.
FORGOTTEN_AFTER = timedelta(days=1)


def beat(conn: Connection, owner: str, now: datetime) -> None:
    """Notes that a worker lives."""
    if conn.execute(update(workers).where(workers.c.owner == owner).values(seen_at=now)).rowcount == 0:
        conn.execute(delete(workers).where(workers.c.seen_at < now - FORGOTTEN_AFTER))
        conn.execute(workers.insert().values(owner=owner, seen_at=now))


def leave(conn: Connection, owner: str) -> None:
    """Forgets a worker that ends."""
    conn.execute(delete(workers).where(workers.c.owner == owner))


def seen(conn: Connection) -> datetime | None:
    """When a worker was last seen alive; None where there is none."""
    newest: datetime | None = conn.scalar(select(func.max(workers.c.seen_at)))
    return newest
