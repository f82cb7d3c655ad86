"""API keys. A key is shown once; only the SHA-256 of its secret is kept, found by the key's public prefix."""

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, select, update

from model.bars import iso
from model.errors import BadInput, NotFound
from store.tables import api_keys

SCOPES = ("read", "predict", "ingest", "train", "admin")
LONGEST_NAME = 64
PREFIX_BYTES = 6
SECRET_BYTES = 32
USE_NOTED_EVERY = timedelta(minutes=1)

_FORM = re.compile(rf"bp_([0-9a-f]{{{2 * PREFIX_BYTES}}})_([0-9a-f]{{{2 * SECRET_BYTES}}})")
# What an unknown prefix is compared with, so that it takes as long as a known one.
_NOBODY = "0" * 64


@dataclass(frozen=True)
class Key:
    """A key as it may be shown: everything but its secret."""

    id: int
    name: str
    prefix: str
    scopes: tuple[str, ...]
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None  # to the minute
    revoked_at: datetime | None


def usable(key: Key, now: datetime) -> bool:
    """Whether the key is neither revoked nor expired."""
    return key.revoked_at is None and (key.expires_at is None or now < key.expires_at)


def document(key: Key) -> dict[str, Any]:
    """The key as JSON has it."""

    def moment(at: datetime | None) -> str | None:
        return None if at is None else iso(at)

    return {
        "id": key.id,
        "name": key.name,
        "prefix": key.prefix,
        "scopes": list(key.scopes),
        "created_at": moment(key.created_at),
        "expires_at": moment(key.expires_at),
        "last_used_at": moment(key.last_used_at),
        "revoked_at": moment(key.revoked_at),
    }


def create(
    conn: Connection, name: str, scopes: Iterable[str], now: datetime, expires_at: datetime | None = None
) -> tuple[Key, str]:
    """A new key and its text, `bp_<prefix>_<secret>`, which is known here and never again. Raises BadInput."""
    wanted = list(scopes)
    if unknown := [scope for scope in wanted if scope not in SCOPES]:
        raise BadInput(f"unknown scope {unknown[0]!r}: {', '.join(SCOPES)}")
    if not wanted:
        raise BadInput(f"a key needs at least one scope: {', '.join(SCOPES)}")
    if not 0 < len(name) <= LONGEST_NAME:
        raise BadInput(f"a key's name has 1 to {LONGEST_NAME} characters")
    if expires_at is not None and expires_at <= now:
        raise BadInput(f"the key would have expired already, at {iso(expires_at)}")
    prefix, secret = secrets.token_hex(PREFIX_BYTES), secrets.token_hex(SECRET_BYTES)
    conn.execute(
        api_keys.insert().values(
            name=name,
            prefix=prefix,
            hash=_hash(secret),
            scopes=[scope for scope in SCOPES if scope in wanted],
            created_at=now,
            expires_at=expires_at,
        )
    )
    row = conn.execute(select(api_keys).where(api_keys.c.prefix == prefix)).one()
    return _key(row), f"bp_{prefix}_{secret}"


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _key(row: Row[Any]) -> Key:
    values = {name: value for name, value in row._mapping.items() if name != "hash"}
    return Key(**{**values, "scopes": tuple(row.scopes)})


def verify(conn: Connection, presented: str, now: datetime) -> Key | None:
    """The usable key whose text was presented, else None; how long it takes tells nothing of the secret."""
    form = _FORM.fullmatch(presented)
    prefix, secret = form.groups() if form is not None else ("", presented)
    row = conn.execute(select(api_keys).where(api_keys.c.prefix == prefix)).one_or_none()
    same = hmac.compare_digest(_hash(secret), _NOBODY if row is None else row.hash)
    if row is None or not same:
        return None
    key = _key(row)
    return key if usable(key, now) else None


def use_is_due(key: Key, now: datetime) -> bool:
    """Whether the last noted use is so long ago that noting this one is worth a write."""
    return key.last_used_at is None or now >= key.last_used_at + USE_NOTED_EVERY


def note_use(conn: Connection, key: Key, now: datetime) -> None:
    """Notes that the key is used now; `use_is_due` tells whether that is worth it."""
    conn.execute(update(api_keys).where(api_keys.c.id == key.id).values(last_used_at=now))


def all(conn: Connection) -> list[Key]:
    """Every key, also revoked and expired ones, by id."""
    return [_key(row) for row in conn.execute(select(api_keys).order_by(api_keys.c.id))]


def revoke(conn: Connection, prefix_or_id: str, now: datetime) -> Key:
    """Makes a key useless from now on; a revoked one stays as it was. Raises NotFound."""
    of = api_keys.c.prefix == prefix_or_id.removeprefix("bp_")
    row = conn.execute(select(api_keys).where(of)).one_or_none()
    if row is None and prefix_or_id.isdecimal() and len(prefix_or_id) < 10:
        row = conn.execute(select(api_keys).where(api_keys.c.id == int(prefix_or_id))).one_or_none()
    if row is None:
        raise NotFound(f"no key {prefix_or_id}: give the prefix or the id that `barprop keys list` shows")
    if row.revoked_at is None:
        conn.execute(update(api_keys).where(api_keys.c.id == row.id).values(revoked_at=now))
    return _key(conn.execute(select(api_keys).where(api_keys.c.id == row.id)).one())


def any_usable(conn: Connection, now: datetime) -> bool:
    """Whether somebody holds a key that works."""
    return any(usable(key, now) for key in all(conn))
