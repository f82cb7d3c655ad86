"""Markets that have bars: a row each, made with the first acceptable bar and never before."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, bindparam, select, update
from sqlalchemy.dialects import postgresql, sqlite

from model.bars import Market
from model.errors import NotFound
from store.tables import markets


@dataclass(frozen=True)
class MarketRow:
    """A market as it is kept."""

    id: int
    market: Market
    paused: bool
    created_at: datetime
    changes: int  # moves with all that may change what is answered


def find(conn: Connection, market: Market) -> MarketRow | None:
    """The market's row; None where it never had a bar."""
    row = conn.execute(_NAMED, {"symbol": market.symbol, "timeframe": market.timeframe}).one_or_none()
    return None if row is None else _market_row(row)


def need(conn: Connection, market: Market) -> MarketRow:
    """The market's row. Raises NotFound, saying what to do."""
    row = find(conn, market)
    if row is None:
        raise NotFound(f"no market {market}: ingest bars for it first, e.g. barprop ingest FILE {market}")
    return row


def ensure(conn: Connection, market: Market, now: datetime) -> MarketRow:
    """The market's row, made where there is none, and held to the end of the transaction.

    Whoever adds bars of the same market meanwhile waits (SQLite has one writer anyway).
    """
    named = {"symbol": market.symbol, "timeframe": market.timeframe}
    row = conn.execute(_HELD, named).one_or_none()
    if row is None:
        insert = postgresql.insert if conn.dialect.name == "postgresql" else sqlite.insert
        made = insert(markets).values(
            symbol=market.symbol, timeframe=market.timeframe, paused=False, created_at=now, bars=0, changes=0
        )
        conn.execute(made.on_conflict_do_nothing())
        row = conn.execute(_HELD, named).one()
    return _market_row(row)


def all(conn: Connection) -> list[MarketRow]:
    """Every market, by symbol and timeframe."""
    rows = conn.execute(select(markets).order_by(markets.c.symbol, markets.c.timeframe))
    return [_market_row(row) for row in rows]


def set_paused(conn: Connection, market_id: int, paused: bool) -> None:
    """Pauses a market, or lets it go on: a paused one gets no scheduled work and no predictions."""
    conn.execute(update(markets).where(markets.c.id == market_id).values(paused=paused))
    note_change(conn, market_id)


def note_change(conn: Connection, market_id: int) -> None:
    """Moves the mark of a market: what is answered for it may be another from here on."""
    conn.execute(update(markets).where(markets.c.id == market_id).values(changes=markets.c.changes + 1))


Marks = Mapping[Market, int | None]  # None: there is no such market yet


def marks(conn: Connection) -> dict[Market, int | None]:
    """The mark of each market. As long as it stands, so does all that an answer was made of."""
    rows = conn.execute(select(markets.c.symbol, markets.c.timeframe, markets.c.changes))
    return {Market(symbol, length): changes for symbol, length, changes in rows}


def stand(marks: Marks, now: Marks) -> bool:
    """Whether these marks are what they are now."""
    return not any(now.get(market) != mark for market, mark in marks.items())


_NAMED = select(markets).where(
    markets.c.symbol == bindparam("symbol"), markets.c.timeframe == bindparam("timeframe")
)
_HELD = _NAMED.with_for_update()


def _market_row(row: Row[Any]) -> MarketRow:
    return MarketRow(row.id, Market(row.symbol, row.timeframe), row.paused, row.created_at, row.changes)
