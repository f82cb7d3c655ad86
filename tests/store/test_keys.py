"""Laws of keys: who has the text gets in while it is valid, and what is kept does not give the text away."""

import hashlib
import re
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

import store.database
import store.keys
from model.errors import BadInput, NotFound
from store.database import Engine
from store.keys import Key

NOW = datetime(2024, 7, 1, tzinfo=UTC)
SECOND, HOUR = timedelta(seconds=1), timedelta(hours=1)


def create(
    engine: Engine, name: str = "bot", *scopes: str, expires_at: datetime | None = None
) -> tuple[Key, str]:
    with store.database.write(engine) as conn:
        return store.keys.create(conn, name, scopes or ("read",), NOW, expires_at)


def verify(engine: Engine, presented: str, now: datetime = NOW) -> Key | None:
    with store.database.read(engine) as conn:
        return store.keys.verify(store.keys.known(conn), presented, now)


def rotate(engine: Engine, which: str, now: datetime = NOW, grace: timedelta = HOUR) -> tuple[Key, str, Key]:
    with store.database.write(engine) as conn:
        return store.keys.rotate(conn, which, now, grace)


def revoke(engine: Engine, which: str, now: datetime = NOW) -> Key:
    with store.database.write(engine) as conn:
        return store.keys.revoke(conn, which, now)


def all_keys(engine: Engine) -> list[Key]:
    with store.database.read(engine) as conn:
        return store.keys.all(conn)


def test_a_key_is_known_by_its_text_and_by_nothing_near_it(database: Engine) -> None:
    key, shown = create(database)
    other, other_shown = create(database)
    assert re.fullmatch(r"bp_[0-9a-f]{12}_[0-9a-f]{64}", shown)
    assert shown.startswith(f"bp_{key.prefix}_")
    assert verify(database, shown) == key
    assert verify(database, other_shown) == other
    last = "0" if shown[-1] != "0" else "1"
    for near in (
        "",
        shown[:-1],
        shown + "0",
        shown[:-1] + last,
        shown.upper(),
        shown + "\n",
        f"bp_{other.prefix}_{shown.rsplit('_', 1)[1]}",
        f"bp_{'0' * 12}_{shown.rsplit('_', 1)[1]}",
        f"bp_{key.prefix}_",
        "bp_%_%",
        "ünïcødé",
    ):
        assert verify(database, near) is None


def test_the_secret_is_nowhere_in_the_database_but_its_hash_is(database: Engine) -> None:
    _, shown = create(database)
    secret = shown.rsplit("_", 1)[1]
    with store.database.read(database) as conn:
        row = conn.execute(text("SELECT * FROM api_keys")).one()
    assert row.hash == hashlib.sha256(secret.encode()).hexdigest()
    assert not any(secret in str(value) for value in row)
    assert secret not in repr(all_keys(database))


def test_an_expired_key_is_none_from_its_last_moment_on(database: Engine) -> None:
    _, shown = create(database, expires_at=NOW + SECOND)
    assert verify(database, shown, NOW + SECOND - timedelta(microseconds=1)) is not None
    assert verify(database, shown, NOW + SECOND) is None


def test_a_revoked_key_is_none_and_stays_as_it_was_revoked(database: Engine) -> None:
    key, shown = create(database)
    _, kept = create(database)
    assert revoke(database, key.prefix, NOW).revoked_at == NOW
    assert revoke(database, key.prefix, NOW + SECOND).revoked_at == NOW
    assert verify(database, shown) is None
    assert verify(database, kept) is not None


def test_a_key_is_revoked_by_prefix_or_by_id(database: Engine) -> None:
    keys = [create(database)[0] for _ in range(3)]
    revoke(database, keys[0].prefix)
    revoke(database, f"bp_{keys[1].prefix}")
    revoke(database, str(keys[2].id))
    assert all(key.revoked_at == NOW for key in all_keys(database))
    for unknown in ("99", "9" * 30, "nosuch", ""):
        with pytest.raises(NotFound, match="no key"):
            revoke(database, unknown)


def test_use_is_noted_at_most_once_a_minute(database: Engine) -> None:
    create(database)
    due = []
    for seconds in (0, 59, 60, 61, 119, 120):
        now = NOW + seconds * SECOND
        (key,) = all_keys(database)
        due.append(store.keys.use_is_due(key, now))
        if due[-1]:
            with store.database.write(database) as conn:
                store.keys.note_use(conn, key, now)
            assert all_keys(database)[0].last_used_at == now
    assert due == [True, False, True, False, False, True]


