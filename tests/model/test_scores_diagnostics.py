"""What a row costs, the parts of a Brier score, and calibration, beside model-diagnostics.

Where it differs: it pools rows by isotonic regression where we have bins, which is the same as long as the share of ups
rises from bin to bin; its bins by quantile are ours where rows are a multiple of BINS and no two alike; and what it calls
a quantile's bias counts an outcome on it as below, while both ends of an interval are inside.
"""

from types import ModuleType

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from model import scores
from model.predictor import LEVEL
from model.scores import BINS, CERTAINTY, Paired
from tests.model.test_scores_summary import made, paireds

Float64 = NDArray[np.float64]

CLASSES = arrays.arrays(np.float64, 40, elements=st.sampled_from([0.0, 1.0]))
CHANCES = arrays.arrays(np.float64, 40, elements=st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.5, 1.0])))
RETURNS = arrays.arrays(np.float64, 40, elements=st.one_of(st.floats(-1, 1), st.sampled_from([-0.5, 0.0])))


@pytest.fixture(scope="module")
def scoring() -> ModuleType:
    reason = "needs model-diagnostics, which CI installs"
    return pytest.importorskip("model_diagnostics.scoring", reason=reason)  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def diagnosis() -> ModuleType:
    reason = "needs model-diagnostics, which CI installs"
    return pytest.importorskip("model_diagnostics.calibration", reason=reason)  # type: ignore[no-any-return]


@given(p=CHANCES, up=CLASSES)
@settings(deadline=None)
def test_a_rows_log_loss_and_squared_error_are_theirs(scoring: ModuleType, p: Float64, up: Float64) -> None:
    """Ours is of a probability that is never nearer to certainty than CERTAINTY; theirs would be infinite."""
    never_certain = np.clip(p, CERTAINTY, 1 - CERTAINTY)
    expected = scoring.LogLoss().score_per_obs(up, never_certain)
    np.testing.assert_allclose(scores.log_losses(p, up), expected, rtol=1e-9)
    assert scores.of(Paired(p, up, p, up)).brier == pytest.approx(scoring.SquaredError()(up, p), rel=1e-12)


@given(quantile=RETURNS, outcome=RETURNS, level=st.sampled_from([0.05, 0.3, 0.5, 0.95]))
@settings(deadline=None)
def test_a_rows_pinball_loss_is_theirs(
    scoring: ModuleType, quantile: Float64, outcome: Float64, level: float
) -> None:
    expected = scoring.PinballLoss(level=level).score_per_obs(outcome, quantile)
    np.testing.assert_allclose(
        scores.pinball_losses(quantile, outcome, level), expected, rtol=1e-12, atol=1e-15
    )


@st.composite
def said_a_few_times(draw: st.DrawFn) -> tuple[Float64, Float64, Float64]:
    """Probabilities of which each is said of equally many rows, the outcomes, and each one's share of ups; every
    probability is a bin."""
    chances = draw(st.lists(st.integers(0, 1_000), min_size=1, max_size=BINS, unique=True).map(sorted))
    times = draw(st.integers(2, 30))  # theirs fails on a single row
    ups = draw(st.lists(st.integers(0, times), min_size=len(chances), max_size=len(chances)))
    if draw(st.booleans()):
        ups.sort()
    p = np.repeat(np.array(chances) / 1_000, times)
    up = np.concatenate([np.arange(times) < many for many in ups]).astype(float)
    order = np.random.default_rng(draw(st.integers(0, 99))).permutation(len(p))
    return p[order], up[order], np.array(ups) / times


@given(said_a_few_times())
@settings(deadline=None, max_examples=200)
def test_the_parts_of_a_brier_score_are_theirs_as_long_as_ups_rise(
    scoring: ModuleType, sample: tuple[Float64, Float64, Float64]
) -> None:
    """Where they do not, isotonic regression pools bins, and what these had told apart is missing from both parts."""
    p, up, shares = sample
    found = scores.of(Paired(p, up, p, up))
    (theirs,) = scoring.decompose(up, p, scoring_function=scoring.SquaredError()).to_dicts()
    assert found.brier == pytest.approx(theirs["score"], abs=1e-14)
    assert found.brier_uncertainty == pytest.approx(theirs["uncertainty"], abs=1e-14)
    assert (found.brier_within_variance, found.brier_within_covariance) == pytest.approx((0, 0), abs=1e-14)
    pooled = found.brier_reliability - theirs["miscalibration"]
    assert found.brier_resolution - theirs["discrimination"] == pytest.approx(pooled, abs=1e-14)
    if (np.diff(shares) >= 0).all():
        assert pooled == pytest.approx(0, abs=1e-14)
    else:
        assert pooled > 1e-9


