"""Resampling: bars of a longer timeframe out of a market's own, each of them there once its close has passed.

A bar belongs to the period in which it closes. Periods begin on the calendar, in UTC: hours and days at midnight, weeks
on Monday, months on their first day; a length that fits neither a day nor a week is counted from 1970.
"""

from datetime import datetime, timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray

from model.bars import BAR_SCHEMA, TS, Bars, Timeframe
from model.errors import BadInput

_MICROSECOND = timedelta(microseconds=1)
_DAY, _WEEK = timedelta(days=1), timedelta(weeks=1)
_FIRST_MONDAY = timedelta(days=4)  # after 1970-01-01


def resample(bars: Bars, timeframe: Timeframe, to: Timeframe) -> Bars:
    """The bars of timeframe `to` that are closed when the newest of `bars` is, sorted.

    Bars that are missing leave out nothing else; a period without any has no bar. Where `bars` begin within a period,
    that one is left out, so that bars cut at either end give some of the same bars, to the bit. Raises BadInput where
    `to` is no longer timeframe that is made of whole ones.
    """
    most_bars_in_one(timeframe, to)
    if bars.is_empty():
        return bars
    closed_at = bars.select(timeframe.closes(pl.col("ts"))).to_series()
    opened = _opens(closed_at, to)
    starts = np.concatenate(([0], np.flatnonzero(np.diff(opened)) + 1))
    ends = np.concatenate((starts[1:], [len(bars)])) - 1
    # NumPy, since the last bits of a group's sum in Polars may depend on how many groups there are
    values = {name: bars[name].to_numpy() for name in ("open", "high", "low", "close", "volume")}
    made = pl.DataFrame(
        {
            "ts": pl.Series(opened[starts]).cast(TS),
            "open": values["open"][starts],
            "high": np.maximum.reduceat(values["high"], starts),
            "low": np.minimum.reduceat(values["low"], starts),
            "close": values["close"][ends],
            "volume": np.add.reduceat(values["volume"], starts),
        },
        schema=BAR_SCHEMA,
    )
    known: datetime = closed_at[-1]
    return made.filter(to.closes(pl.col("ts")) <= known, pl.col("ts") >= bars["ts"][0])


def most_bars_in_one(timeframe: Timeframe, to: Timeframe) -> int:
    """How many bars of `timeframe` a bar of `to` is made of, the longest month's. Raises BadInput where it is no longer
    timeframe that is made of whole ones."""
    month = to.every.endswith("mo")
    whole, longest = (_DAY, 31 * _DAY) if month else (to.length, to.length)
    if timeframe.length >= to.length or whole % timeframe.length != timedelta(0):
        raise BadInput(
            f"{to.name} bars cannot be made of {timeframe.name} ones: "
            f"a longer timeframe is needed, of which {timeframe.name} is a whole part"
        )
    return longest // timeframe.length


def _opens(closed_at: pl.Series, to: Timeframe) -> NDArray[np.int64]:
    """The open times (n,) of the periods in which these bars close, in microseconds."""
    if to.every.endswith("mo"):
        months = (closed_at - _MICROSECOND).dt.truncate(to.every)
        found: NDArray[np.int64] = months.dt.epoch("us").to_numpy()
        return found
    length = to.length // _MICROSECOND
    start = _FIRST_MONDAY // _MICROSECOND if to.length % _WEEK == timedelta(0) else 0
    micros = closed_at.dt.epoch("us").to_numpy()
    return (micros - 1 - start) // length * length + start
