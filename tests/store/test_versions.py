"""Laws of versions: what is stored never changes, the history alone gives roles, and going back is one more row."""

from datetime import UTC, datetime, timedelta
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

import store.database
import store.jobs
import store.runs
import store.versions
from model import artifact
from model.artifact import Packed
from model.bars import Market
from model.errors import NotFound
from store.database import Connection, Engine
from store.versions import Promotion

NOW = datetime(2024, 7, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


def packed(number: int = 0) -> Packed:
    arrays = {"w": np.arange(6, dtype="<f4").reshape(2, 3) + number}
    return artifact.pack(arrays, {"number": number, "config": {"seed": 7}})


def add(conn: Connection, market_id: int, number: int = 0) -> int:
    return store.versions.add(conn, market_id, packed(number), None, NOW)


def promote(
    conn: Connection, market_id: int, version: int, at: datetime = NOW, role: str = "champion"
) -> None:
    store.versions.record(conn, market_id, version, role, f"made {role}", at, at)  # type: ignore[arg-type]


def roles(conn: Connection, *versions: int) -> list[str]:
    return [store.versions.get(conn, version).role for version in versions]


def test_what_was_packed_comes_back_to_the_bit(database: Engine, market_id: int) -> None:
    with store.database.write(database) as conn:
        version = add(conn, market_id, 5)
    with store.database.read(database) as conn:
        assert store.versions.packed(conn, version) == packed(5)
        arrays, manifest = artifact.unpack(store.versions.packed(conn, version))
        kept = store.versions.get(conn, version)
    assert arrays["w"].tolist() == [[5, 6, 7], [8, 9, 10]]
    assert manifest == {"number": 5, "config": {"seed": 7}}
    assert {**kept.manifest, **manifest} == kept.manifest
    assert (kept.market, kept.parent, kept.created_at) == (Market("ETHUSDT", "1h"), None, NOW)
    assert kept.sha256 == packed(5).sha256


def test_a_version_without_a_promotion_is_a_candidate_and_answers_nothing(
    database: Engine, market_id: int
) -> None:
    with store.database.write(database) as conn:
        version = store.versions.get(conn, add(conn, market_id))
        assert (version.role, version.reason, version.effective_from) == ("candidate", None, None)
        assert store.versions.champion(conn, market_id) is None
        with pytest.raises(NotFound, match="no earlier champion"):
            store.versions.rollback(conn, market_id, NOW, NOW)


def test_a_role_is_what_the_newest_promotion_says(database: Engine, market_id: int) -> None:
    with store.database.write(database) as conn:
        version = add(conn, market_id)
        for role in ("challenger", "rejected", "champion", "retired"):
            promote(conn, market_id, version, NOW + HOUR, role)
            kept = store.versions.get(conn, version)
            assert (kept.role, kept.reason, kept.effective_from) == (role, f"made {role}", NOW + HOUR)


def test_a_champion_that_is_followed_is_retired_in_its_own_market_only(
    database: Engine, market_id: int, other_market_id: int
) -> None:
    with store.database.write(database) as conn:
        first, second, other = add(conn, market_id), add(conn, market_id), add(conn, other_market_id)
        promote(conn, market_id, first)
        promote(conn, other_market_id, other)
        promote(conn, market_id, second)
        assert roles(conn, first, second, other) == ["retired", "champion", "champion"]
        assert store.versions.champion(conn, market_id) == second
        assert store.versions.champion(conn, other_market_id) == other
        assert [v.role for v in store.versions.page(conn)] == ["champion", "champion", "retired"]


def test_a_champion_answers_from_its_first_bar_on(database: Engine, market_id: int) -> None:
    with store.database.write(database) as conn:
        first, second = add(conn, market_id), add(conn, market_id)
        promote(conn, market_id, first, NOW)
        promote(conn, market_id, second, NOW + HOUR)
        promote(conn, market_id, add(conn, market_id), NOW, role="challenger")

        def at(moment: datetime) -> int | None:
            return store.versions.champion(conn, market_id, moment)

        assert at(NOW - timedelta(microseconds=1)) is None
        assert at(NOW) == first
        assert at(NOW + HOUR - timedelta(microseconds=1)) == first
        assert at(NOW + HOUR) == second
        assert store.versions.champion(conn, market_id) == second


def test_going_back_appends_and_changes_nothing(database: Engine, market_id: int) -> None:
    with store.database.write(database) as conn:
        first, second = add(conn, market_id), add(conn, market_id)
        promote(conn, market_id, first)
        promote(conn, market_id, second, NOW + HOUR)
        before = store.versions.history(conn, market_id)
        assert store.versions.rollback(conn, market_id, NOW + 2 * HOUR, NOW + 3 * HOUR) == first
        after = store.versions.history(conn, market_id)
        assert after[:2] == before
        at, since = NOW + 2 * HOUR, NOW + 3 * HOUR
        assert after[2:] == [
            Promotion(after[2].id, first, "champion", f"version {second} was rolled back", at, since),
            Promotion(after[3].id, second, "retired", f"rolled back to version {first}", at, since),
        ]
        assert roles(conn, first, second) == ["champion", "retired"]
        # until the first bar that the old one answers for again, the new one goes on
        assert store.versions.champion(conn, market_id, NOW + 2 * HOUR) == second
        assert store.versions.champion(conn, market_id, since) == first


def test_going_back_again_goes_back_further(database: Engine, market_id: int) -> None:
    with store.database.write(database) as conn:
        first, second, third = (add(conn, market_id, n) for n in range(3))
        for version in (first, second, second, third):
            promote(conn, market_id, version)
        assert store.versions.rollback(conn, market_id, NOW, NOW) == second
        assert store.versions.rollback(conn, market_id, NOW, NOW) == first
        with pytest.raises(NotFound, match="no earlier champion"):
            store.versions.rollback(conn, market_id, NOW, NOW)
        assert store.versions.champion(conn, market_id) == first
        promote(conn, market_id, third)  # promoted anew, so it counts again
        promote(conn, market_id, first)
        assert store.versions.rollback(conn, market_id, NOW, NOW) == third


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_the_champion_is_the_newest_effective_row_of_any_history(
    database: Engine, market_id: int, data: Any
) -> None:
    rows = data.draw(
        st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["champion", "challenger"]), st.integers(0, 5)))
    )
    with store.database.write(database) as conn:
        versions = [add(conn, market_id, n) for n in range(3)]
        offset = len(store.versions.history(conn, market_id)) * 10  # later examples come after earlier ones
        start = NOW + offset * HOUR
        promote(conn, market_id, versions[0], start)
        for number, role, hour in rows:
            promote(conn, market_id, versions[number], start + hour * HOUR, role)
        for hour in range(6):
            effective = [v for v, role, since in rows if role == "champion" and since <= hour]
            expected = versions[effective[-1]] if effective else versions[0]
            assert store.versions.champion(conn, market_id, start + hour * HOUR) == expected