@given(paireds)
@settings(deadline=None, max_examples=50)
def test_the_parts_of_any_bins_are_theirs_of_forecasts_that_say_what_came_of_each(
    scoring: ModuleType, paired: Paired
) -> None:
    """Rising or not: whoever says each bin's share of ups is calibrated, and discriminates as much as the bins do."""
    curve = scores.reliability(paired.p, paired.up)
    rows = [int(point["rows"]) for point in curve]
    f, o = (np.repeat([point[name] for point in curve], rows) for name in ("p", "up"))
    up = paired.up[np.argsort(paired.p, kind="stable")]
    squared = scoring.SquaredError()
    (theirs,) = scoring.decompose(up, o, scoring_function=squared).to_dicts()
    assert theirs["miscalibration"] == pytest.approx(0, abs=1e-14)
    found = scores.of(paired)
    assert found.brier_resolution == pytest.approx(theirs["discrimination"], abs=1e-14)
    assert found.brier_uncertainty == pytest.approx(theirs["uncertainty"], abs=1e-14)
    assert found.brier_reliability == pytest.approx(squared(up, f) - theirs["score"], abs=1e-14)


def curve_of(bias: pl.DataFrame, feature: str) -> list[dict[str, float]]:
    """The reliability curve that their bias tells, which is the mean probability less the share of ups."""
    return [
        {"p": row[feature], "up": row[feature] - row["bias_mean"], "rows": row["bias_count"]}
        for row in bias.to_dicts()
    ]


@pytest.mark.parametrize("each", [1, 2, 8, 128])  # others may round their rank of a quantile up
def test_the_reliability_curve_and_its_error_are_theirs(diagnosis: ModuleType, each: int) -> None:
    paired = made(BINS * each, each)
    feature = pl.Series("p", paired.p)
    bias = diagnosis.compute_bias(paired.up, paired.p, feature, n_bins=BINS, bin_method="quantile")
    ours, theirs = scores.reliability(paired.p, paired.up), curve_of(bias, "p")
    assert len(ours) == len(theirs) == BINS
    for point, expected in zip(ours, theirs, strict=True):
        assert point == pytest.approx(expected, abs=1e-12)
    error = bias["bias_mean"].abs().to_numpy() @ bias["bias_count"].to_numpy() / (BINS * each)
    assert scores.calibration_error(paired.p, paired.up) == pytest.approx(error, abs=1e-12)


@given(said_a_few_times())
@settings(deadline=None)
def test_the_calibration_error_of_a_few_probabilities_is_theirs(
    diagnosis: ModuleType, sample: tuple[Float64, Float64, Float64]
) -> None:
    p, up, _ = sample
    feature = pl.Series("said", [f"{1_000 * each:04.0f}" for each in p])
    bias = diagnosis.compute_bias(up, p, feature, n_bins=BINS)
    error = bias["bias_mean"].abs().to_numpy() @ bias["bias_count"].to_numpy() / len(p)
    assert scores.calibration_error(p, up) == pytest.approx(error, abs=1e-12)
    assert [point["rows"] for point in scores.reliability(p, up)] == bias["bias_count"].to_list()


@given(paireds)
@settings(deadline=None, max_examples=50)
def test_coverage_is_what_the_bias_of_both_ends_as_quantiles_makes(
    diagnosis: ModuleType, paired: Paired
) -> None:
    """The lower end as the upper one of a world upside down, so that outcomes on an end count as inside."""
    assert paired.low is not None
    assert paired.high is not None
    low, high, realised = paired.low, paired.high, paired.realised.copy()
    realised[::7], realised[1::7] = low[::7], high[1::7]
    level = (1 + LEVEL) / 2
    below, above = (
        diagnosis.compute_bias(outcome, end, functional="quantile", level=level)["bias_mean"].item() + level
        for outcome, end in ((realised, high), (-realised, -low))
    )
    found = scores.of(Paired(paired.p, paired.up, paired.expected, realised, low, high))
    assert found.coverage_90 == pytest.approx(below + above - 1, abs=1e-12)
