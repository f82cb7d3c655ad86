"""Both clients, each against the real service behind a real socket, or against a server that follows a script."""

import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from barprop_client import Retries
from fastapi import FastAPI

from tests.client import clients, protocol
from tests.client.protocol import Scripted
from tests.service.conftest import app, champion, clock, market_id, packed, settings

__all__ = ["app", "champion", "clock", "market_id", "packed", "settings"]

CLIENT = Path(__file__).resolve().parents[2] / "client"
SOON = Retries(deadline_seconds=5, first_wait_seconds=0.01, longest_wait_seconds=0.05)


@pytest.fixture
def address(app: FastAPI) -> Iterator[str]:
    """The service behind a real socket."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_config=None))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        thread.join()


@pytest.fixture(params=clients.KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Each of the two clients."""
    return str(request.param)


@pytest.fixture
def client(kind: str, address: str) -> Iterator[Any]:
    """A client of the real service."""
    made = clients.made(kind, address, retries=SOON)
    yield made
    made.close()


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    """A server that follows a script."""
    with protocol.server() as made:
        yield made


@pytest.fixture
def reader(kind: str, scripted: Scripted) -> Iterator[Any]:
    """A client of the server that follows a script."""
    made = clients.made(kind, scripted.url, retries=SOON)
    yield made
    made.close()


@pytest.fixture(scope="session")
def client_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The client's wheel, built from a copy so that the checkout stays clean."""
    source, out = tmp_path_factory.mktemp("source") / "client", tmp_path_factory.mktemp("wheel")
    shutil.copytree(CLIENT, source, ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg-info"))
    offline = ("--no-deps", "--no-build-isolation", "--no-index")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", *offline, "--wheel-dir", out, source]
    subprocess.run(build, check=True)
    return next(out.glob("barprop_client-*.whl"))
