"""Synthetic markets whose truth is known: bars with a planted probability of up, or with none at all.

How far a bar moves and what is traded follow a volatility that clusters (GARCH(1,1), Bollerslev 1986, with Student's t
for its shocks), and are drawn without looking at any direction. Whether it moves up is one coin a bar, whose
probability is sigmoid(strength x signal), and a signal is a function of what a row of the default feature set holds at
the close before. So the best forecast there is says that probability, and what it costs in the mean is the mean of the
coin's entropy. Add a signal by adding a row to SIGNALS, an AUC by adding its strengths.

Letters: n bars, p the probability of up that was planted for the next bar, y log returns in units of the volatility.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray

from model.bars import BAR_SCHEMA, Bars

Float64 = NDArray[np.float64]

START = datetime(2020, 1, 1, tzinfo=UTC)
EVERY = timedelta(hours=1)

SIZE = 0.006  # standard deviation of a bar's log return in the long run, about that of hourly coins
SHOCK, MEMORY = 0.08, 0.90  # of the GARCH(1,1): weights of the last squared return and of the last variance
TAIL = 5.0  # degrees of freedom of its shocks
LONGEST = 12.0  # shocks: beyond that no draw goes, so that no bar is a break

# As the features have them: the volatility is the deviation of so many log returns, and nothing is larger than CLIP.
LONG, SHORT, CLIP = 48, 6, 8.0
MEAN_VOLUME, LEAST_VOLUME = 96, 0.01  # bars whose mean is volume's unit; what counts as no volume
USUAL_VOLUME = -0.1  # about the middle of the log of relative volume: above is busy, below is quiet
LAGS = (
    -0.8,
    0.5,
    0.4,
    -0.3,
    0.0,
    0.3,
)  # of the linear signal: weights of this bar's move, the one before it, ...
WARM = 300  # bars before a signal is planted: its volatilities have settled


@dataclass(frozen=True)
class Seen:
    """What a signal may look at, at a bar's close; each as a feature of the default set states it."""

    y: tuple[float, ...]  # return_1, lag_1, ..., lag_5: the moves, newest first, in today's volatility
    rising: float  # volatility_6_48: log of the short volatility over the longer
    busy: float  # volume_1: log of relative volume


def linear(seen: Seen) -> float:
    """A weighted sum of the newest six moves."""
    return sum(weight * move for weight, move in zip(LAGS, seen.y, strict=True))


def product(seen: Seen) -> float:
    """The move goes on where it was busy, and turns where it was quiet: like an exclusive or, no feature says anything
    of it alone."""
    return seen.y[0] * (seen.busy - USUAL_VOLUME)


def threshold(seen: Seen) -> float:
    """The move turns where volatility rises above its longer run; elsewhere it says nothing."""
    return -seen.y[0] if seen.rising > 0 else 0.0


SIGNALS: dict[str, Callable[[Seen], float]] = {"linear": linear, "product": product, "threshold": threshold}
# The strengths at which the planted probabilities themselves have this AUC.
STRENGTHS = {
    ("linear", 0.6): 0.325,
    ("linear", 0.7): 0.725,
    ("product", 0.6): 0.68,
    ("product", 0.7): 1.66,
    ("threshold", 0.6): 0.60,
    ("threshold", 0.7): 1.70,
}


@dataclass(frozen=True)
class Planted:
    """Bars, and for each the probability (n,) with which the bar after it was drawn to close higher."""

    bars: Bars
    p: Float64


def random_walk(n: int, seed: int) -> Bars:
    """n bars of which nobody can know the direction."""
    return planted(n, seed, linear, 0.0).bars


def planted(
    n: int, seed: int, signal: Callable[[Seen], float], strength: float, flips: tuple[int, ...] = ()
) -> Planted:
    """n bars with a signal; from each of the bars `flips` on, what it says of the next bar is turned round.

    The draws of sizes, volumes and coins depend on the seed alone: another strength is the same market but for its
    directions.
    """
    rng = np.random.default_rng(seed)
    size, deviation = _sizes(n, rng)
    volume = _volumes(size / deviation, rng)
    busy = _log_relative(volume)
    coin = rng.random(n)
    turned = np.zeros(n)
    turned[list(flips)] = 1.0
    sign = 1.0 - 2.0 * (np.cumsum(turned) % 2)
    p, returns = np.full(n, 0.5), np.empty(n)
    before = 0.5
    for i in range(n):
        returns[i] = size[i] if coin[i] < before else -size[i]
        if i >= WARM:
            z = strength * sign[i] * signal(_seen(returns[i - LONG + 1 : i + 1], busy[i]))
            before = 1 / (1 + math.exp(-z))
            p[i] = before
    return Planted(_bars(returns, deviation, volume, rng), p)


