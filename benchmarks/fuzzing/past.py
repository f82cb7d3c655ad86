"""A database with something of everything, made by the commands that users have: bars, trainings, a backtest, the ledger,
jobs that ended and jobs that wait, keys, changes."""

import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime

import store.bars
import store.database
from benchmarks.serving import data
from model.bars import Market
from service.cli import parent

SYMBOL, PAUSED = "ETHUSDT", "PAUSED"
TIMEFRAME = data.TIMEFRAME
BARS = 1_500
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
            [*parent.BARPROP, *command], env=dict(env), check=True, stdin=subprocess.DEVNULL, capture_output=True
        )
