"""Barprop as its users run it: in processes, over HTTP, and killed."""

import json
import os
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from service.cli import parent


@contextmanager
def started(*arguments: str, env: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A command in a process group of its own, killed with all that it started when the block is left."""
    process = subprocess.Popen(
        [*parent.BARPROP, *arguments],
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        kill_group(process)
        process.communicate()


def kill_group(process: subprocess.Popen[str]) -> None:
    """kill -9 for the command and everything that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def first_document(process: subprocess.Popen[str]) -> dict[str, Any]:
    """What a lasting command prints with --json once it is ready."""
    assert process.stdout is not None
    text = ""
    for line in process.stdout:
        text += line
        if line == "}\n":
            return dict(json.loads(text))
    raise AssertionError(
        f"it ended before it was ready: {text}{process.stderr.read() if process.stderr else ''}"
    )


def http(method: str, url: str, body: object = None, key: str | None = None) -> tuple[int, Any]:
    """Status and document of a request; an error status is an answer too."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
    request = urllib.request.Request(url, data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def children(pid: int) -> list[int]:
    """The processes that a process started; the test skips where /proc is absent."""
    if not Path("/proc").is_dir():
        pytest.skip("needs /proc")
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # gone since the folder was listed
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def descendants(pid: int) -> list[int]:
    """The processes that a process started, those that they started, and so on."""
    own = children(pid)
    return own + [further for child in own for further in descendants(child)]


def at_work(pid: int) -> list[int]:
    """The processes among its descendants that run a job."""
    return [found for found in descendants(pid) if "multiprocessing.spawn" in _command(found)]


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:  # gone since it was found
        return ""


def alive(pid: int) -> bool:
    """Whether a process still runs."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