def test_a_use_is_that_of_one_key_alone(database: Engine) -> None:
    key, shown = create(database)
    create(database)
    with store.database.write(database) as conn:
        store.keys.note_use(conn, key, NOW)
    assert [kept.last_used_at for kept in all_keys(database)] == [NOW, None]
    assert verify(database, shown) == all_keys(database)[0]


def test_what_is_known_shows_no_hash(database: Engine) -> None:
    _, shown = create(database)
    with store.database.read(database) as conn:
        known = store.keys.known(conn)
    assert hashlib.sha256(shown.rsplit("_", 1)[1].encode()).hexdigest() not in repr(known)


def test_a_rotated_key_and_the_old_one_both_work_for_the_grace(database: Engine) -> None:
    old, old_text = create(database, "bot", "read", "train", expires_at=NOW + 24 * HOUR)
    made, text, ended = rotate(database, old.prefix)
    assert (made.name, made.scopes, made.expires_at) == (old.name, old.scopes, old.expires_at)
    assert made.prefix != old.prefix
    assert made.created_at == NOW
    assert (ended.id, ended.expires_at) == (old.id, NOW + HOUR)
    assert all_keys(database) == [ended, made]
    assert verify(database, old_text, NOW + HOUR - SECOND) == ended
    assert verify(database, old_text, NOW + HOUR) is None
    assert verify(database, text, NOW + HOUR) == made


def test_a_key_that_never_ends_is_rotated_into_one_that_does_not(database: Engine) -> None:
    key, text = create(database)
    made, _, ended = rotate(database, str(key.id), grace=timedelta(0))
    assert made.expires_at is None
    assert ended.expires_at == NOW
    assert verify(database, text) is None


def test_a_grace_never_makes_a_key_last_longer(database: Engine) -> None:
    key, _ = create(database, expires_at=NOW + SECOND)
    assert rotate(database, key.prefix)[2].expires_at == NOW + SECOND
    again = rotate(database, key.prefix, grace=2 * HOUR)
    assert again[2].expires_at == NOW + SECOND


def test_what_opens_nothing_any_more_is_not_rotated(database: Engine) -> None:
    revoked, _ = create(database)
    revoke(database, revoked.prefix)
    expired, _ = create(database, expires_at=NOW + SECOND)
    for which, now, why in ((revoked, NOW, "is revoked"), (expired, NOW + SECOND, "is expired")):
        with pytest.raises(BadInput, match=why):
            rotate(database, which.prefix, now)
    with pytest.raises(NotFound, match="no key 99"):
        rotate(database, "99")
    good, _ = create(database)
    for grace in (-SECOND, timedelta(days=91)):
        with pytest.raises(BadInput, match="0 to 90 days"):
            rotate(database, good.prefix, grace=grace)
    assert len(all_keys(database)) == 3


def test_whether_somebody_holds_a_key_that_works(database: Engine) -> None:
    def usable(now: datetime = NOW) -> bool:
        with store.database.read(database) as conn:
            return store.keys.any_usable(conn, now)

    assert not usable()
    create(database, expires_at=NOW + SECOND)
    assert usable()
    assert not usable(NOW + SECOND)
    key, _ = create(database)
    assert usable(NOW + SECOND)
    revoke(database, key.prefix)
    assert not usable(NOW + SECOND)


@pytest.mark.parametrize(
    ("name", "scopes", "expires_at", "why"),
    [
        ("bot", ["fly"], None, "unknown scope 'fly': read, predict, ingest, train, admin"),
        ("bot", [], None, "at least one scope"),
        ("", ["read"], None, "a key's name has 1 to 64 characters"),
        ("b" * 65, ["read"], None, "a key's name has 1 to 64 characters"),
        ("b\x00t", ["read"], None, "none of which are control characters"),
        ("\x1b[31mred", ["read"], None, "none of which are control characters"),
        ("bot", ["read"], NOW, "would have expired already"),
    ],
)
def test_a_key_that_makes_no_sense_is_refused(
    database: Engine, name: str, scopes: list[str], expires_at: datetime | None, why: str
) -> None:
    with store.database.write(database) as conn, pytest.raises(BadInput, match=why):
        store.keys.create(conn, name, scopes, NOW, expires_at)
    assert all_keys(database) == []


def test_a_key_as_json_has_no_hash(database: Engine) -> None:
    key, _ = create(database, "bot", "train", "read", "read")
    assert store.keys.document(key) == {
        "id": key.id,
        "name": "bot",
        "prefix": key.prefix,
        "scopes": ["read", "train"],
        "created_at": "2024-07-01T00:00:00Z",
        "expires_at": None,
        "last_used_at": None,
        "revoked_at": None,
    }
