"""The same walk by others. Add one by adding a row to PEERS: what it says of a lesson's rows, having learned from it.

Rows, batches, epochs and optimiser are ours; what only we do (gradient check and health, calibration, the gate) is
left out. Every training is told apart from the others, so a peer's walk goes over processes too.
"""

import math
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.sides.work import BETAS, DECAY, EPSILON, RATE, RETURN_WEIGHT
from benchmarks.walks.work import Given, Lesson, Walked, lesson, log_loss
from model.config import OUTPUTS, TrainConfig
from model.epochs import batches_of

Float64 = NDArray[np.float64]
Peer = Callable[[Lesson, TrainConfig, int], Float64]  # lesson, config, threads: the probability of up (n,)

TREES = 100


def pytorch(given: Lesson, config: TrainConfig, threads: int, fused: bool) -> Float64:
    """The fastest plain loop in eager mode: tensors made beforehand, one gather an epoch, batches as views, functions
    and no modules; the loss on the stop rows after each epoch, and the best epoch's weights in the end."""
    import torch
    from torch.nn import functional as F  # noqa: N812  its own docs' name

    torch.set_num_threads(threads)
    draw = torch.Generator().manual_seed(config.seed)
    X = torch.from_numpy(np.array(given.learn.X))  # a copy: it warns of arrays that may not be written
    deviation, mean = torch.std_mean(X, dim=0)
    deviation[deviation <= 1e-6] = math.inf  # a feature that never moves says nothing

    def tensors(part: Any) -> list[Any]:
        standardised = (torch.from_numpy(np.array(part.X)) - mean) / deviation
        return [standardised, torch.from_numpy(np.array(part.up)), torch.from_numpy(part.target)]

    rows, stop, asked = (tensors(part) for part in (given.learn, given.stop, given.asked))
    sizes = (X.shape[1], *config.hidden, OUTPUTS)
    layers = []
    for inputs, outputs in pairwise(sizes):
        W = torch.randn(outputs, inputs, generator=draw) * math.sqrt(2 / inputs)
        layers.append((W.requires_grad_(), torch.zeros(outputs, requires_grad=True)))
    layers[-1][0].data.mul_(0.1)  # the last one begins small, as ours does
    parameters = [part for layer in layers for part in layer]
    optimiser = torch.optim.AdamW(
        parameters, lr=RATE, betas=BETAS, eps=EPSILON, weight_decay=DECAY, fused=fused, foreach=not fused
    )

    def outputs_of(x: Any) -> Any:
        for W, b in layers[:-1]:
            x = F.relu(F.linear(x, W, b))
        return F.linear(x, *layers[-1])

    def loss_of(x: Any, up: Any, target: Any) -> Any:
        outputs = outputs_of(x)
        loss = F.binary_cross_entropy_with_logits(outputs[:, 0], up)
        return loss + RETURN_WEIGHT * F.huber_loss(outputs[:, 1], target)

    batches, size = batches_of(len(X), config.batch)
    best, best_loss = [part.detach().clone() for part in parameters], math.inf
    for _ in range(config.epochs):
        order = torch.randperm(len(X), generator=draw)[: batches * size]
        shuffled = [part[order].split(size) for part in rows]
        for batch in zip(*shuffled, strict=True):
            optimiser.zero_grad(set_to_none=True)
            loss_of(*batch).backward()
            optimiser.step()
        with torch.inference_mode():
            loss = float(loss_of(*stop))
        if loss < best_loss:
            best, best_loss = [part.detach().clone() for part in parameters], loss
    with torch.inference_mode():
        for part, kept in zip(parameters, best, strict=True):
            part.copy_(kept)
        p: Float64 = outputs_of(asked[0])[:, 0].sigmoid().numpy().astype(np.float64)
    return p


def lightgbm(given: Lesson, config: TrainConfig, threads: int) -> Float64:
    """TREES trees for up alone, all else as it comes: half of what the networks say, on the same rows to learn from."""
    import lightgbm as lgb

    told = {"objective": "binary", "num_threads": threads, "verbosity": -1}
    trees = lgb.train(told, lgb.Dataset(given.learn.X, given.learn.up), TREES)
    return np.asarray(trees.predict(given.asked.X, num_threads=threads), np.float64)


FOREACH, FUSED, LIGHTGBM = "PyTorch foreach", "PyTorch fused", "LightGBM"
PEERS: dict[str, tuple[str, Peer]] = {  # the library, and how it learns and answers
    FOREACH: ("torch", partial(pytorch, fused=False)),
    FUSED: ("torch", partial(pytorch, fused=True)),
    LIGHTGBM: ("lightgbm", lightgbm),
}


def walked(name: str, given: Given, processes: int, threads: int) -> Walked:
    """The peer's walk over so many processes of so many threads each; starting and warming them up does not count."""
    with ProcessPoolExecutor(
        processes, multiprocessing.get_context("spawn"), initializer=_begin, initargs=(name, given, threads)
    ) as pool:
        for warm in [pool.submit(_warm) for _ in range(processes)]:
            warm.result()
        begun = time.perf_counter()
        said = list(pool.map(_answer, given.refits))
        seconds = time.perf_counter() - begun
    first = given.refits.start + 1
    return Walked(seconds, log_loss(np.concatenate(said), given.data.part(slice(first, len(given.data)))))


_given: tuple[str, Given, int] | None = None


def _begin(name: str, given: Given, threads: int) -> None:
    global _given
    _given = name, given, threads


def _warm() -> None:
    """One training; and a pause, so that the others of the pool, and not this one, take the next."""
    assert _given is not None
    _answer(_given[1].refits.start)
    time.sleep(0.5)


def _answer(row: int) -> Float64:
    assert _given is not None
    name, given, threads = _given
    return PEERS[name][1](lesson(given, row), given.config, threads)
