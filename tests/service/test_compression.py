"""gzip where an answer gains by it, and nothing at all where not."""

import asyncio
import gzip

import pytest
from fastapi.testclient import TestClient
from starlette.types import Message, Receive, Scope, Send

from service.compression import LEAST_BYTES, Compression

LONG = b'{"market": "ETHUSDT 1h"}, ' * 1_000


def answered(
    body: bytes,
    accepted: bytes | None = b"gzip",
    media_type: bytes = b"application/json",
    says_length: bool = True,
) -> tuple[dict[bytes, bytes], list[bytes]]:
    """The headers and parts of an answer as they leave the layer."""
    sent: list[Message] = []
    headers = [(b"content-type", media_type)]
    if says_length:
        headers.append((b"content-length", str(len(body)).encode()))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if says_length:
            await send({"type": "http.response.body", "body": body})
        else:
            await send({"type": "http.response.body", "body": body, "more_body": True})
            await send({"type": "http.response.body", "body": b""})

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        sent.append(message)

    asked = [] if accepted is None else [(b"accept-encoding", accepted)]
    asyncio.run(Compression(app)({"type": "http", "headers": asked}, receive, send))
    return dict(sent[0]["headers"]), [message["body"] for message in sent[1:]]


def test_a_long_answer_is_compressed_for_who_takes_it() -> None:
    headers, parts = answered(LONG)
    assert headers[b"content-encoding"] == b"gzip"
    assert headers[b"vary"] == b"Accept-Encoding"
    assert int(headers[b"content-length"]) == len(parts[0]) < len(LONG) / 10
    assert gzip.decompress(parts[0]) == LONG


@pytest.mark.parametrize("accepted", [None, b"", b"br", b"gzip;q=0", b"gzip; q=0.000, br", b"x-gzipped"])
def test_for_others_it_stays_as_it_is_and_says_that_it_could_differ(accepted: bytes | None) -> None:
    headers, parts = answered(LONG, accepted)
    assert b"content-encoding" not in headers
    assert headers[b"vary"] == b"Accept-Encoding"
    assert parts == [LONG]


@pytest.mark.parametrize("accepted", [b"br, gzip", b"deflate, gzip;q=0.5", b"GZIP"])
def test_it_is_found_among_others(accepted: bytes) -> None:
    assert answered(LONG, accepted)[0][b"content-encoding"] == b"gzip"


def test_a_short_answer_is_let_alone() -> None:
    headers, parts = answered(short := LONG[: LEAST_BYTES - 1])
    assert set(headers) == {b"content-type", b"content-length"}
    assert parts == [short]
    assert b"content-encoding" in answered(LONG[:LEAST_BYTES])[0]


def test_an_answer_that_comes_in_parts_is_compressed_part_by_part() -> None:
    headers, parts = answered(LONG, says_length=False)
    assert headers[b"content-encoding"] == b"gzip"
    assert b"content-length" not in headers
    assert gzip.decompress(b"".join(parts)) == LONG


def test_a_stream_of_events_passes_at_once_and_as_it_is() -> None:
    headers, parts = answered(
        b"data: 1\n\n", media_type=b"text/event-stream; charset=utf-8", says_length=False
    )
    assert set(headers) == {b"content-type"}
    assert parts == [b"data: 1\n\n", b""]


def test_the_service_compresses(client: TestClient) -> None:
    response = client.get("/openapi.json", headers={"accept-encoding": "gzip"})
    assert response.headers["content-encoding"] == "gzip"
    assert response.headers["x-request-id"]
    assert response.json()["info"]["title"] == "Barprop"
    assert "content-encoding" not in client.get("/livez").headers
