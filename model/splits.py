"""Splits for judging out of sample: which rows to learn from and which to test on, purged by what their labels span.

A row's span is closed: from `closed_at`, when its features are known and its label begins, to `known_at`, when its
label is. No row that is learned from has a span that shares an instant with a test row's: neither does its label reach
the close that a test row's features stand on, nor does it begin before a test row's label is known. An embargo keeps
out more rows after that, whose features look back on what was tested (Lopez de Prado 2018, ch. 7.4).

closed_at, known_at (n,) int64 microseconds; closed_at rises, known_at need not. Rows are told by their places, (m,).
The parts of `dataset.split` may share one instant, as they do live: at a bar's close its label is learned and the next
asked for.
"""

from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
from numpy.typing import NDArray

from model.errors import BadInput

Int64 = NDArray[np.int64]
Rows = NDArray[np.intp]  # places, ascending


@dataclass(frozen=True)
class Fold:
    """Rows to learn from, none perhaps where labels span too much, and rows to test on."""

    learn: Rows
    test: Rows


def purged(closed_at: Int64, known_at: Int64, test: Rows, embargo: int = 0) -> Rows:
    """All rows but those of `test`, those whose span meets a test row's, and those among the `embargo` rows that close
    next after a test row's label is known. Raises BadInput where the times are no spans or the test is no rows."""
    n = len(closed_at)
    if len(known_at) != n or (np.diff(closed_at) <= 0).any() or (known_at < closed_at).any():
        raise BadInput("spans need closes that rise, and labels that are known no earlier than these")
    if not (len(test) and test[0] >= 0 and test[-1] < n and (np.diff(test) > 0).all()):
        raise BadInput(f"rows to test on must be ascending places among {n}, at least one")
    if embargo < 0:
        raise BadInput(f"an embargo of {embargo} rows keeps nothing out: it must be 0 or more")
    # an embargo is no more than a longer span: up to the last row that closes within it
    last = np.searchsorted(closed_at, known_at[test], side="right") - 1 + embargo
    until = closed_at[np.minimum(last, n - 1)]
    latest = np.maximum.accumulate(until)  # of the test rows up to each
    # of the test rows, when each label is known
    begun = np.searchsorted(closed_at[test], known_at, side="right")
    met = (begun > 0) & (latest[begun - 1] >= closed_at)
    return np.flatnonzero(~met)


def holdout(closed_at: Int64, known_at: Int64, size: int) -> Fold:
    """Tests on the newest `size` rows and learns from those before. Raises BadInput unless both have a row."""
    (fold,) = walk_forward(closed_at, known_at, len(closed_at) - size, size)
    return fold


def walk_forward(
    closed_at: Int64, known_at: Int64, first: int, size: int, window: int | None = None
) -> tuple[Fold, ...]:
    """Tests on block after block of `size` rows from row `first` on, the last perhaps shorter, and learns from the rows
    before each, the newest `window` of them. Nothing after a test is learned from, so there is nothing to embargo.

    These are the rows of the backtest: a training at a row's close, and its answers from the next row on.
    """
    n = len(closed_at)
    if size < 1 or not 0 < first < n or (window is not None and window < 1):
        raise BadInput(
            f"of {n} rows none can be walked from row {first} in blocks of {size}, window {window}"
        )
    folds = []
    for begin in range(first, n, size):
        test = np.arange(begin, min(begin + size, n))
        learn = purged(closed_at, known_at, test)
        learn = learn[: np.searchsorted(learn, begin)]
        folds.append(Fold(learn if window is None else learn[-window:], test))
    return tuple(folds)


def k_fold(closed_at: Int64, known_at: Int64, folds: int, embargo: int = 0) -> tuple[Fold, ...]:
    """Tests on each of so many blocks of adjacent rows, oldest first, and learns from the others, later ones too."""
    return combinatorial(closed_at, known_at, folds, 1, embargo)


def combinatorial(
    closed_at: Int64, known_at: Int64, groups: int, tested: int, embargo: int = 0
) -> tuple[Fold, ...]:
    """Tests on each choice of `tested` among so many blocks of adjacent rows (Lopez de Prado 2018, ch. 12.4), in the
    order of `itertools.combinations`. Raises BadInput for a choice that cannot be made."""
    n = len(closed_at)
    _check(groups, tested)
    if groups > n:
        raise BadInput(f"{n} rows are too few for {groups} groups")
    blocks = np.array_split(np.arange(n), groups)
    tests = (np.concatenate([blocks[g] for g in chosen]) for chosen in combinations(range(groups), tested))
    return tuple(Fold(purged(closed_at, known_at, test, embargo), test) for test in tests)


def paths(groups: int, tested: int) -> Rows:
    """How the folds of `combinatorial` make whole histories: (P, groups), the fold that each path takes each group's
    test rows from, P = C(groups - 1, tested - 1). Each test of a group is in one path, the earlier the lower."""
    _check(groups, tested)
    found = np.empty((comb(groups - 1, tested - 1), groups), np.intp)
    chosen = list(combinations(range(groups), tested))
    for g in range(groups):
        found[:, g] = [fold for fold, members in enumerate(chosen) if g in members]
    return found


def _check(groups: int, tested: int) -> None:
    if not 1 <= tested < groups:
        raise BadInput(
            f"of {groups} groups {tested} cannot be tested: at least one is, and one at least is not"
        )
