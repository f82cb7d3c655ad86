"""Proof that features look back only, and no further back than they state; for a user's rows too.

Each feature is computed in its frames, as training and serving do it, once on the bars as they are and
once with everything from a cut on taken away or corrupted. What was known before the cut must stay, to the bit.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

import numpy as np
import polars as pl
from numpy.typing import NDArray

from model.bars import PRICES, Bars, Timeframe, iso
from model.errors import BadBars, BadInput
from model.features.columns import SCALE_NEEDS, WARMUP, Feature
from model.features.frames import BLOCK, compute, edges

# What dataset and serving read beside the features stands trial with them.
_SCALE = Feature("scale", "scale", SCALE_NEEDS, "volatility of one bar's log return", pl.col("volatility"))

# Sums over more bars round differently, most of all where a jump is followed by a standstill. A bar that a
# value of order one really looks at moves it by far more.
ROUNDING = 1e-6


@dataclass(frozen=True)
class LookAhead:
    """A feature whose value at the bar that opened at `first_moved` depends on bars from `cut` on."""

    feature: str
    cut: datetime  # open time of the first bar that was taken away or corrupted
    first_moved: datetime  # open time of the earliest bar whose value changed; before `cut`
    kind: str  # what was done to the future: truncated, scaled, shuffled, replaced
    column: str  # close, volume, high, low, open, or "number or times"

    def line(self) -> str:
        """In words."""
        return (
            f"feature {self.feature!r} looks ahead: its value at {iso(self.first_moved)} moved when the bars from "
            f"{iso(self.cut)} on were {self.kind}; it looks at their {self.column}"
        )


@dataclass(frozen=True)
class UnmetNeed:
    """A feature whose value at the bar that opened at `ts` still moves when more bars than it needs are given."""

    feature: str
    needs: int
    ts: datetime

    def line(self) -> str:
        """In words."""
        return (
            f"feature {self.feature!r} needs more than the {self.needs} bars it states, or is not finite: "
            f"seen at {iso(self.ts)}"
        )


# In which order the columns are asked after: the close is what most features look at.
ALONE = ("close", "volume", "high", "low", "open")


def _truncated(future: Bars, rng: np.random.Generator) -> Bars:
    return future.clear()


def _scaled(future: Bars, rng: np.random.Generator) -> Bars:
    """Each bar a multiple of itself: its shape stays, its level does not."""
    factor = pl.Series(np.exp(rng.normal(0.0, 0.5, len(future))))
    return future.with_columns(pl.col(*PRICES, "volume") * factor)


def _shuffled(future: Bars, rng: np.random.Generator) -> Bars:
    """The same bars in another order, under the old times: sums and extremes stay."""
    return future.select("ts").hstack(future.drop("ts")[rng.permutation(len(future))])


def _replaced(future: Bars, rng: np.random.Generator) -> Bars:
    """Other bars: a random walk that has nothing to do with the market."""
    close = 100.0 * np.exp(np.cumsum(rng.normal(0.0, 0.05, len(future))))
    open_ = close * np.exp(rng.normal(0.0, 0.05, len(future)))
    return future.with_columns(
        open=open_,
        high=np.maximum(open_, close) * 1.01,
        low=np.minimum(open_, close) * 0.99,
        close=close,
        volume=rng.lognormal(0.0, 1.0, len(future)),
    )


_CORRUPTIONS: dict[str, Callable[[Bars, np.random.Generator], Bars]] = {
    "truncated": _truncated,
    "scaled": _scaled,
    "shuffled": _shuffled,
    "replaced": _replaced,
}


def check(
    bars: Bars, timeframe: Timeframe, features: Sequence[Feature], seed: int, cuts: int
) -> tuple[LookAhead, ...]:
    """Every way in which one of `features`, or the scale, was seen to look ahead; empty when clean.

    Takes the future away at `cuts` random places, and corrupts it. Raises BadBars where there are too few
    bars to judge by, BadInput where a feature cannot be computed.
    """
    _judgeable(bars, timeframe, features)
    rng = np.random.default_rng(seed)
    bounds = edges(bars, timeframe)
    # at the end of a block its frame has no future to take away
    candidates = np.setdiff1d(np.arange(1, len(bars)), bounds)
    found: list[LookAhead] = []
    for cut in np.sort(rng.choice(candidates, min(cuts, len(candidates)), replace=False)).tolist():
        first, end = next(block for block in pairwise(bounds) if block[0] < cut < block[1])
        whole = bars.head(end)
        honest = _values(whole, timeframe, features, first, end)
        begin = max(0, first - WARMUP)

        def moved_by(
            other: Bars,
            first: int = first,
            past: int = cut - begin,
            honest: Mapping[str, NDArray[np.float64]] = honest,
        ) -> dict[str, int]:
            """Of each feature that `other` bars move before the cut, where in the frame it first does."""
            values = _values(other, timeframe, features, first, len(other))
            differs = {
                name: was[:past].view(np.uint64) != values[name][:past].view(np.uint64)
                for name, was in honest.items()
            }
            return {name: int(moved.argmax()) for name, moved in differs.items() if moved.any()}

        for kind, corrupt in _CORRUPTIONS.items():
            past, future = whole.head(cut), whole.slice(cut)
            moved = moved_by(pl.concat([past, corrupt(future, rng)]))
            if moved:
                changed = _scaled(future, np.random.default_rng(seed))
                alone = {
                    column: moved_by(pl.concat([past, future.with_columns(changed[column])]))
                    for column in (*PRICES, "volume")
                }
            for name, place in moved.items():
                column = next((column for column in ALONE if name in alone[column]), "number or times")
                found.append(LookAhead(name, bars["ts"][cut], bars["ts"][begin + place], kind, column))
    return tuple(found)


def unmet_needs(
    bars: Bars, timeframe: Timeframe, features: Sequence[Feature], seed: int, cuts: int
) -> tuple[UnmetNeed, ...]:
    """The features, or the scale, that look at more bars than they state, each with one bar that shows it.

    At `cuts` random bars a value from exactly `needs` bars is compared with one from the longest frame there
    is; more than rounding between them, or a value that is not finite, is an unmet need. Raises as `check` does.
    """
    _judgeable(bars, timeframe, features)
    rng = np.random.default_rng(seed)
    ends = rng.integers(WARMUP + 1, len(bars), cuts, endpoint=True)
    return tuple(_unmet(bars, timeframe, [*features, _SCALE], ends.tolist()))


def _unmet(
    bars: Bars, timeframe: Timeframe, features: Sequence[Feature], ends: list[int]
) -> Iterator[UnmetNeed]:
    pending = {feature.name: feature for feature in features}
    for end in ends:
        longest = _values(bars.head(end), timeframe, features, max(0, end - BLOCK), end)
        for needs in sorted({feature.needs for feature in pending.values()}):
            group = [feature for feature in pending.values() if feature.needs == needs]
            stated = _values(bars.slice(end - needs, needs), timeframe, group, 0, needs)
            for feature in group:
                a, b = stated[feature.name][-1], longest[feature.name][-1]
                if not abs(a - b) <= ROUNDING * max(1.0, abs(b)):  # true of NaN too
                    del pending[feature.name]
                    yield UnmetNeed(feature.name, needs, bars["ts"][end - 1])


def _values(
    bars: Bars, timeframe: Timeframe, features: Sequence[Feature], first: int, end: int
) -> dict[str, NDArray[np.float64]]:
    """The features, and the scale, in the frame of the block [first, end), its warm-up included; null as NaN."""
    frame = compute(bars, timeframe, features, first, end)
    columns = {**{feature.name: feature.name for feature in features}, _SCALE.name: "_scale"}
    return {name: frame[column].cast(pl.Float64).to_numpy() for name, column in columns.items()}


def _judgeable(bars: Bars, timeframe: Timeframe, features: Sequence[Feature]) -> None:
    """Raises BadBars on too few bars, BadInput naming the feature that Polars cannot compute on them."""
    if len(bars) <= WARMUP + 1:
        raise BadBars(f"{len(bars)} bars are too few to judge features by: {WARMUP + 2} or more are needed")
    for feature in features:
        computable(bars, timeframe, feature)


def computable(bars: Bars, timeframe: Timeframe, feature: Feature) -> None:
    """Raises BadInput naming the feature that Polars cannot compute on these bars, one number for each."""
    try:
        _values(bars.head(WARMUP + 2), timeframe, [feature], 0, WARMUP + 2)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        reason = str(error).splitlines()[0]
        raise BadInput(f"feature {feature.name!r} cannot be computed: {reason}") from error
