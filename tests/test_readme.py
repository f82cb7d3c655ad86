"""The documents say what is so: the README's session is run, and no setting, command, figure or file is made up."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import typer.main
from fastapi.testclient import TestClient

import service.cli
from service.app import create_app
from store.database import Engine
from store.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
CONFIGURATION = (ROOT / "docs/configuration.md").read_text()
COMMANDS = (ROOT / "docs/commands.md").read_text()
OPERATIONS = (ROOT / "docs/operations.md").read_text()
DOCUMENTS = [path.relative_to(ROOT).as_posix() for path in (*ROOT.glob("*.md"), *ROOT.glob("[ds]*/*.md"))]


def steps(text: str) -> list[tuple[str, str]]:
    """The commands of the `console` blocks, each with the output that is shown below it."""
    blocks = re.findall(r"^```console\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [
        tuple(step.partition("\n")[::2])
        for block in blocks
        for step in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]
    ]


def shape(output: str) -> str:
    """Output without what differs between machines and moments: digests, numbers and white space."""
    return re.sub(r"\b[0-9a-f]{12,}\b|[-+]?\d[\d.:TZe-]*", "#", re.sub(r"\s", "", output))


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Every command of the README's session and what it printed, in order, on a fresh database and a free port."""
    shutil.which("curl") or pytest.skip("needs curl")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    home = tmp_path_factory.mktemp("readme")
    env = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "BARPROP_DATABASE__URL": f"sqlite:///{home / 'bars.db'}",
        "BARPROP_SERVICE__PORT": port,
    }
    printed: dict[str, str] = {}
    running: list[subprocess.Popen[str]] = []
    try:
        for command, _ in steps(README):
            line = command.replace("127.0.0.1:8000", f"127.0.0.1:{port}")
            if line.endswith("&"):
                log = (home / "log").open("w")
                running.append(
                    subprocess.Popen(
                        line.rstrip("& ").split(), cwd=ROOT, env=env, stdout=log, stderr=log, text=True
                    )
                )
                answers(f"http://127.0.0.1:{port}/livez")
                printed[command] = ""
            else:
                ran = subprocess.run(
                    ["bash", "-c", line], cwd=ROOT, env=env, capture_output=True, text=True, check=False
                )
                printed[command] = (
                    ran.stdout if ran.returncode == 0 else f"exit {ran.returncode}: {ran.stderr}"
                )
        yield printed
    finally:
        for process in running:
            process.send_signal(signal.SIGTERM)
            process.wait(20)


def answers(url: str) -> None:
    """Waits until the service answers."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            urllib.request.urlopen(url, timeout=2)
            return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
    raise TimeoutError(url)


@pytest.mark.parametrize(("command", "shown"), steps(README))
def test_the_session_prints_what_the_readme_shows(session: dict[str, str], command: str, shown: str) -> None:
    assert shape(session[command]) == shape(shown), session[command]


def test_the_session_ingests_trains_predicts_abstains_and_serves() -> None:
    text = " ".join(command for command, _ in steps(README))
    for part in ("barprop ingest samples/", "barprop train", "barprop predict", "barprop serve &", "curl"):
        assert part in text
    shown = " ".join(shown for _, shown in steps(README))
    assert '"kind": "prediction"' in shown
    assert '"kind": "abstention"' in shown


def rows(text: str) -> dict[str, str]:
    """The tables of a document: the first column's name in backticks, and the second column."""
    return dict(re.findall(r"^\| `([^`]+)` \| (.*?) \|", text, re.MULTILINE))


def test_every_setting_is_documented_with_its_default() -> None:
    documented = {name: default.strip("`") for name, default in rows(CONFIGURATION).items() if "." in name}
    actual = {
        f"{section}.{name}": value
        for section, values in Settings.model_construct().model_dump().items()
        for name, value in values.items()
    }
    assert list(documented) == list(actual)
    for name, value in actual.items():
        if name != "database.url":  # a place in the user's own folders
            expected = {"None": "none", "False": "false"}.get(str(value), str(value))
            assert documented[name] == expected, name


def commands(command: Any, words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """The words of every command."""
    if hasattr(command, "commands"):
        for name, inner in command.commands.items():
            yield from commands(inner, (*words, name))
    else:
        yield words


def test_every_command_is_documented_and_no_other() -> None:
    actual = {" ".join(words) for words in commands(typer.main.get_command(service.cli.app), ("barprop",))}
    assert {name for name in rows(COMMANDS) if name.startswith("barprop")} == actual


def test_every_exit_code_is_documented() -> None:
    codes = {0, service.cli.REFUSED, service.cli.USAGE, service.cli.UNREACHABLE, service.cli.INTERRUPTED}
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", COMMANDS, re.MULTILINE)} == codes


def test_every_figure_is_documented_and_no_other(engine: Engine) -> None:
    app = create_app(engine, Settings(), lambda: datetime.now(UTC))
    with TestClient(app, base_url="http://127.0.0.1") as client:
        client.get("/livez")
        text = client.get("/metrics").text
    actual = {
        name
        for name in re.findall(r"^# HELP (barprop_\w+)", text, re.MULTILINE)
        if not name.endswith("_created")
    }
    assert {name for name in rows(OPERATIONS) if name.startswith("barprop_")} == actual


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_to_files_that_exist(document: str) -> None:
    text = (ROOT / document).read_text()
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        if not target.startswith("http"):
            assert ((ROOT / document).parent / target).exists(), target
