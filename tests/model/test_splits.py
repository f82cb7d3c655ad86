"""Laws of splits: beside a search through all pairs of rows, beside purgedcv, and over the labels of real bars.

purgedcv takes spans as half-open, [prediction, evaluation); ours are closed, so it is given the first microsecond
after a label is known.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from math import comb
from typing import Any

import numpy as np
import purgedcv
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from model import backtest, dataset, splits
from model.bars import timeframe
from model.errors import BadInput
from model.features import DEFAULT, WARMUP, rows
from model.labels import Labels, labels, triple_barrier
from model.splits import Fold
from tests.model import markets

Int64 = NDArray[np.int64]
HOUR = timeframe("1h")
STEP = 3_600_000_000


@st.composite
def spans(draw: st.DrawFn, least: int = 2, even: bool = False) -> tuple[Int64, Int64]:
    """Rows at uneven closes (even ones where asked for), with labels known after a while, in any order."""
    n = draw(st.integers(least, 40))
    steps = [1] * n if even else draw(st.lists(st.integers(1, 5), min_size=n, max_size=n))
    last = draw(st.lists(st.integers(0, 12), min_size=n, max_size=n))
    closed_at = np.cumsum(steps, dtype=np.int64) * STEP
    return closed_at, closed_at + np.array(last) * STEP


def slow(closed_at: Int64, known_at: Int64, test: Sequence[int], embargo: int) -> list[int]:
    """What may be learned from, asked for each pair of rows by the definition."""
    kept = []
    for i in range(len(closed_at)):
        fine = True
        for j in test:
            meets = closed_at[i] <= known_at[j] and closed_at[j] <= known_at[i]
            next_ones = [k for k in range(len(closed_at)) if closed_at[k] > known_at[j]][:embargo]
            fine &= not meets and i not in next_ones
        if fine:
            kept.append(i)
    return kept


def by_purgedcv(closed_at: Int64, known_at: Int64) -> dict[str, Any]:
    times = {"prediction_times": closed_at, "evaluation_times": known_at + 1}
    return {name: values.astype("datetime64[us]") for name, values in times.items()}


def same(ours: Sequence[Fold], theirs: Any) -> None:
    pairs = list(theirs)
    assert len(ours) == len(pairs)
    for fold, (learn, test) in zip(ours, pairs, strict=True):
        assert fold.learn.tolist() == learn.tolist()
        assert fold.test.tolist() == test.tolist()


# --- purge and embargo


@settings(deadline=None)
@given(spans(), st.data(), st.integers(0, 6))
def test_purging_agrees_with_a_search_through_all_pairs(
    of_rows: tuple[Int64, Int64], data: st.DataObject, embargo: int
) -> None:
    closed_at, known_at = of_rows
    n = len(closed_at)
    test = sorted(data.draw(st.sets(st.integers(0, n - 1), min_size=1)))
    learn = splits.purged(closed_at, known_at, np.array(test), embargo)
    assert learn.tolist() == slow(closed_at, known_at, test, embargo)


@settings(deadline=None)
@given(spans(even=True), st.data(), st.integers(0, 6))
def test_purging_and_embargo_agree_with_purgedcv(
    of_rows: tuple[Int64, Int64], data: st.DataObject, embargo: int
) -> None:
    closed_at, known_at = of_rows
    n = len(closed_at)
    test = np.array(sorted(data.draw(st.sets(st.integers(0, n - 1), min_size=1))))
    times = by_purgedcv(closed_at, known_at)
    learn = purgedcv.purge(np.setdiff1d(np.arange(n), test), test, **times)
    # of even closes the next ones are those within as many steps, counted from the first instant after the label's
    window = np.timedelta64(max(embargo * STEP - 1, 0), "us")
    learn = purgedcv.apply_embargo(learn, test, embargo=window, **times)
    assert splits.purged(closed_at, known_at, test, embargo).tolist() == learn.tolist()


# Real labels: a market with weekends, and missing and equal closes.
MARKET = rows(markets.bars(WARMUP + 400, seed=8, skip=0.1, flat=0.1), HOUR)
RULES: dict[str, Labels] = {
    "one bar": labels(MARKET, 1),
    "a day": labels(MARKET, 24),
    "triple barrier": triple_barrier(MARKET, 24, 0.5, 0.8),
}


def folds_of(closed_at: Int64, known_at: Int64, embargo: int) -> dict[str, Sequence[Fold]]:
    n = len(closed_at)
    return {
        "holdout": [splits.holdout(closed_at, known_at, n // 5)],
        "walk forward": splits.walk_forward(closed_at, known_at, n // 3, 37),
        "sliding": splits.walk_forward(closed_at, known_at, n // 3, 37, window=80),
        "k-fold": splits.k_fold(closed_at, known_at, 5, embargo),
        "combinatorial": splits.combinatorial(closed_at, known_at, 6, 2, embargo),
    }


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("embargo", [0, 7])
def test_no_training_labels_span_overlaps_a_test_rows_features_or_label(rule: str, embargo: int) -> None:
    known_at = RULES[rule].known_at
    closed_at = MARKET.closed_at[: len(known_at)]
    for name, folds in folds_of(closed_at, known_at, embargo).items():
        for fold in folds:
            assert len(fold.learn), name
            a, b = closed_at[fold.learn][:, None], known_at[fold.learn][:, None]
            before = b < closed_at[fold.test]
            after = a > known_at[fold.test]
            assert (before | after).all(), name
            if name in ("holdout", "walk forward", "sliding"):
                assert before.all()
            elif embargo:
                places = np.searchsorted(closed_at, known_at[fold.test], side="right")
                assert (before | (fold.learn[:, None] >= places + embargo)).all()


@pytest.mark.parametrize("rule", RULES)
def test_nothing_is_thrown_away_beyond_what_overlaps(rule: str) -> None:
    known_at = RULES[rule].known_at
    closed_at = MARKET.closed_at[: len(known_at)]
    folds = folds_of(closed_at, known_at, 0)
    for name in ("k-fold", "combinatorial"):
        for fold in folds[name]:
            for i in np.setdiff1d(
                np.arange(len(closed_at)), np.concatenate((fold.learn, fold.test))
            ).tolist():
                assert ((closed_at[i] <= known_at[fold.test]) & (closed_at[fold.test] <= known_at[i])).any()


# --- whole splits beside purgedcv


@pytest.mark.parametrize("horizon", [1, 5])
@pytest.mark.parametrize("embargo", [0, 9])
def test_k_fold_and_combinatorial_agree_with_purgedcv(horizon: int, embargo: int) -> None:
    """Its embargo counts from the end of a test block, ours from when the block's last label is known."""
    known_at = labels(MARKET, horizon).known_at
    closed_at = MARKET.closed_at[: len(known_at)]
    X = np.zeros((len(closed_at), 1))
    settings = {**by_purgedcv(closed_at, known_at), "embargo_observations": horizon + embargo}
    theirs = purgedcv.PurgedKFold(5, **settings).split(X)
    same(splits.k_fold(closed_at, known_at, 5, embargo), theirs)
    theirs = purgedcv.CombinatorialPurgedCV(7, 3, **settings).split(X)
    same(splits.combinatorial(closed_at, known_at, 7, 3, embargo), theirs)


