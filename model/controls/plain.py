"""Controls without noise: the perfect oracle, the base rate, and the price that does not change. All is exact."""

import math
from collections.abc import Iterator

import numpy as np

from model import scores
from model.backtest import Said
from model.controls.common import RETURN, Expected, earnable, entropy, share_up, statement
from model.dataset import Dataset
from model.predictor import LEVEL

MARGIN = 1e-6  # half-width of the perfect oracle's interval: above rounding, below every move worth mention


def perfect(data: Dataset, rng: np.random.Generator) -> Said:
    """Knows what comes."""
    return statement(data, (data.up > 0.5).astype(np.float64), data.log_return.copy(), MARGIN)


def of_perfect(data: Dataset, said: Said) -> Iterator[Expected]:
    """All that can be had: a log loss of what a certainty is scored as."""
    base, least = share_up(data), -math.log1p(-scores.CERTAINTY)
    yield from (
        Expected(name, 1.0) for name in ("auc", "accuracy", "mcc", "ic", "rank_ic", "r2", "coverage_90")
    )
    yield from (Expected(name, 0.0) for name in ("brier", "brier_reliability", "ece", "mae", "rmse"))
    yield Expected("brier_uncertainty", base * (1 - base))
    yield Expected("log_loss", least)
    yield Expected("gain", entropy(base) - least)
    yield Expected("sharpness", 2 * MARGIN)
    yield Expected(RETURN, float(np.abs(earnable(data)).mean()))


def base_rate(data: Dataset, rng: np.random.Generator) -> Said:
    """Says of each row what is right of all of them."""
    return statement(data, share_up(data), np.full(len(data), data.log_return.mean()), MARGIN)


def of_base_rate(data: Dataset, said: Said) -> Iterator[Expected]:
    """No skill, and none lost."""
    yield from _constant(data)
    mean, r = float(data.log_return.mean()), data.log_return
    yield Expected("r2", mean**2 / float(np.mean(r * r)))
    yield Expected(RETURN, float(np.sign(mean) * earnable(data).mean()))


def no_change(data: Dataset, rng: np.random.Generator) -> Said:
    """Says that the price stays where it is, give or take what held nine moves in ten."""
    return statement(data, share_up(data), np.zeros(len(data)), _usual(data))


def of_no_change(data: Dataset, said: Said) -> Iterator[Expected]:
    """Explains nothing, and errs by the moves themselves."""
    yield from _constant(data)
    r, half = data.log_return, _usual(data)
    outside = np.maximum(np.abs(r) - half, 0.0)
    yield Expected("r2", 0.0)
    yield Expected("mae", float(np.abs(r).mean()))
    yield Expected("rmse", float(np.sqrt(np.mean(r * r))))
    yield Expected("coverage_90", float(np.mean(outside == 0)))
    yield Expected("sharpness", 2 * half)
    yield Expected("interval_score", float(2 * half + 2 / (1 - LEVEL) * outside.mean()))
    yield Expected(RETURN, 0.0)


def _constant(data: Dataset) -> Iterator[Expected]:
    """What follows where every row is given the share of ups, and the same return."""
    base = share_up(data)
    yield Expected("gain", 0.0)
    yield Expected("auc", 0.5)
    yield from (Expected(name, None) for name in ("mcc", "ic", "rank_ic"))
    yield Expected("accuracy", base if base > 0.5 else 1 - base)
    yield Expected("log_loss", entropy(base))
    yield from (Expected(name, base * (1 - base)) for name in ("brier", "brier_uncertainty"))


def _usual(data: Dataset) -> float:
    """Halfway between two sizes of moves, so that rounding brings none in or out: LEVEL of them are smaller."""
    sizes = np.unique(np.abs(data.log_return))
    place = min(int(np.searchsorted(sizes, np.quantile(np.abs(data.log_return), LEVEL))), len(sizes) - 2)
    return float(sizes[place : place + 2].mean()) if len(sizes) > 1 else 2 * float(sizes[0])
