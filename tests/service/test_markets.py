"""The list of markets."""

from fastapi.testclient import TestClient


def test_without_markets_the_list_is_empty(client: TestClient) -> None:
    assert client.get("/v1/markets").json() == {"items": [], "next": None}


def test_a_market_tells_its_bars_and_who_answers(client: TestClient, market_id: int) -> None:
    expected = {
        "market": {"symbol": "ETHUSDT", "timeframe": "1h"},
        "paused": False,
        "created_at": "2024-07-01T00:00:00Z",
        "bars": 1100,
        "last_close": "2024-07-01T00:00:00Z",
        "champion": None,
    }
    assert client.get("/v1/markets").json() == {"items": [expected], "next": None}


def test_a_champion_is_named(client: TestClient, champion: int) -> None:
    assert client.get("/v1/markets").json()["items"][0]["champion"] == champion
