"""All scores of one forecaster over one set of rows.

A score is computed from how many times each row is there, once in `of`, and as often as it was drawn in a resample:
so that both are one formula, and a resample needs no sorting.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from model.predictor import LEVEL
from model.scores import bins
from model.scores.losses import log_losses, pinball_losses
from model.scores.ranks import Order, correlations, counted_auc, counted_ranks, mid_ranks, order

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
Figures = dict[str, float | None]

LOW, HIGH = (1 - LEVEL) / 2, (1 + LEVEL) / 2  # the levels that an interval's ends are quantiles at
IC_BLOCK = 250  # rows that follow each other, within which an IC is taken for the ICIR
FEWEST_BLOCKS = 4  # of them, below which an ICIR says nothing
STILL = 1e-12  # what varies by a smaller share of its mean square does not move, but for rounding


@dataclass(frozen=True)
class Paired:
    """What was said of n rows beside what came of them, in order of time, (n,) each, one row or more.

    `low` and `high` are the ends of the interval as log returns, `log(low price / close)`; None where none was stated.
    """

    p: Float64
    up: Float64
    expected: Float64  # log return over the horizon
    realised: Float64
    low: Float64 | None = None
    high: Float64 | None = None


@dataclass(frozen=True)
class Scores:
    """Scores over the same rows; None where a score has no meaning there, e.g. an AUC of one class.

    Of returns all are in log returns over the horizon: a `mae` of 0.01 is about one per cent of the price.
    """

    rows: int
    log_loss: float  # nats, lower is better
    brier: float
    accuracy: float
    auc: float | None
    ic: float | None  # Pearson correlation of the expected with the realised return
    ece: float
    coverage_90: float | None  # share of outcomes inside the 90 % interval
    # brier = reliability - resolution + uncertainty + within_variance - within_covariance
    brier_reliability: float
    brier_resolution: float
    brier_uncertainty: float
    brier_within_variance: float
    brier_within_covariance: float
    mcc: float | None  # Matthews correlation of "p above a half" with up
    rank_ic: float | None  # Spearman's, ties averaged
    icir: float | None  # mean by standard deviation of the IC of blocks of IC_BLOCK rows
    rank_icir: float | None
    mae: float
    rmse: float
    r2: float | None  # out of sample, against the price that does not change: 1 - sum (r - e)^2 / sum r^2
    pinball_low: float | None  # of the interval's ends, as quantiles at 5 % and 95 %
    pinball_high: float | None
    interval_score: float | None  # width, and the distance of the outcomes outside, times 20 (Winkler 1972)
    sharpness: (
        float | None
    )  # mean width of the interval, log(high / low): 0.02 is about two per cent of the price

    def document(self) -> dict[str, float | int | None]:
        """As JSON has it."""
        return asdict(self)


def of(paired: Paired) -> Scores:
    """All scores of one forecaster."""
    return Scores(rows=len(paired.p), **figures(paired)(np.arange(len(paired.p))))  # type: ignore[arg-type]


def figures(paired: Paired) -> Callable[[Int64], Figures]:
    """A function from rows, drawn with repetition and in the order that they are to stand in, to the scores of these."""
    n, p, expected, realised = len(paired.p), paired.p, paired.expected, paired.realised
    positive = paired.up > 0.5
    up = positive.astype(np.float64)
    terms = _terms(paired, up)
    table = np.stack(list(terms.values()))
    by_p, by_expected, by_realised = order(p), order(expected), order(realised)
    p_ascending, up_ascending = p[by_p.ascending], up[by_p.ascending]

    def at(rows: Int64) -> Figures:
        times = np.bincount(rows, minlength=n)
        # a sum and no product: its last bits do not depend on the threads of a BLAS
        mean = dict(zip(terms, ((table * times).sum(axis=1) / len(rows)).tolist(), strict=True))
        drawn = times[by_p.ascending]
        binned = bins.bins(np.repeat(p_ascending, drawn), np.repeat(up_ascending, drawn))
        blocks = _blocks(rows)
        return {
            **{name: mean[name] for name in ("log_loss", "brier", "accuracy", "mae")},
            "auc": counted_auc(by_p, positive, times),
            "ic": _pearson(*(mean[name] for name in ("e", "r", "ee", "rr", "er"))),
            "ece": bins.ece(binned),
            **bins.brier_parts(binned),
            "mcc": _pearson(*(mean[name] for name in ("long", "up", "long", "up", "long_up"))),
            "rank_ic": _rank_ic(by_expected, by_realised, times),
            "icir": None if blocks is None else _ratio(correlations(expected[blocks], realised[blocks])),
            "rank_icir": None
            if blocks is None
            else _ratio(correlations(mid_ranks(expected[blocks]), mid_ranks(realised[blocks]))),
            "rmse": float(np.sqrt(mean["squared"])),
            "r2": 1 - mean["squared"] / mean["no_change"] if mean["no_change"] > 0 else None,
            **_interval(mean),
        }

    return at


def _terms(paired: Paired, up: Float64) -> dict[str, Float64]:
    """What each row adds to a mean, (n,) each."""
    p, expected, realised = paired.p, paired.expected, paired.realised
    long = (p > 0.5).astype(np.float64)
    error = realised - expected
    e, r = (
        expected - expected.mean(),
        realised - realised.mean(),
    )  # so that no digits of their squares are lost
    terms = {
        "log_loss": log_losses(p, up),
        "brier": (p - up) ** 2,
        "accuracy": (long == up).astype(np.float64),
        **{"long": long, "up": up, "long_up": long * up},
        **{"mae": np.abs(error), "squared": error**2, "no_change": realised**2},
        **{"e": e, "r": r, "ee": e * e, "rr": r * r, "er": e * r},
    }
    if paired.low is not None and paired.high is not None:
        terms |= {
            "pinball_low": pinball_losses(paired.low, realised, LOW),
            "pinball_high": pinball_losses(paired.high, realised, HIGH),
            "coverage_90": ((realised >= paired.low) & (realised <= paired.high)).astype(np.float64),
            "sharpness": paired.high - paired.low,
        }
    return terms


def _interval(mean: dict[str, float]) -> Figures:
    """Scores of the interval. Its own score is the two pinball losses by another factor (Gneiting & Raftery 2007)."""
    names = ("pinball_low", "pinball_high", "coverage_90", "sharpness")
    if "sharpness" not in mean:
        return dict.fromkeys((*names, "interval_score"))
    return {
        **{name: mean[name] for name in names},
        "interval_score": (mean["pinball_low"] + mean["pinball_high"]) / LOW,
    }


def _pearson(a: float, b: float, aa: float, bb: float, ab: float) -> float | None:
    """The correlation that follows from means of a, b and their products; None where one of them does not move."""
    of_a, of_b = aa - a * a, bb - b * b
    if of_a <= STILL * aa or of_b <= STILL * bb:
        return None
    return float(np.clip((ab - a * b) / np.sqrt(of_a * of_b), -1.0, 1.0))


def _rank_ic(expected: Order, realised: Order, times: Int64) -> float | None:
    """Spearman's correlation: Pearson's, of the mid-ranks."""
    middle = (int(times.sum()) + 1) / 2
    a, b = (counted_ranks(each, times)[each.value] - middle for each in (expected, realised))
    spread = float(np.sqrt((times @ (a * a)) * (times @ (b * b))))
    return float(np.clip((times * a) @ b / spread, -1.0, 1.0)) if spread > 0 else None


def _blocks(rows: Int64) -> Int64 | None:
    """The rows in blocks (k, IC_BLOCK) that end with the newest; None where they are too few."""
    many = len(rows) // IC_BLOCK
    return None if many < FEWEST_BLOCKS else rows[len(rows) - many * IC_BLOCK :].reshape(many, IC_BLOCK)


def _ratio(ics: Float64) -> float | None:
    """Mean by standard deviation of the ICs that there are."""
    ics = ics[np.isfinite(ics)]
    spread = float(ics.std(ddof=1)) if len(ics) >= FEWEST_BLOCKS else 0.0
    return float(ics.mean()) / spread if spread > 0 else None
