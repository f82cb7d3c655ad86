"""A client that takes its time does not hold a connection for ever, and one that does not is never cut off."""

import socket
import time
from collections.abc import Iterator

import pytest

from store.database import Engine
from tests.processes import first_document, started
from tests.service.cli.conftest import fresh as fresh

ASK = b"GET /livez HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"


@pytest.fixture
def port(fresh: Engine) -> Iterator[int]:
    """A service that waits a second for headers, and two for the next request."""
    env = {"BARPROP_SERVICE__HEADERS_SECONDS": "1", "BARPROP_SERVICE__KEEP_ALIVE_SECONDS": "2"}
    with started("serve", "--port", "0", "--no-worker", "--json", env=env) as process:
        yield int(first_document(process)["url"].rpartition(":")[2])


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), 10)


def is_answered(connection: socket.socket) -> bool:
    answer = b""
    while not answer.endswith(b'{"status":"ok"}'):
        if not (part := connection.recv(65536)):
            return False
        answer += part
    return answer.startswith(b"HTTP/1.1 200 ")


def closes(connection: socket.socket) -> float:
    """The seconds until the other side closes without a word."""
    began = time.monotonic()
    assert connection.recv(65536) == b""
    return time.monotonic() - began


def test_who_says_nothing_or_half_or_a_byte_at_a_time_is_cut_off(port: int) -> None:
    silent, half, drop = connect(port), connect(port), connect(port)
    half.sendall(ASK[:20])
    began = time.monotonic()
    for byte in ASK[:-1]:  # for longer than it is waited for
        try:
            drop.sendall(bytes([byte]))
        except OSError:
            break
        time.sleep(0.1)
    assert 0.8 < time.monotonic() - began < 3.5
    assert closes(silent) < 1
    assert closes(half) < 1


def test_the_next_request_of_a_connection_must_not_take_longer_either(port: int) -> None:
    connection = connect(port)
    connection.sendall(ASK)
    assert is_answered(connection)
    time.sleep(1.3)  # between requests is no time of headers
    connection.sendall(ASK + ASK[:20])
    assert is_answered(connection)
    assert 0.5 < closes(connection) < 2
    idle = connect(port)
    idle.sendall(ASK)
    assert is_answered(idle)
    assert 1.5 < closes(idle) < 4
