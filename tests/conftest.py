"""Fixtures that every test may use."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import store.database
from store.database import Engine


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """A fresh SQLite database after the real migrations."""
    made = store.database.connect(f"sqlite:///{tmp_path / 'bars.db'}")
    store.database.upgrade(made)
    yield made
    made.dispose()
