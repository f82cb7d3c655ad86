"""Sides taking turns, each in a process of its own for one network, and in another for several."""

import importlib.util
import math
import multiprocessing
import os
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from benchmarks.sides.table import SIDES
from benchmarks.sides.work import Epoch, Shape, work

ALIKE = 0.02  # how far two sides' mean loss of the first epoch may lie apart: their orders differ

Case = tuple[str, Shape, int]  # side, shape, members
Found = dict[Case, float | str]


@contextmanager
def pinned(threads: int) -> Iterator[None]:
    """Processes started in here have so many cores and BLAS threads, from before their libraries are loaded."""
    names = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
    values = {name: str(threads) for name in names}
    if threads == 1 and importlib.util.find_spec("jax"):
        values["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
    before = {name: os.environ.get(name) for name in values}
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    os.environ.update(values)
    try:
        if cores is not None:
            os.sched_setaffinity(0, sorted(cores)[:threads])
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        if cores is not None:
            os.sched_setaffinity(0, cores)


@cache
def _started(side: str, shape: Shape, members: int, threads: int) -> tuple[Epoch, float]:
    """What a process keeps from turn to turn: the training, compiled and warm, and its first epoch's mean loss."""
    epoch = SIDES[side].train(work(shape, members, threads))
    return epoch, epoch()


@dataclass(frozen=True)
class Turn:
    """Microseconds a step and network of each epoch in one turn, the mean loss that the first one of all had, and how
    long the turn took and other processes were at work in it, in seconds."""

    times: list[float]
    first_loss: float
    seconds: float
    others: float


def turn(side: str, shape: Shape, members: int, threads: int, seconds: float) -> Turn:
    """One turn of a side, of so many seconds or one epoch."""
    epoch, first_loss = _started(side, shape, members, threads)
    times: list[float] = []
    begun, own, all_cores = time.perf_counter(), time.process_time(), busy()
    while not times or time.perf_counter() < begun + seconds:
        start = time.perf_counter()
        epoch()
        times.append((time.perf_counter() - start) * 1e6 / (shape.batches * members))
    others = busy() - all_cores - (time.process_time() - own)
    return Turn(times, first_loss, time.perf_counter() - begun, max(others, 0.0))


def busy() -> float:
    """Seconds that all cores together have worked; 0 where the system does not tell."""
    try:
        user, nice, system, _, _, interrupts, soft, steal, *_ = Path("/proc/stat").read_text().split()[1:]
    except OSError:
        return 0.0
    return sum(map(int, (user, nice, system, interrupts, soft, steal))) / os.sysconf("SC_CLK_TCK")


def measure(cases: Sequence[Case], threads: int, rounds: int, seconds: float) -> tuple[Found, float]:
    """The median of each case, or why there is none; and how many cores others kept busy meanwhile, on average.

    Raises ValueError where sides did not do the same work.
    """
    turns: dict[Case, list[Turn]] = {case: [] for case in cases}
    failed: Found = {}
    with ExitStack() as stack:
        spawn = multiprocessing.get_context("spawn")
        apart = dict.fromkeys((side, members) for side, _, members in cases)
        pools = {one: stack.enter_context(ProcessPoolExecutor(1, mp_context=spawn)) for one in apart}
        with pinned(threads):
            for ready in [pool.submit(os.getpid) for pool in pools.values()]:
                ready.result()
        for _ in range(rounds):
            for case in [case for case in cases if case not in failed]:
                side, _, members = case
                try:
                    turns[case].append(pools[side, members].submit(turn, *case, threads, seconds).result())
                except Exception as error:  # a peer that cannot run here must not end the others' measurement
                    if SIDES[side].library == "numpy":
                        raise
                    failed[case] = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
    _check_alike(turns)
    done = [each for of_case in turns.values() for each in of_case]
    found: Found = {
        case: statistics.median(value for each in of_case for value in each.times)
        for case, of_case in turns.items()
        if of_case
    }
    return found | failed, sum(each.others for each in done) / sum(each.seconds for each in done)


def _check_alike(turns: Mapping[Case, Sequence[Turn]]) -> None:
    losses: dict[tuple[Shape, int], dict[str, float]] = {}
    for (side, shape, members), of_case in turns.items():
        if of_case and not math.isnan(of_case[0].first_loss):
            losses.setdefault((shape, members), {})[side] = of_case[0].first_loss
    for group, of_group in losses.items():
        if max(of_group.values()) > (1 + ALIKE) * min(of_group.values()):
            raise ValueError(f"sides did not do the same work, {group}: first epochs' losses are {of_group}")
