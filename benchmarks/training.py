"""A training step beside PyTorch, JAX and scikit-learn: `python -m benchmarks.training [--quick] [--json]`.

Every side trains the same networks from the same weights on the same rows, in the same order where it lets us choose
it: float32, ReLU, AdamW, cross-entropy on the first output plus 0.2 Huber on the second, whole epochs, each shuffled
anew. What is timed is an epoch, shuffling included, divided by its steps. Each side lives in a process of its own,
which is held to as many cores and BLAS threads as the row says before any library is loaded; the sides take turns
for several rounds, and figures are medians over all their epochs. K members, B rows of a batch, I inputs, O outputs.
"""

import importlib.util
from itertools import pairwise

from benchmarks import report
from benchmarks.report import Row
from benchmarks.sides.products import SQUARE
from benchmarks.sides.table import (
    BLIND,
    DIFFERENCE,
    EAGER,
    FORWARD,
    GRADIENTS,
    LOSS,
    OURS,
    PEERS,
    PRODUCTS,
    SIDES,
    SQUARES,
)
from benchmarks.sides.turns import Case, Found, measure
from benchmarks.sides.work import Shape

MEMBERS = 8
ROUNDS, QUICK_ROUNDS = 7, 2
SECONDS, QUICK_SECONDS = 0.3, 0.05  # of one side's turn, or one epoch where that takes longer

S = Shape("S", 32, (64, 32), 64, 64)
M = Shape("M", 64, (128, 64), 256, 32)
L = Shape("L", 128, (256, 256, 128), 1024, 8)


def cases_of(quick: bool) -> list[Case]:
    """Everything that can be measured here, in turn's order: shape by shape, all sides of one after another."""
    absent = {side.library for side in SIDES.values() if not importlib.util.find_spec(side.library)}
    return [
        (name, shape, members)
        for shape in (S, M, L)
        for members in (1, MEMBERS)
        for name, side in SIDES.items()
        if side.library not in absent and shape.name in side.shapes and (side.quick or not quick)
        if members == 1 or (side.several and not (quick and shape is not S))
    ]


def rows_of(found: Found, threads: int) -> list[Row]:
    """The report's rows for one number of threads."""
    rows: list[Row] = []
    for shape, members in dict.fromkeys((shape, members) for _, shape, members in found):
        mine = _value(found, OURS, shape, members)
        case = f"{shape.name}, {'one' if members == 1 else 'of eight'}"

        def row(peer: str, value: float | str, case: str = case, mine: float = mine) -> Row:
            if isinstance(value, str):
                return Row(case, threads, mine, "us/step", f"{peer}: {value}")
            return Row(case, threads, mine, "us/step", peer, value)

        before = len(rows)
        if members > 1 and (best := _best(found, shape, 1)):
            rows.append(row(f"{best[1]}, one at a time", best[0]))
        if best := _best(found, shape, members):
            rows.append(row(best[1] + (", all at once" if members > 1 else ""), best[0]))
        rows += [
            row(peer + (", all at once" if members > 1 else ""), found[peer, shape, members])
            for peer in PEERS
            if (peer, shape, members) in found
        ]
        if len(rows) == before:
            rows.append(Row(case, threads, mine, "us/step"))
    for shape in (S, M, L):
        rows += _rates(found, shape, threads) + _costs(found, shape, threads)
    return rows


def _value(found: Found, side: str, shape: Shape, members: int = 1) -> float:
    value = found[side, shape, members]
    assert isinstance(value, float), value
    return value


def _best(found: Found, shape: Shape, members: int) -> tuple[float, str] | None:
    """The faster of PyTorch's eager optimisers: microseconds and name."""
    values = [(found.get((peer, shape, members)), peer) for peer in EAGER]
    return min(((value, peer) for value, peer in values if isinstance(value, float)), default=None)


def _rates(found: Found, shape: Shape, threads: int) -> list[Row]:
    """How much of the machine's rate at products a whole step reaches."""
    if (PRODUCTS, shape, 1) not in found:
        return []
    rate = shape.flops / _value(found, OURS, shape) / 1e3
    peers = {
        PRODUCTS: shape.flops / _value(found, PRODUCTS, shape) / 1e3,
        SQUARES: 2 * SQUARE**3 / _value(found, SQUARES, shape) / 1e3,
    }
    case = f"{shape.name}, products of a step"
    return [
        Row(case, threads, rate, "GFLOP/s", peer, value, lower_is_better=False)
        for peer, value in peers.items()
    ]


def _costs(found: Found, shape: Shape, threads: int) -> list[Row]:
    """What all gradients cost, in forward passes and in evaluations of the loss (a forward pass and the loss itself),
    beside two evaluations for each parameter; and what watching their health adds to a training."""
    loss, forward = _value(found, LOSS, shape), _value(found, FORWARD, shape)
    gradients = _value(found, GRADIENTS, shape)
    parameters = sum((inputs + 1) * outputs for inputs, outputs in pairwise(shape.sizes))
    numerical = _value(found, DIFFERENCE, shape) * parameters
    case, peer = f"{shape.name}, all gradients", "differences, scaled"
    share = 100 * (_value(found, OURS, shape) / _value(found, BLIND, shape) - 1)
    return [
        Row(case, threads, gradients / forward, "forwards", peer, numerical / forward),
        Row(case, threads, gradients / loss, "losses", peer, numerical / loss),
        Row(f"{shape.name}, gradient health", threads, share, "% of training"),
    ]


def main() -> None:
    """Measures every side that is installed, with one thread and with two."""
    asked = report.arguments("A training step beside PyTorch, JAX and scikit-learn.")
    cases = cases_of(asked.quick)
    rounds, seconds = (QUICK_ROUNDS, QUICK_SECONDS) if asked.quick else (ROUNDS, SECONDS)
    rows: list[Row] = []
    for threads in (1, 2):
        found, others = measure(cases, threads, rounds, seconds)
        rows += rows_of(found, threads)
        # PyTorch and OpenBLAS wait in a loop for their other thread: what shares the cores with it costs them dearly
        rows.append(Row("cores taken by others", threads, others, "cores"))
    report.show("training", rows, asked.json)


if __name__ == "__main__":
    main()
