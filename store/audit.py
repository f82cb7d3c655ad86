"""Who changed what, and when: a row for each change, written in the change's own transaction.

A change that is not kept leaves no row, and one that is kept has one. Times are the machine's, in a replay too.
Add what may be noted by adding it to Action.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Connection, select

from model.bars import iso
from store import context
from store.tables import audit

Action = Literal[
    "key.create",
    "key.rotate",
    "key.revoke",
    "version.promote",
    "version.rollback",
    "market.pause",
    "market.resume",
    "schedule.set",
    "job.ask",
    "job.cancel",
    "bars.push",
]

# Actors that are no key, whose prefix stands for it.
LOOPBACK = "loopback"
COMMAND_LINE = "command line"


# built once, since a pushed bar waits for it; nobody asks for the new row's id
_INSERT = audit.insert().inline()


@dataclass(frozen=True)
class Entry:
    """One change."""

    id: int
    at: datetime
    actor: str  # a key's prefix, LOOPBACK or COMMAND_LINE
    action: Action
    target: str  # what was changed, as its noun is named: "ETHUSDT 1h", "version 7"
    detail: dict[str, Any]
    request_id: str | None  # None: not by a request


def note(
    conn: Connection,
    actor: str,
    action: Action,
    target: str,
    detail: Mapping[str, Any],
    now: datetime,
) -> None:
    """Writes the row of a change that this transaction makes, for the request that this thread works for, if any."""
    row = {
        "at": now,
        "actor": actor,
        "action": action,
        "target": target,
        "detail": dict(detail),
        "request_id": context.request_id.get(),
    }
    conn.execute(_INSERT, row)


def page(conn: Connection, before_id: int | None = None, limit: int = 50) -> list[Entry]:
    """Up to `limit` changes, newest first; `before_id` continues after a page's last."""
    statement = select(audit).order_by(audit.c.id.desc()).limit(limit)
    if before_id is not None:
        statement = statement.where(audit.c.id < before_id)
    return [Entry(**row._mapping) for row in conn.execute(statement)]


def document(entry: Entry) -> dict[str, Any]:
    """The change as JSON has it, the same from a command and from a route."""
    return {
        "id": entry.id,
        "at": iso(entry.at),
        "actor": entry.actor,
        "action": entry.action,
        "target": entry.target,
        "detail": entry.detail,
        "request_id": entry.request_id,
    }
