"""What every feature is made of: the columns that features share, their units and floors, and `Feature` itself.

An expression may use a bar's own columns (ts, open, high, low, close, volume), `closed_at`, its close time, and the
columns of BASE.

Letters: X log close, R log return, Y the same in volatilities, V relative volume, k a window in bars.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import polars as pl

from model.bars import Timeframe
from model.errors import BadInput
from model.features.parts import Parts, parted, reach, serialised

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

Frame = TypeVar("Frame", pl.DataFrame, pl.LazyFrame)

OPEN, HIGH, LOW, CLOSE, VOLUME = (pl.col(c) for c in ("open", "high", "low", "close", "volume"))
X, R, V = pl.col("log_close"), pl.col("log_return"), pl.col("relative_volume")
BODY, RANGE, LOCATION = pl.col("log_body"), pl.col("log_range"), pl.col("close_location")
CALM_NOW, VOLATILITY, Y = pl.col("calm"), pl.col("volatility"), pl.col("scaled_return")
MOST = VOLUME.rolling_max(VOLUME_WINDOW)


def clip(expr: pl.Expr, bound: float = CLIP) -> pl.Expr:
    """`expr`, kept from -bound to bound."""
    return expr.clip(-bound, bound)


def _volatility(k: int) -> pl.Expr:
    """Standard deviation of k log returns, never below the calm."""
    return pl.max_horizontal(R.rolling_std(k), CALM_NOW)


def place(low: pl.Expr, high: pl.Expr) -> pl.Expr:
    """Where the close lies between two prices: -1 at the low, 1 at the high, 0 where they are one."""
    return clip((2 * CLOSE - high - low) / pl.max_horizontal(high - low, LEAST_VOLATILITY * CLOSE), 1.0)


# Columns that features share, step by step; a later step may use an earlier one's columns.
BASE: tuple[dict[str, pl.Expr], ...] = (
    {
        "log_close": CLOSE.log(),
        "log_return": (CLOSE.log() - CLOSE.log().shift(1)).fill_null(0.0),
        "log_body": (CLOSE / OPEN).log(),
        "log_range": (HIGH / LOW).log(),
        "close_location": place(LOW, HIGH),
        # where nothing is traded for long, volume is not told, and each bar counts as usual
        "relative_volume": pl.when(MOST > 0)
        # a mean of numbers >= 0 is never below the largest / k, whatever rounding has left of it
        .then(VOLUME / pl.max_horizontal(VOLUME.rolling_mean(VOLUME_WINDOW), MOST / VOLUME_WINDOW))
        .otherwise(1.0),
    },
    {"calm": (CALM * R.rolling_std(LONG_WINDOW)).clip(lower_bound=LEAST_VOLATILITY)},
    {
        "volatility": _volatility(SCALE_WINDOW),
        **{f"volatility_{k}": _volatility(k) for k in (6, 12, 24, 96, LONG_WINDOW)},
    },
    # of order one whatever came before, so that its powers leave no rounding behind in sums
    {"scaled_return": clip(R / VOLATILITY).fill_null(0.0)},
)


def definitions(steps: Iterable[Mapping[str, pl.Expr]]) -> tuple[tuple[str, str], ...]:
    """The names and expressions of columns as text, the same for one Polars version."""
    return tuple((name, serialised(expr)) for step in steps for name, expr in step.items())


SHARED = definitions(BASE)

# How many earlier bars the exact windows of a column look at; those of BASE that are not here stand on running sums.
REACHES = dict.fromkeys(("ts", "closed_at", "open", "high", "low", "close", "volume"), 0)
for _step in BASE:
    _far = {name: reach(expr, REACHES) for name, expr in _step.items()}
    REACHES |= {name: far for name, far in _far.items() if far is not None}


def with_base(bars: Frame, timeframe: Timeframe) -> Frame:
    """`bars` with closed_at and the columns of BASE."""
    frame = bars.with_columns(closed_at=timeframe.closes(pl.col("ts")))
    for step in BASE:
        # one frame is too short for threads to share its columns
        frame = frame.with_columns_seq(**step)
    return frame


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

    @cached_property
    def definition(self) -> str:
        """The expression as text, the same for one Polars version."""
        return serialised(self.expr)

    @cached_property
    def windowed(self) -> bool:
        """Whether the expression brings windows of its own (`over`, `rolling`)."""
        return '{"Over":' in self.definition or '{"Rolling":' in self.definition

    @cached_property
    def parts(self) -> Parts:
        """The expression, taken apart."""
        return parted(self.expr, REACHES, WARMUP)


def log_of_volatility(variance: pl.Expr, k: int) -> pl.Expr:
    """Log of the volatility that k bars' variance is estimated as, over the one of their closes."""
    estimate = pl.max_horizontal(variance, CALM_NOW * CALM_NOW).sqrt()
    return clip((estimate / pl.col(f"volatility_{k}")).log(), CLIP_LOG)
