"""Markets: which there are, and which are paused. One comes into being with its first stored bar."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, Row, select, update
from sqlalchemy.exc import IntegrityError

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


def find(conn: Connection, market: Market) -> MarketRow | None:
    """That market, or None where no bar of it was ever stored."""
    row = conn.execute(
        select(markets).where(markets.c.symbol == market.symbol, markets.c.timeframe == market.timeframe)
    ).one_or_none()
    return None if row is None else _row(row)


def need(conn: Connection, market: Market) -> MarketRow:
    """That market. Raises NotFound, saying what to do."""
    row = find(conn, market)
    if row is None:
        raise NotFound(f"no market {market}: ingest bars of it first, e.g. barprop ingest FILE {market}")
    return row


def ensure(conn: Connection, market: Market, now: datetime) -> MarketRow:
    """That market, made where it is missing, whoever else makes it at the same moment."""
    row = find(conn, market)
    if row is not None:
        return row
    try:
        with conn.begin_nested():
            conn.execute(
                markets.insert().values(
                    symbol=market.symbol, timeframe=market.timeframe, paused=False, created_at=now
                )
            )
    except IntegrityError:
        pass  # another process made it in the same instant
    return need(conn, market)


def all(conn: Connection) -> list[MarketRow]:
    """Every market, by symbol and timeframe."""
    return [
        _row(row) for row in conn.execute(select(markets).order_by(markets.c.symbol, markets.c.timeframe))
    ]


def set_paused(conn: Connection, market_id: int, paused: bool) -> None:
    """Pauses a market, which then gets no answers and no scheduled work, or resumes it."""
    conn.execute(update(markets).where(markets.c.id == market_id).values(paused=paused))


def _row(row: Row[tuple[object, ...]]) -> MarketRow:
    return MarketRow(row.id, Market(row.symbol, row.timeframe), row.paused, row.created_at)
