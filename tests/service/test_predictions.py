"""Asking for Signals, and the ledger."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import polars as pl
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

import store.bars
import store.database
import store.markets
import store.outcomes
import store.predictions
from model.artifact import Packed
from model.bars import BAR_SCHEMA
from store.database import Engine
from tests.service.conftest import BARS, CLOSE, ETH, HERE, Clock, add_version, problem, walk

ASK = {"symbol": "ETHUSDT", "timeframe": "1h"}
# design.md, by hand
PREDICTION = [
    "kind",
    "market",
    "as_of",
    "version",
    "horizon",
    "p_up",
    "expected_return",
    "price",
    "interval",
    "level",
    "skill",
    "weights",
    "position",
    "pays_up_to_bps",
]
ABSTENTION = ["kind", "market", "as_of", "version", "reason", "detail"]


def ledger(client: TestClient, **query: Any) -> dict[str, Any]:
    response = client.get("/v1/predictions", params={**ASK, **query})
    assert response.status_code == 200
    return response.json()  # type: ignore[no-any-return]


def test_a_prediction_is_exactly_the_document_of_the_design(client: TestClient, champion: int) -> None:
    response = client.post("/v1/predict", json=ASK)
    signal = response.json()
    assert response.status_code == 200
    assert sorted(signal) == sorted(PREDICTION)
    assert signal["kind"] == "prediction"
    assert signal["market"] == ASK
    assert signal["as_of"] == "2024-07-01T00:00:00Z"
    assert signal["version"] == champion
    assert 0 < signal["p_up"] < 1
    low, high = signal["interval"]
    assert low < signal["price"] < high
    assert len(signal["weights"]) == 12


def test_an_abstention_is_an_answer_with_its_reason(client: TestClient, market_id: int) -> None:
    response = client.post("/v1/predict", json=ASK)
    assert response.status_code == 200
    assert sorted(response.json()) == sorted(ABSTENTION)
    assert response.json()["reason"] == "no_model"


def test_bars_that_ended_long_ago_are_stale(client: TestClient, champion: int, clock: Clock) -> None:
    clock.now = CLOSE + timedelta(days=3)
    assert client.post("/v1/predict", json=ASK).json()["reason"] == "stale_bars"


def test_asking_twice_is_asking_once(client: TestClient, champion: int) -> None:
    first, second = (client.post("/v1/predict", json=ASK).json() for _ in range(2))
    assert first == second
    assert len(ledger(client)["items"]) == 1


def test_two_spellings_of_a_timeframe_are_one_market(client: TestClient, champion: int) -> None:
    hour = client.post("/v1/predict", json=ASK).json()
    assert client.post("/v1/predict", json={**ASK, "timeframe": "60m"}).json() == hour


def test_sixteen_threads_at_once_get_one_answer_and_one_row(app: FastAPI, champion: int) -> None:
    def ask(_: int) -> dict[str, Any]:
        return TestClient(app, base_url=HERE).post("/v1/predict", json=ASK).json()  # type: ignore[no-any-return]

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, range(64)))
    assert all(answer == answers[0] for answer in answers)
    assert answers[0]["kind"] == "prediction"
    assert len(ledger(TestClient(app, base_url=HERE))["items"]) == 1


def test_the_answer_stands_in_the_ledger_when_it_is_given(client: TestClient, champion: int) -> None:
    signal = client.post("/v1/predict", json=ASK).json()
    (entry,) = ledger(client)["items"]
    assert entry == {**signal, "id": entry["id"], "served_at": "2024-07-01T00:20:00Z", "outcome": None}


def test_an_outcome_appears_once_it_is_known(
    client: TestClient, engine: Engine, champion: int, clock: Clock
) -> None:
    client.post("/v1/predict", json=ASK)
    later = walk(BARS + 1, CLOSE + timedelta(hours=1), seed=8).tail(1)
    clock.now = CLOSE + timedelta(hours=1, minutes=1)
    store.bars.add(engine, ETH, later, clock.now)
    assert store.outcomes.score(engine, clock.now) == 1
    (entry,) = ledger(client)["items"]
    went_up = later["close"][0] > walk()["close"][-1]
    assert sorted(entry["outcome"]) == ["log_loss", "return", "scored_at", "up"]
    assert entry["outcome"]["up"] is went_up


def test_the_ledger_is_paged_newest_first(
    client: TestClient, champion: int, engine: Engine, clock: Clock
) -> None:
    bars = walk(BARS + 4, CLOSE + timedelta(hours=4)).tail(4)
    client.post("/v1/predict", json=ASK)
    for i in range(4):
        clock.now = CLOSE + timedelta(hours=i + 1, minutes=1)
        store.bars.add(engine, ETH, bars.slice(i, 1), clock.now)
        client.post("/v1/predict", json=ASK)
    whole = ledger(client)
    assert [entry["as_of"][11:13] for entry in whole["items"]] == ["04", "03", "02", "01", "00"]
    assert whole["next"] is None
    paged, cursor = [], None
    while True:
        part = ledger(client, limit=2, **({"cursor": cursor} if cursor else {}))
        assert len(part["items"]) <= 2
        paged += part["items"]
        cursor = part["next"]
        if cursor is None:
            break
    assert paged == whole["items"]


def test_the_ledger_without_a_market_is_that_of_all(client: TestClient, champion: int) -> None:
    client.post("/v1/predict", json=ASK)
    assert len(client.get("/v1/predictions").json()["items"]) == 1
    assert "both" in str(problem(client.get("/v1/predictions?symbol=ETHUSDT"))["detail"])


def test_an_answer_for_the_past_stands_on_the_bars_of_then(client: TestClient, champion: int) -> None:
    at = "2024-06-30T20:30:00Z"
    signal = client.post("/v1/predict", json={**ASK, "at": at}).json()
    assert sorted(signal) == sorted([*PREDICTION, "in_sample"])
    assert signal["as_of"] == "2024-06-30T20:00:00Z"
    assert signal["in_sample"] is True  # the fixture's version saw all of the walk
    assert ledger(client)["items"] == []


def test_a_named_version_answers_of_then_or_of_now(
    client: TestClient, champion: int, engine: Engine, market_id: int, packed: Packed
) -> None:
    other = add_version(engine, market_id, packed, None)
    at = {**ASK, "at": "2024-06-30T20:30:00Z"}
    assert client.post("/v1/predict", json={**at, "version": other}).json()["version"] == other
    assert client.post("/v1/predict", json=at).json()["version"] == champion
    now = client.post("/v1/predict", json={**ASK, "version": other}).json()
    assert sorted(now) == sorted([*PREDICTION, "in_sample"])
    assert (now["version"], now["as_of"]) == (other, "2024-07-01T00:00:00Z")
    assert ledger(client)["items"] == []
    assert problem(client.post("/v1/predict", json={**at, "version": 99}))["type"] == "/problems/not-found"


def test_the_future_cannot_be_asked(client: TestClient, champion: int) -> None:
    response = client.post("/v1/predict", json={**ASK, "at": "2024-07-01T00:20:01Z"})
    assert "future" in str(problem(response)["detail"])


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"symbol": "NOSUCH", "timeframe": "1h"}, "not-found"),
        ({**ASK, "timeframe": "7x"}, "bad-input"),
        ({**ASK, "symbol": "BTC/USDT"}, "bad-input"),
        ({**ASK, "horizn": 3}, "invalid-request"),
        ({"symbol": "ETHUSDT"}, "invalid-request"),
        ({**ASK, "symbol": 5}, "invalid-request"),
        ({**ASK, "at": "yesterday"}, "invalid-request"),
        ({**ASK, "at": "0001-01-01T00:00:00+14:00"}, "invalid-request"),
        ({**ASK, "at": "2024-06-30T20:00:00Z", "version": 0}, "invalid-request"),
        ([ASK], "invalid-request"),
        (None, "invalid-request"),
        ("ETHUSDT", "invalid-request"),
    ],
)
def test_a_bad_question_is_a_problem(client: TestClient, champion: int, body: Any, kind: str) -> None:
    assert problem(client.post("/v1/predict", json=body))["type"] == f"/problems/{kind}"


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"{", "malformed"),
        (b"\xff\xfe", "malformed"),
        (b'{"symbol": ' + b"[" * 100_000, "malformed"),
        (b"", "invalid-request"),
        (b'{"symbol": "ETHUSDT", "timeframe": "1h", "version": NaN}', "invalid-request"),
        (b'{"symbol": "ETHUSDT", "timeframe": "1h", "at": Infinity}', "invalid-request"),
    ],
)
def test_a_body_that_is_no_question_is_a_problem(client: TestClient, content: bytes, kind: str) -> None:
    response = client.post("/v1/predict", content=content, headers={"content-type": "application/json"})
    assert problem(response)["type"] == f"/problems/{kind}"


def test_a_form_of_another_site_is_no_question(client: TestClient, champion: int) -> None:
    response = client.post("/v1/predict", content=json.dumps(ASK), headers={"content-type": "text/plain"})
    assert problem(response)["type"] == "/problems/invalid-request"


def test_each_wrong_field_is_named(client: TestClient) -> None:
    document = problem(client.post("/v1/predict", json={"timeframe": 5, "horizn": 3}))
    errors = document["errors"]
    assert isinstance(errors, list)
    assert [error["field"] for error in errors] == ["symbol", "timeframe", "horizn"]


def test_a_damaged_version_abstains(
    client: TestClient, engine: Engine, market_id: int, packed: Packed
) -> None:
    damaged = Packed(
        bytes([packed.weights[0] ^ 1]) + packed.weights[1:],
        packed.sha256,
        packed.manifest,
        packed.manifest_sha256,
    )
    add_version(engine, market_id, damaged, "champion")
    assert client.post("/v1/predict", json=ASK).json()["reason"] == "unhealthy_model"


def test_a_paused_market_abstains(client: TestClient, champion: int, engine: Engine, market_id: int) -> None:
    with store.database.write(engine) as conn:
        store.markets.set_paused(conn, market_id, True)
    assert client.post("/v1/predict", json=ASK).json()["reason"] == "paused"


def test_on_a_jump_the_answer_is_an_abstention_that_says_so(
    client: TestClient, engine: Engine, champion: int, clock: Clock
) -> None:
    opened = CLOSE
    jumped = {name: walk()["close"][-1] * 7 for name in ("open", "high", "low", "close")}
    bar = pl.DataFrame({"ts": [opened], **jumped, "volume": 1.0}, schema=BAR_SCHEMA)
    clock.now = CLOSE + timedelta(hours=1)
    store.bars.add(engine, ETH, bar, clock.now)
    expected = {
        "kind": "abstention",
        "market": ASK,
        "as_of": "2024-07-01T01:00:00Z",
        "version": champion,
        "reason": "gap",
        "detail": "the price jumped by +600% into the bar of 2024-07-01T00:00:00Z",
    }
    assert client.post("/v1/predict", json=ASK).json() == expected
    at = {**ASK, "at": "2024-07-01T01:30:00Z", "version": champion}
    clock.now += timedelta(hours=2)
    assert client.post("/v1/predict", json=at).json() == {**expected, "in_sample": False}
    (kept, *_) = ledger(client)["items"]
    assert (kept["reason"], kept["outcome"]) == ("gap", None)
