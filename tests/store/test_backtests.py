"""Laws of kept backtests: the document and the file come back as they were, newest first."""

from datetime import UTC, datetime
from typing import Any

import pytest

import store.backtests
import store.database
import store.jobs
from model.errors import NotFound
from store.database import Connection, Engine

NOW = datetime(2024, 7, 1, tzinfo=UTC)
DOCUMENT: dict[str, Any] = {
    "market": {"symbol": "ETHUSDT", "timeframe": "1h"},
    "rows": 27_000,
    "scores": {"model": {"log_loss": 0.1 + 0.2}},
    "verdict": {"skill": None, "text": "too few rows"},
}
FILE = bytes(range(256)) * 3


def add(conn: Connection, market_id: int, **other: Any) -> int:
    job = store.jobs.ask(conn, "backtest", market_id, {}, NOW)
    return store.backtests.add(conn, job.id, market_id, {"window": 10_000}, {**DOCUMENT, **other}, FILE, NOW)


def test_a_backtest_comes_back_as_it_was(database: Engine, market_id: int) -> None:
    with store.database.write(database) as conn:
        kept = add(conn, market_id)
    with store.database.read(database) as conn:
        assert store.backtests.get(conn, kept) == {
            **DOCUMENT,
            "id": kept,
            "created_at": "2024-07-01T00:00:00Z",
        }
        assert store.backtests.predictions(conn, kept) == FILE


def test_pages_cover_every_backtest_once_newest_first(
    database: Engine, market_id: int, other_market_id: int
) -> None:
    with store.database.write(database) as conn:
        assert store.backtests.last(conn, market_id) is None
        ids = [add(conn, (market_id, other_market_id)[n % 2], rows=n) for n in range(7)]
        seen: list[int] = []
        while page := store.backtests.page(conn, None, seen[-1] if seen else None, 3):
            seen += [document["id"] for document in page]
        assert seen == ids[::-1]
        assert [document["rows"] for document in store.backtests.page(conn, other_market_id)] == [5, 3, 1]
        newest = store.backtests.last(conn, market_id)
    assert newest is not None
    assert newest["rows"] == 6


def test_what_is_not_there_is_not_found(database: Engine) -> None:
    with store.database.read(database) as conn:
        for missing in (store.backtests.get, store.backtests.predictions):
            with pytest.raises(NotFound, match="no backtest 99"):
                missing(conn, 99)


def test_verdicts_are_of_the_newest_backtests_and_adjusted_for_how_many_markets_there_are(
    database: Engine, market_id: int, other_market_id: int
) -> None:
    """By hand: Holm multiplies the smaller p by two, Benjamini and Hochberg too, and neither changes the larger."""
    with store.database.write(database) as conn:
        add(conn, market_id, paired={"base_rate": {"gain": 0.1, "z": 9.0, "p": 1e-9}})
        first = add(conn, market_id, paired={"base_rate": {"gain": 0.01, "z": 2.3, "p": 0.01}})
        add(conn, other_market_id, paired={"base_rate": {"gain": 0.005, "z": 1.75, "p": 0.04}})
    with store.database.read(database) as conn:
        found = store.backtests.verdicts(conn)
    assert found[0]["backtest"] == first
    assert [(each["p"], each["holm"], each["false_discovery"]) for each in found] == [
        (0.01, 0.02, 0.02),
        (0.04, 0.04, 0.04),
    ]


def test_a_backtest_without_a_comparison_counts_for_nothing(
    database: Engine, market_id: int, other_market_id: int
) -> None:
    with store.database.read(database) as conn:
        assert store.backtests.verdicts(conn) == []
    with store.database.write(database) as conn:
        add(conn, market_id)
        add(conn, other_market_id, paired={"base_rate": {"gain": 0.01, "z": 2.3, "p": 0.01}})
    with store.database.read(database) as conn:
        old, other = store.backtests.verdicts(conn)
    assert (old["p"], old["holm"], old["false_discovery"]) == (None, None, None)
    assert (other["p"], other["holm"], other["false_discovery"]) == (0.01, 0.01, 0.01)
