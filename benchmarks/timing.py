"""Fair timing of two callables: interleaved, so that a busy moment of the machine hits both, and by the median."""

import statistics
import time
from collections.abc import Callable


def side_by_side(
    ours: Callable[[], object], peer: Callable[[], object], rounds: int = 9, round_seconds: float = 0.02
) -> tuple[float, float]:
    """Median seconds of one call of `ours` and of `peer`; each round times at least `round_seconds` of calls of both.

    Who goes first changes from round to round. Both are called before the first round, so that what is made
    on first use is not counted.
    """
    sides = (ours, peer)
    calls = [_calls_within(side, round_seconds) for side in sides]
    seconds: tuple[list[float], list[float]] = ([], [])
    for turn in range(rounds):
        for side in (0, 1) if turn % 2 == 0 else (1, 0):
            seconds[side].append(_seconds_per_call(sides[side], calls[side]))
    return statistics.median(seconds[0]), statistics.median(seconds[1])


def alone(call: Callable[[], object], rounds: int = 9, round_seconds: float = 0.02) -> float:
    """Median seconds of one call, where there is no peer to time beside it."""
    calls = _calls_within(call, round_seconds)
    return statistics.median(_seconds_per_call(call, calls) for _ in range(rounds))


def _calls_within(call: Callable[[], object], seconds: float) -> int:
    """How many calls take about `seconds`; at least one."""
    _seconds_per_call(call, 1)
    return max(1, round(seconds / max(_seconds_per_call(call, 1), 1e-9)))


def _seconds_per_call(call: Callable[[], object], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - start) / calls
