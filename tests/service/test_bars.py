"""Pushing bars in, and reading them back."""

from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from fastapi.testclient import TestClient

from model.bars import iso
from service.app import create_app
from store.database import Engine
from store.settings import Settings
from tests.service.conftest import BARS, CLOSE, HERE, Clock, bar, problem, walk

LIVE = {"symbol": "LIVE", "timeframe": "1h"}
OPEN = CLOSE - timedelta(hours=1)  # of the newest bar that has closed


def push(client: TestClient, *bars: dict[str, Any], **market: str) -> Any:
    return client.post("/v1/bars", json={**LIVE, **market, "bars": list(bars)})


def stored(client: TestClient, **query: Any) -> dict[str, Any]:
    response = client.get("/v1/bars", params={**LIVE, **query})
    assert response.status_code == 200, response.text
    return response.json()  # type: ignore[no-any-return]


def test_a_first_push_makes_the_market_and_reports_what_it_kept(client: TestClient) -> None:
    response = push(client, bar(OPEN), bar(OPEN - timedelta(hours=3)))
    assert response.status_code == 200
    assert response.json() == {
        "market": LIVE,
        "added": 2,
        "repeated": 0,
        "corrected": 0,
        "rejected": [],
        "gaps": 1,
        "first": "2024-06-30T20:00:00Z",
        "last": "2024-06-30T23:00:00Z",
    }
    assert [item["market"] for item in client.get("/v1/markets").json()["items"]] == [LIVE]


def test_pushing_twice_is_pushing_once(client: TestClient) -> None:
    push(client, bar(OPEN))
    again = push(client, bar(OPEN)).json()
    assert (again["added"], again["repeated"]) == (0, 1)
    assert len(stored(client)["items"]) == 1


def test_a_bar_that_comes_otherwise_is_a_correction_and_serves(client: TestClient) -> None:
    push(client, bar(OPEN, 3000.0))
    assert push(client, bar(OPEN, 3001.0)).json()["corrected"] == 1
    assert [item["close"] for item in stored(client)["items"]] == [3001.0]


def test_two_spellings_of_a_timeframe_are_one_market(client: TestClient) -> None:
    push(client, bar(OPEN))
    assert push(client, bar(OPEN), timeframe="60m").json()["market"] == LIVE


def test_a_time_without_a_zone_is_utc(client: TestClient) -> None:
    naive = {**bar(OPEN), "ts": "2024-06-30T23:00:00"}
    east = {**bar(OPEN), "ts": "2024-07-01T08:00:00+09:00"}
    assert push(client, naive).json()["added"] == 1
    assert push(client, east).json()["repeated"] == 1


BAD = {
    "unclosed": bar(CLOSE),
    "future": bar(CLOSE + timedelta(days=9)),
    "high_low_contradiction": {**bar(OPEN), "high": 90.0},
    "not_positive": {**bar(OPEN), "low": -1.0},
}


@pytest.mark.parametrize("reason", BAD)
def test_a_call_without_one_acceptable_bar_is_refused_and_says_why(client: TestClient, reason: str) -> None:
    document = problem(push(client, BAD[reason]))
    assert document["type"] == "/problems/bad-bars"
    assert document["status"] == 422
    assert reason in str(document["detail"])
    assert client.get("/v1/markets").json()["items"] == []


def test_bad_bars_beside_good_ones_are_rejected_and_counted(client: TestClient) -> None:
    good = bar(OPEN - timedelta(hours=1))
    rejected = push(client, good, *BAD.values()).json()["rejected"]
    assert {row["reason"]: row["rows"] for row in rejected} == dict.fromkeys(BAD, 1)
    assert {row["reason"]: row["first"] for row in rejected}["unclosed"] == "2024-07-01T00:00:00Z"
    assert len(stored(client)["items"]) == 1


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", '"NaN"', "null", '"much"', "[]"])
def test_what_is_no_number_is_refused(client: TestClient, number: str) -> None:
    text = f'{{"symbol": "LIVE", "timeframe": "1h", "bars": [{{"ts": "{OPEN.isoformat()}", "open": {number},'
    text += ' "high": 3000, "low": 3000, "close": 3000, "volume": 1}]}'
    response = client.post("/v1/bars", content=text, headers={"content-type": "application/json"})
    document = problem(response)
    assert document["type"] == "/problems/invalid-request"
    assert document["errors"][0]["field"] == "bars.0.open"  # type: ignore[index]


