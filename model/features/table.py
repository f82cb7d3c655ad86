"""The table of features. Add one by adding a row to FEATURES: every law in tests/model/test_features.py walks it.

An expression may use a bar's own columns (ts, open, high, low, close, volume), `closed_at`, its close time,
and the columns of BASE. It is bounded by itself and finite on any valid bars, flat ones and those without
volume too: a denominator's floor is a volatility or a volume that means something.

Letters: x log close, r log return, y the same in volatilities, v relative volume, k a window in bars.
"""

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property

import polars as pl

from model.errors import BadInput

# A valid row has this many bars before it; no feature may look at more, its own bar included.
WARMUP = 256

SCALE_WINDOW = 48  # bars: two days of hourly ones
LONG_WINDOW = 192  # bars: the longer run, which floors every shorter one
VOLUME_WINDOW = 96  # bars whose mean is volume's unit
# A short calm says little about the next bar, so a volatility counts as no less than a tenth of the longer
# run's, and no less than a hundredth of a basis point, which is below one tick of any market.
CALM = 0.1
LEAST_VOLATILITY = 1e-6
LEAST_VOLUME = 0.01  # of the usual volume: what is traded when "nothing" is
CLIP = 8.0  # volatilities; beyond that a value says "extreme" and no more
CLIP_LOG = 3.0  # a ratio of twenty

SCALE_NEEDS = LONG_WINDOW + 1  # bars, for the volatility and all that is measured in it

_OPEN, _HIGH, _LOW, _CLOSE, _VOLUME = (pl.col(c) for c in ("open", "high", "low", "close", "volume"))
_X, _R, _V = pl.col("log_close"), pl.col("log_return"), pl.col("relative_volume")
_BODY, _RANGE, _LOCATION = pl.col("log_body"), pl.col("log_range"), pl.col("close_location")
_CALM, _VOLATILITY, _Y = pl.col("calm"), pl.col("volatility"), pl.col("scaled_return")
_MOST = _VOLUME.rolling_max(VOLUME_WINDOW)


def _clip(expr: pl.Expr, bound: float = CLIP) -> pl.Expr:
    return expr.clip(-bound, bound)


def _volatility(k: int) -> pl.Expr:
    """Standard deviation of k log returns, never below the calm."""
    return pl.max_horizontal(_R.rolling_std(k), _CALM)


def _place(low: pl.Expr, high: pl.Expr) -> pl.Expr:
    """Where the close lies between two prices: -1 at the low, 1 at the high, 0 where they are one."""
    return _clip((2 * _CLOSE - high - low) / pl.max_horizontal(high - low, LEAST_VOLATILITY * _CLOSE), 1.0)


# Columns that features share, step by step; a later step may use an earlier one's columns.
BASE: tuple[dict[str, pl.Expr], ...] = (
    {
        "log_close": _CLOSE.log(),
        "log_return": (_CLOSE.log() - _CLOSE.log().shift(1)).fill_null(0.0),
        "log_body": (_CLOSE / _OPEN).log(),
        "log_range": (_HIGH / _LOW).log(),
        "close_location": _place(_LOW, _HIGH),
        # where nothing is traded for long, volume is not told, and each bar counts as usual
        "relative_volume": pl.when(_MOST > 0)
        # a mean of numbers >= 0 is never below the largest / k, whatever rounding has left of it
        .then(_VOLUME / pl.max_horizontal(_VOLUME.rolling_mean(VOLUME_WINDOW), _MOST / VOLUME_WINDOW))
        .otherwise(1.0),
    },
    {"calm": (CALM * _R.rolling_std(LONG_WINDOW)).clip(lower_bound=LEAST_VOLATILITY)},
    {
        "volatility": _volatility(SCALE_WINDOW),
        **{f"volatility_{k}": _volatility(k) for k in (6, 12, 24, 96, LONG_WINDOW)},
    },
    # of order one whatever came before, so that its powers leave no rounding behind in sums
    {"scaled_return": _clip(_R / _VOLATILITY).fill_null(0.0)},
)


@dataclass(frozen=True)
class Feature:
    """One causal expression; `needs` counts the bars of history it looks at, its own bar included."""

    name: str
    group: str
    needs: int
    about: str
    expr: pl.Expr

    def __post_init__(self) -> None:
        if not 1 <= self.needs <= WARMUP:
            raise BadInput(f"feature {self.name!r} needs {self.needs} bars: 1 to {WARMUP} are given")


def _log_ratio(over: str, under: str) -> pl.Expr:
    return _clip((pl.col(over) / pl.col(under)).log(), CLIP_LOG)


def _range_volatility(variance: pl.Expr, k: int) -> pl.Expr:
    """Log of a volatility that is estimated from ranges over the one of closes, both over k bars."""
    estimate = pl.max_horizontal(variance.rolling_mean(k), _CALM * _CALM).sqrt()
    return _clip((estimate / pl.col(f"volatility_{k}")).log(), CLIP_LOG)


