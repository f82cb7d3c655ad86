"""Members: networks of one shape that are trained side by side, each of which comes out bit for bit as if alone.

Whoever asks says what each learns from; here they are put into blocks, driven through their epochs and stopped early.
"""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
from threadpoolctl import threadpool_limits

from model.config import PLATEAU, TrainConfig
from model.dataset import Dataset
from model.epochs import Examples, batches_of, epochs, pooled
from model.health import GradientHealth
from model.network import network, objective
from model.network.network import Network
from model.network.schedules import plateau
from model.scaler import Scaler

# Members are trained side by side as long as what a step of theirs touches fits a core's cache; more wait their turn.
# Measured: eight networks 32-64-32-2 gain 1.7 times, of larger ones each is as fast alone; a second thread pays where
# single products take long, from some hundred units and a thousand rows on.
CACHE_BYTES = 1 << 20


@dataclass
class Member:
    """A member on its way: what it was given, and the best that it has been."""

    start: Network  # of one member
    examples: Examples
    stop: Dataset | None  # what chooses its best epoch; None: the last one is
    scaler: Scaler
    rng: np.random.Generator
    best: Network | None = None
    best_epoch: int = 0
    best_loss: float = float("inf")
    curve: list[tuple[int, float, float]] = field(default_factory=list)
    health: list[tuple[GradientHealth, ...]] = field(default_factory=list)
    broke: str | None = None
    stopped: bool = False


def train(
    members: Sequence[Member], config: TrainConfig, threads: int, progress: Callable[[float], None]
) -> None:
    """Trains each until it has stopped by itself; `best` is then the network of its best epoch, if it had any.

    Members with as many batches an epoch go side by side, in blocks that fit a core's cache, and the blocks over
    `threads`. None of that changes a bit of what a member becomes.
    """
    done = 0

    def count(these: int) -> None:
        nonlocal done
        done += these
        progress(min(done / (config.epochs * len(members)), 1.0))

    # products run with the threads that the config names, as their last bits depend on it
    with threadpool_limits(config.blas_threads, "blas"), ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(lambda block: _train(block, config, count), _blocks(members, config, threads)):
            pass


def side_by_side(member: Network, rows: int, members: int, threads: int) -> int:
    """How many of so many such networks, with batches of so many rows, one thread trains at once; see CACHE_BYTES."""
    tape = network.bind(member, rows)
    touched: int = 3 * sum(part.out.value.nbytes for part in tape.parts) + 5 * member.parameters.nbytes
    return max(1, min(CACHE_BYTES // touched, -(-members // threads)))


def _blocks(members: Sequence[Member], config: TrainConfig, threads: int) -> list[list[Member]]:
    """Those that can go side by side, in their order: equal networks, as many batches, and room in the cache."""

    def alike(member: Member) -> tuple[int, int, int]:
        return (member.start.architecture.inputs, *batches_of(len(member.examples.x), config.batch))

    blocks = []
    for (_, _, size), group in groupby(sorted(members, key=alike), key=alike):
        same = list(group)
        width = side_by_side(same[0].start, size, len(same), threads)
        blocks += [same[i : i + width] for i in range(0, len(same), width)]
    return blocks


def _train(members: Sequence[Member], config: TrainConfig, count: Callable[[int], None]) -> None:
    """Trains these side by side until each has stopped by itself."""

    def pace(k: int) -> float:
        if config.schedule != PLATEAU:
            return 1.0
        return plateau([stop for _, _, stop in members[k].curve], patience=config.patience // 2)

    judges = [_stop_loss(member, config) for member in members]
    walk = epochs(
        network.stacked([member.start for member in members]),
        pooled([member.examples for member in members]),
        config.heads(),
        config,
        [member.rng for member in members],
        pace,
    )
    for epoch in walk:
        for k, (member, judge) in enumerate(zip(members, judges, strict=True)):
            if member.stopped:
                continue
            member.health.append(epoch.health[k])
            member.broke = epoch.broke[k]
            if member.broke is None:
                stop_loss = judge(epoch.networks.member(k))
                member.curve.append((epoch.number, epoch.train_loss[k], stop_loss))
                if stop_loss < member.best_loss or member.stop is None:
                    member.best, member.best_loss = epoch.networks.member(k).copy(), stop_loss
                    member.best_epoch = epoch.number
            member.stopped = member.broke is not None or epoch.number - member.best_epoch >= config.patience
        count(len(members))
        if all(member.stopped for member in members):
            break


def _stop_loss(member: Member, config: TrainConfig) -> Callable[[Network], float]:
    """What judges a network on the member's stop rows: each counts alike, however old."""
    if member.stop is None:
        return lambda net: math.nan
    judged, rows = member.start.copy(), member.stop
    tape = network.bind(judged, len(rows))
    tape.inputs[..., :-1] = member.scaler.apply(rows.X)
    targets = [target[None] for target in (rows.up, rows.target)]
    alike = np.ones((1, len(rows)), np.float32)
    loss_of = objective.bind(config.heads(), tape.outputs, targets, alike, np.empty_like(tape.outputs))

    def judge(net: Network) -> float:
        judged.parameters[...], judged.statistics[...] = net.parameters, net.statistics
        with np.errstate(all="ignore"):  # a loss that overflows is no better than any other
            tape.forward()
            return float(loss_of()[0])

    return judge
