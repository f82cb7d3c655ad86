"""Features: causal Polars expressions over a market's bars. Add one by adding a row to FEATURES.

An expression may use the bar's own columns (ts, open, high, low, close, volume) and those of BASE:

    closed_at    the bar's close time, when all of this is known
    log_close    natural logarithm of the close
    log_return   log_close less that of the bar before it
    volatility   the scale of one bar's log return, see `scale` in FeatureRows

Every feature is bounded by its own expression and finite on any valid bars, flat and without volume too.

Frames. A rolling kernel's last bits depend on where its frame starts, so there is one rule for that:
bars belong to blocks of BLOCK timeframes, anchored in absolute time, and a block's frame starts WARMUP
bars before the block's first bar. The end of the data moves no bit, whoever asks, for one row or for all.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property

import numpy as np
import polars as pl
from numpy.typing import NDArray

import model.bars
from model.bars import Bars, Timeframe
from model.errors import BadBars, BadInput

WARMUP = 256  # bars before a block that its frame holds; no feature may need more, its own bar included
BLOCK = 512  # bars of a block at most, where bars follow each other without overlap
HISTORY = WARMUP + BLOCK  # the newest bars that suffice for the newest row

SCALE_WINDOW = 48  # bars: two days of hourly bars
LONG_WINDOW = 192  # bars: the longer run that floors the short one
# A calm of 48 bars says little about the next bar: never below a tenth of the longer run's volatility,
# and never below a hundredth of a basis point, which is less than one tick of any market.
CALM = 0.1
LEAST_VOLATILITY = 1e-6
SCALE_NEEDS = LONG_WINDOW + 1
CLIP = 8.0  # volatilities; beyond that a value says "extreme" and no more

_OPEN, _HIGH, _LOW, _CLOSE, _VOLUME = (pl.col(c) for c in ("open", "high", "low", "close", "volume"))
_X, _R, _VOL = pl.col("log_close"), pl.col("log_return"), pl.col("volatility")


@dataclass(frozen=True)
class Feature:
    """One causal expression; `needs` counts the bars of history it looks at, its own bar included."""

    name: str
    group: str
    needs: int
    about: str
    expr: pl.Expr


def _clipped(expr: pl.Expr, bound: float = CLIP) -> pl.Expr:
    return expr.clip(-bound, bound)


def _volatility(window: int) -> pl.Expr:
    """Standard deviation of `window` log returns, floored by the absolute minimum."""
    return _R.rolling_std(window).clip(lower_bound=LEAST_VOLATILITY)


def _ratio(over: pl.Expr, under: pl.Expr) -> pl.Expr:
    """log(over / under), bounded: three means a factor of twenty."""
    return _clipped((over / under).log(), 3.0)


def _position(window: int) -> pl.Expr:
    """Where the close lies between the window's low and high: -1 at the low, 1 at the high, 0 without range."""
    high, low = _HIGH.rolling_max(window), _LOW.rolling_min(window)
    return ((2 * _CLOSE - high - low) / (high - low).clip(lower_bound=LEAST_VOLATILITY * _CLOSE)).clip(-1, 1)


def _mean_volume(window: int) -> pl.Expr:
    """Mean volume; a sum of numbers >= 0 is never below their maximum, whatever rounding left in it."""
    return pl.max_horizontal(_VOLUME.rolling_mean(window), _VOLUME.rolling_max(window) / window)


def _where_traded(expr: pl.Expr, window: int) -> pl.Expr:
    """`expr`, or 0 ("as usual") where nothing at all was traded in the window."""
    return pl.when(_VOLUME.rolling_max(window) > 0).then(expr).otherwise(0.0)


def _autocorrelation(window: int) -> pl.Expr:
    both = (_R * _R.shift(1).fill_null(0.0)).rolling_mean(window)
    return (both / (_R * _R).rolling_mean(window).clip(lower_bound=LEAST_VOLATILITY**2)).clip(-1, 1)


def _skew(window: int) -> pl.Expr:
    m1, m2, m3 = (_R.pow(p).rolling_mean(window) for p in (1, 2, 3))
    return _clipped((m3 - 3 * m1 * m2 + 2 * m1.pow(3)) / _volatility(window).pow(3), 4.0)


def _parkinson(window: int) -> pl.Expr:
    span = (_HIGH / _LOW).log()
    return (
        ((span * span).rolling_mean(window) / (4 * math.log(2))).clip(lower_bound=LEAST_VOLATILITY**2).sqrt()
    )


