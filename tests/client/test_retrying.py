"""What the client does with refusals, silence and strangers: asks again where that helps, and says what it got."""

import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from barprop_client import (
    Abstention,
    Bar,
    Market,
    Prediction,
    Problem,
    Refused,
    Retries,
    UnexpectedAnswer,
    Unreachable,
)
from barprop_client.retrying import retry_after

from service.predictions import ABSTENTION, PREDICTION
from tests.client import clients
from tests.client.protocol import NOTHING, Reply, Scripted

ETH = ("ETHUSDT", "1h")
BAR = Bar(datetime(2024, 7, 1, tzinfo=UTC), 1.0, 2.0, 0.5, 1.5, 10.0)
INGESTED = {
    "market": PREDICTION["market"],
    "added": 1,
    "repeated": 0,
    "corrected": 0,
    "rejected": [],
    "gaps": 0,
    "first": "2024-07-01T00:00:00Z",
    "last": "2024-07-01T00:00:00Z",
}
AWAY = {"type": "/problems/unreachable", "title": "away", "status": 503, "detail": "the database is away"}
PAGE = b"<html>502 Bad Gateway</html>"


def refusal(status: int, retry_after: str | None = None) -> Reply:
    headers = {} if retry_after is None else {"retry-after": retry_after}
    return Reply({**AWAY, "status": status}, status, {**headers, "x-request-id": "abc"})


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_what_may_pass_is_asked_again(reader: Any, scripted: Scripted, status: int) -> None:
    scripted.replies = [refusal(status), NOTHING, refusal(status), Reply(PREDICTION)]
    assert isinstance(reader.predict(*ETH), Prediction)
    assert len(scripted.asked) == 4


def test_not_sooner_than_the_service_asks(reader: Any, scripted: Scripted) -> None:
    scripted.replies = [refusal(503, "1"), Reply(PREDICTION)]
    began = time.monotonic()
    reader.predict(*ETH)
    assert time.monotonic() - began >= 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 422, 500])
def test_what_stays_so_is_asked_once(reader: Any, scripted: Scripted, status: int) -> None:
    scripted.replies = [refusal(status)]
    with pytest.raises(Problem) as caught:
        reader.predict(*ETH)
    assert (caught.value.status, caught.value.type, caught.value.request_id) == (status, AWAY["type"], "abc")
    assert len(scripted.asked) == 1


def test_a_change_keeps_its_key_through_all_attempts_and_the_next_one_gets_another(
    reader: Any, scripted: Scripted
) -> None:
    scripted.replies = [NOTHING, refusal(409, "0"), refusal(503), Reply(INGESTED)]
    reader.push_bars(*ETH, [BAR])
    reader.push_bars(*ETH, [BAR])
    keys = [asked.headers["idempotency-key"] for asked in scripted.asked]
    assert len(keys) == 5
    assert len(set(keys[:4])) == 1
    assert keys[4] != keys[0]


def test_a_change_carries_a_key_and_a_question_none(reader: Any, scripted: Scripted) -> None:
    job = {"id": 1, "kind": "k", "market": None, "state": "queued", "progress": 0, "error": None}
    scripted.replies = [Reply(job)]
    reader.retrain(*ETH), reader.backtest(*ETH), reader.tune(*ETH, trials=3)
    reader.backfill(*ETH, since=BAR.ts)
    assert all("idempotency-key" in asked.headers for asked in scripted.asked)
    assert [asked.path for asked in scripted.asked] == [
        "/v1/retrains",
        "/v1/backtests",
        "/v1/tunes",
        "/v1/backfills",
    ]
    assert scripted.asked[3].body == {
        "symbol": "ETHUSDT",
        "timeframe": "1h",
        "since": "2024-07-01T00:00:00+00:00",
    }
    scripted.replies = [Reply(PREDICTION)]
    reader.predict(*ETH)
    assert "idempotency-key" not in scripted.asked[-1].headers


def test_the_deadline_ends_it_with_the_last_problem(kind: str, scripted: Scripted) -> None:
    scripted.replies = [refusal(503)]
    client = clients.made(kind, scripted.url, retries=Retries(0.5, 0.05, 0.1))
    began = time.monotonic()
    with pytest.raises(Problem, match="the database is away"):
        client.predict(*ETH)
    assert time.monotonic() - began < 2
    assert len(scripted.asked) > 3
    client.close()


def test_a_wait_beyond_the_deadline_is_not_begun(reader: Any, scripted: Scripted) -> None:
    scripted.replies = [refusal(429, "3600")]
    began = time.monotonic()
    with pytest.raises(Problem, match="429"):
        reader.predict(*ETH)
    assert time.monotonic() - began < 1


def test_where_nobody_listens_the_address_is_named(kind: str) -> None:
    client = clients.made(kind, "http://127.0.0.1:9", retries=Retries(0.3, 0.05, 0.1))
    with pytest.raises(Unreachable, match=r"http://127\.0\.0\.1:9 does not answer: .+"):
        client.predict(*ETH)
    client.close()


def test_a_service_that_hangs_is_left_at_the_deadline(kind: str, scripted: Scripted) -> None:
    scripted.replies = [Reply(headers={"content-length": "10"}, chunks=[], lasts=True)]
    client = clients.made(kind, scripted.url, timeout_seconds=60, retries=Retries(0.5))
    began = time.monotonic()
    with pytest.raises(Unreachable, match=r"ReadTimeout|timed out"):
        client.predict(*ETH)
    assert time.monotonic() - began < 5
    client.close()


