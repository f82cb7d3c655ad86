"""How often choosing the best trial chooses a poor one: the probability of backtest overfitting by combinatorially
symmetric cross-validation, CSCV (Bailey, Borwein, López de Prado & Zhu 2017).

Rows are cut into blocks; each half of the blocks is once what the best trial is chosen by, and the other half what it is
judged by. Letters: C ways to choose, N trials, S blocks.
"""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

# The paper's choice: 12,870 ways to choose half of them.
BLOCKS = 16
# Ways at once: bounds the memory that many trials take.
AT_ONCE = 1024
# A variance smaller than this share of the mean square is rounding: such a trial earns no Sharpe ratio.
STILL = 1e-12


@dataclass(frozen=True, eq=False)
class Overfitting:
    """What became of the best trial of one half in the other, over all C ways."""

    chosen_bar: Float64  # (C,) its Sharpe ratio per bar where it was chosen
    judged_bar: Float64  # (C,) and where it was judged
    rank: Float64  # (C,) where it was judged, its rank among the trials by N + 1: near 1 the best, near 0 the worst

    @property
    def probability(self) -> float:
        """How often it came out below the median trial, at the median counted half: a half where choosing is blind."""
        return float((self.rank < 0.5).mean() + (self.rank == 0.5).mean() / 2)

    @property
    def loss(self) -> float:
        """How often it lost money where it was judged."""
        return float((self.judged_bar < 0).mean())

    @property
    def logits(self) -> Float64:
        """The paper's λ (C,): the log odds of the rank, below 0 where it came out below the median."""
        found: Float64 = np.log(self.rank / (1 - self.rank))
        return found


def overfitting(returns: Float64, blocks: int = BLOCKS) -> Overfitting | None:
    """Over the returns per bar (N, n) of all trials on the same rows, those that were thrown away too; None where they are
    fewer than two, or a block would have fewer than two rows. The number of blocks is even."""
    trials, n = returns.shape
    if trials < 2 or n < 2 * blocks:
        return None
    halves = np.array(list(combinations(range(blocks), blocks // 2)))
    ways = np.zeros((len(halves), blocks))
    np.put_along_axis(ways, halves, 1.0, axis=1)
    sums = _sums(returns, blocks)
    found = [_judged(sums, ways[i : i + AT_ONCE]) for i in range(0, len(ways), AT_ONCE)]
    return Overfitting(*(np.concatenate(part) for part in zip(*found, strict=True)))


@dataclass(frozen=True, eq=False)
class _Sums:
    """Of each block, what the Sharpe ratios over any union of blocks follow from."""

    rows: Float64  # (S,)
    returns: Float64  # (S, N)
    about: Float64  # (S, N) of returns about each trial's own mean, which keeps the digits of its variance
    squares: Float64  # (S, N) of the same


def _sums(returns: Float64, blocks: int) -> _Sums:
    """The sums of each block; the first ones are longer by a row where the rows do not divide."""
    n = returns.shape[1]
    size = np.full(blocks, n // blocks)
    size[: n % blocks] += 1
    first = np.concatenate(([0], np.cumsum(size)[:-1]))
    about = returns - returns.mean(axis=1, keepdims=True)
    of = (np.add.reduceat(x, first, axis=1).T for x in (returns, about, about**2))
    return _Sums(size.astype(np.float64), *of)


def _judged(sums: _Sums, ways: Float64) -> tuple[Float64, Float64, Float64]:
    """Of each way (C, S), 1 where a block is chosen by: the best trial's Sharpe ratio there and in the rest, its rank."""
    here, there = _sharpes(sums, ways), _sharpes(sums, 1 - ways)
    each = np.arange(len(ways))
    best = here.argmax(axis=1)
    judged = there[each, best]
    below = (there < judged[:, None]).sum(axis=1)
    level = (there == judged[:, None]).sum(axis=1)
    return here[each, best], judged, (below + (level + 1) / 2) / (there.shape[1] + 1)


def _sharpes(sums: _Sums, ways: Float64) -> Float64:
    """The Sharpe ratios (C, N) over the blocks that each way has."""
    n = (ways @ sums.rows)[:, None]
    # no products of matrices: equal trials must come out equal to the bit, which a BLAS does not promise
    total, about, squares = (
        np.einsum("cs,sn->cn", ways, x) for x in (sums.returns, sums.about, sums.squares)
    )
    mean, variance = total / n, (squares - about**2 / n) / (n - 1)
    moves = variance > STILL * mean**2
    found: Float64 = np.where(moves, mean, 0.0) / np.sqrt(np.where(moves, variance, 1.0))
    return found
