"""The adapters against the real packages, each in a virtual environment of its own, since their pins clash with ours.

Made where CI runs; elsewhere where BARPROP_ADAPTERS names a folder, in which the environments are kept for the next run.
"""

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from barprop_client import Bar, Client, Prediction

import store.bars
import store.database
import store.markets
import store.settings
from service.predictions import PREDICTION
from store.database import Engine
from store.settings import Settings
from tests.client.protocol import Reply, Scripted, event
from tests.service.conftest import BARS, CLOSE, ETH, Clock, walk

CLIENT = Path(__file__).resolve().parents[2] / "client"
SERVED = 40  # Signals in the ledger
# What every environment is made by: pip asks for nothing and says only what went wrong.
PIP = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input")


@pytest.fixture
def settings(engine: Engine) -> Settings:
    """Each Signal takes a side, so that there is something to trade."""
    return store.settings.load(database={"url": str(engine.url)}, portfolio={"policy": "sign"})


@pytest.fixture
def market_id(engine: Engine) -> int:
    """ETHUSDT 1h as it was before the newest bars came."""
    store.bars.add(engine, ETH, walk().head(BARS - SERVED), CLOSE)
    with store.database.read(engine) as conn:
        return store.markets.need(conn, ETH).id


@pytest.fixture
def service(address: str, champion: int, clock: Clock) -> str:
    """A service that was asked for its Signal soon after each of the newest bars."""
    with Client(address) as client:
        for row in walk().tail(SERVED).iter_rows(named=True):
            clock.now = row["ts"] + timedelta(hours=1, seconds=20)
            client.push_bars("ETHUSDT", "1h", [Bar(**row)])
            assert isinstance(client.predict("ETHUSDT", "1h"), Prediction)
    return address


@pytest.fixture(scope="module")
def environments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the environments."""
    kept = os.environ.get("BARPROP_ADAPTERS")
    if kept:
        return Path(kept)
    if not os.environ.get("BARPROP_CI"):
        pytest.skip(
            "downloads freqtrade, nautilus_trader, backtesting: set BARPROP_ADAPTERS to a folder for them"
        )
    return tmp_path_factory.mktemp("adapters")


def ran(environments: Path, wheel: Path, package: str, *arguments: str) -> str:
    """What the package's check says, run in its environment, which is made where it is missing."""
    python = environments / package / "bin/python"
    done = environments / package / "done"
    if not done.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", environments / package], check=True)
        pins = CLIENT / "tests" / f"{package}.txt"
        subprocess.run([python, *PIP, "--requirement", pins, wheel], check=True)
        done.touch()
    subprocess.run([python, *PIP, "--force-reinstall", "--no-deps", wheel], check=True)
    check = [python, CLIENT / "tests" / f"check_{package}.py", *arguments]
    found = subprocess.run(check, capture_output=True, text=True, check=False, timeout=300, cwd=environments)
    assert found.returncode == 0, found.stdout[-2000:] + found.stderr[-4000:]
    return found.stdout


def test_backtesting_trades_as_the_ledger_says_and_one_bar_later(
    environments: Path, client_wheel: Path, service: str
) -> None:
    assert "trades" in ran(environments, client_wheel, "backtesting", service)


def test_freqtrade_enters_and_leaves_as_the_ledger_says_and_live_as_the_newest_signal_says(
    environments: Path, client_wheel: Path, service: str, tmp_path: Path
) -> None:
    folder = tmp_path / "user_data"
    folder.mkdir()
    assert "trades" in ran(environments, client_wheel, "freqtrade", service, str(folder))


def test_nautilus_hears_each_signal_when_it_was_known_and_live_as_it_comes(
    environments: Path, client_wheel: Path, service: str, scripted: Scripted
) -> None:
    scripted.replies = [Reply(chunks=[event(7, PREDICTION)], lasts=True)]
    assert "one live" in ran(environments, client_wheel, "nautilus", service, scripted.url)