@settings(deadline=None)
@given(spans(least=12))
def test_walking_forward_agrees_with_purgedcv(of_rows: tuple[Int64, Int64]) -> None:
    closed_at, known_at = of_rows
    n, size, X = len(closed_at), 3, np.zeros((len(closed_at), 1))
    first = n - 3 * size
    times = by_purgedcv(closed_at, known_at)
    same(
        splits.walk_forward(closed_at, known_at, first, size),
        purgedcv.WalkForwardSplit(3, size, **times).split(X),
    )
    same(
        splits.walk_forward(closed_at, known_at, first, size, window=4),
        purgedcv.WalkForwardSplit(3, size, train_size=4, window="sliding", **times).split(X),
    )


@pytest.mark.parametrize(("groups", "tested"), [(2, 1), (5, 1), (6, 2), (7, 3), (4, 3)])
def test_paths_agree_with_purgedcv(groups: int, tested: int) -> None:
    n = 3 * groups + 1
    blocks = np.array_split(np.arange(n), groups)
    tests = [np.concatenate([blocks[g] for g in some]) for some in combinations(range(groups), tested)]
    said = [np.full(len(test), float(fold)) for fold, test in enumerate(tests)]
    theirs = purgedcv.reconstruct_paths(said, tests, groups, tested, n)
    ours = splits.paths(groups, tested)
    assert np.repeat(ours, [len(block) for block in blocks], axis=1).tolist() == theirs.tolist()


