"""The keys in memory: obeyed at once where they open, soon where they are taken away, and without the database."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy

import store.audit
import store.changes
import store.database
import store.keys
from model.errors import Unreachable
from service.keyring import Keyring
from store.database import Engine
from store.keys import Key
from tests import waiting
from tests.processes import first_document, http, started


def create(engine: Engine, expires_at: datetime | None = None) -> tuple[Key, str]:
    with store.database.write(engine) as conn:
        return store.keys.create(conn, "bot", ["read"], datetime.now(UTC) - timedelta(days=1), expires_at)


def revoke(engine: Engine, key: Key) -> None:
    with store.database.write(engine) as conn:
        store.keys.revoke(conn, key.prefix, datetime.now(UTC))


def last_used(engine: Engine) -> datetime | None:
    with store.database.read(engine) as conn:
        return store.keys.all(conn)[0].last_used_at


@contextmanager
def kept(engine: Engine) -> Iterator[Keyring]:
    watch = store.changes.watch(engine)
    ring = Keyring(engine, watch.mark)
    ring.start()
    try:
        yield ring
    finally:
        ring.close()
        watch.close()


def verified(ring: Keyring, text: str) -> Key | None:
    return asyncio.run(ring.verified(text))


def test_a_key_opens_as_soon_as_it_is_made_and_closes_soon_after_it_is_revoked(database: Engine) -> None:
    with kept(database) as ring:
        key, text = create(database)
        assert verified(ring, text) == key
        revoke(database, key)
        waiting.until(lambda: verified(ring, text) is None, 2)


def test_a_key_ends_by_the_clock_without_any_change(database: Engine) -> None:
    with kept(database) as ring:
        key, text = create(database, datetime.now(UTC) + timedelta(seconds=1))
        assert verified(ring, text) == key
        waiting.until(lambda: verified(ring, text) is None, 2)


def test_a_known_key_asks_the_database_nothing(database: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = store.changes.watch(database)
    ring = Keyring(database, watch.mark)
    key, text = create(database)
    assert verified(ring, text) == key

    def asked(engine: Engine) -> None:
        raise AssertionError("the database was asked")

    monkeypatch.setattr(store.database, "read", asked)
    monkeypatch.setattr(store.database, "write", asked)
    assert verified(ring, text) == key
    wrong = text[:-1] + ("0" if text[-1] != "0" else "1")
    assert verified(ring, wrong) is None
    # nothing was committed since the keys were read, so there can be no other key
    assert verified(ring, "bp_" + "0" * 12 + "_" + "0" * 64) is None
    watch.close()


def test_while_keys_cannot_be_read_known_ones_count_and_of_others_nobody_can_tell(database: Engine) -> None:
    with kept(database) as ring:
        key, text = create(database)
        _, other = create(database)
        assert verified(ring, text) == key
        change(database, "ALTER TABLE api_keys RENAME TO hidden")
        try:
            for _ in range(4):
                assert verified(ring, text) == key
                time.sleep(0.4)
            with pytest.raises(Unreachable):
                verified(ring, "bp_" + "0" * 12 + "_" + "0" * 64)
        finally:
            change(database, "ALTER TABLE hidden RENAME TO api_keys")
        revoke(database, key)
        waiting.until(lambda: verified(ring, text) is None, 2)
        assert verified(ring, other) is not None


def change(engine: Engine, statement: str) -> None:
    with store.database.write(engine) as conn:
        conn.execute(sqlalchemy.text(statement))


def test_before_any_key_was_read_nobody_can_tell(database: Engine) -> None:
    _, text = create(database)
    with pytest.raises(Unreachable):
        verified(Keyring(database, _away), text)


def _away() -> object:
    raise Unreachable("the database does not answer")


def test_a_use_is_noted_later_and_at_most_once_a_minute(database: Engine) -> None:
    with kept(database) as ring:
        _, text = create(database)
        assert verified(ring, text) is not None
        waiting.until(lambda: last_used(database), 5)
        first = last_used(database)
        for _ in range(4):
            assert verified(ring, text) is not None
            time.sleep(0.3)
        assert last_used(database) == first


def test_a_use_shortly_before_the_end_is_noted_too(database: Engine) -> None:
    with kept(database) as ring:
        _, text = create(database)
        assert verified(ring, text) is not None
    assert last_used(database) is not None


def test_what_one_process_revokes_another_obeys_within_two_seconds(url: str) -> None:
    env = {"BARPROP_DATABASE__URL": url, "BARPROP_SERVICE__REQUIRE_KEYS": "true"}
    engine = store.database.connect(url)
    store.database.upgrade(engine)
    key, text = create(engine)
    with started("serve", "--port", "0", "--no-worker", "--json", env=env) as process:
        markets = first_document(process)["url"] + "/v1/markets"
        assert http("GET", markets, key=text)[0] == 200
        with started("keys", "revoke", key.prefix, env=env) as revoking:
            assert revoking.wait(60) == 0
        waiting.until(lambda: http("GET", markets, key=text)[0] == 401, 2)
        _, fresh = create(engine)
        assert http("GET", markets, key=fresh)[0] == 200
    with store.database.read(engine) as conn:
        (entry,) = store.audit.page(conn)
    assert (entry.actor, entry.action, entry.target) == ("command line", "key.revoke", f"key {key.prefix}")
    engine.dispose()