def entropy(p: Float64) -> float:
    """The mean log loss of a forecaster who says p, over all outcomes that have these probabilities (n,): no other
    forecast of them has a lower one."""
    return float(np.mean(-p * np.log(p) - (1 - p) * np.log1p(-p)))


def log_loss(p: Float64, said: Float64) -> float:
    """The mean log loss of saying `said` (n,), over all outcomes that have the probabilities p (n,)."""
    return float(np.mean(-p * np.log(said) - (1 - p) * np.log1p(-said)))


def auc(p: Float64) -> float:
    """The AUC of saying p (n,), over all outcomes that have these probabilities: of a rise and a fall, how often the
    rise had the higher one."""
    places = np.unique(p, return_inverse=True)[1]
    ups, downs = (np.bincount(places, share) for share in (p, 1 - p))
    below = np.cumsum(downs) - downs / 2
    return float(ups @ below / (p.sum() * (1 - p).sum()))


def _seen(returns: Float64, busy: float) -> Seen:
    """What the newest LONG log returns and the last volume tell at the last bar's close."""
    volatility, short = float(returns.std(ddof=1)), float(returns[-SHORT:].std(ddof=1))
    moves = returns[: -len(LAGS) - 1 : -1] / volatility
    return Seen(tuple(np.clip(moves, -CLIP, CLIP).tolist()), math.log(short / volatility), busy)


def _sizes(n: int, rng: np.random.Generator) -> tuple[Float64, Float64]:
    """The size of each bar's log return, and the deviation that it was drawn with."""
    shocks = np.abs(np.clip(rng.standard_t(TAIL, n) * math.sqrt((TAIL - 2) / TAIL), -LONGEST, LONGEST))
    deviation = np.empty(n)
    variance = SIZE**2
    for i, shock in enumerate(shocks.tolist()):
        deviation[i] = math.sqrt(variance)
        variance = (1 - SHOCK - MEMORY) * SIZE**2 + (SHOCK * shock * shock + MEMORY) * variance
    return shocks * deviation, deviation


def _volumes(shock: Float64, rng: np.random.Generator) -> Float64:
    """Volumes that linger, and are larger where the bar moves further."""
    n = len(shock)
    lasting, new = np.empty(n), 0.3 * rng.standard_normal(n)
    level = 0.0
    for i, step in enumerate(new.tolist()):
        level = 0.8 * level + step
        lasting[i] = level
    volume: Float64 = 1_000 * np.exp(lasting + 0.2 * shock + 0.4 * rng.standard_normal(n))
    return volume


def _log_relative(volume: Float64) -> Float64:
    """Log of each volume over the mean of the newest MEAN_VOLUME; 0 where there are not as many."""
    total = np.concatenate(([0.0], np.cumsum(volume)))
    mean = (total[MEAN_VOLUME:] - total[:-MEAN_VOLUME]) / MEAN_VOLUME
    busy = np.zeros(len(volume))
    busy[MEAN_VOLUME - 1 :] = np.log(volume[MEAN_VOLUME - 1 :] / mean + LEAST_VOLUME)
    return busy


def _bars(returns: Float64, deviation: Float64, volume: Float64, rng: np.random.Generator) -> Bars:
    """The bars with these log returns between their closes; opens and wicks are noise of the bar's own size."""
    n = len(returns)
    close = 100 * np.exp(np.cumsum(returns))
    previous = np.concatenate(([100.0], close[:-1]))
    opened = previous * np.exp(0.05 * deviation * rng.standard_normal(n))
    up, down = np.exp(0.4 * deviation * rng.exponential(size=(2, n)))
    return pl.DataFrame(
        {
            "ts": pl.datetime_range(START, START + (n - 1) * EVERY, EVERY, time_unit="us", eager=True),
            "open": opened,
            "high": np.maximum(opened, close) * up,
            "low": np.minimum(opened, close) / down,
            "close": close,
            "volume": volume,
        },
        schema=BAR_SCHEMA,
    )
