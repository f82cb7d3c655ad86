"""What controls share: how one states a forecast, what one may expect of a score, and a few constants of their data."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.backtest import Said
from model.dataset import Dataset

Float64 = NDArray[np.float64]

# The figure that `earn` gives, beside those of the judge.
RETURN = "return_bar"


@dataclass(frozen=True)
class Expected:
    """What a figure must be; None where it must have no meaning. `error` is its standard error, 0 where it is exact."""

    figure: str
    value: float | None
    error: float = 0.0


@dataclass(frozen=True)
class Control:
    """What a forecaster says of every row, and what must come of it."""

    say: Callable[[Dataset, np.random.Generator], Said]
    expect: Callable[[Dataset, Said], Iterable[Expected]]


def statement(data: Dataset, p_up: Float64 | float, expected: Float64, half: float) -> Said:
    """What is said where the interval reaches as far, `half`, to both sides of the expected log return."""
    base = np.full(len(data), share_up(data))
    return Said(
        base_rate=base,
        p_up=np.broadcast_to(np.asarray(p_up, np.float64), base.shape).copy(),
        expected_return=expected,
        price=data.close * np.exp(expected),
        low=data.close * np.exp(expected - half),
        high=data.close * np.exp(expected + half),
    )


def share_up(data: Dataset) -> float:
    """The share of ups."""
    return float(np.mean(data.up > 0.5))


def earnable(data: Dataset) -> Float64:
    """What each row's label earns (n,), as a simple return."""
    return np.expm1(data.log_return)


def entropy(share: float) -> float:
    """The log loss of the base rate, in nats."""
    return -share * math.log(share) - (1 - share) * math.log(1 - share)


def phi(x: float) -> float:
    """The standard normal distribution."""
    return math.erfc(-x / math.sqrt(2)) / 2


def phis(x: Float64) -> Float64:
    """The same of each x (n,)."""
    return np.fromiter(map(phi, x.tolist()), np.float64, len(x))
