"""The command line in this process, and a database in which every command finds something."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import service.cli
import store.database
from store.database import Engine
from tests.model import markets

BARS = 1_500


@dataclass(frozen=True)
class Ran:
    """What came of a command line."""

    code: int
    out: str
    err: str


Barprop = Callable[..., Ran]


@pytest.fixture
def barprop(capsys: pytest.CaptureFixture[str]) -> Barprop:
    """Runs a command line as `barprop` would."""

    def run(*arguments: object) -> Ran:
        capsys.readouterr()
        code = service.cli.run([str(argument) for argument in arguments])
        return Ran(code, *capsys.readouterr())

    return run


def hourly_file(folder: Path, name: str, count: int = BARS, seed: int = 0) -> Path:
    """A file of made-up hourly bars, the last of which closed within this hour."""
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    bars = markets.bars(count, seed, start=now - count * timedelta(hours=1))
    file = folder / f"{name}.parquet"
    bars.write_parquet(file)
    return file


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """A new database that commands use, still without a table."""
    yield from _database(tmp_path / "bars.db", monkeypatch)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """A database with a market that was trained twice and backtested, a key, and a further market without bars enough."""
    folder = tmp_path_factory.mktemp("filled")
    with pytest.MonkeyPatch.context() as monkeypatch:
        for engine in _database(folder / "bars.db", monkeypatch):
            for line in (
                ["ingest", hourly_file(folder, "LIVE"), "LIVE", "1h"],
                ["ingest", hourly_file(folder, "FEW", 20), "FEW", "1h"],
                ["train", "LIVE", "1h"],
                ["train", "LIVE", "1h", "--seed", "1"],
                ["backtest", "LIVE", "1h", "--window", "600", "--refit-every", "300", "--last", "300"],
                ["keys", "create", "somebody"],
                ["keys", "create", "somebody-else"],
            ):
                assert service.cli.run([str(word) for word in line]) == 0
            yield engine


def _database(file: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    url = f"sqlite:///{file}"
    monkeypatch.setenv("BARPROP_DATABASE__URL", url)
    engine = store.database.connect(url)
    yield engine
    engine.dispose()
