"""Features of a user's own: functions that return an expression, proven before they stand in the table.

    import polars as pl
    from model.features import feature

    @feature(needs=20)
    def stretch_20() -> pl.Expr:
        \"\"\"Distance of the close from its mean of 20 bars, in percent.\"\"\"
        close = pl.col("close")
        return (100 * (close / close.rolling_mean(20) - 1)).clip(-8, 8)

The function's name is the feature's, the first line of its docstring says what it is.
"""

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import numpy as np
import polars as pl
from numpy.typing import NDArray

from model.bars import BAR_SCHEMA, Bars, iso, timeframe
from model.errors import BadInput
from model.features.columns import SHARED, WARMUP, Feature
from model.features.frames import BLOCK, edges, together
from model.features.lookahead import check, computable, unmet_needs
from model.features.table import FEATURES

LARGEST = 1_000.0  # a value further from 0 would drown all others, whatever scaling does
CUTS = 12
BARS = 1_600  # of a made-up market: three blocks and more
_BUILT_IN = frozenset(FEATURES)
_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_HOUR = timeframe("1h")


def feature(
    needs: int, group: str = "user", about: str | None = None
) -> Callable[[Callable[[], pl.Expr]], Feature]:
    """Makes a function without arguments, which returns an expression, into the feature that bears its name.

    `needs` counts the bars that a value looks at, its own included: 1 to WARMUP. Raises BadInput for what is none.
    """

    def made(function: Callable[[], pl.Expr]) -> Feature:
        name = function.__name__
        said = about or (function.__doc__ or "").strip().partition("\n")[0]
        if _NAME.fullmatch(name) is None:
            raise BadInput(f"feature {name!r}: a name is small letters, digits and _, at most 63")
        if not said:
            raise BadInput(f"feature {name!r} needs a docstring: its first line says what it is")
        expr = function()
        if not isinstance(expr, pl.Expr):
            raise BadInput(f"feature {name!r} returns {type(expr).__name__}, not a Polars expression")
        return Feature(name, group, needs, said, expr)

    return made


def definition(features: Sequence[Feature]) -> str:
    """SHA-256 of what these features, and all that they may use, are made of. Stable for one Polars version."""
    own = [[each.name, each.needs, each.definition] for each in features]
    return hashlib.sha256(json.dumps([WARMUP, BLOCK, SHARED, own]).encode()).hexdigest()


def register(features: Sequence[Feature]) -> None:
    """Puts a user's features behind the built-in ones, in the place of those that stood there. Proves nothing.

    Raises BadInput where a name is taken.
    """
    names = [each.name for each in features]
    for name in names:
        if name in _BUILT_IN or names.count(name) > 1:
            whose = "a built-in feature" if name in _BUILT_IN else "two of these features"
            raise BadInput(f"feature {name!r} cannot be added: {whose} bears that name")
    for name in FEATURES.keys() - _BUILT_IN:
        del FEATURES[name]
    FEATURES.update({each.name: each for each in features})


def registered() -> tuple[Feature, ...]:
    """A user's features that stand in the table."""
    return tuple(each for name, each in FEATURES.items() if name not in _BUILT_IN)


def prove(features: Sequence[Feature]) -> None:
    """Raises BadInput, in one line, for the first of `features` that may not be used, and why.

    Each must be plain Polars, look at nothing that is yet to come, at no more bars than it states, be finite and
    bounded on any market, and give the same bits alone and among many.
    """
    bars = made_up(BARS, seed=1)
    for each in features:
        _must_be_plain(each)
        computable(bars, _HOUR, each)
    for ahead in check(bars, _HOUR, features, seed=0, cuts=CUTS):
        raise BadInput(ahead.line())
    restless = [made_up(BARS, seed=2, still=0.5), made_up(BARS, seed=3, volume=0.0, unit=1e-8)]
    for market in (bars, *restless):
        _in_bounds(market, features)
    for lacking in unmet_needs(bars, _HOUR, features, seed=0, cuts=CUTS):
        raise BadInput(lacking.line())
    for market in (bars, *restless):
        for each in features:
            _the_same_among_many(market, each)


