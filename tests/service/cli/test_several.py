"""Several processes at one address, and that neither one nor several drop a request when they are told to stop."""

import http.client
import json
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from subprocess import Popen
from urllib.parse import urlsplit

import pytest

from store.database import Engine
from tests.processes import alive, at_work, children, first_document, started
from tests.processes import http as ask
from tests.waiting import until

BODY = json.dumps({"symbol": "NONE", "timeframe": "1h"}).encode()
HEAD = (
    b"POST /v1/predict HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
    b"content-length: %d\r\n\r\n" % len(BODY)
)
ONE_AND_SEVERAL = pytest.mark.parametrize("workers", [1, 3])


@contextmanager
def serving(workers: int, *more: str) -> Iterator[tuple[Popen[str], str]]:
    """A service of so many processes, and its address."""
    with started("serve", "--port", "0", "--workers", str(workers), "--json", *more, env={}) as process:
        yield process, first_document(process)["url"]


def place(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    assert parts.hostname
    assert parts.port
    return parts.hostname, parts.port


def is_refused(url: str) -> bool:
    try:
        socket.create_connection(place(url), 5).close()
    except ConnectionRefusedError:
        return True
    return False


def counted(url: str) -> float:
    """How many questions for markets were answered, by whichever process is asked."""
    with closing(http.client.HTTPConnection(*place(url), timeout=30)) as connection:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    counts = re.findall(
        r'^barprop_http_requests_total\{method="GET",route="/v1/markets".*\} (\S+)$', text, re.M
    )
    return sum(float(count) for count in counts)


def test_they_count_as_one_and_figures_of_the_database_are_not_added_up(fresh: Engine) -> None:
    with serving(3) as (process, url):
        for _ in range(60):
            assert ask("GET", f"{url}/v1/markets")[0] == 200
        assert {counted(url) for _ in range(12)} == {60}
        with closing(http.client.HTTPConnection(*place(url))) as connection:
            connection.request("GET", "/metrics")
            assert "barprop_database_reachable 1.0\n" in connection.getresponse().read().decode()
        one = at_work(process.pid)[0]
        os.kill(one, signal.SIGKILL)
        until(lambda: not alive(one))
        assert counted(url) == 60  # what a dead one counted stays counted


def test_the_jobs_have_one_worker_and_one_that_dies_is_replaced(fresh: Engine) -> None:
    with serving(2) as (process, url):
        assert len(at_work(process.pid)) == 2
        until(lambda: ask("GET", f"{url}/readyz")[1]["checks"]["schedule"] == "ok")
        before = set(at_work(process.pid))
        os.kill(min(before), signal.SIGKILL)
        until(lambda: len(now := set(at_work(process.pid))) == 2 and now != before)
        assert max(before) in at_work(process.pid)
        until(lambda: ask("GET", f"{url}/livez")[0] == 200)
        process.terminate()
        _, err = process.communicate(timeout=15)
        assert process.returncode == 0
        assert "another is started" in err


def test_one_that_is_told_to_stop_alone_ends_well_and_is_replaced(fresh: Engine) -> None:
    with serving(2, "--no-worker") as (process, url):
        one = at_work(process.pid)[0]
        os.kill(one, signal.SIGTERM)
        until(lambda: not alive(one))
        until(lambda: len(at_work(process.pid)) == 2)
        assert ask("GET", f"{url}/livez")[0] == 200


def test_none_outlives_the_one_that_started_them(fresh: Engine) -> None:
    with serving(2) as (process, url):
        everybody = children(process.pid)
        assert len(everybody) >= 3
        os.kill(process.pid, signal.SIGKILL)
        until(lambda: not any(alive(pid) for pid in everybody), 15)
        assert is_refused(url)


def test_it_ends_with_its_parent(fresh: Engine) -> None:
    arguments = ("serve", "--port", "0", "--workers", "2", "--no-worker", "--parent-pipe")
    with started(*arguments, env={}) as process:  # whose end is closed already
        assert process.wait(30) == 0


@dataclass
class Half:
    """A request whose body has come by half."""

    socket: socket.socket

    def finish(self) -> bytes:
        """Its answer, up to the end of the connection."""
        self.socket.sendall(BODY[10:])
        answer = b""
        while part := self.socket.recv(65536):
            answer += part
        return answer


def half(url: str) -> Half:
    made = socket.create_connection(place(url), 30)
    made.sendall(HEAD + BODY[:10])
    return Half(made)


@ONE_AND_SEVERAL
def test_requests_under_way_are_answered_and_nobody_else_is_let_in(fresh: Engine, workers: int) -> None:
    with serving(workers) as (process, url):
        under_way = [half(url) for _ in range(12)]
        process.terminate()
        until(lambda: is_refused(url), 4)
        for request in under_way:
            answer = request.finish()
            assert answer.startswith(b"HTTP/1.1 404 ")
            assert b"\r\nconnection: close\r\n" in answer
            assert b"no market NONE 1h" in answer
        assert process.wait(15) == 0


@ONE_AND_SEVERAL
def test_a_request_that_does_not_end_is_not_waited_for_for_ever(fresh: Engine, workers: int) -> None:
    with serving(workers) as (process, url):
        held = half(url)
        process.terminate()
        assert process.wait(15) == 0
        held.socket.close()


@dataclass
class Told:
    """What came of the requests of one client."""

    answered: int = 0
    dropped: list[str] = field(default_factory=list)


def goes_on(url: str, told: Told) -> None:
    """Asks on one connection until an answer says that it closes."""
    with closing(http.client.HTTPConnection(*place(url), timeout=20)) as connection:
        while True:
            try:
                connection.request("GET", "/v1/markets")
                answer = connection.getresponse()
                answer.read()
            except OSError as error:
                told.dropped.append(repr(error))
                return
            told.answered += answer.status == 200
            if answer.will_close:
                return


def comes_anew(url: str, told: Told) -> None:
    """Asks on a new connection each time, until none is accepted."""
    while True:
        try:
            made = socket.create_connection(place(url), 20)
        except ConnectionRefusedError:
            return
        try:
            made.sendall(b"GET /v1/markets HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n")
            answer = made.recv(65536)
            told.answered += answer.startswith(b"HTTP/1.1 200 ")
            if not answer:
                told.dropped.append("closed without an answer")
        except OSError as error:
            told.dropped.append(repr(error))
        finally:
            made.close()


@ONE_AND_SEVERAL
def test_under_load_no_accepted_request_is_dropped(fresh: Engine, workers: int) -> None:
    with serving(workers) as (process, url):
        tolds = [Told() for _ in range(12)]
        clients = [
            threading.Thread(target=(goes_on if number % 2 else comes_anew), args=(url, told))
            for number, told in enumerate(tolds)
        ]
        for client in clients:
            client.start()
        time.sleep(1)
        process.terminate()
        for client in clients:
            client.join(20)
        assert process.wait(15) == 0
    assert [told.dropped for told in tolds] == [[]] * len(tolds)
    assert all(told.answered for told in tolds)
