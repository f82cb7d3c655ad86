"""Fixtures that every test may use, no settings but a test's own, and one rule: where BARPROP_CI is set, a skipped test is a failed one."""

import os
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

import store.database
from store.database import Engine
from tests import postgres as real_postgres

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)


# What is meant for the tests themselves, not for the program.
OURS = {"BARPROP_ADAPTERS", "BARPROP_CI", "BARPROP_REAL_BARS"}


def pytest_configure(config: pytest.Config) -> None:
    """Tests, and the processes that they start, see the defaults, whatever this machine's user has set.

    From here on, since test modules read settings while they are collected, before any fixture.
    """
    monkeypatch = pytest.MonkeyPatch()
    config.add_cleanup(monkeypatch.undo)
    for name in [name for name in os.environ if name.startswith("BARPROP_") and name not in OURS]:
        monkeypatch.delenv(name)
    empty = tempfile.NamedTemporaryFile(prefix="barprop-", suffix=".toml")  # noqa: SIM115  lives as long as the tests
    config.add_cleanup(empty.close)
    monkeypatch.setenv("BARPROP_CONFIG", empty.name)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """A fresh SQLite database after the real migrations."""
    made = store.database.connect(f"sqlite:///{tmp_path / 'bars.db'}")
    store.database.upgrade(made)
    yield made
    made.dispose()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a PostgreSQL server that runs for the whole session."""
    with real_postgres.server() as url:
        yield url


@pytest.fixture
def postgres(postgres_server: str) -> Iterator[str]:
    """The URL of an empty PostgreSQL database."""
    with real_postgres.fresh(postgres_server) as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, once of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'bars.db'}"
    return str(request.getfixturevalue("postgres"))


@pytest.fixture
def database(url: str) -> Iterator[Engine]:
    """A database after the real migrations, once of each kind: a law holds on both, or it is none."""
    engine = store.database.connect(url)
    store.database.upgrade(engine)
    yield engine
    engine.dispose()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that skips: its browser, Prometheus, PyTorch, PostgreSQL or real bars are missing."""
    return _nothing_skipped((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """A module that skips as a whole."""
    return _nothing_skipped((yield))


def _nothing_skipped(report: Report) -> Report:
    expected_failure = hasattr(report, "wasxfail")
    if report.skipped and not expected_failure and os.environ.get("BARPROP_CI"):
        report.outcome = "failed"
        report.longrepr = f"skipped where nothing may be: {report.longrepr}"
    return report