def _z(k: int) -> pl.Expr:
    return _clip((_X - _X.rolling_mean(k)) / pl.max_horizontal(_X.rolling_std(k), _CALM))


def _position(k: int) -> pl.Expr:
    return _place(_LOW.rolling_min(k), _HIGH.rolling_max(k))


def _rsi(k: int) -> pl.Expr:
    """(gain - loss) / (gain + loss) with plain sums: the net move over the path walked."""
    path = (_CLOSE - _CLOSE.shift(1)).abs().rolling_sum(k)
    return _clip((_CLOSE - _CLOSE.shift(k)) / pl.max_horizontal(path, _CALM * _CLOSE), 1.0)


def _volume_weighted(what: pl.Expr, k: int) -> pl.Expr:
    """Mean of `what` (-1 to 1) over k bars, weighted by volume; near 0 where next to nothing was traded."""
    return _clip((_V * what).rolling_mean(k) / _V.rolling_mean(k).clip(lower_bound=LEAST_VOLUME), 1.0)


def _autocorrelation(k: int) -> pl.Expr:
    return _clip(
        (_Y * _Y.shift(1)).rolling_mean(k) / (_Y * _Y).rolling_mean(k).clip(lower_bound=CALM**2), 1.0
    )


def _skew(k: int) -> pl.Expr:
    m1, m2, m3 = _Y.rolling_mean(k), (_Y * _Y).rolling_mean(k), (_Y * _Y * _Y).rolling_mean(k)
    deviation = _Y.rolling_std(k).clip(lower_bound=CALM)
    return _clip((m3 - 3 * m1 * m2 + 2 * m1 * m1 * m1) / (deviation * deviation * deviation), 4.0)


