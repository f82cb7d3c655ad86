"""Model versions, the promotion history that gives them roles, and the training runs that they came from.

A version never changes once stored. A role is a row appended to the history: the newest champion row that is
effective names who answers, and going back is one more row. Rows of this history are never changed or removed.
"""

import json
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Connection, Row, Select, bindparam, case, func, select

import model.bars
import store.bars
import store.markets
from model.artifact import Packed
from model.bars import Market, iso
from model.errors import NotFound
from store.markets import MarketRow
from store.tables import markets, promotions, versions

Role = Literal["champion", "challenger", "rejected", "retired"]


@dataclass(frozen=True)
class Version:
    """A stored Predictor: everything about it except its weights' bytes.

    `role` is what its newest promotion says, `candidate` without one; a champion that another one followed is
    `retired`. `reason` and `effective_from` are of that newest promotion.
    """

    id: int
    market: Market
    parent: int | None
    created_at: datetime
    sha256: str  # of the arrays alone
    manifest: dict[str, Any]
    role: str
    reason: str | None
    effective_from: datetime | None


@dataclass(frozen=True)
class Promotion:
    """One row of a market's history: from `effective_from` on, that version plays that role."""

    id: int
    version: int
    role: str
    reason: str
    decided_at: datetime
    effective_from: datetime  # the close of the first bar that it may answer for


def add(conn: Connection, market_id: int, packed: Packed, parent_id: int | None, now: datetime) -> int:
    """Stores a version, still without a role; gives its id."""
    statement = versions.insert().values(
        market_id=market_id, parent_id=parent_id, created_at=now, **asdict(packed)
    )
    return _id(conn.execute(statement).inserted_primary_key)


def _id(key: Row[Any] | None) -> int:
    assert key is not None
    return int(key[0])


def _select() -> Select[Any]:
    """Versions with their market and their newest promotion."""
    newest = promotions.alias("newest")
    newest_id = select(func.max(promotions.c.id)).where(promotions.c.version_id == versions.c.id)
    serving_id = select(func.max(promotions.c.id)).where(
        promotions.c.market_id == versions.c.market_id, promotions.c.role == "champion"
    )
    followed = (newest.c.role == "champion") & (newest.c.id != serving_id.scalar_subquery())
    return (
        select(
            versions.c.id,
            versions.c.parent_id,
            versions.c.created_at,
            versions.c.sha256,
            versions.c.manifest,
            markets.c.symbol,
            markets.c.timeframe,
            case((followed, "retired"), else_=func.coalesce(newest.c.role, "candidate")).label("role"),
            newest.c.reason,
            newest.c.effective_from,
        )
        .join(markets, markets.c.id == versions.c.market_id)
        .outerjoin(newest, newest.c.id == newest_id.scalar_subquery())
    )


def _version(row: Row[Any]) -> Version:
    return Version(
        id=row.id,
        market=Market(row.symbol, row.timeframe),
        parent=row.parent_id,
        created_at=row.created_at,
        sha256=row.sha256,
        manifest=json.loads(row.manifest),
        role=row.role,
        reason=row.reason,
        effective_from=row.effective_from,
    )


def get(conn: Connection, version_id: int) -> Version:
    """That version. Raises NotFound."""
    row = conn.execute(_select().where(versions.c.id == version_id)).one_or_none()
    if row is None:
        raise NotFound(f"no version {version_id}")
    return _version(row)


def packed(conn: Connection, version_id: int) -> Packed:
    """The artifact of that version, for `model.predictor.from_artifact`. Raises NotFound."""
    columns = (versions.c.weights, versions.c.sha256, versions.c.manifest, versions.c.manifest_sha256)
    row = conn.execute(select(*columns).where(versions.c.id == version_id)).one_or_none()
    if row is None:
        raise NotFound(f"no version {version_id}")
    return Packed(row.weights, row.sha256, row.manifest, row.manifest_sha256)


def page(
    conn: Connection, market_id: int | None = None, before_id: int | None = None, limit: int = 50
) -> list[Version]:
    """Up to `limit` versions, newest first, of one market or all; `before_id` continues after a page's last."""
    statement = _select().order_by(versions.c.id.desc()).limit(limit)
    if market_id is not None:
        statement = statement.where(versions.c.market_id == market_id)
    if before_id is not None:
        statement = statement.where(versions.c.id < before_id)
    return [_version(row) for row in conn.execute(statement)]


