"""The short way and the usual one: whatever is sent, both give the same status, the same bytes and the same rows."""

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import store.bars
import store.database
import store.markets
import store.settings
from model.artifact import Packed
from service import at_hand
from service.app import create_app
from tests.service.conftest import CLOSE, ETH, HERE, Clock, add_version, bar, walk

NAMED = {"symbol": "ETHUSDT", "timeframe": "1h"}
OPEN = CLOSE  # of the bar that closes an hour later, when the clock of these tests is past it
Made = Callable[[], TestClient]


@pytest.fixture
def make(tmp_path: Path, packed: Packed) -> Iterator[Made]:
    """Makes services over databases of their own with the same in them."""
    clients: list[TestClient] = []

    def made() -> TestClient:
        engine = store.database.connect(f"sqlite:///{tmp_path / f'{len(clients)}.db'}")
        store.database.upgrade(engine)
        store.bars.add(engine, ETH, walk(), CLOSE)
        with store.database.read(engine) as conn:
            market_id = store.markets.need(conn, ETH).id
        add_version(engine, market_id, packed, "champion")
        limits = {"max_bars_per_request": 40, "journal": str(tmp_path / f"journal{len(clients)}")}
        settings = store.settings.load(database={"url": str(engine.url)}, service=limits)
        clock = Clock(CLOSE + timedelta(hours=1, minutes=20))
        client = TestClient(create_app(engine, settings, clock), base_url=HERE, raise_server_exceptions=False)
        clients.append(client.__enter__())
        return clients[-1]

    yield made
    for client in clients:
        client.__exit__(None, None, None)


@pytest.fixture
def both(make: Made) -> tuple[TestClient, TestClient]:
    """Two services with the same in their databases."""
    return make(), make()


def sent(
    client: TestClient, path: str, body: bytes, usual: bool, kind: str | None = "application/json"
) -> tuple[int, str, Any]:
    """What is answered: status, kind, and content without the request's own id."""
    with pytest.MonkeyPatch.context() as patch:
        if usual:
            for decoder in ("_ONE", "_OF_BARS", "_PUSHED", "_MANY"):
                patch.setattr(at_hand, decoder, Refuses())
        response = client.post(path, content=body, headers={"content-type": kind} if kind else {})
    content: Any = response.content
    if response.status_code != 200:
        content = {name: value for name, value in response.json().items() if name != "request_id"}
    return response.status_code, response.headers["content-type"], content


class Refuses:
    """A decoder to which nothing is plain."""

    def decode(self, _body: bytes) -> Any:
        """Raises."""
        raise at_hand.msgspec.MsgspecError


def later(hours: int = 0, **other: Any) -> dict[str, Any]:
    """A bar that follows those that are stored."""
    return bar(OPEN + timedelta(hours=hours)) | other