def _angle(cycle: timedelta, start: timedelta = timedelta(0)) -> pl.Expr:
    """Where the bar's close time lies in a cycle that began `start` after 1970-01-01T00:00Z, in radians."""
    micro = timedelta(microseconds=1)
    return (
        (pl.col("closed_at").dt.epoch("us") - start // micro)
        % (cycle // micro)
        * (2 * math.pi / (cycle // micro))
    )


def _table() -> Iterator[Feature]:
    need = SCALE_NEEDS

    for k in (1, 2, 3, 6, 12, 24, 48, 96, 168):
        expr = _clip((_X - _X.shift(k)) / (_VOLATILITY * math.sqrt(k)))
        yield Feature(
            f"return_{k}", "return", need, f"log return over {k} bars, in volatilities x sqrt({k})", expr
        )
    for k in range(1, 9):
        expr = _clip(_R.shift(k) / _VOLATILITY)
        yield Feature(
            f"lag_{k}", "return", need, f"log return of the bar {k} bars ago, in today's volatilities", expr
        )

    for short, long, over, under in (
        (6, 48, "volatility_6", "volatility"),
        (12, 96, "volatility_12", "volatility_96"),
        (24, 192, "volatility_24", "volatility_192"),
        (48, 192, "volatility", "volatility_192"),
    ):
        about = f"log of the volatility of {short} bars over that of {long}"
        yield Feature(f"volatility_{short}_{long}", "volatility", need, about, _log_ratio(over, under))
    expr = _range_volatility(_RANGE * _RANGE / (4 * math.log(2)), 24)
    yield Feature(
        "parkinson_24", "volatility", need, "log of Parkinson's volatility over that of closes, 24 bars", expr
    )
    expr = _range_volatility(_RANGE * _RANGE / 2 - _BODY * _BODY * (2 * math.log(2) - 1), 24)
    about = "log of Garman and Klass's volatility over that of closes, 24 bars"
    yield Feature("garman_klass_24", "volatility", need, about, expr)
    yield Feature(
        "range_1", "volatility", need, "the bar's log range, in volatilities", _clip(_RANGE / _VOLATILITY)
    )
    expr = _clip(_R.abs().rolling_mean(6) / _VOLATILITY)
    yield Feature("move_6", "volatility", need, "mean absolute log return of 6 bars, in volatilities", expr)

    for k in (12, 24, 48, 96, 192):
        about = f"distance of the log close from its mean of {k} bars, in standard deviations"
        yield Feature(f"z_{k}", "level", need, about, _z(k))
    for k in (12, 24, 48, 96, 192):
        about = f"place of the close between the lowest and the highest price of {k} bars, -1 to 1"
        yield Feature(f"position_{k}", "level", k, about, _position(k))

    yield Feature("body", "candle", need, "the bar's log body, in volatilities", _clip(_BODY / _VOLATILITY))
    expr = _clip((_HIGH / pl.max_horizontal("open", "close")).log() / _VOLATILITY)
    yield Feature("upper_wick", "candle", need, "log distance from body to high, in volatilities", expr)
    expr = _clip((pl.min_horizontal("open", "close") / _LOW).log() / _VOLATILITY)
    yield Feature("lower_wick", "candle", need, "log distance from low to body, in volatilities", expr)
    expr = _clip((_R - _BODY) / _VOLATILITY)
    yield Feature(
        "opening_gap", "candle", need, "log of the open over the close before it, in volatilities", expr
    )
    yield Feature(
        "close_location", "candle", 1, "place of the close in the bar's own range, -1 to 1", _LOCATION
    )
    yield Feature("close_location_6", "candle", 6, "mean close location of 6 bars", _LOCATION.rolling_mean(6))

    for k in (1, 3, 12, 48, 144):
        expr = _clip((_V.rolling_mean(k).clip(lower_bound=0.0) + LEAST_VOLUME).log())
        about = f"log of the mean relative volume of {k} bars (relative to the mean of {VOLUME_WINDOW})"
        yield Feature(f"volume_{k}", "volume", VOLUME_WINDOW + k - 1, about, expr)
    for k in (48, 144):
        expr = _clip((_V - _V.rolling_mean(k)) / _V.rolling_std(k).clip(lower_bound=LEAST_VOLUME))
        about = f"distance of the relative volume from its mean of {k} bars, in standard deviations"
        yield Feature(f"volume_z_{k}", "volume", VOLUME_WINDOW + k - 1, about, expr)
    for k in (6, 24, 96):
        about = f"volume of rising less that of falling bars, over all volume, {k} bars"
        yield Feature(
            f"signed_volume_{k}", "volume", VOLUME_WINDOW + k - 1, about, _volume_weighted(_R.sign(), k)
        )
    expr = _volume_weighted(_LOCATION, 24)
    yield Feature(
        "money_flow_24", "volume", VOLUME_WINDOW + 23, "close location weighted by volume, 24 bars", expr
    )

    for k in (7, 14, 28, 56):
        about = f"RSI of {k} bars in Cutler's form (plain means), as -1 to 1"
        yield Feature(f"rsi_cutler_{k}", "oscillator", need, about, _rsi(k))
    yield Feature("stochastic_14", "oscillator", 14, "stochastic %K of 14 bars, as -1 to 1", _position(14))
    expr = _position(14).rolling_mean(3)
    yield Feature(
        "stochastic_14_3",
        "oscillator",
        16,
        "stochastic %D, the mean of three %K of 14 bars, as -1 to 1",
        expr,
    )

    for k in (12, 48):
        about = f"share of rises less share of falls in {k} bars"
        yield Feature(f"up_fraction_{k}", "pattern", k + 1, about, _R.sign().rolling_mean(k))
    for k in (24, 60):
        about = f"lag-one autocorrelation of {k} log returns, each in the volatilities of its time"
        yield Feature(f"autocorrelation_{k}", "pattern", need + k, about, _autocorrelation(k))
    for k in (24, 60):
        about = f"skewness of {k} log returns, each in the volatilities of its time"
        yield Feature(f"skew_{k}", "pattern", need + k - 1, about, _skew(k))

    day, week = (
        _angle(timedelta(days=1)),
        _angle(timedelta(weeks=1), start=timedelta(days=4)),
    )  # the first Monday
    yield Feature("hour_sin", "time", 1, "sine of the close time in its day, UTC", day.sin())
    yield Feature("hour_cos", "time", 1, "cosine of the close time in its day, UTC", day.cos())
    yield Feature("weekday_sin", "time", 1, "sine of the close time in its week from Monday, UTC", week.sin())
    yield Feature(
        "weekday_cos", "time", 1, "cosine of the close time in its week from Monday, UTC", week.cos()
    )


FEATURES: dict[str, Feature] = {feature.name: feature for feature in _table()}


@dataclass(frozen=True)
class FeatureSet:
    """An ordered list of features by name. Raises BadInput on a name that FEATURES lacks or that comes twice."""

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        for name in self.names:
            if name not in FEATURES:
                raise BadInput(f"unknown feature {name!r}: `barprop features list` shows those there are")
        if not self.names or len(set(self.names)) < len(self.names):
            raise BadInput("a feature set names one feature or more, and each of them once")

    @property
    def features(self) -> tuple[Feature, ...]:
        """The rows of FEATURES, in order."""
        return tuple(FEATURES[name] for name in self.names)

    @property
    def needs(self) -> int:
        """Bars of history that a row and its scale look at, the row's own bar included."""
        return max(SCALE_NEEDS, *(feature.needs for feature in self.features))

    @cached_property
    def sha256(self) -> str:
        """Changes with any name, order, need, definition or shared column. Stable for one Polars version."""
        base = [[name, _serialised(expr)] for step in BASE for name, expr in step.items()]
        own = [[feature.name, feature.needs, _serialised(feature.expr)] for feature in self.features]
        return hashlib.sha256(json.dumps([WARMUP, base, own]).encode()).hexdigest()


def _serialised(expr: pl.Expr) -> str:
    # str(expr) leaves out the windows of rolling functions
    return expr.meta.serialize(format="json")


DEFAULT = FeatureSet(tuple(FEATURES))
