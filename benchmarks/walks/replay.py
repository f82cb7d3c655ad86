"""Many bars through one version that stands still: features, forward pass, score, rows of the ledger.

By block, as a backtest does it, and bar by bar through the store, as it is lived. Both say the same, to the bit.
"""

import io
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from pathlib import Path
from statistics import median
from typing import TypeVar

import polars as pl
from threadpoolctl import threadpool_limits

import jobs.retrain
import store.bars
import store.database
import store.jobs
import store.markets
import store.outcomes
import store.predictions
import store.settings
from benchmarks import markets
from jobs import executors
from model import backtest, bars, dataset, features, predictor, scores, training
from model.backtest import REASONS, Said
from model.bars import Bars, Market
from model.caution import Caution
from model.config import TrainConfig
from model.dataset import Dataset
from model.predictions import Prediction
from model.predictor import Predictor
from store.loaded import Versions

T = TypeVar("T")

MARKET = Market("SYNTHETIC", "1h")
HOUR = bars.timeframe(MARKET.timeframe)
LEARNED = 2_000  # rows that the version has learned from, before those that are replayed
STEPS = ("features", "forward pass, calibration, caution", "score", "ledger rows")


@dataclass(frozen=True)
class Replayed:
    """Microseconds a bar of each step."""

    steps: dict[str, float]

    @property
    def rate(self) -> float:
        """Bars a second."""
        return 1e6 / sum(self.steps.values())


def fast(count: int, members: int, rounds: int) -> Replayed:
    """By block; each step's median of so many rounds."""
    history = markets.random_walk(features.WARMUP + LEARNED + count + 1, seed=2)
    config = TrainConfig(window=LEARNED, members=members)
    with threadpool_limits(config.blas_threads, "blas"):
        learned = dataset.from_bars(history.head(features.WARMUP + LEARNED + 1), HOUR, config)
        model = predictor.from_arrays(*training.contents(training.fit(learned, config)))
        newest = history.tail(features.WARMUP + count + 1)
        taken = [_once(model, newest, config, count) for _ in range(rounds)]
    return Replayed({step: median(each[step] for each in taken) * 1e6 / count for step in STEPS})


def _once(model: Predictor, history: Bars, config: TrainConfig, count: int) -> dict[str, float]:
    """Seconds of each step."""
    taken: dict[str, float] = {}
    data = _timed(taken, STEPS[0], lambda: dataset.from_bars(history, HOUR, config))
    assert len(data) == count  # no row stands on a break
    rows = slice(0, count)
    said, refused, _ = _timed(
        taken, STEPS[1], lambda: backtest.answers(backtest.fresh(model), data, rows, Caution())
    )
    losses = _timed(taken, STEPS[2], lambda: scores.log_losses(said.p_up, data.up))
    reasons = [REASONS[place] for place in refused.tolist()]
    _timed(taken, STEPS[3], lambda: _ledger(data, said, reasons, losses))
    return taken


def _timed(taken: dict[str, float], step: str, call: Callable[[], T]) -> T:
    begun = time.perf_counter()
    found = call()
    taken[step] = time.perf_counter() - begun
    return found


def _ledger(data: Dataset, said: Said, reasons: list[str | None], losses: scores.losses.Float64) -> bytes:
    """A row for each bar, compressed."""
    frame = pl.DataFrame(
        {
            "as_of": pl.Series(data.closed_at).cast(bars.TS),
            **{column.name: getattr(said, column.name) for column in fields(Said)},
            "close": data.close,
            "log_return": data.log_return,
            "up": data.up > 0.5,
            "reason": pl.Series(reasons, dtype=pl.String),
            "log_loss": losses,
        }
    )
    buffer = io.BytesIO()
    frame.write_parquet(buffer, compression="zstd")
    return buffer.getvalue()


def bar_by_bar(count: int, members: int) -> Replayed:
    """Through the store, on a SQLite file that survives a power cut: each bar is added, answered, and what came of the
    bar before is scored. Medians of single bars."""
    history = markets.random_walk(features.WARMUP + LEARNED + 1 + count, seed=2)
    first = len(history) - count
    taken: dict[str, list[float]] = {"add": [], "answer": [], "score": []}
    with tempfile.TemporaryDirectory() as folder, threadpool_limits(1, "blas"):
        engine = store.database.connect(f"sqlite:///{Path(folder) / 'replay.db'}")
        store.database.prepare(engine)
        now = HOUR.close_of(history["ts"][first - 1])
        store.bars.add(engine, MARKET, history.head(first), now)
        _train(engine, now, members)
        predictors: Versions = {}
        for i in range(first, len(history)):
            now = HOUR.close_of(history["ts"][i])
            begun = time.perf_counter()
            store.bars.add(engine, MARKET, history[i : i + 1], now)
            added = time.perf_counter()
            said = store.predictions.answer(engine, MARKET, now, predictors).signal
            answered = time.perf_counter()
            store.outcomes.score(engine, now)
            scored = time.perf_counter()
            assert isinstance(said, Prediction), said
            for step, seconds in zip(
                taken, (added - begun, answered - added, scored - answered), strict=True
            ):
                taken[step].append(seconds)
        engine.dispose()
    return Replayed({step: median(each) * 1e6 for step, each in taken.items()})


def _train(engine: store.database.Engine, now: datetime, members: int) -> None:
    """The market's first version, by the job that trains them."""
    settings = store.settings.load(training={"window_bars": LEARNED, "members": members})
    with store.database.read(engine) as conn:
        market_id = store.markets.need(conn, MARKET).id
    job = store.jobs.start(engine, "retrain", market_id, {}, "benchmark", now, timedelta(minutes=5))
    keep = jobs.retrain.run(engine, job, settings, lambda: now, lambda share: None)
    executors.finish(engine, job, keep)
