"""What a Sharpe ratio is worth. All of it per bar: nothing here knows how many bars a year has.

Returns are simple returns of a bar each, after costs, in order of time. A Sharpe ratio is their mean by their standard
deviation, the latter over n, and kurtosis is 3 for a normal. Returns are taken as independent of each other; where they
hang together over time, bootstrap blocks of them instead.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.significance.distributions import normal_cdf, normal_quantile

Float64 = NDArray[np.float64]

# A spread smaller than this share of the mean is rounding.
STILL = 1e-9


@dataclass(frozen=True)
class TrackRecord:
    """All that the formulas below need of a series of returns."""

    bars: int
    sharpe_bar: float
    skewness: float
    kurtosis: float


def track_record(returns: Float64) -> TrackRecord | None:
    """The record of returns (n,), or None where they are fewer than two or do not move."""
    if len(returns) < 2:
        return None
    mean, deviation = float(returns.mean()), float(returns.std())
    if deviation <= STILL * abs(mean):
        return None
    z = (returns - mean) / deviation
    return TrackRecord(len(returns), mean / deviation, float((z**3).mean()), float((z**4).mean()))


def standard_error_bar(record: TrackRecord) -> float:
    """The standard error of the Sharpe ratio per bar, with skewed and heavy-tailed returns (Mertens 2002; Bailey &
    López de Prado 2012)."""
    return math.sqrt(_variance(record) / (record.bars - 1))


def probabilistic(record: TrackRecord, benchmark_bar: float = 0.0) -> float:
    """The probabilistic Sharpe ratio: confidence that the true one exceeds the benchmark (Bailey & López de Prado
    2012). Of pure noise it is any number from 0 to 1 alike."""
    error = standard_error_bar(record)
    return normal_cdf((record.sharpe_bar - benchmark_bar) / error) if error > 0 else 0.5


def min_track_record_bars(
    record: TrackRecord, benchmark_bar: float = 0.0, confidence: float = 0.95
) -> int | None:
    """The minimum track record length: how many bars like these give this confidence that the true Sharpe ratio exceeds
    the benchmark (Bailey & López de Prado 2012); None where no number would, or none that can be written down.

    The confidence is above a half.
    """
    excess = record.sharpe_bar - benchmark_bar
    if excess <= 0:
        return None
    z = normal_quantile(confidence) / excess
    bars = 1 + _variance(record) * z * z
    return math.ceil(bars) if math.isfinite(bars) else None


def expected_maximum_bar(trials: int, spread_bar: float) -> float:
    """The Sharpe ratio to expect of the best of so many independent trials of which none has skill, where `spread_bar`
    is the standard deviation of the trials' Sharpe ratios per bar (Bailey & López de Prado 2014).

    An approximation for many trials (Fisher & Tippett 1928), 1 % too high at a hundred and 8 % too low at two. A single
    trial is the best of nothing: 0.
    """
    if trials < 2:
        return 0.0
    typical, rarer = normal_quantile(1 - 1 / trials), normal_quantile(1 - 1 / (trials * math.e))
    return spread_bar * ((1 - np.euler_gamma) * typical + np.euler_gamma * rarer)


def deflated(record: TrackRecord, trials: int, spread_bar: float) -> float:
    """The deflated Sharpe ratio: confidence that the true one exceeds what luck alone gives the best of all trials that
    were run (Bailey & López de Prado 2014). Count those that were thrown away, and take the spread over all."""
    return probabilistic(record, expected_maximum_bar(trials, spread_bar))


def _variance(record: TrackRecord) -> float:
    """n times the variance of the Sharpe ratio. No returns make it negative, as kurtosis >= 1 + skewness²; but rounding."""
    sharpe = record.sharpe_bar
    return max(1 - record.skewness * sharpe + (record.kurtosis - 1) / 4 * sharpe**2, 0.0)
