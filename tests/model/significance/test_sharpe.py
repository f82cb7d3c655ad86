"""Sharpe ratios: the papers' worked examples, an independent implementation, and noise."""

import math

import numpy as np
import purgedcv
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats

from model.significance import sharpe
from model.significance.sharpe import TrackRecord

RETURNS = arrays.arrays(np.float64, st.integers(2, 50), elements=st.floats(-0.5, 0.5))


def skewed(rng: np.random.Generator, n: int) -> np.ndarray:
    """Returns of no drift that mostly win a little and sometimes lose much."""
    return (1 - rng.exponential(size=n)) * 0.01


# Bailey & López de Prado (2012): two years of monthly returns with a mean of 3.6 % and a deviation of 7.9 %
@pytest.mark.parametrize(
    ("skewness", "kurtosis", "published"),
    [(0.0, 3.0, 0.982), (-2.448, 10.164, 0.913)],
    ids=["normal", "fund"],
)
def test_the_probabilistic_sharpe_ratio_is_the_papers(
    skewness: float, kurtosis: float, published: float
) -> None:
    assert sharpe.probabilistic(TrackRecord(24, 0.458, skewness, kurtosis)) == pytest.approx(
        published, abs=5e-4
    )


# Bailey & López de Prado (2012): a Sharpe ratio of 2 a year against one of 1, with 95 % confidence
@pytest.mark.parametrize(
    ("bars_a_year", "skewness", "kurtosis", "published_years"),
    [(250, 0.0, 3.0, 2.73), (52, 0.0, 3.0, 2.83), (12, 0.0, 3.0, 3.24), (12, -0.72, 5.78, 4.99)],
    ids=["daily", "weekly", "monthly", "funds"],
)
def test_the_minimum_track_record_is_the_papers(
    bars_a_year: int, skewness: float, kurtosis: float, published_years: float
) -> None:
    record = TrackRecord(100, 2 / math.sqrt(bars_a_year), skewness, kurtosis)
    bars = sharpe.min_track_record_bars(record, 1 / math.sqrt(bars_a_year), 0.95)
    assert bars is not None
    # ours is the whole bar that the paper's fraction lies in
    assert bars - 1 - 0.005 * bars_a_year <= published_years * bars_a_year <= bars + 0.005 * bars_a_year


# Bailey & López de Prado (2014): the best of 100 has 2.5 a year over five years of 250 days, variance of trials 1/2 a year
@pytest.mark.parametrize(
    ("trials", "skewness", "kurtosis", "published"),
    [(100, -3.0, 10.0, 0.9004), (46, -3.0, 10.0, 0.9505), (88, 0.0, 3.0, 0.9505)],
)
def test_the_deflated_sharpe_ratio_is_the_papers(
    trials: int, skewness: float, kurtosis: float, published: float
) -> None:
    record = TrackRecord(1_250, 2.5 / math.sqrt(250), skewness, kurtosis)
    assert sharpe.deflated(record, trials, math.sqrt(0.5 / 250)) == pytest.approx(published, abs=5e-5)


def test_the_expected_maximum_is_the_papers() -> None:
    assert sharpe.expected_maximum_bar(100, math.sqrt(0.5 / 250)) == pytest.approx(0.1132, abs=5e-5)


@given(returns=RETURNS)
def test_the_moments_are_scipys(returns: np.ndarray) -> None:
    record = sharpe.track_record(returns)
    if record is None:
        assert returns.std() <= 1e-9 * abs(returns.mean())
        return
    assert record.sharpe_bar == pytest.approx(returns.mean() / returns.std())
    assert record.kurtosis >= 1 + record.skewness**2 - 1e-6
    if np.ptp(returns) > 1e-6:  # below it SciPy calls the moments lost
        assert record.skewness == pytest.approx(stats.skew(returns), rel=1e-6, abs=1e-6)
        assert record.kurtosis == pytest.approx(stats.kurtosis(returns, fisher=False), rel=1e-6)


@given(returns=RETURNS, benchmark=st.floats(-1, 1), trials=st.integers(1, 500), spread=st.floats(0, 1))
@settings(deadline=None)
def test_probabilistic_and_deflated_agree_with_purgedcv(
    returns: np.ndarray, benchmark: float, trials: int, spread: float
) -> None:
    assume(len(returns) >= 5 and np.ptp(returns) >= 1e-3)
    record = TrackRecord(  # with its moments, which are corrected for few rows as the papers' are not
        len(returns),
        float(returns.mean() / returns.std()),
        float(stats.skew(returns, bias=False)),
        float(stats.kurtosis(returns, bias=False, fisher=False)),
    )
    sharpe_bar = record.sharpe_bar
    assume(1 - record.skewness * sharpe_bar + (record.kurtosis - 1) / 4 * sharpe_bar**2 > 1e-6)
    assert sharpe.probabilistic(record, benchmark) == pytest.approx(
        purgedcv.probabilistic_sharpe_ratio(returns, benchmark), rel=1e-9, abs=1e-12
    )
    assert sharpe.deflated(record, trials, spread) == pytest.approx(
        purgedcv.deflated_sharpe_ratio(returns, trials, spread**2), rel=1e-9, abs=1e-12
    )


