"""Laws of the audit log: a change that is kept has a row, one that is not has none."""

from datetime import UTC, datetime, timedelta

import pytest

import store.audit
import store.bars
import store.database
from model.bars import Market
from model.errors import BadInput
from store import context
from store.audit import Entry
from store.database import Connection, Engine
from tests.service.conftest import CLOSE, walk

NOW = datetime(2024, 7, 1, tzinfo=UTC)
ETH = Market("ETHUSDT", "1h")


def note(engine: Engine, target: str, now: datetime = NOW) -> None:
    with store.database.write(engine) as conn:
        store.audit.note(conn, "loopback", "market.pause", target, {"why": "ünïcødé"}, now)


def entries(engine: Engine, **which: int) -> list[Entry]:
    with store.database.read(engine) as conn:
        return store.audit.page(conn, **which)


def test_changes_come_newest_first_in_pages(database: Engine) -> None:
    for number in range(5):
        note(database, f"market {number}", NOW - timedelta(seconds=number))
    first = entries(database, limit=3)
    rest = entries(database, before_id=first[-1].id)
    assert [entry.target for entry in first + rest] == [f"market {number}" for number in (4, 3, 2, 1, 0)]
    assert store.audit.document(rest[-1]) == {
        "id": rest[-1].id,
        "at": "2024-07-01T00:00:00Z",
        "actor": "loopback",
        "action": "market.pause",
        "target": "market 0",
        "detail": {"why": "ünïcødé"},
        "request_id": None,
    }


def test_a_change_knows_the_request_that_it_was_made_for(database: Engine) -> None:
    worked_for = context.request_id.set("abc")
    note(database, "market 1")
    context.request_id.reset(worked_for)
    assert entries(database)[0].request_id == "abc"


def test_what_is_not_kept_is_not_noted(database: Engine) -> None:
    def change() -> None:
        with store.database.write(database) as conn:
            store.audit.note(conn, "loopback", "market.pause", "ETHUSDT 1h", {}, NOW)
            raise BadInput("no")

    with pytest.raises(BadInput):
        change()
    assert entries(database) == []


def test_bars_are_noted_once_for_each_transaction_that_changes_something(
    database: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def noted(conn: Connection, counts: dict[str, int]) -> None:
        store.audit.note(conn, "loopback", "bars.push", str(ETH), counts, NOW)

    monkeypatch.setattr(store.bars, "CHUNK_ROWS", 60)
    bars = walk(100)
    store.bars.add(database, ETH, bars, CLOSE, noted)
    assert [entry.detail for entry in entries(database)] == [
        {"added": 40, "corrected": 0},
        {"added": 60, "corrected": 0},
    ]
    store.bars.add(database, ETH, bars, CLOSE, noted)
    assert len(entries(database)) == 2
    store.bars.add(database, ETH, bars.with_columns(volume=5.0), CLOSE, noted)
    assert entries(database)[0].detail == {"added": 0, "corrected": 40}
