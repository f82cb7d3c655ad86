"""The trainings of a walk that do not depend on each other, spread over processes. No bit depends on how many."""

import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import current_process, get_context
from typing import NamedTuple

from threadpoolctl import threadpool_limits

import store.features
from jobs import processes
from model import backtest, training
from model.backtest import Fits
from model.config import TrainConfig
from model.dataset import Dataset
from model.errors import TrainingFailed
from model.features import user
from model.training import Fit
from store.settings import Settings

# Fewer are done before a second process has started.
FEWEST = 8
# Trainings handed over at once: members of several go side by side, and none is far ahead of those that are judged.
TOGETHER = 2


class _Given(NamedTuple):
    """What a process has to work on, once it has begun."""

    data: Dataset
    config: TrainConfig


_given: _Given | None = None


def over(settings: Settings, count: int) -> Fits:
    """Carries trainings out over so many processes; in this one where that is 1, or where this one may start none."""
    if count == 1 or current_process().daemon:
        return backtest.one_by_one

    def fits(data: Dataset, config: TrainConfig, rows: Sequence[int]) -> Iterator[Fit | TrainingFailed]:
        if len(rows) < FEWEST:
            yield from backtest.one_by_one(data, config, rows)
            return
        proven = user.definition(user.registered())
        threads = dict.fromkeys(processes.THREADS, str(config.blas_threads))
        pool = ProcessPoolExecutor(
            count, get_context("spawn"), initializer=_begin, initargs=(data, config, settings, proven)
        )
        try:
            with processes.environment(threads):  # the pool starts its processes as work comes in
                parts = [rows[i : i + TOGETHER] for i in range(0, len(rows), TOGETHER)]
                results = pool.map(_train, parts)
            for part in results:
                yield from part
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    return fits


def _begin(data: Dataset, config: TrainConfig, settings: Settings, proven: str) -> None:
    global _given
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal signals the whole group: the parent decides
    processes.end_with_parent()
    store.features.register_as(proven, settings)
    _given = _Given(data, config)


def _train(rows: Sequence[int]) -> tuple[Fit | TrainingFailed, ...]:
    assert _given is not None
    data, config = _given
    tasks = [training.Task(backtest.known_at_close(data, row), config.seed) for row in rows]
    with threadpool_limits(config.blas_threads):
        return training.fit_tasks(tasks, config)