def test_what_is_not_there_is_not_found(database: Engine, market_id: int, other_market_id: int) -> None:
    with store.database.write(database) as conn:
        version = add(conn, market_id)
        for missing in (store.versions.get, store.versions.packed):
            with pytest.raises(NotFound, match="no version 99"):
                missing(conn, 99)
        with pytest.raises(NotFound, match=f"no version {version} of this market"):
            promote(conn, other_market_id, version)


def test_pages_cover_every_version_once_newest_first(
    database: Engine, market_id: int, other_market_id: int
) -> None:
    with store.database.write(database) as conn:
        ids = [add(conn, (market_id, other_market_id)[n % 2], n) for n in range(7)]
        seen: list[int] = []
        while page := store.versions.page(conn, None, seen[-1] if seen else None, 3):
            seen += [version.id for version in page]
        assert seen == ids[::-1]
        assert [version.id for version in store.versions.page(conn, market_id)] == ids[::2][::-1]


def test_a_version_as_json(database: Engine, market_id: int) -> None:
    with store.database.write(database) as conn:
        version = store.versions.add(conn, market_id, packed(), add(conn, market_id), NOW)
        promote(conn, market_id, version)
        document = store.versions.document(store.versions.get(conn, version))
    assert document == {
        "id": version,
        "market": {"symbol": "ETHUSDT", "timeframe": "1h"},
        "parent": version - 1,
        "created_at": "2024-07-01T00:00:00Z",
        "sha256": packed().sha256,
        "manifest": document["manifest"],
        "role": "champion",
        "reason": "made champion",
        "effective_from": "2024-07-01T00:00:00Z",
    }


def add_run(conn: Connection, market_id: int, version: int | None, **other: Any) -> int:
    job = store.jobs.ask(conn, "retrain", market_id, {}, NOW)
    values: dict[str, Any] = {
        "job_id": job.id,
        "market_id": market_id,
        "version_id": version,
        "outcome": "promoted",
        "reason": "first",
        "started_at": NOW,
        "ended_at": NOW + HOUR,
        "bars_until": NOW - HOUR,
        "scores": {"log_loss": 0.68},
        "curve": [{"epoch": 1, "train_loss": 0.7, "stop_loss": 0.69}],
        "verdict": "healthy",
    }
    return store.runs.add(conn, **{**values, **other})


def test_a_training_run_comes_back_as_it_was_recorded(
    database: Engine, market_id: int, other_market_id: int
) -> None:
    with store.database.write(database) as conn:
        version = add(conn, market_id)
        first = add_run(conn, market_id, version)
        add_run(conn, other_market_id, None)
        run = store.runs.last(conn, market_id)
        assert run is not None
        assert (run.id, run.version_id, run.outcome, run.reason) == (first, version, "promoted", "first")
        assert (run.started_at, run.ended_at, run.bars_until) == (NOW, NOW + HOUR, NOW - HOUR)
        assert (run.scores, run.verdict) == ({"log_loss": 0.68}, "healthy")
        assert run.curve == [{"epoch": 1, "train_loss": 0.7, "stop_loss": 0.69}]
        assert store.runs.of_version(conn, version) == run
        assert store.runs.of_version(conn, 99) is None
        add_run(conn, market_id, None, outcome="failed")
        newest = store.runs.last(conn, market_id)
        assert newest is not None
        assert (newest.outcome, newest.version_id) == ("failed", None)


def test_a_training_that_diverged_is_recorded_too(database: Engine, market_id: int) -> None:
    curve = [{"epoch": 1, "train_loss": float("nan"), "stop_loss": float("inf")}]
    with store.database.write(database) as conn:
        add_run(conn, market_id, None, outcome="failed", curve=curve, scores={"a": [float("nan"), 1.0]})
        run = store.runs.last(conn, market_id)
    assert run is not None
    assert run.curve == [{"epoch": 1, "train_loss": None, "stop_loss": None}]
    assert run.scores == {"a": [None, 1.0]}