def _garman_klass(window: int) -> pl.Expr:
    span, body = (_HIGH / _LOW).log(), (_CLOSE / _OPEN).log()
    variance = 0.5 * span * span - (2 * math.log(2) - 1) * body * body
    return variance.rolling_mean(window).clip(lower_bound=LEAST_VOLATILITY**2).sqrt()


def _cycle(length: timedelta) -> pl.Expr:
    """The close time's angle within a cycle; weeks start on Monday 00:00 UTC."""
    monday = timedelta(days=3) if length == timedelta(weeks=1) else timedelta(0)  # 1970-01-01 was a Thursday
    micros = pl.col("closed_at").dt.epoch("us") + monday // timedelta(microseconds=1)
    whole = length // timedelta(microseconds=1)
    return micros % whole * (2 * math.pi / whole)


def _table() -> Iterator[Feature]:
    need = SCALE_NEEDS
    for k in (1, 2, 3, 6, 12, 24, 48, 96, 168):
        expr = _clipped((_X - _X.shift(k)) / (_VOL * math.sqrt(k)))
        yield Feature(
            f"return_{k}", "return", need, f"log return of {k} bars over volatility x sqrt({k})", expr
        )
    for k in range(1, 9):
        expr = _clipped(_R.shift(k) / _VOL)
        yield Feature(
            f"lag_{k}", "return", need, f"one-bar log return {k} bars ago over today's volatility", expr
        )
    for k in (12, 48):
        expr = (_R.rolling_sum(k) / _R.abs().rolling_sum(k).clip(lower_bound=LEAST_VOLATILITY)).clip(-1, 1)
        about = f"net move of {k} bars over the path walked, signed (Kaufman's efficiency)"
        yield Feature(f"efficiency_{k}", "return", k + 1, about, expr)

    for short, long in ((6, 48), (12, 96), (24, 192), (48, 192)):
        expr = _ratio(_volatility(short), _volatility(long))
        about = f"log ratio of the volatilities of {short} and {long} bars"
        yield Feature(f"volatility_{short}_{long}", "volatility", long + 1, about, expr)
    expr = _ratio(_parkinson(24), _volatility(24))
    yield Feature(
        "parkinson_24", "volatility", 25, "log ratio of Parkinson's and close-to-close volatility", expr
    )
    expr = _ratio(_garman_klass(24), _volatility(24))
    yield Feature(
        "garman_klass_24", "volatility", 25, "log ratio of Garman-Klass' and close-to-close volatility", expr
    )
    expr = _clipped((_HIGH / _LOW).log() / _VOL)
    yield Feature("range_1", "volatility", need, "the bar's log range over volatility", expr)
    expr = _clipped(_R.abs().rolling_mean(6) / _VOL)
    yield Feature(
        "abs_return_6", "volatility", need, "mean absolute log return of 6 bars over volatility", expr
    )

    for k in (12, 24, 48, 96, 192):
        expr = _clipped((_X - _X.rolling_mean(k)) / pl.max_horizontal(_X.rolling_std(k), _VOL))
        about = f"distance of the log close from its mean of {k} bars, in standard deviations"
        yield Feature(f"z_{k}", "level", max(k, need), about, expr)
    for k in (12, 24, 48, 96, 192):
        yield Feature(
            f"position_{k}", "level", k, f"close within the low-high range of {k} bars, -1 to 1", _position(k)
        )

    expr = _clipped((_CLOSE / _OPEN).log() / _VOL)
    yield Feature("body", "candle", need, "log body of the bar over volatility", expr)
    expr = _clipped((_HIGH / pl.max_horizontal("open", "close")).log() / _VOL)
    yield Feature("upper_wick", "candle", need, "log upper wick of the bar over volatility", expr)
    expr = _clipped((pl.min_horizontal("open", "close") / _LOW).log() / _VOL)
    yield Feature("lower_wick", "candle", need, "log lower wick of the bar over volatility", expr)
    yield Feature("close_location", "candle", 1, "close within the bar's own range, -1 to 1", _position(1))
    yield Feature(
        "close_location_6", "candle", 6, "mean close location of 6 bars", _position(1).rolling_mean(6)
    )

    for short, long in ((1, 24), (6, 48), (24, 192)):
        expr = _where_traded(
            _ratio(_mean_volume(short).clip(lower_bound=0.01 * _mean_volume(long)), _mean_volume(long)), long
        )
        about = f"log ratio of the mean volumes of {short} and {long} bars, 0 where nothing traded"
        yield Feature(f"volume_{short}_{long}", "volume", long, about, expr)
    for k in (48, 168):
        spread = pl.max_horizontal(_VOLUME.rolling_std(k), 0.01 * _mean_volume(k))
        expr = _where_traded(_clipped((_VOLUME - _mean_volume(k)) / spread), k)
        yield Feature(
            f"volume_z_{k}", "volume", k, f"volume's distance from its mean of {k} bars in deviations", expr
        )
    for k in (6, 24, 96):
        signed = (_VOLUME * _R.sign()).rolling_mean(k) / _mean_volume(k)
        expr = _where_traded(signed.clip(-1, 1), k)
        yield Feature(
            f"signed_volume_{k}",
            "volume",
            k + 1,
            f"volume of rises less that of falls over all, {k} bars",
            expr,
        )

    for k in (7, 14, 28):
        up, down = (
            _CLOSE.diff().fill_null(0.0).clip(lower_bound=0.0),
            (-_CLOSE.diff().fill_null(0.0)).clip(lower_bound=0.0),
        )
        gain, loss = up.rolling_mean(k), down.rolling_mean(k)
        expr = ((gain - loss) / (gain + loss).clip(lower_bound=LEAST_VOLATILITY * _CLOSE)).clip(-1, 1)
        about = f"RSI of {k} bars in Cutler's form (simple means), scaled to -1 to 1"
        yield Feature(f"rsi_cutler_{k}", "oscillator", k + 1, about, expr)
    yield Feature(
        "stochastic_14", "oscillator", 14, "stochastic %K of 14 bars, scaled to -1 to 1", _position(14)
    )
    expr = _position(14).rolling_mean(3)
    yield Feature(
        "stochastic_14_3", "oscillator", 16, "stochastic %D: mean of 3 %K of 14 bars, -1 to 1", expr
    )

    for k in (24, 96):
        yield Feature(
            f"autocorrelation_{k}",
            "pattern",
            k + 2,
            f"lag-one autocorrelation of {k} returns",
            _autocorrelation(k),
        )
    for k in (12, 48):
        expr = _R.sign().rolling_mean(k)
        yield Feature(
            f"up_fraction_{k}", "pattern", k + 1, f"share of rises less share of falls in {k} bars", expr
        )
    for k in (48, 96):
        yield Feature(f"skew_{k}", "pattern", k + 1, f"skewness of {k} log returns", _skew(k))

    for name, length in (("hour", timedelta(days=1)), ("weekday", timedelta(weeks=1))):
        about = f"of the close time within its {'day' if name == 'hour' else 'week'}, UTC"
        yield Feature(f"{name}_sin", "time", 1, f"sine {about}", _cycle(length).sin())
        yield Feature(f"{name}_cos", "time", 1, f"cosine {about}", _cycle(length).cos())


