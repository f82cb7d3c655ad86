"""The training loop: an iterator of epochs over K members, networks of one shape that are trained side by side.

Whoever drives it stops, judges, logs and watches. Letters as in model/network: K members, B rows of a batch, P parameters.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model import health
from model.config import TrainConfig
from model.health import GradientHealth
from model.network import finite, network, objective, optimisers
from model.network.activations import Array
from model.network.network import Network, Tape
from model.network.objective import Head
from model.network.optimisers import OPTIMISERS
from model.network.schedules import SCHEDULES, constant, warmed
from model.network.wires import Rngs

Rows = NDArray[np.intp]


@dataclass(frozen=True)
class Examples:
    """What K members learn from: a pool of N rows, and which of them each member may see.

    `x` (N, I + 1) is standardised and has a last column of 1; `targets` are one array (N,) for each head, `weight` (N,)
    says how much a row counts, or (H, N) for each of H heads, 1 on average; `rows` are places in the pool, an array (n,) for each member.
    """

    x: Array
    targets: tuple[NDArray[np.generic], ...]
    weight: Array
    rows: tuple[Rows, ...]


def examples(x: Array, targets: Sequence[NDArray[np.generic]], weight: Array | None = None) -> Examples:
    """The examples of one member that sees every row of x (n, I), each counting alike where there is no `weight`."""
    n = len(x)
    return Examples(
        np.concatenate((x, np.ones((n, 1), x.dtype)), axis=1),
        tuple(targets),
        np.ones(n, x.dtype) if weight is None else weight.astype(x.dtype),
        (np.arange(n, dtype=np.intp),),
    )


def pooled(each: Sequence[Examples]) -> Examples:
    """The examples of several members side by side; those of the very same arrays are in the pool once."""

    def arrays(one: Examples) -> tuple[int, ...]:
        return tuple(id(array) for array in (one.x, *one.targets, one.weight))

    places: dict[tuple[int, ...], int] = {}
    parts: list[Examples] = []
    for one in each:
        if arrays(one) not in places:
            places[arrays(one)] = sum(len(part.x) for part in parts)
            parts.append(one)
    return Examples(
        np.concatenate([one.x for one in parts]),
        tuple(np.concatenate(of_head) for of_head in zip(*(one.targets for one in parts), strict=True)),
        np.concatenate([one.weight for one in parts], axis=-1),
        tuple(own + places[arrays(one)] for one in each for own in one.rows),
    )


def batches_of(rows: int, batch: int) -> tuple[int, int]:
    """How many batches an epoch has, and how many rows each.

    A batch larger than the data shrinks, so that little data never means no steps; all batches are of one size, close
    to the one asked for, and fewer rows than there are batches sit an epoch out, each time others.
    """
    batches = max(1, round(rows / batch))
    return batches, rows // batches


@dataclass(frozen=True)
class Epoch:
    """What one pass over the rows left: a copy of the networks, and for each member its mean loss, its gradients'
    health by layer, and, where a loss or gradient was not finite, what broke (the step was not taken, nor any after)."""

    number: int  # from 1
    networks: Network
    train_loss: tuple[float, ...]
    health: tuple[tuple[GradientHealth, ...], ...]
    broke: tuple[str | None, ...]


def epochs(
    start: Network,
    given: Examples,
    heads: Sequence[Head],
    config: TrainConfig,
    rngs: Rngs,
    pace: Callable[[int], float] = lambda member: 1.0,
) -> Iterator[Epoch]:
    """Trains the members of `start` on what they were given, for as many epochs as the config says, one at a time.

    Each member shuffles and drops out by its own of `rngs`, and is bit for bit what it would be alone. `pace(member)`
    is asked before each epoch: a factor of the learning rate, for schedules that follow what the caller measures. The
    buffers that change live in here and never escape. After the last member broke there is no further epoch.
    Members may have different numbers of rows as long as these make as many batches of one size.
    """
    members = start.members
    nets = start.copy()
    gradients = np.zeros_like(nets.parameters)
    ((batches, size),) = {batches_of(len(own), config.batch) for own in given.rows}
    tape = network.bind(nets, size, gradients, rngs)
    assert tape.d_outputs is not None
    targets = [np.empty((members, size), target.dtype) for target in given.targets]
    weight = np.ones((*given.weight.shape[:-1], members, size), nets.parameters.dtype)
    weighed = bool((given.weight != 1).any())
    loss_of = objective.bind(heads, tape.outputs, targets, weight, tape.d_outputs)
    watch = health.Watch(nets, tape, gradients)
    optimiser = OPTIMISERS[config.optimiser]
    moments = tuple(np.zeros_like(gradients) for _ in range(optimiser.moments))
    scratch = np.empty_like(gradients)
    schedule = warmed(SCHEDULES.get(config.schedule, constant), config.warm_up)
    paces = np.ones((members, 1), gradients.dtype)
    rates = np.empty((batches, members, 1), gradients.dtype)
    norms, total = np.zeros((2, members), gradients.dtype)
    order = [own.copy() for own in given.rows]
    batch_rows = np.empty((batches, members, size), np.intp)
    broke: list[str | None] = [None] * members

    def epoch(number: int) -> None:
        """One pass; allocates nothing of the size of a batch or of the parameters."""
        total.fill(0)
        watch.begin(batches)
        for member, rng in enumerate(rngs):
            rng.shuffle(order[member])
            batch_rows[:, member] = order[member][: batches * size].reshape(batches, size)
            paces[member] = pace(member) if broke[member] is None else 0
        done, planned = (number - 1) * batches, config.epochs * batches
        for batch, rate in enumerate(rates):
            np.multiply(paces, config.learning_rate * schedule(done + batch, planned), out=rate)
        for batch, rows in enumerate(batch_rows):
            given.x.take(rows, axis=0, out=tape.inputs, mode="clip")  # any other mode would go through a copy
            for target, into in zip(given.targets, targets, strict=True):
                target.take(rows, out=into, mode="clip")
            if weighed:
                given.weight.take(rows, axis=-1, out=weight, mode="clip")
            tape.forward()
            loss = loss_of()
            tape.backward()
            optimisers.norms(gradients, norms)
            if not math.isfinite(norms @ loss):  # one product, finite only where all of both are
                _set_aside(norms + loss, broke, nets, gradients, tape, watch, rates, number)
                if None not in broke:
                    return
                norms[~np.isfinite(norms)] = 0
            watched = watch.wants(batch)
            if watched:
                watch.before()
            if config.clip_value is not None:
                optimisers.clip_value(gradients, config.clip_value)
                optimisers.norms(gradients, norms)
            optimisers.clip_norm(gradients, config.clip_norm, norms)
            optimiser.step(
                nets.parameters,
                gradients,
                moments,
                scratch,
                done + batch + 1,
                rates[batch],
                config.weight_decay,
            )
            if watched:
                watch.after()
            np.add(total, loss, out=total)

    for number in range(1, config.epochs + 1):
        with np.errstate(all="ignore"):  # what is not finite is caught before it is stepped on
            epoch(number)
        mean = tuple((total / batches).tolist())
        yield Epoch(number, nets.copy(), mean, watch.rows(), tuple(broke))
        if None not in broke:
            return


def _set_aside(
    summed: Array,
    broke: list[str | None],
    nets: Network,
    gradients: Array,
    tape: Tape,
    watch: health.Watch,
    rates: Array,
    number: int,
) -> None:
    """Notes which members broke and where, and gives them no gradient and no rate, so that no step moves them again."""
    for member in np.flatnonzero(~np.isfinite(summed)).tolist():
        if broke[member] is None:
            watch.broke(member)
            where = _where(nets, gradients, tape, member)
            broke[member] = (
                f"a loss or gradient was not finite in epoch {number}, {where}: training was stopped"
            )
        gradients[member] = 0
        rates[:, member] = 0


def _where(nets: Network, gradients: Array, tape: Tape, member: int) -> str:
    layer = finite.first_broken(nets, gradients, tape, member)
    if layer == "inputs":
        return "first in the inputs"
    if layer is not None:
        return f"first in layer {layer!r}"
    # squares and sums overflow before the numbers themselves
    largest = max(
        nets.architecture.layers, key=lambda layer: float(np.abs(gradients[member, layer.share]).max())
    )
    return f"from numbers that are too large, the largest in layer {largest.name!r}"
