"""The service and what stands beside it: started on a core, and stopped."""

import json
import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.serving import cores
from service.cli import parent

START_SECONDS, STOP_SECONDS = 60.0, 15.0
SERVE = (*parent.BARPROP, "serve", "--no-worker", "--port", "0", "--json")
BARE = (sys.executable, "-m", "benchmarks.serving.bare")
LEAST_NICE = 19


@dataclass(frozen=True)
class Running:
    """A process that answers."""

    pid: int
    port: int


def environment(url: str, folder: Path, **service: object) -> dict[str, str]:
    """That of a process of ours: one thread, that database, these settings of the service, and no others of the user."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("BARPROP_")}
    settings = folder / "settings.toml"
    settings.touch()
    asked = {f"BARPROP_SERVICE__{name.upper()}": str(value) for name, value in service.items()}
    return own | cores.ONE_THREAD | {"BARPROP_DATABASE__URL": url, "BARPROP_CONFIG": str(settings)} | asked


@contextmanager
def answering(command: Sequence[str], env: Mapping[str, str], core: int | None) -> Iterator[Running]:
    """A command that answers at the address which it tells; it is stopped when the block is left."""
    with cores.on(core):
        process = subprocess.Popen(
            command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
        )
    try:
        yield Running(process.pid, _port(process))
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _port(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    text = ""
    for line in process.stdout:
        text += line
        if line.rstrip().endswith("}"):
            return int(json.loads(text)["url"].rpartition(":")[2])
    raise RuntimeError("the process ended before it answered")


def ready(port: int) -> None:
    """Waits until the service says that it can answer. Raises RuntimeError where that takes too long."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5):
                return
        except OSError:  # an answer of 503 too
            time.sleep(0.01)
    raise RuntimeError("the service is not ready")


@contextmanager
def training(symbol: str, timeframe: str, env: Mapping[str, str], core: int | None) -> Iterator[None]:
    """One training of a market after the other on that core, giving way to whatever else runs there."""
    stop = threading.Event()
    failed: list[int] = []

    def train() -> None:
        while not stop.is_set() and not failed:
            with cores.on(core):
                process = subprocess.Popen(
                    [*parent.BARPROP, "train", symbol, timeframe], env=env,
                    stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                )  # fmt: skip
            if hasattr(os, "setpriority"):
                os.setpriority(os.PRIO_PROCESS, process.pid, LEAST_NICE)
            while process.poll() is None and not stop.wait(0.1):
                pass
            if process.poll() is None:
                process.kill()
            elif process.returncode:
                failed.append(process.returncode)
            process.wait()

    thread = threading.Thread(target=train)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    if failed:
        raise RuntimeError(f"the training beside ended with {failed[0]}")
