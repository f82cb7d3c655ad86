"""The machine's own rate at products, by NumPy: no training step can be faster."""

import math

import numpy as np

from benchmarks.sides.work import Epoch, Work

SQUARE = 1024


def products(given: Work) -> Epoch:
    """Of a step, the products that its gradients need and nothing else, by NumPy into arrays made beforehand."""
    rng = np.random.default_rng(0)
    batch, sizes = given.shape.batch, given.shape.sizes
    a = [rng.normal(size=(batch, width)).astype(np.float32) for width in sizes]
    d = [rng.normal(size=(batch, width)).astype(np.float32) for width in sizes]
    W = [weights[0] for weights in given.W]
    d_W = [np.empty_like(weights) for weights in W]

    def epoch() -> float:
        for _ in range(given.shape.batches):
            for i in range(len(W)):
                np.matmul(a[i], W[i], out=a[i + 1])
            for i in reversed(range(len(W))):
                np.matmul(a[i].T, d[i + 1], out=d_W[i])
                if i > 0:
                    np.matmul(d[i + 1], W[i].T, out=d[i])
        return math.nan

    return epoch


def square(given: Work) -> Epoch:
    """One product of two square matrices for each step."""
    a, b, out = np.random.default_rng(0).normal(size=(3, SQUARE, SQUARE)).astype(np.float32)

    def epoch() -> float:
        for _ in range(given.shape.batches):
            np.matmul(a, b, out=out)
        return math.nan

    return epoch
