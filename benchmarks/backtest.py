"""Backtests beside PyTorch and LightGBM: `python -m benchmarks.backtest [--quick] [--json] [--plot FILE]`.

A walk over hourly bars: the first 60 default features, computed beforehand for everybody, a training every 500 bars on
the newest 10,000 rows, five epochs of the training benchmark's M (128-64, batches of 256, AdamW, cross-entropy plus 0.2
Huber), the loss on the same stop rows after each, the best epoch's weights, and answers for the next 500 bars. Ours
checks its gradients, watches their health, calibrates, asks the gate and answers bar by bar besides; PyTorch is the
fastest plain loop in eager mode, with the quicker of its optimisers; LightGBM grows 100 trees for up alone, all else as it
comes. On two cores ours has two processes, and peers are measured both in one, with the better of one thread and two,
and in two. Each walk has a process of its own, held to as many cores as the row has `threads`; ours counts the start of
its second process, peers start theirs beforehand. The sides take turns, and figures are medians over the rounds. The
log losses stand beside each other to show that all did the same work, and nothing else: these settings are for speed.

A replay of bars through one version: what a backtest does by block, on one core, beside the way through the store bar
by bar; and how the time falls to the steps.

More frequent trainings, of the settings that ship but for the window and a single member, over two processes: minutes of
a walk of 50,000 synthetic bars with a training every 50 bars on the newest 2,000; and by refit interval, on hourly bars
of ETHUSDT and the newest 10,000, the gain of log loss on the base rate with its standard error, over the same judged
bars. Synthetic bars stand in where that file is not there, and
the row says so.
"""

import argparse
import importlib.util
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks import markets, report
from benchmarks.report import Row
from benchmarks.sides.turns import pinned
from benchmarks.sides.work import DECAY, RATE, RETURN_WEIGHT
from benchmarks.training import M
from benchmarks.walks import often, own, peers, replay, work
from benchmarks.walks.peers import FOREACH, FUSED, LIGHTGBM
from benchmarks.walks.work import Given, Walked, apart
from model.backtest import Policy
from model.config import TrainConfig
from model.features import DEFAULT, WARMUP

Side = tuple[str, int, int]  # name, processes, threads of each

OURS = "ours"
CORES = 2
ROUNDS = 3
QUICK_REFITS = 8
TRIED = 3  # trainings by which the quicker of PyTorch's optimisers is chosen
ALIKE = 0.01  # nats: how far the networks' log losses may lie apart, which begin and shuffle otherwise

PROTOCOL = TrainConfig(
    features=DEFAULT.names[:60], window=10_000, hidden=M.hidden, batch=M.batch, epochs=5, patience=5, dropout=0.0,
    learning_rate=RATE, schedule="constant", weight_decay=DECAY, clip_norm=math.inf, return_weight=RETURN_WEIGHT,
    members=1, half_life=None, relearn=False,
)  # fmt: skip
PROTOCOL_EVERY = 500

REPLAYED, QUICK_REPLAYED = 50_000, 20_000  # bars by block
ONE_BY_ONE, QUICK_ONE_BY_ONE = 500, 100  # bars through the store
MEMBERS = (1, 8)

OFTEN = Policy(refit_every=50)
OFTEN_BARS = 50_000
OFTEN_CONFIG = TrainConfig(window=2_000, members=1)
INTERVAL_CONFIG = TrainConfig(window=10_000, members=1)
INTERVALS, QUICK_INTERVALS = (50, 200, 1_000, 5_000), (5_000,)


