"""Finished backtests: what each was asked, what it found, and its prediction for every judged bar."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields
from datetime import datetime
from typing import Any

import numpy as np
from sqlalchemy import Connection, Row, Select, func, select

from model.artifact import Packed
from model.bars import iso
from model.errors import NotFound
from model.significance import multiple
from store.tables import backtest_blocks, backtests


def add(
    conn: Connection,
    job_id: int,
    market_id: int,
    config: Mapping[str, Any],
    document: Mapping[str, Any],
    predictions: bytes,
    now: datetime,
) -> int:
    """Keeps a backtest; gives its id. `predictions` is a Parquet file with one row a judged bar."""
    statement = backtests.insert().values(
        job_id=job_id,
        market_id=market_id,
        created_at=now,
        config=dict(config),
        document=dict(document),
        predictions=predictions,
    )
    key = conn.execute(statement).inserted_primary_key
    assert key is not None
    return int(key[0])


def _select() -> Select[Any]:
    return select(backtests.c.id, backtests.c.created_at, backtests.c.document)


def _document(row: Row[Any]) -> dict[str, Any]:
    return {**row.document, "id": row.id, "created_at": iso(row.created_at)}


def get(conn: Connection, backtest_id: int) -> dict[str, Any]:
    """The document of that backtest, with its id and time. Raises NotFound."""
    row = conn.execute(_select().where(backtests.c.id == backtest_id)).one_or_none()
    if row is None:
        raise NotFound(f"no backtest {backtest_id}")
    return _document(row)


def predictions(conn: Connection, backtest_id: int) -> bytes:
    """The Parquet file of that backtest's predictions. Raises NotFound."""
    file = conn.scalar(select(backtests.c.predictions).where(backtests.c.id == backtest_id))
    if file is None:
        raise NotFound(f"no backtest {backtest_id}")
    return bytes(file)


def page(
    conn: Connection, market_id: int | None = None, before_id: int | None = None, limit: int = 50
) -> list[dict[str, Any]]:
    """Up to `limit` backtests, newest first, of one market or all; `before_id` continues after a page's last."""
    statement = _select().order_by(backtests.c.id.desc()).limit(limit)
    if market_id is not None:
        statement = statement.where(backtests.c.market_id == market_id)
    if before_id is not None:
        statement = statement.where(backtests.c.id < before_id)
    return [_document(row) for row in conn.execute(statement)]


def last(conn: Connection, market_id: int) -> dict[str, Any] | None:
    """The newest backtest of a market."""
    newest = page(conn, market_id, limit=1)
    return newest[0] if newest else None


def verdicts(conn: Connection) -> list[dict[str, Any]]:
    """Of each market's newest backtest the gain over the base rate, and its p: alone, as one of all these markets (Holm),
    and as a false discovery rate (Benjamini & Hochberg). None where there is no spread to judge by, or the backtest is
    older than such a comparison."""
    newest = select(func.max(backtests.c.id)).group_by(backtests.c.market_id)
    documents = [
        _document(row) for row in conn.execute(_select().where(backtests.c.id.in_(newest)).order_by("id"))
    ]
    found = [document.get("paired", {}).get("base_rate", {}) for document in documents]
    known = [each for each in found if each.get("p") is not None]
    p = np.array([each["p"] for each in known])
    adjusted = zip(multiple.holm(p).tolist(), multiple.benjamini_hochberg(p).tolist(), strict=True)
    of = {id(each): both for each, both in zip(known, adjusted, strict=True)}
    return [
        {
            "market": document["market"],
            "backtest": document["id"],
            "rows": document["rows"],
            "gain": each.get("gain"),
            "z": each.get("z"),
            "p": each.get("p"),
            "holm": of.get(id(each), (None, None))[0],
            "false_discovery": of.get(id(each), (None, None))[1],
        }
        for document, each in zip(documents, found, strict=True)
    ]


def add_block(
    conn: Connection, walk: str, number: int, market_id: int, packed: Packed, now: datetime
) -> None:
    """Keeps what a walk did up to its next refit, so that it can go on from there."""
    values = {"walk": walk, "number": number, "market_id": market_id, "made_at": now, **asdict(packed)}
    conn.execute(backtest_blocks.insert().values(values))


def blocks(conn: Connection, walk: str) -> Iterator[Packed]:
    """What a walk that did not come to its end has kept, in its order."""
    columns = (backtest_blocks.c[field.name] for field in fields(Packed))
    rows = select(*columns).where(backtest_blocks.c.walk == walk).order_by(backtest_blocks.c.number)
    for row in conn.execute(rows):
        yield Packed(*row)


def drop_blocks(conn: Connection, walk: str, from_number: int = 0) -> None:
    """Forgets them from that number on: the walk has come to its end, or begins anew there."""
    conn.execute(
        backtest_blocks.delete().where(
            backtest_blocks.c.walk == walk, backtest_blocks.c.number >= from_number
        )
    )