FEATURES: dict[str, Feature] = {feature.name: feature for feature in _table()}


@dataclass(frozen=True)
class FeatureSet:
    """An ordered list of features, by name. Raises BadInput on a name that is not in FEATURES or comes twice."""

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        for name in self.names:
            if name not in FEATURES:
                raise BadInput(f"unknown feature {name!r}: `barprop features list` shows those there are")
        if not self.names or len(set(self.names)) < len(self.names):
            raise BadInput("a feature set names at least one feature, and each of them once")

    @cached_property
    def features(self) -> tuple[Feature, ...]:
        """The rows of FEATURES, in order."""
        return tuple(FEATURES[name] for name in self.names)

    @property
    def needs(self) -> int:
        """Bars of history that the newest row looks at, its own bar included."""
        return max(SCALE_NEEDS, *(feature.needs for feature in self.features))

    @cached_property
    def sha256(self) -> str:
        """Changes with any name, order, need or definition, and with the rule for frames."""
        base = [
            expr.meta.serialize(format="json")
            for step in _base(model.bars.timeframe("1h"))
            for expr in step.values()
        ]
        rows = [[f.name, f.needs, f.expr.meta.serialize(format="json")] for f in self.features]
        return hashlib.sha256(json.dumps([WARMUP, BLOCK, base, rows]).encode()).hexdigest()


DEFAULT = FeatureSet(tuple(FEATURES))