ODD_BARS = [
    [],
    None,
    "bars",
    [later()],
    [later(0, volume="1.5")],
    [later(0, volume=None)],
    [later(0, volume=True)],
    [later(0, volume=2)],
    [later(0, close=1e308), later(-1)],
    [later(0, colour="green")],
    [{name: value for name, value in later().items() if name != "low"}],
    [later(-1), later(0)],
    [later(0), later(-1), later(0)],
    [later(-1), later(-1, volume=3.0)],
    [later(1)],
    [later(900)],
    [later(0, high=1.0)],
    [later(0, low=-1.0), later(-1)],
    [later(0, ts="2024-07-01T00:00:00")],
    [later(0, ts="2024-07-01T09:00:00+09:00")],
    [later(0, ts="2024-07-01 00:00:00Z")],
    [later(0, ts="2024-07-01T00:00Z")],
    [later(0, ts="2024-07-01")],
    [later(0, ts=1719792000)],
    [later(0, ts="0001-01-01T00:00:00+14:00")],
    [later(0, ts="9999-12-31T23:59:59-14:00")],
    [later(0, ts="2024-07-01T00:00:00.1234567Z")],
    [later(0, ts="2024-06-30T23:59:59.9999996Z")],
    [later(0, ts="2024-07-01T00:00:00.0000004Z")],
    [later(0, ts="2024-07-01T00:20:00Z")],
    [later(-i) for i in range(40)],
    [later(-i) for i in range(41)],
    [[]],
    {},
]
ODD_MARKETS = [
    {},
    {"symbol": "ETHUSDT"},
    {**NAMED, "timeframe": "60m"},
    {**NAMED, "timeframe": "7x"},
    {**NAMED, "timeframe": ""},
    {**NAMED, "symbol": "BTC/USDT"},
    {**NAMED, "symbol": "B" * 33},
    {**NAMED, "symbol": "B" * 65},
    {**NAMED, "symbol": ""},
    {**NAMED, "symbol": 7},
    {**NAMED, "symbol": "NEW"},
    {**NAMED, "source": "me"},
    NAMED,
]
RAW = [
    b"",
    b"[]",
    b"null",
    b'{"symbol":"ETHUSDT","timeframe":"1h","bars":[{"ts":"2024-07-01T00:00:00Z","open":NaN}]}',
    b'{"symbol":"ETHUSDT","symbol":"LIVE","timeframe":"1h","bars":[]}',
    b"\xff\xfe",
    b'{"symbol":"\xff","timeframe":"1h"}',
    b'{"symbol":"\xff","timeframe":"1h","bars":[]}',
    b'{"markets":[{"symbol":"\xff","timeframe":"1h"}]}',
    b'{"symbol":"ETHUSDT","timeframe":"1h","bars":',
]
BODIES = [
    *(json.dumps({**NAMED, "bars": bars}).encode() for bars in ODD_BARS),
    *(json.dumps({**market, "bars": [later()]}).encode() for market in ODD_MARKETS),
    *(json.dumps(market).encode() for market in ODD_MARKETS),
    *(json.dumps({"markets": markets}).encode() for markets in ([], [NAMED], [NAMED, {}], [NAMED] * 3, ODD_MARKETS)),
    *(json.dumps({**NAMED, "bars": [later()], **more}).encode() for more in ({"at": None}, {"version": 1}, {"version": 99}, {"version": 0}, {"at": "2024-07-01T01:00:00Z"}, {"at": "2024-07-01T01:00:00"}, {"at": "2024-07-01T01:00:00.1234567Z"}, {"at": "2024-07-01T00:59:59.9999999Z"}, {"at": "2031-01-01T00:00:00Z"}, {"at": "soon"})),
    *RAW,
]  # fmt: skip


@pytest.mark.parametrize("path", ["/v1/bars", "/v1/predict", "/v1/predict/batch"])
def test_both_ways_answer_alike(path: str, both: tuple[TestClient, TestClient]) -> None:
    short, usual = both
    assert sent(short, "/v1/predict", json.dumps(NAMED).encode(), False)[0] == 200  # so that it is at hand
    assert sent(usual, "/v1/predict", json.dumps(NAMED).encode(), True)[0] == 200
    for body in BODIES:
        assert sent(short, path, body, False) == sent(usual, path, body, True), body[:300]
    assert kept(short) == kept(usual)


@pytest.mark.parametrize("path", ["/v1/bars", "/v1/predict", "/v1/predict/batch"])
def test_both_ways_take_the_same_kinds_of_content(path: str, both: tuple[TestClient, TestClient]) -> None:
    short, usual = both
    sent(short, "/v1/predict", json.dumps(NAMED).encode(), False)
    sent(usual, "/v1/predict", json.dumps(NAMED).encode(), True)
    for body in ({**NAMED, "bars": [later()]}, NAMED, {"markets": [NAMED]}):
        for kind in (
            "application/json; charset=utf-8",
            "application/problem+json",
            "text/plain",
            "nonsense",
            None,
        ):
            told = [
                sent(each, path, json.dumps(body).encode(), way, kind)
                for each, way in zip(both, (False, True), strict=True)
            ]
            assert told[0] == told[1], (kind, body)


values = st.one_of(
    st.integers(-2, 2**70),
    st.floats(allow_nan=False),
    st.none(),
    st.booleans(),
    st.text(max_size=5),
    st.just([]),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changed=st.dictionaries(
        st.sampled_from(["ts", "open", "high", "low", "close", "volume", "x"]), values, max_size=2
    ),
    named=st.dictionaries(
        st.sampled_from(["symbol", "timeframe", "at", "version", "bars"]), values, max_size=1
    ),
    path=st.sampled_from(["/v1/bars", "/v1/predict"]),
)
def test_both_ways_answer_alike_to_whatever_is_no_bar(
    both: tuple[TestClient, TestClient], changed: dict[str, Any], named: dict[str, Any], path: str
) -> None:
    short, usual = both
    body = json.dumps({**NAMED, "bars": [{**later(), **changed}], **named}).encode()
    assert sent(short, path, body, False) == sent(usual, path, body, True), body


def kept(client: TestClient) -> list[Any]:
    """The newest bars of all markets that there are."""
    markets = [item["market"] for item in client.get("/v1/markets").json()["items"]]
    return [(market, client.get("/v1/bars", params=market).json()) for market in markets]
