"""A database with something of everything, made by the commands that users have: bars, trainings, a backtest, the ledger,
jobs that ended and jobs that wait, keys, changes."""

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import store.bars
import store.database
from benchmarks.serving import data, running
from model.bars import Market
from service.cli import parent

SYMBOL, PAUSED = "ETHUSDT", "PAUSED"
TIMEFRAME = data.TIMEFRAME
BARS = 1_500
HEARTBEAT_SECONDS = 0.02  # of a stream: it never ends, so that a few of its events are waited for
# Trainings of a second each: what a network is worth is not what is asked here.
QUICK = {
    "BARPROP_TRAINING__HIDDEN": "[8]",
    "BARPROP_TRAINING__EPOCHS": "2",
    "BARPROP_TRAINING__DROPOUT": "0",
    "BARPROP_BACKTEST__PROCESSES": "1",
}
SOURCE = """[[sources.markets]]
symbol = "ETHUSDT"
timeframe = "1h"
exchange = "binance"
exchange_symbol = "ETH/USDT"
since = 2024-01-01
"""
COMMANDS: tuple[tuple[str, ...], ...] = (
    ("train", SYMBOL, TIMEFRAME),
    ("train", SYMBOL, TIMEFRAME, "--seed", "1"),
    ("backtest", SYMBOL, TIMEFRAME, "--refit-every", "400", "--last", "1200"),
    ("predict", SYMBOL, TIMEFRAME),
    ("keys", "create", "bot"),
    ("markets", "pause", PAUSED, TIMEFRAME),
)


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a service that has that past, kept in this folder."""
    (folder / "settings.toml").write_text(SOURCE)
    env = running.environment(
        f"sqlite:///{folder / 'past.db'}",
        folder,
        journal=folder / "journal",
        heartbeat_seconds=HEARTBEAT_SECONDS,
    )
    env |= QUICK
    fill(env)
    with running.answering(running.SERVE, env, None) as service:
        running.ready(service.port)
        yield f"http://127.0.0.1:{service.port}"


def fill(env: Mapping[str, str]) -> None:
    """Makes the database that `env` names, and puts a past into it."""
    engine = store.database.connect(env["BARPROP_DATABASE__URL"])
    store.database.upgrade(engine)
    now = datetime.now(UTC)
    bars = data.newest(BARS, data.full_hour())
    store.bars.add(engine, Market(SYMBOL, TIMEFRAME), bars, now)
    store.bars.add(engine, Market(PAUSED, TIMEFRAME), bars.tail(50), now)
    engine.dispose()
    for command in COMMANDS:
        subprocess.run(
            [*parent.BARPROP, *command],
            env=dict(env),
            check=True,
            stdin=subprocess.DEVNULL,
            capture_output=True,
        )
