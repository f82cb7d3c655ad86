"""What every side of the training benchmark is given. Letters: K members, B rows of a batch, n of a member, I inputs, O outputs."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]

RATE, DECAY, BETAS, EPSILON = 1e-3, 1e-2, (0.9, 0.999), 1e-8  # of AdamW
RETURN_WEIGHT = 0.2


@dataclass(frozen=True)
class Shape:
    """One of the sizes of the table: two outputs, and `batches` of `batch` rows in an epoch."""

    name: str
    inputs: int
    hidden: tuple[int, ...]
    batch: int
    batches: int

    @property
    def sizes(self) -> tuple[int, ...]:
        return (self.inputs, *self.hidden, 2)

    @property
    def flops(self) -> int:
        """Of the products that one step needs: forward, by the weights, and by all layers' inputs but the first's."""
        each = [2 * self.batch * inputs * outputs for inputs, outputs in pairwise(self.sizes)]
        return 3 * sum(each) - each[0]


@dataclass(frozen=True)
class Work:
    """What a side is given: initial weights (K, I, O), biases zero, and each member's own rows, standardised."""

    shape: Shape
    members: int
    threads: int
    W: tuple[Float32, ...]
    X: Float32  # (K, n, I)
    up: Float32  # (K, n)
    target: Float32  # (K, n)
    rngs: tuple[np.random.Generator, ...]  # one a member, from which the epochs' orders are drawn

    def order(self) -> NDArray[np.int64]:
        """The next epoch's order of each member's rows, (K, n)."""
        return np.stack([rng.permutation(self.X.shape[1]) for rng in self.rngs])


def work(shape: Shape, members: int, threads: int) -> Work:
    """The same for every side: a faint signal in much noise, as in bars."""
    rng = np.random.default_rng(0)
    rows = shape.batch * shape.batches
    X = rng.normal(size=(members, rows, shape.inputs)).astype(np.float32)
    target = (0.1 * X[..., 0] + rng.normal(size=(members, rows))).astype(np.float32)
    up = (target > 0).astype(np.float32)
    W = tuple(
        (rng.normal(size=(members, i, o)) * math.sqrt(2 / i)).astype(np.float32)
        for i, o in pairwise(shape.sizes)
    )
    return Work(
        shape, members, threads, W, X, up, target, tuple(np.random.default_rng(k) for k in range(members))
    )


Epoch = Callable[[], float]  # trains one epoch and gives its mean loss