@pytest.mark.parametrize(
    "body",
    [
        {**LIVE, "bars": []},
        LIVE,
        {**LIVE, "bars": [{**bar(OPEN), "colour": "green"}]},
        {**LIVE, "bars": [{k: v for k, v in bar(OPEN).items() if k != "volume"}]},
        {**LIVE, "bars": [bar(OPEN)], "source": "me"},
        {**LIVE, "bars": [{**bar(OPEN), "ts": "0001-01-01T00:00:00+14:00"}]},
        {**LIVE, "bars": [{**bar(OPEN), "ts": 1e300}]},
        {**LIVE, "symbol": "BTC/USDT", "bars": [bar(OPEN)]},
        {**LIVE, "timeframe": "7x", "bars": [bar(OPEN)]},
    ],
)
def test_a_push_that_does_not_fit_is_a_problem(client: TestClient, body: Any) -> None:
    assert problem(client.post("/v1/bars", json=body))["status"] == 422


def test_many_errors_are_answered_by_few_lines(client: TestClient) -> None:
    document = problem(push(client, *[{"ts": "never"}] * 1000))
    assert len(document["errors"]) <= 21  # type: ignore[arg-type]


def test_more_bars_than_allowed_are_refused(engine: Engine, settings: Settings, clock: Clock) -> None:
    service = settings.service.model_copy(update={"max_bars_per_request": 2})
    app = create_app(engine, settings.model_copy(update={"service": service}), clock)
    with TestClient(app, base_url=HERE) as client:
        document = problem(push(client, *(bar(OPEN - i * timedelta(hours=1)) for i in range(3))))
    assert "at most 2" in str(document["detail"])


def test_the_newest_bars_come_first_and_pages_follow_each_other(client: TestClient, market_id: int) -> None:
    expected = [ts.strftime("%Y-%m-%dT%H:%M:%SZ") for ts in walk()["ts"].reverse()]
    found, pages, cursor = [], 0, None
    while True:
        part = stored(client, symbol="ETHUSDT", limit=275, **({"cursor": cursor} if cursor else {}))
        found += [item["ts"] for item in part["items"]]
        pages += 1
        cursor = part["next"]
        if cursor is None:
            break
    assert found == expected
    assert (len(found), pages) == (BARS, 4)


def test_pages_of_one_give_every_bar_once_though_days_have_23_to_25_hours(
    client: TestClient,
) -> None:
    zone = ZoneInfo("America/New_York")
    days = [datetime(2024, 3, 7, tzinfo=zone) + timedelta(days=at) for at in range(7)]
    days += [datetime(2023, 11, 2, tzinfo=zone) + timedelta(days=at) for at in range(7)]
    expected = [iso(day) for day in sorted(days, reverse=True)]
    push(client, *(bar(day) for day in days), timeframe="1d")
    found: list[str] = []
    cursor = None
    while cursor is not None or not found:
        page = stored(client, timeframe="1d", limit=1, **({"cursor": cursor} if cursor else {}))
        found += [item["ts"] for item in page["items"]]
        cursor = page["next"]
    assert found == expected


def test_a_cursor_shows_no_bar_that_has_not_closed(client: TestClient, clock: Clock) -> None:
    push(client, bar(OPEN), bar(OPEN - timedelta(hours=1)))
    clock.now = CLOSE - timedelta(minutes=1)
    assert [item["ts"] for item in stored(client, cursor=iso(CLOSE))["items"]] == [
        iso(OPEN - timedelta(hours=1))
    ]


def test_bars_of_an_unknown_market_are_not_found(client: TestClient) -> None:
    assert problem(client.get("/v1/bars", params=LIVE))["status"] == 404


@pytest.mark.parametrize(
    "query", ["", "symbol=LIVE", "symbol=LIVE&timeframe=1h&limit=0", "symbol=LIVE&timeframe=7x"]
)
def test_a_bad_query_is_a_problem(client: TestClient, query: str) -> None:
    assert problem(client.get(f"/v1/bars?{query}"))["status"] == 422
