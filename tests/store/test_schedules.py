"""Laws of schedules: every database has its defaults, and a kind has one row."""

from datetime import UTC, datetime

import pytest

import store.database
import store.schedules
from model.errors import BadInput
from store.database import Engine
from store.schedules import Schedule

NOW = datetime(2024, 7, 1, tzinfo=UTC)


def test_a_fresh_database_has_the_defaults(database: Engine) -> None:
    with store.database.read(database) as conn:
        assert store.schedules.all(conn) == [
            Schedule(1, "score", "every 2s", {}, True),
            Schedule(2, "ingest", "every 10s", {}, True),
            Schedule(3, "retrain", "every 30s", {"min_new_bars": 100}, True),
            Schedule(4, "backtest", "every 300s", {"last": 5000, "min_new_bars": 1000}, True),
            Schedule(5, "fetch", "every 10s", {}, True),
        ]


def test_setting_changes_that_kinds_row_and_no_other(database: Engine) -> None:
    with store.database.write(database) as conn:
        before = store.schedules.all(conn)
        changed = store.schedules.set(conn, "retrain", "0 * * * *", {"min_new_bars": 1}, False, NOW)
        assert changed == Schedule(3, "retrain", "0 * * * *", {"min_new_bars": 1}, False)
        assert store.schedules.all(conn) == [*before[:2], changed, *before[3:]]


def test_a_new_kind_gets_a_row(database: Engine) -> None:
    with store.database.write(database) as conn:
        before = store.schedules.all(conn)
        added = store.schedules.set(conn, "drift", "every 60s", {}, True, NOW)
        assert store.schedules.all(conn) == [*before, added]


@pytest.mark.parametrize("trigger", ["", "0 " * 40])
def test_a_trigger_that_cannot_be_kept_is_refused(database: Engine, trigger: str) -> None:
    with store.database.write(database) as conn, pytest.raises(BadInput, match="a trigger has"):
        store.schedules.set(conn, "retrain", trigger, {}, True, NOW)
