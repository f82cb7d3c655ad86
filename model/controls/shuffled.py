"""Shuffled labels: what has no skill but by chance."""

import math
from collections.abc import Iterator

import numpy as np

from model.backtest import Said
from model.controls.common import RETURN, Expected, Float64, earnable, entropy, share_up, statement
from model.controls.noisy import noisy
from model.dataset import Dataset


def shuffled(data: Dataset, rng: np.random.Generator) -> Said:
    """What the noisy oracle says, of another row: as if learned from shuffled labels, with no skill but by chance."""
    right, other = noisy(data, rng), rng.permutation(len(data))
    half = float(np.log(right.high[0] / right.low[0])) / 2
    return statement(data, right.p_up[other], right.expected_return[other], half)


def of_shuffled(data: Dataset, said: Said) -> Iterator[Expected]:
    """Means and standard errors over all permutations of what was said (Hoeffding 1951)."""
    n, base, up, r = len(data), share_up(data), (data.up > 0.5).astype(np.float64), data.log_return
    ups = base * n
    p, expected = said.p_up, said.expected_return

    def product(a: Float64, b: Float64) -> tuple[float, float]:
        """The mean of a b, where b is shuffled against a, and its standard error."""
        return float(a.mean() * b.mean()), float(a.std() * b.std()) / math.sqrt(n - 1)

    logit, off = product(up, np.log(p) - np.log1p(-p))
    loss = -float(np.log1p(-p).mean()) - logit
    yield Expected("log_loss", loss, off)
    yield Expected("gain", entropy(base) - loss, off)
    cross, off = product(up, p)
    yield Expected("brier", float(np.mean(p * p)) - 2 * cross + base, 2 * off)
    yield Expected("auc", 0.5, math.sqrt((n + 1) / (12 * ups * (n - ups))))
    long = (p > 0.5).astype(np.float64)
    both, off = product(up, long)
    yield Expected("accuracy", 1 - base - float(long.mean()) + 2 * both, 2 * off)
    chance = 1 / math.sqrt(n - 1)  # the deviation of any correlation of shuffled rows
    yield from (Expected(name, 0.0, chance) for name in ("ic", "rank_ic"))
    yield Expected("mcc", 0.0, chance) if long.any() and not long.all() else Expected("mcc", None)
    cross, off = product(r, expected)
    squares = float(np.mean(r * r))
    yield Expected("r2", (2 * cross - float(np.mean(expected**2))) / squares, 2 * off / squares)
    earned, off = product(earnable(data), np.sign(expected))
    yield Expected(RETURN, earned, off)
