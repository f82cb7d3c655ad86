"""Laws of the database: what a transaction keeps, who waits for whom, and what a user is told when it cannot serve."""

import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError

import store.database
from model.errors import BadInput, Unreachable
from store.database import Engine
from tests.store.processes import at_once


def put(engine: Engine, symbol: str) -> None:
    with store.database.write(engine) as connection:
        connection.execute(
            text(
                "INSERT INTO markets (symbol, timeframe, paused, bars, created_at) VALUES (:symbol, '1h', false, 0, 0)"
            ),
            {"symbol": symbol},
        )


def symbols(engine: Engine) -> list[str]:
    with store.database.read(engine) as connection:
        return list(connection.scalars(text("SELECT symbol FROM markets ORDER BY id")))


def test_what_was_left_without_error_is_kept_and_the_rest_is_not(database: Engine) -> None:
    put(database, "A")
    with pytest.raises(IntegrityError):
        put(database, "A")
    assert symbols(database) == ["A"]


def test_a_reader_sees_one_moment(database: Engine) -> None:
    put(database, "A")
    count = text("SELECT count(*) FROM markets")
    with store.database.read(database) as connection:
        assert connection.scalar(count) == 1
        put(database, "B")
        assert connection.scalar(count) == 1
    assert symbols(database) == ["A", "B"]


def test_a_reader_may_not_write(database: Engine) -> None:
    with pytest.raises((Unreachable, DBAPIError)), store.database.read(database) as connection:
        connection.execute(text("DELETE FROM markets"))
    put(database, "A")  # and the connection is good for writing afterwards
    assert symbols(database) == ["A"]


def test_a_row_without_its_market_is_refused(database: Engine) -> None:
    with pytest.raises(IntegrityError), store.database.write(database) as connection:
        connection.execute(text("INSERT INTO bars VALUES (99, 0, 0, 1, 1, 1, 1, 1, 0)"))


def test_an_id_is_never_given_twice(database: Engine) -> None:
    put(database, "A")
    with store.database.write(database) as connection:
        first = connection.scalar(text("SELECT id FROM markets"))
        connection.execute(text("DELETE FROM markets"))
    put(database, "A")
    with store.database.read(database) as connection:
        assert connection.scalar(text("SELECT id FROM markets")) != first


def test_sqlite_is_set_up_to_lose_nothing(engine: Engine) -> None:
    with store.database.read(engine) as connection:
        settings = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "foreign_keys", "busy_timeout", "synchronous")
        }
    assert settings == {"journal_mode": "wal", "foreign_keys": 1, "busy_timeout": 30_000, "synchronous": 2}


def test_a_writer_holds_the_write_lock_from_its_beginning(engine: Engine) -> None:
    with (
        store.database.write(engine),
        closing(sqlite3.connect(engine.url.database or "", timeout=0)) as other,
        pytest.raises(sqlite3.OperationalError, match="locked"),
    ):
        other.execute("BEGIN IMMEDIATE")


def test_a_second_writer_waits_for_the_first_even_when_it_read_before(engine: Engine) -> None:
    """A deferred transaction would fail at once here: what it read is no longer the newest."""
    inside, order = threading.Event(), []

    def first() -> None:
        with store.database.write(engine) as connection:
            inside.set()
            time.sleep(0.3)
            connection.execute(text("UPDATE schedules SET enabled = false"))
        order.append("first")

    slow = threading.Thread(target=first)
    slow.start()
    inside.wait()
    with store.database.write(engine) as connection:
        order.append("second")
        assert not any(connection.scalars(text("SELECT enabled FROM schedules")))
        connection.execute(text("UPDATE schedules SET enabled = true"))
    slow.join()
    assert order == ["first", "second"]


def test_processes_that_open_a_fresh_sqlite_file_at_once_all_succeed(tmp_path: Path) -> None:
    at_once(_open_many, *[(str(tmp_path),)] * 3)