@dataclass(frozen=True)
class FeatureRows:
    """One row for each bar that has WARMUP bars before it; the arrays are read-only.

    ts, closed_at (n,) int64 microseconds UTC; X (n, F) float32; scale (n,) float64, the volatility of one
    bar's log return as known at that close, above zero; close (n,) float64, the price.
    """

    ts: NDArray[np.int64]
    closed_at: NDArray[np.int64]
    X: NDArray[np.float32]
    scale: NDArray[np.float64]
    close: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.ts)


def rows(bars: Bars, timeframe: Timeframe, feature_set: FeatureSet = DEFAULT) -> FeatureRows:
    """The feature rows of a market's whole history."""
    starts = _starts(bars, timeframe)
    ends = [*starts[1:], len(bars)]
    parts = [
        _frame(bars, timeframe, feature_set.features, max(first, WARMUP), first, end)
        for first, end in zip(starts, ends, strict=True)
        if end > WARMUP
    ]
    return _rows(parts, feature_set)


def last_row(bars: Bars, timeframe: Timeframe, feature_set: FeatureSet = DEFAULT) -> FeatureRows:
    """The newest bar's row, to the bit as `rows` has it; none where it has fewer than WARMUP bars before it.

    `bars` are the whole history or at least its newest HISTORY bars.
    """
    newest = bars.tail(HISTORY)
    if len(newest) <= WARMUP:
        return _rows([], feature_set)
    first = _starts(newest, timeframe)[-1]
    end = len(newest)
    return _rows([_frame(newest, timeframe, feature_set.features, end - 1, first, end)], feature_set)


def _starts(bars: Bars, timeframe: Timeframe) -> list[int]:
    """Where blocks begin. One with more than BLOCK bars (a shifted daily stamp) is cut after every BLOCK bars."""
    span = BLOCK * (timeframe.length // timedelta(microseconds=1))
    block = bars["ts"].dt.epoch("us").to_numpy() // span
    edges = [0, *(np.flatnonzero(np.diff(block)) + 1).tolist(), len(bars)]
    if max(b - a for a, b in zip(edges, edges[1:], strict=False)) >= HISTORY:
        raise BadBars(f"bars overlap: {HISTORY} or more of {timeframe.name} within the time of {BLOCK}")
    return [start for a, b in zip(edges, edges[1:], strict=False) for start in range(a, b, BLOCK)]


def _base(timeframe: Timeframe) -> Iterator[dict[str, pl.Expr]]:
    """Columns that features share, step by step."""
    log_close = _CLOSE.log()
    yield {
        "closed_at": timeframe.closes(pl.col("ts")),
        "log_close": log_close,
        "log_return": (log_close - log_close.shift(1)).fill_null(0.0),
    }
    long = CALM * _R.rolling_std(LONG_WINDOW)
    yield {"volatility": pl.max_horizontal(_volatility(SCALE_WINDOW), long)}


def _frame(
    bars: Bars, timeframe: Timeframe, features: Sequence[Feature], wanted: int, first: int, end: int
) -> pl.DataFrame:
    """The rows [wanted, end) of the block that begins at `first`, computed in that block's frame."""
    begin = max(0, first - WARMUP)
    frame = bars.slice(begin, end - begin).rechunk()
    for step in _base(timeframe):
        frame = frame.with_columns(**step)
    out = frame.select(
        *(f.expr.alias(f.name) for f in features),
        pl.col("ts").dt.epoch("us").alias("__ts"),
        pl.col("closed_at").dt.epoch("us").alias("__closed_at"),
        pl.col("volatility").alias("__scale"),
        pl.col("close").alias("__close"),
    )
    return out.slice(wanted - begin)


def _rows(parts: list[pl.DataFrame], feature_set: FeatureSet) -> FeatureRows:
    n = sum(map(len, parts))
    X = np.empty((n, len(feature_set.names)), np.float32)
    ts, closed_at = np.empty(n, np.int64), np.empty(n, np.int64)
    scale, close = np.empty(n), np.empty(n)
    at = 0
    for part in parts:
        to = at + len(part)
        X[at:to] = part.select(feature_set.names).to_numpy()
        ts[at:to], closed_at[at:to] = part["__ts"].to_numpy(), part["__closed_at"].to_numpy()
        scale[at:to], close[at:to] = part["__scale"].to_numpy(), part["__close"].to_numpy()
        at = to
    for array in (ts, closed_at, X, scale, close):
        array.flags.writeable = False
    return FeatureRows(ts, closed_at, X, scale, close)
