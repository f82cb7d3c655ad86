"""What the ledger last said, read once: the same as asking it for each thing."""

from datetime import datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

import store.database
import store.forecasts
import store.lately
import store.recalibrations
import store.versions
from model import backtest, predictor
from store.database import Engine
from store.tables import micros, predictions
from tests.store.test_predictions import BARS, HOUR, NOW, PACKED, crown, ingest

# a row: which bar, a prediction or an abstention for one of some reasons, of which version
ANSWERS = [
    "prediction",
    *(f"{reason}:1" for reason in ("gap", "stale_bars", "paused", "no_model", "stale_model")),
]
row = st.tuples(st.integers(0, 3), st.sampled_from(ANSWERS), st.integers(0, 1))


def at(bar: int) -> datetime:
    return HOUR.close_of(BARS["ts"][-1]) + timedelta(hours=bar)


@pytest.fixture
def told(database: Engine) -> tuple[Engine, int, list[int]]:
    market_id = ingest(database, BARS)
    return database, market_id, [crown(database, market_id, NOW) for _ in range(2)]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(row, max_size=14, unique_by=lambda each: each[:2]), bar=st.integers(0, 3))
def test_it_is_what_each_question_alone_would_find(
    told: tuple[Engine, int, list[int]], rows: list[tuple[int, str, int]], bar: int
) -> None:
    engine, market_id, versions = told
    model = predictor.from_artifact(PACKED)
    with store.database.write(engine) as conn:
        conn.execute(predictions.delete())
        for number, (of_bar, answer, version) in enumerate(rows):
            said = {"answer": answer, "as_of": at(of_bar), "version_id": versions[version]}
            kind = {"kind": "abstention", "reason": answer.partition(":")[0]}
            if answer == "prediction":
                moved = {"log_temperature": number / 10, "certainty": 3.0, "log_width": -number / 10}
                kind = {"kind": "prediction", "position": number / 20, **moved}
            conn.execute(
                predictions.insert().values(market_id=market_id, served_at=at(of_bar), **said, **kind)
            )
    with store.database.read(engine) as conn:
        lately = store.lately.read(conn, market_id, at(bar))
        there = conn.execute(select(predictions).where(predictions.c.market_id == market_id)).all()
        own = [each for each in there if each.as_of == at(bar) and each.kind == "prediction"]
        assert ([lately.prediction.id] if lately.prediction else []) == [each.id for each in own]
        # nothing of what it knows of counts as said since, however much was said of one bar
        assert all(e.id <= lately.newest_id for e in there if lately.since <= e.as_of <= at(bar))
        before = [each for each in there if each.as_of < at(bar)]
        newest = max((each.as_of for each in before), default=None)
        of_newest = [each.position for each in before if each.as_of == newest and each.kind == "prediction"]
        assert store.forecasts._held(conn, market_id, lately) == (of_newest[0] if of_newest else 0.0)
        for version in versions:
            of_version = [e for e in before if e.version_id == version and e.log_temperature is not None]
            stands = store.recalibrations.before(conn, market_id, version, model, lately)
            if of_version:
                last = max(of_version, key=lambda each: each.as_of)
                assert (stands.moved.log_temperature, stands.until) == (
                    last.log_temperature,
                    micros(last.as_of),
                )
            else:
                assert (stands.moved, stands.until) == (
                    backtest.fresh(model).moved,
                    backtest.fresh(model).until,
                )