def ids(conn: Connection, market_id: int) -> list[int]:
    """Every version of a market, newest first."""
    own = select(versions.c.id).where(versions.c.market_id == market_id)
    return list(conn.scalars(own.order_by(versions.c.id.desc())))


def record(
    conn: Connection,
    market_id: int,
    version_id: int,
    role: Role,
    reason: str,
    now: datetime,
    effective_from: datetime,
) -> None:
    """Appends to the history: from `effective_from` on, that version plays that role. Raises NotFound.

    A new champion needs no further row for the one before it: being followed retires it.
    """
    owned = select(versions.c.id).where(versions.c.id == version_id, versions.c.market_id == market_id)
    if conn.scalar(owned) is None:
        raise NotFound(f"no version {version_id} of this market")
    conn.execute(
        promotions.insert().values(
            market_id=market_id,
            version_id=version_id,
            role=role,
            reason=reason,
            decided_at=now,
            effective_from=effective_from,
        )
    )
    store.markets.note_change(conn, market_id)


def champion(conn: Connection, market_id: int, as_of: datetime | None = None) -> int | None:
    """The version that answers for the bar that closed at `as_of`; without `as_of` the newest champion of all."""
    if as_of is None:
        return conn.scalar(_CHAMPION, {"market_id": market_id})
    return conn.scalar(_CHAMPION_THEN, {"market_id": market_id, "as_of": as_of})


_CHAMPION = (
    select(promotions.c.version_id)
    .where(promotions.c.market_id == bindparam("market_id"), promotions.c.role == "champion")
    .order_by(promotions.c.id.desc())
    .limit(1)
)
_CHAMPION_THEN = _CHAMPION.where(promotions.c.effective_from <= bindparam("as_of"))


def crowned(conn: Connection, market_id: int) -> Promotion | None:
    """The promotion that made the newest champion what it is."""
    newest = (
        select(promotions)
        .where(promotions.c.market_id == market_id, promotions.c.role == "champion")
        .order_by(promotions.c.id.desc())
        .limit(1)
    )
    row = conn.execute(newest).one_or_none()
    return None if row is None else _promotion(row)


def takes_effect(conn: Connection, row: MarketRow, now: datetime) -> datetime:
    """From which close on a champion that is named now answers: the next bar's, since a bar's first Signal stands.

    The very first champion answers at once, for there is nothing that it could contradict. Until the transaction
    ends no bar can be added, so that none is answered by the wrong one meanwhile.
    """
    conn.execute(select(markets.c.id).where(markets.c.id == row.id).with_for_update())
    opened = store.bars.newest(conn, row.id)
    if opened is None:
        return now
    timeframe = model.bars.timeframe(row.market.timeframe)
    close = timeframe.close_of(opened)
    return close if champion(conn, row.id) is None else timeframe.close_of(close)


def promote(conn: Connection, row: MarketRow, version_id: int, reason: str, now: datetime) -> None:
    """Makes that version the champion, from the next bar on. Raises NotFound."""
    record(conn, row.id, version_id, "champion", reason, now, takes_effect(conn, row, now))


def rollback(conn: Connection, market_id: int, now: datetime, effective_from: datetime) -> int:
    """The champion before this one serves again, and this one is retired; gives the one that now serves.

    Going back again goes back further: a version that was rolled back is passed over until it is promoted anew.
    Raises NotFound where there is no earlier champion.
    """
    past = history(conn, market_id)
    champions = [row.version for row in reversed(past) if row.role == "champion"]
    newest_role = {row.version: row.role for row in past}
    before = [v for v in champions if v != champions[0] and newest_role[v] != "retired"]
    if not before:
        raise NotFound("there is no earlier champion to go back to")
    leaving, returning = champions[0], before[0]
    record(conn, market_id, returning, "champion", f"version {leaving} was rolled back", now, effective_from)
    record(conn, market_id, leaving, "retired", f"rolled back to version {returning}", now, effective_from)
    return returning


def history(conn: Connection, market_id: int) -> list[Promotion]:
    """All promotions of a market, oldest first."""
    rows = conn.execute(
        select(promotions).where(promotions.c.market_id == market_id).order_by(promotions.c.id)
    )
    return [_promotion(row) for row in rows]


def _promotion(row: Row[Any]) -> Promotion:
    return Promotion(row.id, row.version_id, row.role, row.reason, row.decided_at, row.effective_from)


def document(version: Version) -> dict[str, Any]:
    """The version as JSON has it, the same from a command and from a route."""
    return {
        **asdict(version),
        "created_at": iso(version.created_at),
        "effective_from": None if version.effective_from is None else iso(version.effective_from),
    }