@settings(deadline=None)
@given(st.integers(2, 8), st.data())
def test_paths_use_every_test_of_every_group_once(groups: int, data: st.DataObject) -> None:
    tested = data.draw(st.integers(1, groups - 1))
    chosen = list(combinations(range(groups), tested))
    paths = splits.paths(groups, tested)
    assert paths.shape == (comb(groups - 1, tested - 1), groups)
    used = Counter((fold, g) for path in paths.tolist() for g, fold in enumerate(path))
    assert used == Counter((fold, g) for fold, members in enumerate(chosen) for g in members)


# --- the house's own


@pytest.mark.parametrize("horizon", [1, 6])
def test_a_walk_learns_from_what_the_backtest_would_have(horizon: int) -> None:
    """A training at a row's close sees what is known by then, and answers from the next row on."""
    data = dataset.build(MARKET, DEFAULT, horizon)
    window, refit_every = 90, 23
    start = backtest.first_refit(data, window)
    assert start is not None
    folds = splits.walk_forward(data.closed_at, data.known_at, start + 1, refit_every, window)
    for fold, row in zip(folds, range(start, len(data) - 1, refit_every), strict=True):
        seen = backtest.known_at_close(data, row)
        assert fold.learn.tolist() == list(range(len(seen) - window, len(seen)))
        assert fold.test.tolist() == list(range(row + 1, min(row + 1 + refit_every, len(data))))


@pytest.mark.parametrize("horizon", [1, 6])
def test_a_holdout_is_the_split_of_a_dataset_but_for_the_instant_that_its_parts_share(horizon: int) -> None:
    data = dataset.build(MARKET, DEFAULT, horizon)
    parts = dataset.split(data, 0.1, 0.2)
    fold = splits.holdout(data.closed_at, data.known_at, parts.held.stop - parts.held.start)
    assert fold.test.tolist() == list(range(parts.held.start, parts.held.stop))
    assert fold.learn.tolist() == list(range(parts.stop.stop - 1))
    assert data.known_at[parts.stop.stop - 1] == data.closed_at[parts.held.start]


def test_a_hand_made_fold() -> None:
    """Ten hourly rows, labels known two hours on; row 5 is tested, then the next two are embargoed."""
    closed_at = np.arange(10) * STEP
    fold = splits.purged(closed_at, closed_at + 2 * STEP, np.array([5]), 2)
    assert fold.tolist() == [
        0,
        1,
        2,
    ]  # 3 is known when 5 closes; 7 begins when 5 is known; 8 and 9 are embargoed
    assert splits.purged(closed_at, closed_at + 2 * STEP, np.array([5])).tolist() == [0, 1, 2, 8, 9]


TIMES = np.arange(10, dtype=np.int64)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: splits.purged(TIMES[::-1], TIMES + 20, np.array([1])), "closes that rise"),
        (lambda: splits.purged(TIMES // 2, TIMES, np.array([1])), "closes that rise"),
        (lambda: splits.purged(TIMES, TIMES - 1, np.array([1])), "known no earlier"),
        (lambda: splits.purged(TIMES, TIMES[:9], np.array([1])), "closes that rise"),
        (lambda: splits.purged(TIMES, TIMES, np.array([], int)), "at least one"),
        (lambda: splits.purged(TIMES, TIMES, np.array([3, 3])), "ascending places among 10"),
        (lambda: splits.purged(TIMES, TIMES, np.array([-1, 3])), "ascending places among 10"),
        (lambda: splits.purged(TIMES, TIMES, np.array([3, 10])), "ascending places among 10"),
        (lambda: splits.k_fold(TIMES, TIMES, 3, embargo=-1), "an embargo of -1"),
        (lambda: splits.k_fold(TIMES, TIMES, 1), "of 1 groups"),
        (lambda: splits.k_fold(TIMES, TIMES, 11), "10 rows are too few for 11 groups"),
        (lambda: splits.combinatorial(TIMES, TIMES, 4, 4), "of 4 groups 4 cannot be tested"),
        (lambda: splits.combinatorial(TIMES, TIMES, 4, 0), "of 4 groups 0 cannot be tested"),
        (lambda: splits.paths(4, 4), "of 4 groups 4 cannot be tested"),
        (lambda: splits.holdout(TIMES, TIMES, 10), "from row 0"),
        (lambda: splits.holdout(TIMES, TIMES, 0), "blocks of 0"),
        (lambda: splits.walk_forward(TIMES, TIMES, 3, 2, window=0), "window 0"),
    ],
)
def test_what_cannot_be_split_is_refused_in_one_line(call: Any, said: str) -> None:
    with pytest.raises(BadInput, match=said) as refused:
        call()
    assert "\n" not in str(refused.value)
