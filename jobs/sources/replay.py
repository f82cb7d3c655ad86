"""Stored bars as if they came live: in the order of their closes, as far apart as they were or otherwise paced.

Add a pace by adding a function that makes one. Clock and sleep are given.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

import model.bars
import store.bars
import store.database
import store.markets
from model.bars import Bars, Market
from model.errors import BadInput
from store.database import Engine

# The seconds from one close to the next, given how far apart they were.
Pace = Callable[[timedelta], float]
Moment = tuple[datetime, list[tuple[Market, dict[str, Any]]]]  # a close and the bars that are known then


def at_speed(times: float) -> Pace:
    """So many times as fast as it was; `math.inf` waits for nothing. Raises BadInput where that is not above 0."""
    if not times > 0:
        raise BadInput(f"a replay's speed is a number above 0, not {times:g}")
    return lambda apart: 0.0 if times == math.inf else apart.total_seconds() / times


def evenly(closes_per_second: float) -> Pace:
    """All closes equally far apart: a weekend takes no longer than a night. Raises BadInput as `at_speed` does."""
    even = at_speed(closes_per_second)
    return lambda apart: even(timedelta(seconds=1))


def stored(
    engine: Engine,
    markets: Iterable[Market],
    closed_from: datetime | None = None,
    closed_by: datetime | None = None,
) -> dict[Market, Bars]:
    """The bars that are kept of markets, their newest revisions. Raises NotFound for a market that has none."""
    with store.database.read(engine) as conn:
        return {
            market: store.bars.read(
                conn,
                store.markets.need(conn, market).id,
                model.bars.timeframe(market.timeframe),
                closed_from=closed_from,
                closed_by=closed_by,
            )
            for market in markets
        }


def replay(
    bars: Mapping[Market, Bars], pace: Pace, *, clock: Callable[[], float], sleep: Callable[[float], None]
) -> Iterator[Moment]:
    """The closes in order, each with the bars that are known then; `clock` and `sleep` are in seconds.

    Each close waits for its pace since the one before was given out: what is late is not hurried after.
    """
    before: datetime | None = None
    given_at = 0.0
    for close, known in timeline(bars):
        if before is not None and (rest := given_at + pace(close - before) - clock()) > 0:
            sleep(rest)
        before, given_at = close, clock()
        yield close, known


def timeline(bars: Mapping[Market, Bars]) -> list[Moment]:
    """The closes in order, each with the bars that are known then."""
    moments: dict[datetime, list[tuple[Market, dict[str, Any]]]] = {}
    for market, frame in bars.items():
        close_of = model.bars.timeframe(market.timeframe).close_of
        for bar in frame.iter_rows(named=True):
            moments.setdefault(close_of(bar["ts"]), []).append((market, bar))
    return sorted(moments.items(), key=lambda moment: moment[0])
