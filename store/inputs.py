"""The bars of other markets that stand beside a market's own as inputs."""

from datetime import datetime

import polars as pl

import store.bars
import store.markets
from model.bars import BAR_SCHEMA, Bars, Market, Timeframe, timeframe
from model.errors import TrainingFailed
from model.features import HISTORY, FeatureSet
from store.database import Connection


def beside(
    conn: Connection, feature_set: FeatureSet, history: Bars, history_timeframe: Timeframe
) -> dict[Market, Bars]:
    """The bars of each other market that the rows of `history` need, none of them closed later.

    Raises TrainingFailed where such a market has no bars at all.
    """
    found = stretch(conn, feature_set, history, history_timeframe)
    for each in feature_set.inputs:
        if each.market in found and found[each.market].is_empty():
            raise TrainingFailed(
                f"no bars of {each}, which is an input, had closed by then: ingest some first"
            )
    return found


def stretch(
    conn: Connection,
    feature_set: FeatureSet,
    history: Bars,
    history_timeframe: Timeframe,
    recorded_by: datetime | None = None,
) -> dict[Market, Bars]:
    """As `beside`, and none of a market that has none; `recorded_by` gives what was known by then."""
    if history.is_empty():
        return {}
    first, last = (history_timeframe.close_of(history["ts"][end]) for end in (0, -1))
    return {
        each.market: _read(conn, each.market, last, first, recorded_by)
        for each in feature_set.inputs
        if each.market is not None
    }


def newest(conn: Connection, feature_set: FeatureSet, closed_by: datetime) -> dict[Market, Bars]:
    """The bars of each other market that one row needs, closed by then; none of a market that has none."""
    return {
        each.market: _read(conn, each.market, closed_by)
        for each in feature_set.inputs
        if each.market is not None
    }


def _read(
    conn: Connection,
    market: Market,
    closed_by: datetime,
    closed_from: datetime | None = None,
    recorded_by: datetime | None = None,
) -> Bars:
    """The newest HISTORY bars that had closed by `closed_by`; or by `closed_from`, and all from there on."""
    row, length = store.markets.find(conn, market), timeframe(market.timeframe)
    if row is None:
        return BAR_SCHEMA.to_frame()
    before = store.bars.read(
        conn, row.id, length, closed_by=closed_from or closed_by, last=HISTORY, recorded_by=recorded_by
    )
    if closed_from is None:
        return before
    after = store.bars.read(
        conn, row.id, length, closed_by=closed_by, closed_from=closed_from, recorded_by=recorded_by
    )
    # a bar that closed at that very moment is in both
    return pl.concat([before, after]).unique("ts", keep="last", maintain_order=True)
