"""A shell completes commands, options and the markets that are kept, by a real process as it starts one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import store.bars
from model.bars import Market
from store.database import Engine
from tests.service.conftest import CLOSE, ETH, walk


def completed(line: str, url: str) -> list[str]:
    """What bash is offered for the last word of a line."""
    words = line.split(" ")
    done = subprocess.run(
        [sys.executable, "-m", "service.cli"],
        env={
            **os.environ,
            "_BARPROP_COMPLETE": "complete_bash",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(words) - 1),
            "BARPROP_DATABASE__URL": url,
        },
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("barprop pre", ["predict"]),
        ("barprop keys cre", ["create"]),
        ("barprop train --no", ["--no-wait"]),
        ("barprop predict E", ["ETHUSDT", "EURUSD"]),
        ("barprop predict EURUSD ", ["1d", "1h"]),
        ("barprop predict NOSUCH ", []),
    ],
)
def test_the_shell_is_offered_what_fits(engine: Engine, line: str, offered: list[str]) -> None:
    for market in (ETH, Market("EURUSD", "1h"), Market("BTCUSDT", "1h")):
        store.bars.add(engine, market, walk(3), CLOSE)
    store.bars.add(engine, Market("EURUSD", "1d"), walk(1), CLOSE.replace(month=8))
    assert completed(line, str(engine.url)) == offered


def test_without_a_database_no_market_is_offered_and_nothing_is_said(tmp_path: Path) -> None:
    (tmp_path / "bars.db").write_text("not a database, but long enough to be read as one would be" * 20)
    assert completed("barprop predict E", f"sqlite:///{tmp_path / 'bars.db'}") == []