def made_up(n: int, seed: int, still: float = 0.0, volume: float = 1e3, unit: float = 1e2) -> Bars:
    """n hourly bars of no market: jumps, gaps, a share of time in which nothing moves, and of bars without volume."""
    rng = np.random.default_rng(seed)
    level = np.repeat(np.exp(rng.normal(-5, 1.2, n // 40 + 1)), 40)[:n]
    quiet = np.repeat(rng.random(n // 60 + 1) < still, 60)[:n]
    close = unit * np.exp(np.cumsum(np.where(quiet, 0, np.clip(level * rng.standard_t(3, n), -0.5, 0.5))))
    before = np.concatenate([[unit], close[:-1]])
    open_ = np.where(quiet, before, before * np.exp(0.1 * level * rng.normal(size=n)))
    wick = np.where(quiet, 0, level * rng.exponential(0.5, (2, n)))
    hours = np.cumsum(rng.choice([1, 1, 1, 1, 1, 1, 1, 2, 5, 60], n)).tolist()
    start = datetime(2021, 3, 4, 5, tzinfo=UTC)
    return pl.DataFrame(
        {
            "ts": [start + timedelta(hours=hour) for hour in hours],
            "open": open_,
            "high": np.maximum(open_, close) * np.exp(wick[0]),
            "low": np.minimum(open_, close) * np.exp(-wick[1]),
            "close": close,
            "volume": np.where(quiet, 0, volume * rng.lognormal(0, 1, n)),
        },
        schema=BAR_SCHEMA,
    )


def _must_be_plain(each: Feature) -> None:
    """Raises BadInput where what an expression gives is not decided by its text and the bars alone."""
    text = each.definition
    pickled = json.dumps(list(b"cloudpickle"), separators=(",", ":"))[1:-1]
    if "AnonymousFunction" in text or pickled in text:
        raise BadInput(
            f"feature {each.name!r} calls a Python function: what that does has no hash and may change unseen; "
            "say it in Polars expressions"
        )
    if "SumHorizontal" in text or "MeanHorizontal" in text:
        raise BadInput(
            f"feature {each.name!r} adds horizontally, in an order that depends on threads: add expressions with +"
        )


def _in_bounds(bars: Bars, features: Sequence[Feature]) -> None:
    blocks = list(pairwise(edges(bars, _HOUR)))
    found = pl.concat([together(bars, _HOUR, features, [block]) for block in blocks if block[1] > WARMUP])
    for each in features:
        value = found[each.name].cast(pl.Float64).fill_null(float("nan")).to_numpy()
        wrong = np.flatnonzero(~(np.abs(value) <= LARGEST))
        if len(wrong):
            at = iso(bars["ts"][WARMUP + int(wrong[0])])
            raise BadInput(
                f"feature {each.name!r} is {value[wrong[0]]:g} at {at} of a made-up market: it must be finite, and "
                f"within {LARGEST:g}, where prices stand still and nothing is traded, too"
            )


def _the_same_among_many(bars: Bars, each: Feature) -> None:
    """A training computes many frames at a time, a service one: the bits must be the same."""
    if each.windowed:
        return  # then a training computes one frame at a time too
    blocks = [block for block in pairwise(edges(bars, _HOUR)) if block[1] > WARMUP]
    try:
        many = together(bars, _HOUR, [each], blocks)[each.name]
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        reason = str(error).splitlines()[0]
        raise BadInput(f"feature {each.name!r} cannot be computed for many blocks: {reason}") from error
    one = pl.concat([together(bars, _HOUR, [each], [block]) for block in blocks])[each.name]
    differs = np.flatnonzero(_bits(many) != _bits(one))
    if len(differs):
        at = iso(bars["ts"][WARMUP + int(differs[0])])
        raise BadInput(f"feature {each.name!r} has other bits at {at} when many blocks are computed together")


def _bits(series: pl.Series) -> NDArray[np.uint64]:
    return series.cast(pl.Float64).to_numpy().view(np.uint64)
