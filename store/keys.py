"""API keys. A key is shown once; only the SHA-256 of its secret is kept, found by the key's public prefix.

Whoever is asked often reads all keys at once (`known`) and verifies against those, without the database.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
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
LONGEST_GRACE = timedelta(days=90)

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


@dataclass(frozen=True)
class Known:
    """A key and what its secret is compared with."""

    key: Key
    hash: str = field(repr=False)


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


def noted(key: Key) -> tuple[str, dict[str, Any]]:
    """What the audit log says of a change to the key: which one it is, and what it may do."""
    ends = None if key.expires_at is None else iso(key.expires_at)
    return f"key {key.prefix}", {"name": key.name, "scopes": list(key.scopes), "expires_at": ends}


def create(
    conn: Connection, name: str, scopes: Iterable[str], now: datetime, expires_at: datetime | None = None
) -> tuple[Key, str]:
    """A new key and its text, `bp_<prefix>_<secret>`, which is known here and never again. Raises BadInput."""
    wanted = list(scopes)
    if unknown := [scope for scope in wanted if scope not in SCOPES]:
        raise BadInput(f"unknown scope {unknown[0]!r}: {', '.join(SCOPES)}")
    if not wanted:
        raise BadInput(f"a key needs at least one scope: {', '.join(SCOPES)}")
    if not 0 < len(name) <= LONGEST_NAME or not name.isprintable():
        raise BadInput(
            f"a key's name has 1 to {LONGEST_NAME} characters, none of which are control characters"
        )
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


def known(conn: Connection) -> dict[str, Known]:
    """Every key by its prefix, as `verify` takes them."""
    return {row.prefix: Known(_key(row), row.hash) for row in conn.execute(select(api_keys))}


def prefix_of(presented: str) -> str | None:
    """The prefix that a key's text begins with; None where it has not the form of a key."""
    form = _FORM.fullmatch(presented)
    return None if form is None else form[1]


def verify(keys: Mapping[str, Known], presented: str, now: datetime) -> Key | None:
    """The usable key whose text was presented, else None; how long it takes tells nothing of the secret."""
    form = _FORM.fullmatch(presented)
    prefix, secret = form.groups() if form is not None else ("", presented)
    found = keys.get(prefix)
    same = hmac.compare_digest(_hash(secret), _NOBODY if found is None else found.hash)
    if found is None or not same:
        return None
    return found.key if usable(found.key, now) else None


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
    key = find(conn, prefix_or_id)
    return key if key.revoked_at is not None else _changed(conn, key, revoked_at=now)


def rotate(conn: Connection, prefix_or_id: str, now: datetime, grace: timedelta) -> tuple[Key, str, Key]:
    """A new key of the same name, scopes and end, its text, and the old key, which ends after `grace`.

    Raises NotFound, and BadInput where the old one is of no use any more: whose it was may then have lost its right.
    """
    old = find(conn, prefix_or_id)
    if not usable(old, now):
        state = "revoked" if old.revoked_at is not None else "expired"
        raise BadInput(f"the key {old.prefix} is {state}: make a new one instead of rotating it")
    if not timedelta(0) <= grace <= LONGEST_GRACE:
        raise BadInput(f"the old key may go on for 0 to {LONGEST_GRACE.days} days, not {grace}")
    made, text = create(conn, old.name, old.scopes, now, old.expires_at)
    ends = now + grace if old.expires_at is None else min(old.expires_at, now + grace)
    return made, text, _changed(conn, old, expires_at=ends)


def find(conn: Connection, prefix_or_id: str) -> Key:
    """The key with that prefix or that id. Raises NotFound."""
    of = api_keys.c.prefix == prefix_or_id.removeprefix("bp_")
    row = conn.execute(select(api_keys).where(of)).one_or_none()
    if row is None and prefix_or_id.isdecimal() and len(prefix_or_id) < 10:
        row = conn.execute(select(api_keys).where(api_keys.c.id == int(prefix_or_id))).one_or_none()
    if row is None:
        raise NotFound(f"no key {prefix_or_id}: give the prefix or the id that `barprop keys list` shows")
    return _key(row)


def _changed(conn: Connection, key: Key, **values: datetime) -> Key:
    conn.execute(update(api_keys).where(api_keys.c.id == key.id).values(**values))
    return _key(conn.execute(select(api_keys).where(api_keys.c.id == key.id)).one())


def any_usable(conn: Connection, now: datetime) -> bool:
    """Whether somebody holds a key that works."""
    return any(usable(key, now) for key in all(conn))
