"""Breaks of a stored market's bars. They are found in the bars each time, and hence never out of date."""

from typing import Any

from sqlalchemy import Connection

import store.bars
from model import breaks
from model.bars import Bars, Timeframe, timeframe
from model.breaks import AFTER_JUMP, LOOKBACK, Break
from store.markets import MarketRow


def all(conn: Connection, market_id: int, length: Timeframe, jump_z: float) -> tuple[Break, ...]:
    """Every break of the market, oldest first."""
    bars = store.bars.read(conn, market_id, length)
    return breaks.find(bars, length, jump_z).listed(bars["ts"])


def document(conn: Connection, row: MarketRow, jump_z: float) -> dict[str, Any]:
    """The market's breaks, newest first, as JSON has them; the same from a command and from a route."""
    found = all(conn, row.id, timeframe(row.market.timeframe), jump_z)
    return {"items": [each.document() for each in reversed(found)], "next": None}


def under(conn: Connection, market_id: int, length: Timeframe, tail: Bars, jump_z: float) -> Break | None:
    """The break that the newest bar's features stand on, if any; `tail` are the newest bars up to it, SETTLED +
    AFTER_JUMP of them or more."""
    # the more history is known, the fewer steps are unusual, so that most markets need no more of it
    if breaks.find(tail, length, jump_z).under(tail["ts"]) is None:
        return None
    closed = length.close_of(tail["ts"][-1])
    longer = store.bars.read(conn, market_id, length, closed_by=closed, last=LOOKBACK + AFTER_JUMP)
    return breaks.find(longer, length, jump_z).under(longer["ts"])