def _open_many(barrier: Barrier, folder: str) -> None:
    for number in range(50):
        engine = store.database.connect(f"sqlite:///{folder}/{number}.db")
        barrier.wait()
        with store.database.read(engine):
            pass
        engine.dispose()


def test_a_fresh_sqlite_is_made_ready_and_a_fresh_postgresql_is_refused(url: str) -> None:
    engine = store.database.connect(url)
    if url.startswith("sqlite"):
        store.database.prepare(engine)
        assert store.database.at_head(engine)
    else:
        with pytest.raises(Unreachable, match="run `barprop db upgrade`"):
            store.database.prepare(engine)
        assert not store.database.at_head(engine)
    engine.dispose()


def test_a_schema_from_a_newer_program_is_refused(database: Engine) -> None:
    with store.database.write(database) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    assert not store.database.at_head(database)
    with pytest.raises(Unreachable, match="a newer one"):
        store.database.upgrade(database)


def no_tables(folder: Path) -> str:
    return f"sqlite:///{folder / 'empty.db'}"


def not_a_database(folder: Path) -> str:
    (folder / "notes.txt").write_text("these are notes and no database, " * 100)
    return f"sqlite:///{folder / 'notes.txt'}"


def a_folder(folder: Path) -> str:
    return f"sqlite:///{folder}"


def no_folder_can_be_made(folder: Path) -> str:
    (folder / "file").touch()
    return f"sqlite:///{folder / 'file' / 'below' / 'bars.db'}"


def may_only_be_read(folder: Path) -> str:
    url = f"sqlite:///{folder / 'bars.db'}"
    engine = store.database.connect(url)
    store.database.upgrade(engine)
    engine.dispose()
    return f"sqlite:///file:{folder / 'bars.db'}?mode=ro&uri=true"


def nobody_listens(folder: Path) -> str:
    return "postgresql://user:hunter2@127.0.0.1:1/bars?password=hunter3"


TROUBLES: dict[Callable[[Path], str], str] = {
    no_tables: "has no tables yet",
    not_a_database: "is not a SQLite file",
    a_folder: "cannot be opened",
    no_folder_can_be_made: "cannot make the folder of the database",
    may_only_be_read: "may only be read",
    nobody_listens: "does not answer: ",
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_database_that_cannot_serve_says_why_in_one_line(
    trouble: Callable[[Path], str], tmp_path: Path
) -> None:
    url = trouble(tmp_path)
    with pytest.raises(Unreachable) as caught:
        put(store.database.connect(url), "A")
    assert TROUBLES[trouble] in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "hunter" not in str(caught.value)


def test_a_postgresql_without_tables_says_so(postgres: str) -> None:
    engine = store.database.connect(postgres)
    with pytest.raises(Unreachable, match="has no tables yet"):
        symbols(engine)
    engine.dispose()


def test_a_postgresql_without_that_database_says_so(postgres_server: str) -> None:
    engine = store.database.connect(postgres_server.replace("/postgres?", "/nosuch?"))
    with pytest.raises(Unreachable, match='database "nosuch" does not exist'):
        symbols(engine)


def test_a_connection_that_the_server_closed_is_replaced(postgres: str) -> None:
    engine = store.database.connect(postgres)
    store.database.upgrade(engine)
    other = store.database.connect(postgres)
    with store.database.write(other) as connection:
        connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )
    assert symbols(engine) == []
    engine.dispose()
    other.dispose()


@pytest.mark.parametrize(
    "url",
    ["hunter2", "postgresql:/u:hunter2@h/d", "postgresql://u:hunter2@h:port/d", "mysql://u:hunter2@h/d", ""],
)
def test_an_address_that_is_none_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(BadInput) as caught:
        store.database.connect(url)
    assert "sqlite:///FILE or postgresql://" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_an_address_is_shown_without_its_password_and_options() -> None:
    assert store.database.shown("postgresql://u:hunter2@h/d?password=hunter3") == "postgresql://u:***@h/d"
