"""Laws of the schema: what the migrations make is what store.tables says, on both databases."""

import contextlib
import re
from collections.abc import Iterator
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
import sqlalchemy
from alembic import command

import store.database
from store.database import Engine
from store.tables import metadata
from tests.store.processes import at_once


@pytest.fixture
def bare(url: str) -> Iterator[Engine]:
    """An empty database, once of each kind."""
    engine = store.database.connect(url)
    yield engine
    engine.dispose()


def test_the_migrations_make_exactly_the_tables_of_the_program(database: Engine) -> None:
    with store.database.write(database) as connection:
        command.check(store.database.alembic_config(connection))  # raises where they differ


def test_every_table_is_made(database: Engine) -> None:
    names = set(sqlalchemy.inspect(database).get_table_names())
    assert names == {*metadata.tables, "alembic_version"}


def test_every_constraint_and_index_has_its_name_by_the_convention(database: Engine) -> None:
    inspector = sqlalchemy.inspect(database)
    for table in metadata.sorted_tables:
        # SQLite forgets the name of a key that is one AUTOINCREMENT column
        assert inspector.get_pk_constraint(table.name)["name"] in (f"pk_{table.name}", None)
        assert {key["name"] for key in inspector.get_foreign_keys(table.name)} == {
            key.name for key in table.foreign_key_constraints
        }
        expected = {index.name for index in table.indexes}
        made = {
            index["name"]
            for index in inspector.get_indexes(table.name)
            if "duplicates_constraint" not in index
        }
        assert made == expected


def test_what_alembic_does_not_compare_is_the_same_too(database: Engine, url: str, tmp_path: Path) -> None:
    """WITHOUT ROWID, AUTOINCREMENT and the conditions of indexes: as if the tables were made without migrations."""
    migrated = definitions(database)
    if url.startswith("sqlite"):
        made = store.database.connect(f"sqlite:///{tmp_path / 'made.db'}")
    else:
        made = database
        with store.database.write(made) as connection:
            metadata.drop_all(connection)
    with store.database.write(made) as connection:
        metadata.create_all(connection)
    assert definitions(made) == migrated


def definitions(engine: Engine) -> dict[str, list[str]]:
    """How the database itself spells its tables (SQLite) and indexes (both), by name, clauses in any order."""
    spelled = {
        "sqlite": "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL",
        "postgresql": "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'",
    }
    with store.database.read(engine) as connection:
        rows = connection.execute(sqlalchemy.text(spelled[engine.dialect.name])).all()
    clauses = {
        name: re.split(r",\s+|[\n\t]+", sql.replace('"', "")) for name, sql in rows if "alembic" not in name
    }
    return {name: sorted(filter(None, map(str.strip, found))) for name, found in clauses.items()}


def test_upgrading_twice_is_upgrading_once(bare: Engine) -> None:
    assert not store.database.at_head(bare)
    store.database.upgrade(bare)
    with store.database.read(bare) as connection:
        first = connection.execute(sqlalchemy.text("SELECT * FROM schedules ORDER BY id")).all()
    store.database.upgrade(bare)
    assert store.database.at_head(bare)
    with store.database.read(bare) as connection:
        assert connection.execute(sqlalchemy.text("SELECT * FROM schedules ORDER BY id")).all() == first


def test_an_upgrade_that_is_cut_off_leaves_nothing(bare: Engine) -> None:
    with contextlib.suppress(InterruptedError), store.database.write(bare) as connection:
        command.upgrade(store.database.alembic_config(connection), "head")
        raise InterruptedError("the power went")
    assert sqlalchemy.inspect(bare).get_table_names() == []


def test_going_down_leaves_nothing_and_up_again_works(database: Engine) -> None:
    with store.database.write(database) as connection:
        command.downgrade(store.database.alembic_config(connection), "base")
    assert sqlalchemy.inspect(database).get_table_names() == ["alembic_version"]
    store.database.upgrade(database)
    assert store.database.at_head(database)


def test_health_of_before_the_further_figures_stays_and_lacks_them(bare: Engine) -> None:
    """A later revision adds columns to a table that has rows; going back takes them, and no row, away."""
    config = store.database.alembic_config
    rows = (
        "INSERT INTO markets VALUES (1, 'ETHUSDT', '1h', false, 0, 0)",
        "INSERT INTO jobs (id, kind, state, priority, params, progress, requested_at, cancel_asked)"
        " VALUES (1, 'retrain', 'succeeded', 0, '{}', 1, 0, false)",
        "INSERT INTO training_runs VALUES (1, 1, 1, NULL, 'rejected', '', 0, 0, 0, '{}', '[]', 'healthy')",
        "INSERT INTO gradient_health VALUES (1, 1, 0, 'hidden 1', 0.5, 0.001, 0.25, 0, 0, 'healthy')",
    )
    with store.database.write(bare) as connection:
        command.upgrade(config(connection), "0001")
        for row in rows:
            connection.execute(sqlalchemy.text(row))
    store.database.upgrade(bare)
    table = metadata.tables["gradient_health"]
    with store.database.write(bare) as connection:
        (kept,) = connection.execute(table.select()).mappings()
        assert (kept["name"], kept["gradient_norm"], kept["verdict"]) == ("hidden 1", 0.5, "healthy")
        assert (kept["largest"], kept["cosine"], kept["noise_scale"]) == (None, None, None)
        command.downgrade(config(connection), "0001")
        (kept,) = connection.execute(sqlalchemy.text("SELECT * FROM gradient_health")).mappings()
        assert "cosine" not in kept
        assert kept["update_ratio"] == 0.001


def test_alembic_by_itself_works_on_the_database_of_the_settings(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BARPROP_DATABASE__URL", url)
    command.upgrade(store.database.alembic_config(), "head")
    engine = store.database.connect(url)
    assert store.database.at_head(engine)
    engine.dispose()


def test_processes_that_upgrade_at_once_all_succeed(url: str) -> None:
    at_once(_upgrade, (url,), (url,), (url,))
    engine = store.database.connect(url)
    assert store.database.at_head(engine)
    engine.dispose()


def _upgrade(barrier: Barrier, url: str) -> None:
    engine = store.database.connect(url)
    barrier.wait()
    store.database.upgrade(engine)
    assert store.database.at_head(engine)
