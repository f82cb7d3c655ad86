"""The stream of Signals: whatever breaks in between, every Signal comes once and in order."""

import itertools
import time
from typing import Any

import pytest
from barprop_client import Prediction, Problem, Retries, UnexpectedAnswer, Unreachable
from barprop_client.events import Event, Events
from hypothesis import given
from hypothesis import strategies as st

from service.predictions import ABSTENTION, PREDICTION
from tests.client import clients
from tests.client.protocol import NOTHING, Reply, Scripted, event

HEARTBEAT = b": heartbeat\n\n"
OPEN = b": open\nretry: 10\nid: 6\n\n"
REFUSED = Reply({"type": "/problems/unreachable", "detail": "away"}, 503)


def taken(reader: Any, count: int, **how: Any) -> list[Any]:
    stream = reader.signals("ETHUSDT", "1h", **how)
    found = list(itertools.islice(stream, count))
    stream.close()
    return found


def test_signals_come_through_heartbeats_broken_connections_and_refusals(
    reader: Any, scripted: Scripted
) -> None:
    whole = event(9, PREDICTION)
    scripted.replies = [
        Reply(chunks=[OPEN, HEARTBEAT, event(7, PREDICTION), event(8, ABSTENTION)]),
        NOTHING,
        REFUSED,
        Reply(chunks=[HEARTBEAT, whole[:-20]]),  # broken in the midst of an event, which is sent again
        Reply(chunks=[HEARTBEAT, whole[:30], whole[30:], event(10, PREDICTION)], lasts=True),
    ]
    entries = taken(reader, 4)
    assert [entry.id for entry in entries] == [7, 8, 9, 10]
    assert isinstance(entries[0].signal, Prediction)
    assert [asked.headers.get("last-event-id") for asked in scripted.asked] == [None, "8", "8", "8", "8"]
    assert scripted.asked[0].path == "/v1/signals?symbol=ETHUSDT&timeframe=1h"


def test_a_reader_who_heard_nothing_yet_still_goes_on_from_where_the_stream_began(
    reader: Any, scripted: Scripted
) -> None:
    scripted.replies = [Reply(chunks=[OPEN, HEARTBEAT]), Reply(chunks=[event(7, PREDICTION)], lasts=True)]
    assert [entry.id for entry in taken(reader, 1)] == [7]
    assert scripted.asked[1].headers["last-event-id"] == "6"


def test_a_reader_may_begin_after_an_entry(reader: Any, scripted: Scripted) -> None:
    scripted.replies = [Reply(chunks=[event(7, PREDICTION)], lasts=True)]
    taken(reader, 1, after=6)
    assert scripted.asked[0].headers["last-event-id"] == "6"


def test_events_of_another_kind_are_passed_over(reader: Any, scripted: Scripted) -> None:
    other = b"event: weather\nid: 8\ndata: rain\n\n"
    scripted.replies = [Reply(chunks=[other, event(9, PREDICTION)], lasts=True)]
    assert [entry.id for entry in taken(reader, 1)] == [9]


def test_a_refusal_ends_the_stream(reader: Any, scripted: Scripted) -> None:
    scripted.replies = [
        Reply(chunks=[event(7, PREDICTION)]),
        Reply({"type": "/problems/not-authenticated", "detail": "the key is revoked"}, 401),
    ]
    with pytest.raises(Problem, match="the key is revoked"):
        taken(reader, 2)


def test_before_it_was_ever_open_the_deadline_holds(kind: str, scripted: Scripted) -> None:
    for replies, error in (([NOTHING], Unreachable), ([REFUSED], Problem)):
        scripted.replies = replies
        client = clients.made(kind, scripted.url, retries=Retries(0.3, 0.05, 0.1))
        with pytest.raises(error):
            taken(client, 1)
        client.close()


def test_once_it_was_open_it_waits_longer_than_the_deadline(kind: str, scripted: Scripted) -> None:
    client = clients.made(kind, scripted.url, retries=Retries(0.2, 0.05, 0.1))
    scripted.replies = [
        Reply(chunks=[event(7, PREDICTION)]),
        *[REFUSED, NOTHING] * 6,
        Reply(chunks=[event(8, PREDICTION)], lasts=True),
    ]
    began = time.monotonic()
    assert [entry.id for entry in taken(client, 2)] == [7, 8]
    assert time.monotonic() - began > 0.2
    client.close()


@pytest.mark.parametrize(
    "reply",
    [
        Reply(PREDICTION),
        Reply(chunks=[b"event: signal\ndata: {}\n\n"]),
        Reply(chunks=[b"event: signal\ndata: }\n\n"]),
    ],
)
def test_what_is_no_stream_of_signals_says_so(reader: Any, scripted: Scripted, reply: Reply) -> None:
    scripted.replies = [reply]
    with pytest.raises(UnexpectedAnswer):
        taken(reader, 1)


@given(st.lists(st.integers(0, 60), max_size=8), st.sampled_from(["\n", "\r\n", "\r"]))
def test_events_are_the_same_however_the_bytes_are_cut(cuts: list[int], end: str) -> None:
    text = ": hi||id: 5||data: a|data:  b|event: x||event: y||data|id||data: ü\u2028c|retry: 1500||: end||"
    whole = text.replace("|", end).encode()
    events = Events()
    places = [0, *sorted(cuts), len(whole)]
    found = [each for a, b in itertools.pairwise(places) for each in events.feed(whole[a:b])]
    found += events.feed(b": after\n")
    assert found == [Event("x", "a\n b"), Event("message", ""), Event("message", "ü\u2028c")]
    assert events.retry_seconds == 1.5
