"""What every side of a walk is given: the rows, when to train on which of them, and a process of its own."""

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import polars as pl

from benchmarks import markets
from benchmarks.sides.turns import pinned
from model import backtest, bars, dataset, scores
from model.backtest import Policy
from model.bars import Bars
from model.config import TrainConfig
from model.dataset import Dataset

T = TypeVar("T")

# Beside the checkout, unless BARPROP_REAL_BARS names another folder.
REAL = Path(os.environ.get("BARPROP_REAL_BARS") or Path(__file__).resolve().parents[3] / "shared" / "data")
MARKET = "ETHUSDT_1h"
BARS = 38_000


@dataclass(frozen=True)
class Given:
    """A walk to do."""

    data: Dataset
    config: TrainConfig
    policy: Policy

    @property
    def refits(self) -> range:
        """The rows at whose close there is a training."""
        return backtest.refit_rows(self.data, self.config, self.policy)

    def first(self, refits: int) -> "Given":
        """The same walk, ended before there are more trainings than that."""
        end = self.refits.start + refits * self.policy.refit_every + 1
        return replace(self, data=self.data.part(slice(0, end)))


@dataclass(frozen=True)
class Walked:
    """What a walk took in seconds, and the mean log loss of all that it said, in nats: the sides did the same work."""

    seconds: float
    log_loss: float


@dataclass(frozen=True)
class Lesson:
    """One training of a walk: the rows to learn from, those that choose the best epoch, and those to answer."""

    learn: Dataset
    stop: Dataset
    asked: Dataset


def lesson(given: Given, row: int) -> Lesson:
    """The very rows that the product's walk has for the training at that row's close."""
    known = backtest.known_at_close(given.data, row)
    newest = known.part(slice(max(0, len(known) - given.config.window), len(known)))
    parts = dataset.split(newest, given.config.stop_fraction, given.config.held_fraction)
    answered = backtest.answered_after(row, given.policy, len(given.data))
    return Lesson(newest.part(parts.fit), newest.part(parts.stop), given.data.part(answered))


def log_loss(p_up: scores.losses.Float64, data: Dataset) -> float:
    """The mean over these rows."""
    return float(scores.log_losses(p_up, data.up).mean())


def real() -> tuple[Bars, str]:
    """The hourly bars of a real market, and its name; of a synthetic one where the file is not there."""
    file = REAL / f"{MARKET}.parquet"
    if file.exists():
        return pl.read_parquet(file), MARKET.replace("_", " ")
    return markets.random_walk(BARS, seed=1), "synthetic 1h"


def rows_of(history: Bars, config: TrainConfig) -> Dataset:
    """The rows of hourly bars."""
    return dataset.from_bars(history, bars.timeframe("1h"), config)


def apart(threads: int, call: Callable[..., T], *given: object) -> T:
    """What `call(*given)` gives in a fresh process with so many cores and BLAS threads."""
    with pinned(threads), ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(call, *given).result()
