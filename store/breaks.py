"""Breaks of a stored market's bars. They are found in the bars each time, and hence never out of date."""

from typing import Any

from polars import Series
from sqlalchemy import Connection

import store.bars
from model import breaks
from model.bars import Bars, Timeframe, timeframe
from model.breaks import AFTER_GAP, AFTER_JUMP, LOOKBACK, Break, Breaks
from store.markets import MarketRow


def all(conn: Connection, market_id: int, length: Timeframe, jump_z: float) -> tuple[Break, ...]:
    """Every break of the market, oldest first."""
    bars = store.bars.read(conn, market_id, length)
    return breaks.find(bars, length, jump_z).listed(bars["ts"])


def document(conn: Connection, row: MarketRow, jump_z: float) -> dict[str, Any]:
    """The market's breaks, newest first, as JSON has them; the same from a command and from a route."""
    found = all(conn, row.id, timeframe(row.market.timeframe), jump_z)
    return {"items": [each.document() for each in reversed(found)], "next": None}


def beside(
    conn: Connection, market_id: int, length: Timeframe, tail: Bars, rows: int, jump_z: float
) -> tuple[Breaks, Series]:
    """The breaks that may matter to the newest `rows` of these bars, SETTLED + AFTER_JUMP + rows of them or more, and the
    open times of the bars that they are of: the tail's, or those of a longer history."""
    found = breaks.find(tail, length, jump_z)
    # the more history is known, the fewer steps are unusual, so that most markets need no more of it
    if not found.broken[-(rows + max(AFTER_JUMP, AFTER_GAP)) :].any():
        return found, tail["ts"]
    closed = length.close_of(tail["ts"][-1])
    longer = store.bars.read(conn, market_id, length, closed_by=closed, last=LOOKBACK + len(tail))
    return breaks.find(longer, length, jump_z), longer["ts"]
