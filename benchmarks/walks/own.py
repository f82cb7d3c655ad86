"""Our walk, by the functions that the product's backtest calls."""

import time

from threadpoolctl import threadpool_limits

import store.settings
from benchmarks.walks.work import Given, Walked, log_loss
from jobs import folds
from model import backtest
from model.backtest import Result

WARM = 2  # trainings before the walk is timed


def ours(given: Given, processes: int) -> Walked:
    """The whole walk: trainings with their gradient check and health, the gate, calibration, and answers row by row.

    Where there are several processes, starting them counts.
    """
    walked(given.first(WARM), 1)
    begun = time.perf_counter()
    result = walked(given, processes)
    seconds = time.perf_counter() - begun
    return Walked(seconds, log_loss(result.said.p_up, result.data))


def walked(given: Given, processes: int) -> Result:
    """What the walk said."""
    with threadpool_limits(given.config.blas_threads, "blas"):  # as a job's process has it
        fits = folds.over(store.settings.load(), processes)
        return backtest.run(given.data, given.config, given.policy, fits)
