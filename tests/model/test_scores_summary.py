"""Every score agrees with an independent implementation, or with its definition written out plainly."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model import scores
from model.predictor import LEVEL
from model.scores import Paired

ORACLE = "needs {}, which CI installs"
SUMMED = ("brier_reliability", "brier_uncertainty", "brier_within_variance")
TAKEN = ("brier_resolution", "brier_within_covariance")


def made(n: int, seed: int, *, coarse: bool = False) -> Paired:
    """n rows with some skill; coarse ones have many ties in every column."""
    rng = np.random.default_rng(seed)
    p = rng.beta(5, 5, n)
    up = (rng.random(n) < p).astype(float)
    realised = np.where(up > 0, 1, -1) * np.abs(rng.standard_t(4, n)) * 0.01
    expected = 0.2 * realised + rng.standard_normal(n) * 0.01
    if coarse:
        p, expected, realised = np.round(p, 1), np.round(expected, 2), np.round(realised, 2)
    return Paired(p, up, expected, realised, expected - 0.015, expected + 0.017)


paireds = st.builds(made, st.integers(30, 400), st.integers(0, 10_000), coarse=st.booleans())


def parts_sum(found: scores.Scores) -> float:
    return sum(getattr(found, name) for name in SUMMED) - sum(getattr(found, name) for name in TAKEN)


@settings(deadline=None, max_examples=50)
@given(paireds)
def test_scores_agree_with_scikit_learn(paired: Paired) -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason=ORACLE.format("scikit-learn"))
    assert paired.low is not None
    assert paired.high is not None
    found, said = scores.of(paired), paired.p > 0.5
    assert found.log_loss == pytest.approx(metrics.log_loss(paired.up, np.clip(paired.p, 1e-7, 1 - 1e-7)))
    assert found.brier == pytest.approx(metrics.brier_score_loss(paired.up, paired.p))
    assert found.accuracy == pytest.approx(metrics.accuracy_score(paired.up, said))
    assert found.auc == pytest.approx(metrics.roc_auc_score(paired.up, paired.p))
    if 0 < said.mean() < 1:
        assert found.mcc == pytest.approx(metrics.matthews_corrcoef(paired.up, said), abs=1e-12)
    assert found.mae == pytest.approx(metrics.mean_absolute_error(paired.realised, paired.expected))
    assert found.rmse == pytest.approx(metrics.root_mean_squared_error(paired.realised, paired.expected))
    for name, end, level in (
        ("pinball_low", paired.low, (1 - LEVEL) / 2),
        ("pinball_high", paired.high, (1 + LEVEL) / 2),
    ):
        expected = metrics.mean_pinball_loss(paired.realised, end, alpha=level)
        assert getattr(found, name) == pytest.approx(expected)
    # scikit-learn's R2 is against the mean of the outcomes: with each outcome's mirror image that mean is no change
    both = np.concatenate((paired.realised, -paired.realised))
    mirrored = metrics.r2_score(both, np.concatenate((paired.expected, -paired.expected)))
    assert found.r2 == pytest.approx(mirrored)


@settings(deadline=None, max_examples=50)
@given(paireds)
def test_correlations_agree_with_scipy(paired: Paired) -> None:
    stats = pytest.importorskip("scipy.stats", reason=ORACLE.format("SciPy"))
    found = scores.of(paired)
    assert found.ic == pytest.approx(stats.pearsonr(paired.expected, paired.realised).statistic)
    assert found.rank_ic == pytest.approx(stats.spearmanr(paired.expected, paired.realised).statistic)
    np.testing.assert_array_equal(scores.mid_ranks(paired.realised), stats.rankdata(paired.realised))


@pytest.mark.parametrize("coarse", [False, True])
def test_the_icir_is_that_of_blocks_that_end_with_the_newest_row(coarse: bool) -> None:
    stats = pytest.importorskip("scipy.stats", reason=ORACLE.format("SciPy"))
    paired = made(6 * scores.IC_BLOCK + 70, 1, coarse=coarse)
    blocks = [slice(70 + i * scores.IC_BLOCK, 70 + (i + 1) * scores.IC_BLOCK) for i in range(6)]
    found = scores.of(paired)
    for name, of in (("icir", stats.pearsonr), ("rank_icir", stats.spearmanr)):
        ics = [of(paired.expected[rows], paired.realised[rows]).statistic for rows in blocks]
        assert getattr(found, name) == pytest.approx(np.mean(ics) / np.std(ics, ddof=1))


@given(paireds)
@settings(deadline=None)
def test_the_parts_of_a_brier_score_sum_to_it_exactly(paired: Paired) -> None:
    found = scores.of(paired)
    assert parts_sum(found) == pytest.approx(found.brier, abs=1e-14)
    assert min(getattr(found, name) for name in (*SUMMED, "brier_resolution")) >= 0


def test_the_parts_of_a_brier_score_counted_by_hand() -> None:
    """Forty rows that make two rows a bin, where probabilities of a bin differ, and so do its outcomes."""
    p = np.arange(1, 41) / 41
    up = (np.arange(40) % 3 > 0).astype(float)
    found = scores.of(Paired(p, up, p, up))
    f, o = p.reshape(20, 2), up.reshape(20, 2)
    assert found.brier_reliability == pytest.approx(np.mean((f.mean(1) - o.mean(1)) ** 2))
    assert found.brier_resolution == pytest.approx(np.mean((o.mean(1) - up.mean()) ** 2))
    assert found.brier_uncertainty == pytest.approx(np.var(up))
    assert found.brier_within_variance == pytest.approx(np.mean(f.var(1)))
    within = [np.cov(a, b, ddof=0)[0, 1] for a, b in zip(f, o, strict=True)]
    assert found.brier_within_covariance == pytest.approx(2 * np.mean(within))


def test_the_interval_score_is_winklers() -> None:
    paired = made(500, 2)
    assert paired.low is not None
    assert paired.high is not None
    below, above = np.maximum(paired.low - paired.realised, 0), np.maximum(paired.realised - paired.high, 0)
    widths = paired.high - paired.low
    found = scores.of(paired)
    assert found.interval_score == pytest.approx(np.mean(widths + 2 / (1 - LEVEL) * (below + above)))
    assert found.sharpness == pytest.approx(np.mean(widths))
    assert found.coverage_90 == pytest.approx(np.mean((below == 0) & (above == 0)))


def test_the_reliability_curve_is_what_the_calibration_error_sums() -> None:
    paired = made(1_003, 3)
    curve = scores.reliability(paired.p, paired.up)
    assert [point["rows"] for point in curve] == [51] * 3 + [50] * 17
    assert [point["p"] for point in curve] == sorted(point["p"] for point in curve)
    apart = sum(abs(point["p"] - point["up"]) * point["rows"] for point in curve) / 1_003
    assert apart == pytest.approx(scores.calibration_error(paired.p, paired.up))
    ordered = paired.up[np.argsort(paired.p)]
    assert [point["up"] for point in curve] == pytest.approx([x.mean() for x in np.array_split(ordered, 20)])


@given(st.integers(1, 19), st.integers(0, 100))
def test_few_rows_are_a_bin_each(n: int, seed: int) -> None:
    paired = made(n, seed)
    assert scores.calibration_error(paired.p, paired.up) == pytest.approx(
        np.mean(np.abs(paired.p - paired.up))
    )
    assert len(scores.reliability(paired.p, paired.up)) == n


def test_the_noise_in_a_calibration_error_is_what_its_docstring_says() -> None:
    rng = np.random.default_rng(4)
    n, found = 10_000, []
    for _ in range(200):
        p = rng.uniform(0.45, 0.55, n)
        found.append(scores.calibration_error(p, (rng.random(n) < p).astype(float)))
    assert np.mean(found) == pytest.approx(np.sqrt(2 * 0.25 * scores.BINS / (np.pi * n)), rel=0.05)


WITHOUT_MEANING: list[tuple[str, Paired, set[str]]] = [
    ("a single class", Paired(np.linspace(0.1, 0.9, 9), np.ones(9), np.arange(9.0), np.arange(9.0)), {"auc", "mcc"}),
    ("a constant forecast", Paired(np.full(9, 0.6), np.arange(9) % 2.0, np.full(9, 0.1), np.arange(9.0)),
     {"mcc", "ic", "rank_ic"}),
    ("a price that stood still", Paired(np.linspace(0.1, 0.9, 9), np.zeros(9), np.arange(9.0), np.zeros(9)),
     {"auc", "mcc", "ic", "rank_ic", "r2"}),
    ("one row", Paired(np.array([0.7]), np.ones(1), np.ones(1), np.ones(1)), {"auc", "mcc", "ic", "rank_ic"}),
]  # fmt: skip
OF_BLOCKS = {"icir", "rank_icir"}
OF_INTERVALS = {"coverage_90", "pinball_low", "pinball_high", "interval_score", "sharpness"}


@pytest.mark.parametrize(("paired", "without"), [row[1:] for row in WITHOUT_MEANING], ids=[row[0] for row in WITHOUT_MEANING])  # fmt: skip
def test_a_score_without_meaning_is_none(paired: Paired, without: set[str]) -> None:
    document = scores.of(paired).document()
    assert {name for name, value in document.items() if value is None} == without | OF_BLOCKS | OF_INTERVALS
    assert all(np.isfinite(value) for value in document.values() if value is not None)


def test_the_price_that_does_not_change_explains_nothing_and_a_perfect_forecast_everything() -> None:
    paired = made(400, 5)
    assert scores.of(Paired(paired.p, paired.up, np.zeros(400), paired.realised)).r2 == 0
    perfect = scores.of(Paired(paired.up, paired.up, paired.realised, paired.realised))
    assert (perfect.r2, perfect.auc, perfect.accuracy, perfect.mcc, perfect.rank_ic) == pytest.approx(
        (1,) * 5
    )
    assert (perfect.mae, perfect.rmse, perfect.brier, perfect.ece) == (0, 0, 0, 0)


def test_a_spread_that_is_small_beside_its_mean_is_still_seen() -> None:
    """Returns that all lie within a millionth of each other correlate like any others."""
    paired = made(300, 6)
    far = Paired(paired.p, paired.up, 5 + paired.expected * 1e-6, 5 + paired.realised * 1e-6)
    assert scores.of(far).ic == pytest.approx(scores.of(paired).ic, abs=1e-6)
