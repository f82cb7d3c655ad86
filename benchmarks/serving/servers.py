"""The same network behind servers of models, each in a Python of its own: add one by adding a row to SERVERS.

Each serves the graph that `barprop versions export` writes, by onnxruntime with one thread, in one process without
workers beside it, and is asked for one row of features in the form that it takes.
"""

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import model.onnx
import model.predictor
from benchmarks.serving import cores, data, load
from benchmarks.serving.running import START_SECONDS, STOP_SECONDS, Running

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Server:
    """How a server is made ready in a folder and started on a port, and what it is asked."""

    name: str
    command: Callable[[Path, Path, int], list[str]]  # by its Python, the folder and the port
    prepare: Callable[[Path, int], None]
    ask: Callable[[list[float]], bytes]


def protocol(row: list[float]) -> dict[str, Any]:
    """A row of features as the Open Inference Protocol has it."""
    values = {"name": "features", "shape": [1, len(row)], "datatype": "FP32", "data": row}
    return {"inputs": [values]}


def _mlserver(folder: Path, port: int) -> None:
    shutil.copy(HERE / "on_mlserver.py", folder)
    settings = {
        "host": "127.0.0.1", "http_port": port, "grpc_port": free(), "metrics_endpoint": None,
        "parallel_workers": 0, "debug": False,
    }  # fmt: skip
    (folder / "settings.json").write_text(json.dumps(settings))
    named = {"name": "network", "implementation": "on_mlserver.Network"}
    (folder / "model-settings.json").write_text(json.dumps(named))


def _bentoml(folder: Path, port: int) -> None:
    shutil.copy(HERE / "on_bentoml.py", folder)


SERVERS = {
    "mlserver": Server(
        "MLServer",
        lambda python, folder, port: [str(python.parent / "mlserver"), "start", str(folder)],
        _mlserver,
        lambda row: load.request("/v2/models/network/infer", protocol(row)),
    ),
    "bentoml": Server(
        "BentoML",
        lambda python, folder, port: [
            *(str(python), "-m", "bentoml", "serve", "on_bentoml:Network"),
            *("--host", "127.0.0.1", "--port", str(port), "--working-dir", str(folder)),
        ],
        _bentoml,
        lambda row: load.request("/infer", {"features": [row]}),
    ),
}


def features() -> list[float]:
    """A row of as many features as the network has."""
    predictor = model.predictor.from_artifact(data.network())
    return [0.25] * len(predictor.features.columns)


def free() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def running(
    server: Server, python: Path, folder: Path, env: Mapping[str, str], core: int | None
) -> Iterator[Running]:
    """The server, once it answers; it is stopped when the block is left. Raises RuntimeError where it does not."""
    folder.mkdir()
    predictor = model.predictor.from_artifact(data.network())
    (folder / "model.onnx").write_bytes(model.onnx.exported(predictor, {}))
    port = free()
    server.prepare(folder, port)
    said = folder / "said.txt"
    with said.open("w") as log, cores.on(core):
        process = subprocess.Popen(
            server.command(python, folder, port), cwd=folder, env=env, stdin=subprocess.DEVNULL,
            stdout=log, stderr=log,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _answers(port, server.ask(features())):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{server.name} does not answer: {said.read_text()[-2_000:]}")
            time.sleep(0.2)
        yield Running(process.pid, port)
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(port: int, asked: bytes) -> bool:
    try:
        connection = load.Connection(port, [asked])
        connection.ask()
        while not connection.whole():
            pass
    except (OSError, ValueError):  # not there yet, or not ready
        return False
    connection.socket.close()
    return True
