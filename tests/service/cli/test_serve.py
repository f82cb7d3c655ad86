"""`barprop serve`: where it may listen, what it says when it may not, and that it says where it is."""

import contextlib
import errno
import http.client as http_client
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import NoReturn
from urllib.parse import parse_qs, urlsplit

import pytest

import store.database
from model.errors import BadInput
from service.cli import parent, serve
from store.database import Engine
from store.settings import Settings
from tests import postgres as real_postgres
from tests.processes import children, first_document, http, started
from tests.service.cli.conftest import Barprop


@pytest.fixture
def taken() -> Iterator[int]:
    """A port at which somebody else listens."""
    with closing(socket.socket()) as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield int(other.getsockname()[1])


def test_a_busy_port_is_named_with_what_to_do(fresh: Engine, barprop: Barprop, taken: int) -> None:
    ran = barprop("serve", "--port", taken)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == f"barprop: port {taken} is in use: choose another one with --port\n"


@pytest.mark.parametrize("host", ["203.0.113.1", "no-such-host.invalid"])
def test_an_address_of_somebody_else_is_refused(host: str) -> None:
    with pytest.raises(BadInput, match="--host"):
        serve.bind(host, 0)


def test_a_port_that_is_free_again_can_be_had_at_once() -> None:
    with closing(serve.bind("127.0.0.1", 0)) as first:
        port = int(first.getsockname()[1])
    with closing(serve.bind("127.0.0.1", port)) as second:
        assert serve.address(second) == f"http://127.0.0.1:{port}"


def test_nobody_listens_beyond_this_machine_without_a_key(fresh: Engine, barprop: Barprop) -> None:
    ran = barprop("serve", "--host", "0.0.0.0", "--port", "0")
    assert (ran.code, ran.out) == (1, "")
    assert "barprop keys create" in ran.err


def test_with_a_key_it_listens_beyond_and_asks_for_it(fresh: Engine, barprop: Barprop) -> None:
    secret = json.loads(barprop("keys", "create", "me", "--json").out)["key"]
    with started("serve", "--host", "0.0.0.0", "--port", "0", "--no-worker", "--json", env={}) as process:
        url = first_document(process)["url"].replace("0.0.0.0", "127.0.0.1")
        assert http("GET", f"{url}/v1/markets")[0] == 401
        assert http("GET", f"{url}/v1/markets", key=secret) == (200, {"items": [], "next": None})


def test_a_fresh_sqlite_is_made_ready(fresh: Engine) -> None:
    with started("serve", "--port", "0", "--no-worker", "--json", env={}) as process:
        url = first_document(process)["url"]
        assert http("GET", f"{url}/readyz")[0] == 200
    assert store.database.at_head(fresh)


def test_a_fresh_postgresql_is_refused_with_the_command(
    barprop: Barprop, monkeypatch: pytest.MonkeyPatch, postgres: str
) -> None:
    monkeypatch.setenv("BARPROP_DATABASE__URL", postgres)
    ran = barprop("serve", "--port", "0")
    assert (ran.code, ran.out) == (3, "")
    assert "barprop db upgrade" in ran.err
    assert barprop("db", "upgrade").code == 0
    with started("serve", "--port", "0", "--json", env={}) as process:
        assert http("GET", f"{first_document(process)['url']}/readyz")[0] == 200
        process.terminate()
        assert process.wait(15) == 0


def test_a_folder_that_cannot_be_made_is_named(
    barprop: Barprop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("BARPROP_DATABASE__URL", f"sqlite:///{tmp_path / 'file' / 'bars.db'}")
    ran = barprop("serve", "--port", "0")
    assert (ran.code, ran.out, ran.err.count("\n")) == (3, "", 1)
    assert str(tmp_path / "file") in ran.err


def test_the_loop_and_the_parser_are_the_fast_ones(fresh: Engine) -> None:
    if sys.platform == "win32":
        pytest.skip("uvloop does not run on Windows")
    with started("serve", "--port", "0", "--no-worker", "--json", env={}) as process:
        first_document(process)
        maps = Path(f"/proc/{process.pid}/maps")
        if not maps.exists():
            pytest.skip("needs /proc")
        loaded = maps.read_text()
    assert "uvloop" in loaded
    assert "httptools" in loaded


def test_it_ends_with_the_one_that_started_it(fresh: Engine) -> None:
    with started("serve", "--port", "0", "--parent-pipe", env={}) as process:  # whose end is closed already
        assert process.wait(30) == 0


def test_a_worker_that_cannot_be_started_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stopping = threading.Event()
    tries: list[Sequence[str]] = []

    def start(arguments: Sequence[str], environment: Mapping[str, str]) -> NoReturn:
        tries.append(arguments)
        if len(tries) == 3:
            stopping.set()
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(parent, "start", start)
    monkeypatch.setattr(serve, "RESTART_SECONDS", 0.001)
    with serve.beside(Settings(), stopping):
        assert stopping.wait(10)
    assert tries == [["worker"]] * 3
    assert "Resource temporarily unavailable" in caplog.text


def test_it_ends_while_the_database_neither_answers_nor_goes_away() -> None:
    """As when its disk hangs: its processes are there, and say nothing."""
    with real_postgres.of_its_own() as (url, _, _):
        engine = store.database.connect(url)
        store.database.upgrade(engine)
        engine.dispose()
        folder = Path(parse_qs(urlsplit(url).query)["host"][0])
        postmaster = int((folder / "postmaster.pid").read_text().split()[0])
        with started(
            "serve", "--port", "0", "--no-worker", "--json", env={"BARPROP_DATABASE__URL": url}
        ) as process:
            address = first_document(process)["url"]
            frozen = [postmaster, *children(postmaster)]
            asking = threading.Thread(target=ask_until_it_ends, args=(f"{address}/v1/markets",))
            try:
                for pid in frozen:
                    os.kill(pid, signal.SIGSTOP)
                asking.start()
                time.sleep(0.5)
                process.terminate()
                began = time.monotonic()
                process.wait(40)
                assert time.monotonic() - began < 20
            finally:
                for pid in frozen:
                    os.kill(pid, signal.SIGCONT)
            asking.join()


def ask_until_it_ends(url: str) -> None:
    with contextlib.suppress(OSError, ValueError, http_client.HTTPException):
        http("GET", url)
