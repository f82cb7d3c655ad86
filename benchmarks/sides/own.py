"""How ours trains: the product's own loop, and its passes one by one."""

import math
import statistics
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from benchmarks.sides.work import DECAY, RATE, RETURN_WEIGHT, Epoch, Work
from model import epochs, health
from model.config import TrainConfig
from model.members import side_by_side
from model.network import network, objective
from model.network.network import Network, Tape


class Blind:
    """Stands in for health's watch, and sees nothing: what is saved by it is what health costs."""

    def __init__(self, network: Network, tape: Tape, gradients: NDArray[np.floating]) -> None:
        self._members = network.members

    def begin(self, steps: int) -> None:
        """Nothing."""

    def wants(self, step: int) -> bool:
        """Never."""
        return False

    def rows(self) -> tuple[tuple[()], ...]:
        """None of any member."""
        return ((),) * self._members


def ours(given: Work, watched: bool = True) -> Epoch:
    """The product's own loop, health and the copy of each epoch's weights included; members in its own blocks."""
    if not watched:
        health.Watch = Blind  # type: ignore[misc, assignment]  # in a process that does nothing else
    shape = given.shape
    config = TrainConfig(
        hidden=shape.hidden, dropout=0, learning_rate=RATE, schedule="constant", weight_decay=DECAY,
        clip_norm=math.inf, batch=shape.batch, epochs=10**9, return_weight=RETURN_WEIGHT,
    )  # fmt: skip
    nets = started(given)
    each = [
        epochs.examples(*rows) for rows in zip(given.X, zip(given.up, given.target, strict=True), strict=True)
    ]
    width = side_by_side(nets.member(0), shape.batch, given.members, given.threads)
    blocks = [slice(k, min(k + width, given.members)) for k in range(0, given.members, width)]
    loops = [
        epochs.epochs(
            Network(nets.architecture, nets.parameters[block], nets.statistics[block]),
            epochs.pooled(each[block]), config.heads(), config, given.rngs[block],
        )
        for block in blocks
    ]  # fmt: skip
    if len(loops) == 1:
        return lambda: statistics.fmean(next(loops[0]).train_loss)
    threadpool_limits(1, "blas")  # as the product does it: a thread for each block, not for each product
    pool = ThreadPoolExecutor(given.threads)
    return lambda: statistics.fmean(loss for done in pool.map(next, loops) for loss in done.train_loss)


def started(given: Work) -> Network:
    """Our networks with the weights that every side begins with."""
    nets = network.initialise(network.perceptron(given.shape.inputs, given.shape.hidden, 2), given.rngs)
    for layer, W in zip(nets.architecture.layers, given.W, strict=True):
        members, inputs, outputs = W.shape
        nets.parameters[:, layer.share].reshape(members, inputs + 1, outputs)[:, :-1] = W
    return nets


def passes(given: Work, kind: str) -> Epoch:
    """On one batch, again and again: a forward pass, the loss, all gradients by backpropagation, or one of them by differences."""
    nets, shape = started(given), given.shape
    tape = network.bind(nets, shape.batch, np.empty_like(nets.parameters), given.rngs)
    assert tape.d_outputs is not None
    tape.inputs[..., :-1] = given.X[:, : shape.batch]
    targets = [rows[:, : shape.batch] for rows in (given.up, given.target)]
    loss_of = objective.bind(
        TrainConfig(return_weight=RETURN_WEIGHT).heads(),
        tape.outputs,
        targets,
        np.ones_like(targets[0]),
        tape.d_outputs,
    )

    def loss() -> None:
        tape.forward()
        loss_of()

    def gradients() -> None:
        loss()
        tape.backward()

    def difference() -> None:
        for step in (1e-3, -2e-3):
            nets.parameters[0, 0] += step
            loss()
        nets.parameters[0, 0] += 1e-3

    calls = {"forward": tape.forward, "loss": loss, "gradients": gradients, "difference": difference}
    call = calls[kind]

    def epoch() -> float:
        for _ in range(shape.batches):
            call()
        return math.nan

    return epoch
