"""Processes on a core of their own, and what the system knows of them."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# One thread for everything that would take as many as there are cores.
ONE_THREAD = dict.fromkeys(
    ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS"), "1"
)


def two() -> tuple[int, int] | None:
    """The core that answers and the core that asks; None where processes cannot be held to one."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    cores = sorted(os.sched_getaffinity(0))
    return (cores[0], cores[1]) if len(cores) > 1 else None


@contextmanager
def on(core: int | None) -> Iterator[None]:
    """Processes started in here stay on that core."""
    if core is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def peak_mib(pid: int) -> float | None:
    """The most memory that a process has held so far; None where the system does not tell."""
    if not sys.platform.startswith("linux"):
        return None
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024
