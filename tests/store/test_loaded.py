"""Versions in memory: the newest loaded ones of each market, and no more, however often a champion changes."""

import store.database
import store.loaded
import store.markets
import store.versions
from model import artifact
from model.bars import Market
from store.database import Engine
from store.loaded import MOST_OF_MARKET, Versions
from tests.store.test_predictions import BARS, MARKET, NOW, PACKED, ingest

OTHER = Market("OTHER", "1h")


def added(engine: Engine, market_id: int, count: int) -> list[int]:
    """So many versions whose weights differ."""
    arrays, manifest = artifact.unpack(PACKED)
    told = {name: value for name, value in manifest.items() if name not in ("format", "arrays", "sha256")}
    ids = []
    for number in range(count):
        other = {**arrays, "parameters": arrays["parameters"] * (1 + number / 1e4)}
        other["parameters"] = other["parameters"].astype(arrays["parameters"].dtype)
        with store.database.write(engine) as conn:
            ids.append(store.versions.add(conn, market_id, artifact.pack(other, told), None, NOW))
    return ids


def test_of_a_market_only_the_newest_loaded_ones_stay(database: Engine) -> None:
    ids = added(database, ingest(database, BARS), MOST_OF_MARKET + 6)
    kept: Versions = {}
    with store.database.read(database) as conn:
        first = store.loaded.load(conn, OTHER, ids[0], kept)
        for ident in ids[1:]:
            found = store.loaded.load(conn, MARKET, ident, kept)
            assert store.loaded.load(conn, MARKET, ident, kept) is found
        assert list(kept) == [ids[0], *ids[-MOST_OF_MARKET:]]
        assert kept[ids[0]] is first  # another market's stays
        again = store.loaded.load(conn, MARKET, ids[1], kept)
        assert again.model.sha256 not in {
            each.model.sha256 for ident, each in kept.items() if ident != ids[1]
        }
        assert len(kept) == MOST_OF_MARKET + 1
