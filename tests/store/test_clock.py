"""Laws of the clock: the machine's time, until a demo sets its own for everybody."""

from datetime import UTC, datetime, timedelta, timezone

import store.clock
import store.database
from store.database import Engine


def test_without_a_row_it_is_the_machines_time(database: Engine) -> None:
    before = datetime.now(UTC)
    now = store.clock.now(database)
    assert before <= now <= datetime.now(UTC)
    assert now.tzinfo is UTC


def test_what_was_set_holds_for_everybody_until_it_is_set_again(database: Engine, url: str) -> None:
    other = store.database.connect(url)
    for moment in (datetime(2020, 1, 1, 0, 0, 0, 1, UTC), datetime(2019, 1, 1, tzinfo=UTC)):
        store.clock.set(database, moment)
        assert store.clock.now(database) == store.clock.now(other) == moment
    other.dispose()


def test_any_zone_is_kept_as_the_same_instant(database: Engine) -> None:
    moment = datetime(2024, 7, 1, 9, tzinfo=timezone(timedelta(hours=9)))
    store.clock.set(database, moment)
    assert store.clock.now(database) == datetime(2024, 7, 1, tzinfo=UTC)