@given(
    sharpe_bar=st.floats(-0.5, 0.5),
    benchmark=st.floats(-0.5, 0.5),
    skewness=st.floats(-1, 1),
    kurtosis=st.floats(2, 20),
    confidence=st.floats(0.51, 0.999),
)
def test_the_minimum_track_record_agrees_with_purgedcv_and_is_minimal(
    sharpe_bar: float, benchmark: float, skewness: float, kurtosis: float, confidence: float
) -> None:
    assume(abs(sharpe_bar - benchmark) > 1e-9)  # below it they raise
    record = TrackRecord(50, sharpe_bar, skewness, kurtosis)
    bars = sharpe.min_track_record_bars(record, benchmark, confidence)
    theirs = purgedcv.min_track_record_length(sharpe_bar, benchmark, 1 - confidence, skewness, kurtosis)
    if bars is None:
        assert theirs == math.inf
        return
    assert bars == pytest.approx(theirs, rel=1e-9, abs=1)  # a bar where rounding meets a whole number
    if 3 < bars < 10**9:
        enough = TrackRecord(bars, sharpe_bar, skewness, kurtosis)
        fewer = TrackRecord(bars - 1, sharpe_bar, skewness, kurtosis)
        assert sharpe.probabilistic(enough, benchmark) >= confidence - 1e-9
        assert sharpe.probabilistic(fewer, benchmark) <= confidence + 1e-9


@pytest.mark.parametrize("trials", [5, 20, 100, 1_000])
def test_the_expected_maximum_is_what_simulation_finds(trials: int) -> None:
    best = np.random.default_rng(trials).standard_normal((4_000, trials)).max(axis=1) * 0.02
    assert sharpe.expected_maximum_bar(trials, 0.02) == pytest.approx(best.mean(), rel=0.04)


def test_of_one_trial_there_is_nothing_to_deflate() -> None:
    record = TrackRecord(1_000, 0.05, -1.0, 8.0)
    assert sharpe.deflated(record, 1, 0.02) == sharpe.probabilistic(record)
    assert sharpe.deflated(record, 50, 0.0) == sharpe.probabilistic(record)


@pytest.mark.parametrize("kind", ["normal", "heavy", "skewed"])
def test_of_noise_the_probabilistic_sharpe_ratio_is_any_number_alike(kind: str) -> None:
    rng = np.random.default_rng(7)
    draw = {
        "normal": lambda: rng.standard_normal(2_000),
        "heavy": lambda: rng.standard_t(5, 2_000),
        "skewed": lambda: skewed(rng, 2_000),
    }[kind]
    records = [sharpe.track_record(draw()) for _ in range(1_000)]
    found = np.array([sharpe.probabilistic(record) for record in records if record is not None])
    assert len(found) == 1_000
    assert stats.kstest(found, "uniform").pvalue > 0.01


def test_the_best_of_many_noise_trials_looks_like_skill_until_it_is_deflated() -> None:
    """Over 200 searches of 50 trials: the bare figure claims skill in nearly all of them, the deflated one rarely."""
    rng = np.random.default_rng(8)
    bare, deflated = [], []
    for _ in range(200):
        records = [sharpe.track_record(row) for row in rng.standard_normal((50, 500))]
        sharpes = np.array([record.sharpe_bar for record in records if record is not None])
        best = records[int(sharpes.argmax())]
        assert best is not None
        bare.append(sharpe.probabilistic(best) > 0.95)
        deflated.append(sharpe.deflated(best, 50, float(sharpes.std(ddof=1))) > 0.95)
    assert np.mean(bare) > 0.85
    assert np.mean(deflated) < 0.05


@pytest.mark.parametrize("kind", ["normal", "skewed"])
def test_the_standard_error_is_the_spread_of_sharpe_ratios(kind: str) -> None:
    rng = np.random.default_rng(9)
    draws = rng.standard_normal((4_000, 1_000)) if kind == "normal" else skewed(rng, (4_000, 1_000)) * 100
    spread = (draws + 0.3).mean(axis=1) / draws.std(axis=1)
    truth = TrackRecord(1_000, 0.3, 0.0, 3.0) if kind == "normal" else TrackRecord(1_000, 0.3, -2.0, 9.0)
    assert sharpe.standard_error_bar(truth) == pytest.approx(spread.std(), rel=0.05)


@pytest.mark.parametrize("returns", [[], [0.01], [0.0, 0.0, 0.0], [0.1, 0.1, 0.1]])
def test_returns_that_do_not_move_are_no_record(returns: list[float]) -> None:
    assert sharpe.track_record(np.array(returns)) is None


def test_no_track_record_is_long_enough_for_what_is_not_above_the_benchmark() -> None:
    assert sharpe.min_track_record_bars(TrackRecord(100, 0.02, 0.0, 3.0), 0.02) is None
    assert sharpe.min_track_record_bars(TrackRecord(100, -0.02, 0.0, 3.0)) is None
    assert sharpe.min_track_record_bars(TrackRecord(100, 1e-200, 0.0, 3.0)) is None
