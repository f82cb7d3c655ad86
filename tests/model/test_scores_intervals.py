"""Intervals of scores: a resample's scores are those of the rows drawn, and the truth lies inside as often as stated."""

from collections.abc import Iterator
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model import scores
from model.scores import Paired
from model.scores.summary import figures
from tests.model.test_scores_summary import made


def drawn(paired: Paired, rows: np.ndarray) -> Paired:
    """The rows themselves, one after the other."""
    return Paired(*(getattr(paired, field.name)[rows] for field in fields(Paired)))


def resamples(n: int, times: int, seed: int) -> Iterator[np.ndarray]:
    """Rows drawn one by one."""
    rng = np.random.default_rng(seed)
    return (rng.integers(0, n, n) for _ in range(times))


@settings(deadline=None, max_examples=60)
@given(st.integers(30, 3_000), st.integers(0, 10_000), st.booleans(), st.integers(1, 60))
def test_scores_of_a_resample_are_those_of_the_rows_drawn(
    n: int, seed: int, coarse: bool, block: int
) -> None:
    rng = np.random.default_rng(seed)
    paired = made(n, seed, coarse=coarse)
    starts = rng.integers(0, n, -(-n // block))
    rows = ((starts[:, None] + np.arange(block)) % n).ravel()[: int(rng.integers(1, n + 1))]
    whole = scores.of(drawn(paired, rows)).document()
    for name, found in figures(paired)(rows).items():
        if coarse and (name == "ece" or name.startswith("brier_")):
            continue  # equal probabilities at the edge of a bin may go into either
        assert (found is None) == (whole[name] is None), name
        assert found is None or found == pytest.approx(whole[name], rel=1e-9, abs=1e-12), name


def test_each_interval_holds_what_resampling_the_rows_themselves_gives() -> None:
    paired = made(600, 1)
    found = scores.intervals(paired, resamples(600, 100, 2), level=0.8)
    again = [scores.of(drawn(paired, rows)) for rows in resamples(600, 100, 2)]
    for name in ("log_loss", "auc", "rank_ic", "rmse", "coverage_90", "mcc"):
        assert found[name] == pytest.approx(np.quantile([getattr(each, name) for each in again], [0.1, 0.9]))
    assert found["icir"] is None  # of so few rows there are no blocks
    assert set(found) == {field.name for field in fields(scores.Scores)} - {"rows"}


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    """The truth is known from two million rows of the same kind; 200 draws tell 0.9 from 0.8 and from 1."""
    truth = scores.of(made(2_000_000, 99))
    names = ("log_loss", "brier", "auc", "ic", "rank_ic", "mcc", "mae", "coverage_90")
    inside = dict.fromkeys(names, 0)
    for seed in range(200):
        found = scores.intervals(made(400, seed), resamples(400, 100, seed))
        for name in names:
            ends = found[name]
            assert ends is not None
            inside[name] += ends[0] <= getattr(truth, name) <= ends[1]
    assert all(165 <= count <= 194 for count in inside.values()), inside


def test_a_calibrated_forecaster_may_be_calibrated() -> None:
    """Though its calibration error is above zero in every sample, and further above in every resample."""
    holds = 0
    for seed in range(100):
        ends = scores.intervals(made(1_000, seed), resamples(1_000, 60, seed))["ece"]
        assert ends is not None
        holds += ends[0] == 0
    assert holds >= 85
    boaster = made(1_000, 0)
    said = Paired(np.where(boaster.p > 0.5, 0.95, 0.05), boaster.up, boaster.expected, boaster.realised)
    ends = scores.intervals(said, resamples(1_000, 60, 0))["ece"]
    assert ends is not None
    assert 0.2 < ends[0] < ends[1]


def test_overlapping_outcomes_need_blocks() -> None:
    """Rows of which twenty say the same are worth a twentieth: blocks know, rows drawn one by one do not."""
    few = made(150, 3)
    paired = drawn(few, np.repeat(np.arange(150), 20))
    n, rng = 3_000, np.random.default_rng(4)
    blocks = [((rng.integers(0, n, 30)[:, None] + np.arange(100)) % n).ravel() for _ in range(200)]

    def width(ends: list[float] | None) -> float:
        assert ends is not None
        return ends[1] - ends[0]

    by_block, by_row, honest = (
        width(scores.intervals(which, rows)["auc"])
        for which, rows in ((paired, blocks), (paired, resamples(n, 200, 5)), (few, resamples(150, 200, 6)))
    )
    assert by_block == pytest.approx(honest, rel=0.35)
    assert by_row < honest / 3


def test_no_resample_gives_no_interval() -> None:
    assert set(scores.intervals(made(50, 0), []).values()) == {None}


def test_a_score_that_a_resample_has_not_has_no_interval() -> None:
    paired = made(50, 0)
    found = scores.intervals(paired, [np.arange(50), np.flatnonzero(paired.up > 0.5)])
    assert found["auc"] is None
    assert found["log_loss"] is not None
