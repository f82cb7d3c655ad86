"""The table of features. Add one by adding a row to FEATURES: every law in tests/model/test_features.py walks it.

An expression is bounded by itself and finite on any valid bars, flat ones and those without volume too: a
denominator's floor is a volatility or a volume that means something.

Letters: X log close, R log return, Y the same in volatilities, V relative volume, k a window in bars.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Any

import polars as pl

from model.bars import Market, market, timeframe
from model.errors import BadInput
from model.features.columns import (
    BODY,
    CALM,
    CALM_NOW,
    CLIP_LOG,
    CLOSE,
    HIGH,
    LEAST_VOLUME,
    LOCATION,
    LOW,
    RANGE,
    SCALE_NEEDS,
    SHARED,
    VOLATILITY,
    VOLUME_WINDOW,
    WARMUP,
    Feature,
    R,
    V,
    X,
    Y,
    clip,
    log_of_volatility,
    place,
)
from model.features.few import Few, few
from model.features.indicators import indicators


def _log_ratio(over: str, under: str) -> pl.Expr:
    return clip((pl.col(over) / pl.col(under)).log(), CLIP_LOG)


def _z(k: int) -> pl.Expr:
    return clip((X - X.rolling_mean(k)) / pl.max_horizontal(X.rolling_std(k), CALM_NOW))


def _position(k: int) -> pl.Expr:
    return place(LOW.rolling_min(k), HIGH.rolling_max(k))


def _rsi(k: int) -> pl.Expr:
    """(gain - loss) / (gain + loss) with plain sums: the net move over the path walked."""
    path = (CLOSE - CLOSE.shift(1)).abs().rolling_sum(k)
    return clip((CLOSE - CLOSE.shift(k)) / pl.max_horizontal(path, CALM_NOW * CLOSE), 1.0)


def _volume_weighted(what: pl.Expr, k: int) -> pl.Expr:
    """Mean of `what` (-1 to 1) over k bars, weighted by volume; near 0 where next to nothing was traded."""
    return clip((V * what).rolling_mean(k) / V.rolling_mean(k).clip(lower_bound=LEAST_VOLUME), 1.0)


def _autocorrelation(k: int) -> pl.Expr:
    return clip((Y * Y.shift(1)).rolling_mean(k) / (Y * Y).rolling_mean(k).clip(lower_bound=CALM**2), 1.0)


def _skew(k: int) -> pl.Expr:
    m1, m2, m3 = Y.rolling_mean(k), (Y * Y).rolling_mean(k), (Y * Y * Y).rolling_mean(k)
    deviation = Y.rolling_std(k).clip(lower_bound=CALM)
    return clip((m3 - 3 * m1 * m2 + 2 * m1 * m1 * m1) / (deviation * deviation * deviation), 4.0)


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
        expr = clip((X - X.shift(k)) / (VOLATILITY * math.sqrt(k)))
        yield Feature(
            f"return_{k}", "return", need, f"log return over {k} bars, in volatilities x sqrt({k})", expr
        )
    for k in range(1, 9):
        expr = clip(R.shift(k) / VOLATILITY)
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
    expr = log_of_volatility((RANGE * RANGE / (4 * math.log(2))).rolling_mean(24), 24)
    yield Feature(
        "parkinson_24", "volatility", need, "log of Parkinson's volatility over that of closes, 24 bars", expr
    )
    variance = RANGE * RANGE / 2 - BODY * BODY * (2 * math.log(2) - 1)
    expr = log_of_volatility(variance.rolling_mean(24), 24)
    about = "log of Garman and Klass's volatility over that of closes, 24 bars"
    yield Feature("garman_klass_24", "volatility", need, about, expr)
    yield Feature(
        "range_1", "volatility", need, "the bar's log range, in volatilities", clip(RANGE / VOLATILITY)
    )
    expr = clip(R.abs().rolling_mean(6) / VOLATILITY)
    yield Feature("move_6", "volatility", need, "mean absolute log return of 6 bars, in volatilities", expr)

    for k in (12, 24, 48, 96, 192):
        about = f"distance of the log close from its mean of {k} bars, in standard deviations"
        yield Feature(f"z_{k}", "level", need, about, _z(k))
    for k in (12, 24, 48, 96, 192):
        about = f"place of the close between the lowest and the highest price of {k} bars, -1 to 1"
        yield Feature(f"position_{k}", "level", k, about, _position(k))

    yield Feature("body", "candle", need, "the bar's log body, in volatilities", clip(BODY / VOLATILITY))
    expr = clip((HIGH / pl.max_horizontal("open", "close")).log() / VOLATILITY)
    yield Feature("upper_wick", "candle", need, "log distance from body to high, in volatilities", expr)
    expr = clip((pl.min_horizontal("open", "close") / LOW).log() / VOLATILITY)
    yield Feature("lower_wick", "candle", need, "log distance from low to body, in volatilities", expr)
    expr = clip((R - BODY) / VOLATILITY)
    yield Feature(
        "opening_gap", "candle", need, "log of the open over the close before it, in volatilities", expr
    )
    yield Feature(
        "close_location", "candle", 1, "place of the close in the bar's own range, -1 to 1", LOCATION
    )
    yield Feature("close_location_6", "candle", 6, "mean close location of 6 bars", LOCATION.rolling_mean(6))

    for k in (1, 3, 12, 48, 144):
        expr = clip((V.rolling_mean(k).clip(lower_bound=0.0) + LEAST_VOLUME).log())
        about = f"log of the mean relative volume of {k} bars (relative to the mean of {VOLUME_WINDOW})"
        yield Feature(f"volume_{k}", "volume", VOLUME_WINDOW + k - 1, about, expr)
    for k in (48, 144):
        expr = clip((V - V.rolling_mean(k)) / V.rolling_std(k).clip(lower_bound=LEAST_VOLUME))
        about = f"distance of the relative volume from its mean of {k} bars, in standard deviations"
        yield Feature(f"volume_z_{k}", "volume", VOLUME_WINDOW + k - 1, about, expr)
    for k in (6, 24, 96):
        about = f"volume of rising less that of falling bars, over all volume, {k} bars"
        yield Feature(
            f"signed_volume_{k}", "volume", VOLUME_WINDOW + k - 1, about, _volume_weighted(R.sign(), k)
        )
    expr = _volume_weighted(LOCATION, 24)
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
        yield Feature(f"up_fraction_{k}", "pattern", k + 1, about, R.sign().rolling_mean(k))
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


_USUAL = tuple(_table())
FEATURES: dict[str, Feature] = {feature.name: feature for feature in (*_USUAL, *indicators())}


# What is read of an input where nobody says otherwise: its moves, how unquiet it is, and where it stands.
OF_AN_INPUT = (
    *("return_1", "return_3", "return_12", "return_24", "return_96"),
    *("volatility_6_48", "volatility_24_192", "z_48", "position_96", "rsi_cutler_14"),
)


@dataclass(frozen=True)
class Input:
    """Features of other bars that stand beside a market's own: those of another market that is kept, or, without a
    symbol, of its own bars in a longer timeframe. `60m` is kept as `1h`. Raises BadInput as markets and features do."""

    symbol: str | None
    timeframe: str
    features: tuple[str, ...] = OF_AN_INPUT

    def __post_init__(self) -> None:
        object.__setattr__(self, "timeframe", timeframe(self.timeframe).name)
        object.__setattr__(self, "features", tuple(self.features))
        if self.symbol is not None:
            market(self.symbol, self.timeframe)
        self.feature_set  # noqa: B018  raises

    def __str__(self) -> str:
        return self.timeframe if self.symbol is None else f"{self.symbol} {self.timeframe}"

    @property
    def market(self) -> Market | None:
        """Whose bars these are; None where they are made of the market's own."""
        return None if self.symbol is None else Market(self.symbol, self.timeframe)

    @property
    def feature_set(self) -> "FeatureSet":
        """What is computed of these bars, as if they were a market's own."""
        return FeatureSet(self.features)


