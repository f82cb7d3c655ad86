"""`barprop predict`: the same answer as the route's, in the same ledger; about the past, in none."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import store.database
import store.predictions
from model.bars import iso
from store.database import Engine
from tests.service.cli.conftest import Barprop


def predict(barprop: Barprop, *arguments: object) -> dict[str, Any]:
    ran = barprop("predict", *arguments, "--json")
    assert ran.code == 0, ran.err
    return dict(json.loads(ran.out))


def ledger(engine: Engine) -> list[dict[str, Any]]:
    with store.database.read(engine) as conn:
        return [store.predictions.entry_document(entry) for entry in store.predictions.page(conn)]


def test_asking_twice_is_asking_once_and_stands_in_the_ledger(filled: Engine, barprop: Barprop) -> None:
    first = predict(barprop, "LIVE", "1h")
    assert first["kind"] == "prediction"
    assert predict(barprop, "LIVE", "1h") == first
    same = [
        row for row in ledger(filled) if row["as_of"] == first["as_of"] and row["market"] == first["market"]
    ]
    assert len(same) == 1
    assert first.items() <= same[0].items()


def test_an_answer_about_the_past_is_not_in_the_ledger(filled: Engine, barprop: Barprop) -> None:
    before = ledger(filled)
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=100)
    content = predict(barprop, "LIVE", "1h", "--at", iso(hour + timedelta(minutes=59)))
    assert content["kind"] == "prediction"
    assert content["as_of"] == iso(hour)
    assert content["in_sample"] is True
    assert ledger(filled) == before


def test_the_future_cannot_be_asked(filled: Engine, barprop: Barprop) -> None:
    ran = barprop("predict", "LIVE", "1h", "--at", iso(datetime.now(UTC) + timedelta(minutes=1)))
    assert (ran.code, ran.out) == (1, "")
    assert "future" in ran.err


def test_a_time_without_a_zone_is_utc(filled: Engine, barprop: Barprop) -> None:
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=100)
    naive = hour.replace(tzinfo=None).isoformat()
    assert predict(barprop, "LIVE", "1h", "--at", naive) == predict(barprop, "LIVE", "1h", "--at", iso(hour))


def test_a_named_version_answers(filled: Engine, barprop: Barprop) -> None:
    answers = [predict(barprop, "LIVE", "1h", "--version", version) for version in (1, 2)]
    assert [answer["version"] for answer in answers] == [1, 2]
    assert answers[0]["weights"] != answers[1]["weights"]


def test_an_unknown_version_is_refused(filled: Engine, barprop: Barprop) -> None:
    ran = barprop("predict", "LIVE", "1h", "--version", "9999")
    assert (ran.code, ran.out) == (1, "")
    assert "9999" in ran.err


def test_an_abstention_is_an_answer(filled: Engine, barprop: Barprop) -> None:
    content = predict(barprop, "FEW", "1h")
    assert (content["kind"], content["reason"]) == ("abstention", "no_model")
    assert barprop("predict", "FEW", "1h").code == 0


def test_a_time_that_is_none_is_wrong_usage(barprop: Barprop) -> None:
    ran = barprop("predict", "LIVE", "1h", "--at", "yesterday")
    assert ran.code == 2
    assert "'yesterday' is not a time" in ran.err