def walks(quick: bool) -> Iterator[Row]:
    """Ours beside the peers that are installed, on one core and on two. A quick run has one core alone.

    Raises ValueError where a network of theirs learned otherwise than ours.
    """
    history, market = work.real()
    given = Given(work.rows_of(history, PROTOCOL), PROTOCOL, Policy(refit_every=PROTOCOL_EVERY))
    if quick:
        given = given.first(QUICK_REFITS)
    installed = [name for name, (library, _) in peers.PEERS.items() if importlib.util.find_spec(library)]
    eager = [name for name in (FOREACH, FUSED) if name in installed]
    if eager:
        tried = {name: _peer(name, given.first(TRIED), 1, 1).seconds for name in eager}
        quickest = min(tried, key=lambda name: tried[name])
        installed = [name for name in installed if name not in eager or name == quickest]
    one, two = (1, 1), (CORES, 1)  # processes, and threads of each
    ways = (one,) if quick else (one, (1, CORES), two)
    sides: dict[Side, Callable[[], Walked]] = {
        (OURS, *way): partial(apart, way[0], own.ours, given, way[0]) for way in ways if way[1] == 1
    }
    sides |= {(name, *way): partial(_peer, name, given, *way) for name in installed for way in ways}
    taken: dict[Side, list[Walked]] = {side: [] for side in sides}
    for _ in range(1 if quick else ROUNDS):
        for side, walk in sides.items():
            taken[side].append(walk())
    _check_alike({side: of[0].log_loss for side, of in taken.items() if side[0] != LIGHTGBM})
    case = f"walk of {market}, {len(given.refits)} trainings"
    seconds = {side: median(walk.seconds for walk in of) for side, of in taken.items()}
    mine = seconds[OURS, *one]
    yield from (Row(case, 1, mine, "s", name, seconds[name, *one]) for name in installed)
    if not installed:
        yield Row(case, 1, mine, "s")
    if not quick:
        case, mine = f"{case}, {CORES} processes", seconds[OURS, *two]
        for name in installed:
            alone, threads = min((seconds[name, 1, threads], threads) for threads in (1, CORES))
            yield Row(case, CORES, mine, "s", f"{name}, one process, {threads} thread(s)", alone)
            yield Row(case, CORES, mine, "s", f"{name}, {CORES} processes", seconds[name, *two])
        if not installed:
            yield Row(case, CORES, mine, "s")
    for name in installed:
        value = taken[name, *one][0].log_loss
        yield Row("log loss of the walk", 1, taken[OURS, *one][0].log_loss, "nats", name, value)


def _check_alike(losses: dict[Side, float]) -> None:
    if max(losses.values()) - min(losses.values()) > ALIKE:
        raise ValueError(f"the networks did not do the same work: their log losses are {losses}")


def _peer(name: str, given: Given, processes: int, threads: int) -> Walked:
    with pinned(processes * threads):
        return peers.walked(name, given, processes, threads)


def replays(quick: bool) -> Iterator[Row]:
    """By block beside bar by bar, and the steps of each."""
    many, few = (QUICK_REPLAYED, QUICK_ONE_BY_ONE) if quick else (REPLAYED, ONE_BY_ONE)
    for members in MEMBERS:
        block = apart(1, replay.fast, many, members, ROUNDS)
        single = apart(1, replay.bar_by_bar, few, members)
        case = f"replay, {'one member' if members == 1 else f'{members} members'}"
        yield Row(case, 1, block.rate, "bars/s", "bar by bar through the store", single.rate, False)
        for step, each in block.steps.items():
            yield Row(f"{case}: {step}", 1, each, "us/bar")
        for step, each in single.steps.items():
            yield Row(f"{case}, bar by bar: {step}", 1, each, "us/bar")


def intervals(quick: bool, file: Path | None) -> Iterator[Row]:
    """What training often takes, and what it earns; the latter is also drawn into the file."""
    if not quick:
        config = OFTEN_CONFIG
        history = markets.random_walk(WARMUP + OFTEN_BARS + 1, seed=3)
        found = apart(CORES, often.interval, Given(work.rows_of(history, config), config, OFTEN), CORES)
        case = f"{OFTEN_BARS:,} synthetic bars, {found.trainings:,} trainings"
        yield Row(case, CORES, found.seconds / 60, "minutes")
    history, market = work.real()
    given = Given(work.rows_of(history, INTERVAL_CONFIG), INTERVAL_CONFIG, OFTEN)
    each = [
        apart(CORES, often.interval, replace(given, policy=Policy(refit_every=every)), CORES)
        for every in (QUICK_INTERVALS if quick else INTERVALS)
    ]
    for found in each:
        case = f"{market}, a training every {found.every:,}"
        yield Row(f"{case}: gain on the base rate", CORES, 1_000 * found.gain.mean, "millinats")
        yield Row(f"{case}: its standard error", CORES, 1_000 * found.gain.error, "millinats")
        yield Row(f"{case}: {found.trainings:,} trainings", CORES, found.seconds, "s")
    if file is not None:
        often.plot(each, market, file)


def arguments() -> argparse.Namespace:
    """The command line of every benchmark, and where to draw."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="fewer and smaller cases, within 60 s")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of a table")
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", help="draws skill against the refit interval, HTML"
    )
    return parser.parse_args()


def main() -> None:
    """Measures every side that is installed."""
    asked = arguments()
    rows = [*walks(asked.quick), *replays(asked.quick), *intervals(asked.quick, asked.plot)]
    report.show("backtest", rows, asked.json)


if __name__ == "__main__":
    main()