@dataclass(frozen=True)
class FeatureSet:
    """An ordered list of features by name, then those of each input. Raises BadInput on a name that FEATURES lacks, and
    where one comes twice."""

    names: tuple[str, ...]
    inputs: tuple[Input, ...] = ()

    def __post_init__(self) -> None:
        named = [str(each) for each in self.inputs]
        if twice := next((name for name in named if named.count(name) > 1), None):
            raise BadInput(
                f"the input {twice} is there more than once: give it all its features in one place"
            )
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
    def columns(self) -> tuple[str, ...]:
        """What each number of a row is: `return_24`, `BTCUSDT 1h return_24`, or `4h return_24` of its own bars."""
        return (*self.names, *(f"{each} {name}" for each in self.inputs for name in each.features))

    @property
    def needs(self) -> int:
        """Bars of history that a row and its scale look at, the row's own bar included."""
        return max(SCALE_NEEDS, *(feature.needs for feature in self.features))

    @cached_property
    def few(self) -> Few:
        """The market's own features, for a few rows."""
        return few(self.features)

    @cached_property
    def sha256(self) -> str:
        """Changes with any name, order, need, definition or shared column. Stable for one Polars version."""
        own = [[feature.name, feature.needs, feature.definition] for feature in self.features]
        others = [[each.symbol, each.timeframe, each.feature_set.sha256] for each in self.inputs]
        said = [WARMUP, SHARED, own, others] if others else [WARMUP, SHARED, own]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def inputs_from(documents: Any) -> tuple[Input, ...]:
    """The inputs that a manifest lists. Raises BadInput for what is none."""
    try:
        return tuple(Input(**document) for document in documents)
    except TypeError as error:
        raise BadInput(
            f"an input has a symbol, a timeframe and features, and these have not: {error}"
        ) from error


def feature_set_from(manifest: Mapping[str, Any]) -> FeatureSet:
    """The feature set that a version's manifest names, as it is defined now. Raises BadInput."""
    return FeatureSet(tuple(manifest["features"]), inputs_from(manifest.get("inputs", [])))


# What a training uses where nobody says otherwise. Trained versions stand on it: a new row of FEATURES is not in it.
DEFAULT = FeatureSet(tuple(feature.name for feature in _USUAL))
