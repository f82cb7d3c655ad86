"""Counts for watching, on both databases."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import store.clock
import store.database
import store.figures
import store.jobs
import store.markets
from store.database import Engine
from store.figures import Unscored
from store.tables import bars, micros, predictions

NOW = datetime(2024, 7, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


def add_bars(engine: Engine, market_id: int, opens: list[datetime], revision: int = 0) -> None:
    prices = dict.fromkeys(("open", "high", "low", "close", "volume"), 1.0)
    rows = [
        {"market_id": market_id, "ts": micros(ts), "revision": revision, "recorded_at": micros(NOW), **prices}
        for ts in opens
    ]
    with store.database.write(engine) as conn:
        conn.execute(bars.insert(), rows)


def add_answer(
    engine: Engine, market_id: int, as_of: datetime, horizon: int | None = 1, **values: Any
) -> None:
    row = {
        "market_id": market_id,
        "as_of": as_of,
        "answer": "prediction:1",
        "kind": "prediction",
        "horizon": horizon,
        "served_at": as_of,
        **values,
    }
    with store.database.write(engine) as conn:
        conn.execute(predictions.insert().values(row))


def unscored(engine: Engine, market_id: int) -> Unscored:
    with store.database.read(engine) as conn:
        (row,) = [row for row in store.markets.all(conn) if row.id == market_id]
        return store.figures.unscored(conn, row)


def test_an_empty_market_waits_for_nothing(database: Engine, market_id: int) -> None:
    assert unscored(database, market_id) == Unscored(0, None)


def test_a_prediction_waits_once_the_bar_of_its_outcome_is_stored(database: Engine, market_id: int) -> None:
    add_answer(database, market_id, NOW)
    assert unscored(database, market_id).rows == 0
    add_bars(database, market_id, [NOW - HOUR])  # the bar that it stands on
    assert unscored(database, market_id).rows == 0
    add_bars(database, market_id, [NOW])
    assert unscored(database, market_id) == Unscored(1, NOW + HOUR)


@pytest.mark.parametrize("horizon", [1, 2, 3])
def test_a_horizon_counts_bars_and_not_hours_nor_revisions(
    database: Engine, market_id: int, horizon: int
) -> None:
    after_a_weekend = [NOW + timedelta(days=2) + i * HOUR for i in range(horizon)]
    add_answer(database, market_id, NOW, horizon)
    add_bars(database, market_id, [NOW - HOUR])
    for ts in after_a_weekend[:-1]:
        add_bars(database, market_id, [ts])
        add_bars(database, market_id, [ts], revision=1)
    assert unscored(database, market_id).rows == 0
    add_bars(database, market_id, after_a_weekend[-1:])
    closed = after_a_weekend[-1] + HOUR
    assert unscored(database, market_id) == Unscored(1, closed)
    add_bars(database, market_id, [closed])
    assert unscored(database, market_id) == Unscored(1, closed)


def test_only_predictions_of_this_market_without_a_score_wait(
    database: Engine, market_id: int, other_market_id: int
) -> None:
    add_bars(database, market_id, [NOW - HOUR + i * HOUR for i in range(6)])
    add_answer(database, market_id, NOW, scored_at=NOW + HOUR)
    add_answer(database, market_id, NOW, None, kind="abstention", answer="gap:1")
    add_answer(database, market_id, NOW + HOUR, 3)
    add_answer(database, market_id, NOW + 2 * HOUR)
    add_answer(database, other_market_id, NOW)
    assert unscored(database, market_id) == Unscored(2, NOW + 3 * HOUR)
    assert unscored(database, other_market_id) == Unscored(0, None)


def test_the_newest_bar_of_each_market_is_known(
    database: Engine, market_id: int, other_market_id: int
) -> None:
    def newest() -> dict[int, datetime]:
        with store.database.read(database) as conn:
            return store.figures.newest_opens(conn)

    assert newest() == {}
    add_bars(database, market_id, [NOW, NOW - HOUR])
    assert newest() == {market_id: NOW}
    add_bars(database, other_market_id, [NOW - HOUR, NOW + HOUR])
    add_bars(database, market_id, [NOW], revision=1)
    assert newest() == {market_id: NOW, other_market_id: NOW + HOUR}


def test_jobs_are_counted_by_kind_and_state(database: Engine, market_id: int, other_market_id: int) -> None:
    with store.database.write(database) as conn:
        store.jobs.ask(conn, "retrain", market_id, {}, NOW)
        store.jobs.ask(conn, "retrain", other_market_id, {}, NOW)
        job = store.jobs.ask(conn, "backtest", market_id, {}, NOW)
        store.jobs.cancel(conn, job.id, NOW)
    with store.database.read(database) as conn:
        assert store.figures.jobs(conn) == {("retrain", "queued"): 2, ("backtest", "cancelled"): 1}


def test_a_replay_is_known_by_its_clock(database: Engine) -> None:
    with store.database.read(database) as conn:
        assert store.figures.replay(conn) is None
    store.clock.set(database, NOW)
    with store.database.read(database) as conn:
        assert store.figures.replay(conn) == NOW
