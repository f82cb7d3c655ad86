"""The documents say what is so: the README's session is run, and no setting, command, figure or file is made up."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
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
from tests.processes import first_document, started

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


FRACTION = re.compile(r"([-+]?\d+\.\d+(?:e[-+]?\d+)?)")


def told(output: str) -> list[Any]:
    """What output says: its words, whole numbers, dates and versions as they are, its fractions as numbers.

    White space does not count, and neither do digests of weights, whose last bits differ between kinds of CPU.
    """
    text = re.sub(r'"[0-9a-f]{12,}"', "#", re.sub(r"\s", "", output))
    return [float(part) if FRACTION.fullmatch(part) else part for part in FRACTION.split(text)]


def same(actual: list[Any], shown: list[Any]) -> bool:
    """Whether two outputs say the same, their fractions but for the little that kinds of CPU differ in."""
    return len(actual) == len(shown) and all(
        one == pytest.approx(other, rel=1e-3, abs=1e-6) if isinstance(other, float) else one == other
        for one, other in zip(actual, shown, strict=True)
    )


def curl_or_skip() -> None:
    """Skips where curl is missing or older than 7.82, which brought --json."""
    curl = shutil.which("curl") or pytest.skip("needs curl")
    known = subprocess.run([curl, "--help", "all"], capture_output=True, text=True, check=False).stdout
    if "--json" not in known:
        pytest.skip("needs curl 7.82 or newer, for --json")


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Every command of the README's session and what it printed, in order, on a fresh database and a free port."""
    curl_or_skip()
    home = tmp_path_factory.mktemp("readme")
    env = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "BARPROP_DATABASE__URL": f"sqlite:///{home / 'bars.db'}",
    }
    address = "http://127.0.0.1:8000"
    printed: dict[str, str] = {}
    with ExitStack() as running:
        for command, _ in steps(README):
            line = command.replace("http://127.0.0.1:8000", address)
            if line.endswith("&"):
                words = line.removeprefix("barprop").rstrip("& ").split()
                process = running.enter_context(started(*words, "--port", "0", "--json", env=env))
                address = first_document(process)["url"]
                printed[command] = ""
            else:
                ran = subprocess.run(
                    ["bash", "-c", line], cwd=ROOT, env=env, capture_output=True, text=True, check=False
                )
                printed[command] = (
                    ran.stdout if ran.returncode == 0 else f"exit {ran.returncode}: {ran.stderr}"
                )
        yield printed


@pytest.mark.parametrize(("command", "shown"), steps(README))
def test_the_session_prints_what_the_readme_shows(session: dict[str, str], command: str, shown: str) -> None:
    assert same(told(session[command]), told(shown)), session[command]


@pytest.mark.parametrize(
    ("shown", "altered"),
    [
        ("5031 bars", "5032 bars"),
        ("from 1999-01-04T00:00:00Z", "from 1999-01-05T00:00:00Z"),
        ('{"version": 1}', '{"version": 2}'),
        ("up 51.8 %", "up 51.9 %"),
        ('{"price": 2507.928532736762}', '{"price": 2511.928532736762}'),
    ],
)
def test_a_figure_that_is_not_so_is_noticed(shown: str, altered: str) -> None:
    assert same(told(shown), told(shown.replace(" ", "\n")))
    assert not same(told(altered), told(shown))


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
        if name not in ("database.url", "service.journal"):  # places in the user's own folders
            expected = {"None": "none", "False": "false"}.get(str(value), str(value))
            assert documented[name] == expected, name


def commands(command: Any, words: str) -> Iterator[tuple[str, Any]]:
    """Every command by its words."""
    if hasattr(command, "commands"):
        for name, inner in command.commands.items():
            yield from commands(inner, f"{words} {name}")
    else:
        yield words, command


EVERY_COMMAND = dict(commands(typer.main.get_command(service.cli.app), "barprop"))


def test_every_command_is_documented_and_no_other() -> None:
    table, _, _ = COMMANDS.partition("\n## Options")
    assert {name for name in rows(table) if name.startswith("barprop")} == set(EVERY_COMMAND)


def test_every_option_is_documented_as_its_help_has_it_and_no_other() -> None:
    documented = re.findall(r"^\| `(barprop [^`]+)` \| `(--[^`]+)` \| (.+) \|$", COMMANDS, re.MULTILINE)
    options = [
        (words, "/".join([*each.opts, *each.secondary_opts]), each.help)
        for words, command in EVERY_COMMAND.items()
        for each in command.params
        if each.param_type_name == "option" and not each.hidden
    ]
    assert documented == [option for option in options if option[1] != "--json"]
    assert {words for words, name, _ in options if name == "--json"} == set(EVERY_COMMAND)


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