def test_keys_that_a_newer_service_adds_are_left_out(reader: Any, scripted: Scripted) -> None:
    scripted.replies = [
        Reply({**PREDICTION, "moon": "full", "position": 0.4, "pays_up_to_bps": 7.5, "degraded": True})
    ]
    signal = reader.predict(*ETH)
    assert (signal.position, signal.pays_up_to_bps, signal.degraded) == (0.4, 7.5, True)
    assert not hasattr(signal, "moon")


@pytest.mark.parametrize(
    "document", [PAGE, {**PREDICTION, "kind": "oracle"}, {}, [], None, {**PREDICTION, "as_of": "soon"}]
)
def test_an_answer_that_is_none_of_the_services_says_so(
    reader: Any, scripted: Scripted, document: Any
) -> None:
    scripted.replies = [Reply(document)]
    with pytest.raises(UnexpectedAnswer, match="POST /v1/predict was answered by 200"):
        reader.predict(*ETH)


def test_a_proxys_page_is_a_problem_of_that_status(reader: Any, scripted: Scripted) -> None:
    scripted.replies = [Reply(PAGE, 500)]
    with pytest.raises(Problem) as caught:
        reader.predict(*ETH)
    assert (caught.value.type, caught.value.title) == ("about:blank", "Internal Server Error")


def test_bars_go_along_with_the_question(reader: Any, scripted: Scripted) -> None:
    scripted.replies = [Reply(PREDICTION)]
    reader.predict(*ETH, bars=[BAR])
    assert scripted.asked[0].body == {
        "symbol": "ETHUSDT",
        "timeframe": "1h",
        "bars": [
            {
                "ts": "2024-07-01T00:00:00+00:00",
                "open": 1.0,
                "high": 2.0,
                "low": 0.5,
                "close": 1.5,
                "volume": 10.0,
            }
        ],
    }


def test_a_batch_gives_a_signal_or_a_problem_for_each_market(reader: Any, scripted: Scripted) -> None:
    unknown = {"symbol": "NOSUCH", "timeframe": "1h"}
    problem = {"type": "/problems/not-found", "title": "No such thing", "status": 404, "detail": "no NOSUCH"}
    scripted.replies = [Reply({"items": [PREDICTION, {"market": unknown, "problem": problem}, ABSTENTION]})]
    first, second, third = reader.predict_batch([Market(*ETH), ("NOSUCH", "1h"), ETH])
    assert scripted.asked[0].path == "/v1/predict/batch"
    assert scripted.asked[0].body["markets"][1] == unknown
    assert isinstance(first, Prediction)
    assert isinstance(second, Refused)
    assert (second.market, second.problem.status) == (Market("NOSUCH", "1h"), 404)
    assert isinstance(third, Abstention)


def test_a_signal_that_still_holds_is_not_sent_again(reader: Any, scripted: Scripted) -> None:
    newer = {**PREDICTION, "p_up": 0.4}
    scripted.replies = [
        Reply(PREDICTION, headers={"etag": '"1"'}),
        Reply(status=304, headers={"etag": '"1"'}),
        Reply(newer, headers={"etag": '"2"'}),
        Reply(status=304),
    ]
    signals = [reader.signal(*ETH) for _ in range(4)]
    assert [signal.p_up for signal in signals] == [0.552, 0.552, 0.4, 0.4]
    assert [asked.headers.get("if-none-match") for asked in scripted.asked] == [None, '"1"', '"1"', '"2"']
    assert scripted.asked[0].path == "/v1/signals/ETHUSDT/1h"


def test_a_symbol_cannot_leave_its_place_in_the_address(reader: Any, scripted: Scripted) -> None:
    scripted.replies = [Reply(PREDICTION)]
    reader.signal("../jobs?x", "1h")
    assert scripted.asked[0].path == "/v1/signals/..%2Fjobs%3Fx/1h"


def test_the_ledger_is_walked_by_cursor(reader: Any, scripted: Scripted) -> None:
    rows = [
        {**PREDICTION, "id": ident, "served_at": "2024-07-01T00:00:01Z", "outcome": None}
        for ident in (3, 2, 1)
    ]
    outcome = {"up": True, "return": 0.01, "log_loss": 0.6, "scored_at": "2024-07-01T01:00:01Z"}
    rows[2]["outcome"] = outcome
    scripted.replies = [Reply({"items": rows[:2], "next": 2}), Reply({"items": rows[2:], "next": None})]
    entries = list(reader.predictions(*ETH))
    assert [entry.id for entry in entries] == [3, 2, 1]
    assert entries[2].outcome.log_return == 0.01
    assert "cursor=2" in scripted.asked[1].path


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [
        ("7", 7, 7),
        ("", 0, 0),
        ("soon", 0, 0),
        ("-3", 0, 0),
        (timedelta(hours=1), 3500, 3600),
        (timedelta(hours=-1), 0, 0),
    ],
)
def test_retry_after_is_a_number_of_seconds_or_a_date(
    text: str | timedelta, least: float, most: float
) -> None:
    if isinstance(text, timedelta):
        text = format_datetime(datetime.now(UTC) + text, usegmt=True)
    assert least <= retry_after({"retry-after": text}) <= most


def test_waits_double_up_to_the_longest_and_differ_between_bots() -> None:
    retries = Retries(60, 0.2, 5.0)
    for attempt, longest in ((1, 0.2), (2, 0.4), (4, 1.6), (6, 5.0), (5000, 5.0)):
        waits = {retries.wait(attempt, 0.0) for _ in range(50)}
        assert longest / 2 <= min(waits) < max(waits) <= longest
    assert retries.wait(1, 30.0) == 30.0
