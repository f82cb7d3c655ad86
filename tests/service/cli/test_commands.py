"""What holds of every command: its help teaches, its JSON is one document, its errors are one line and a right exit code."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

import service.cli
from service.cli import parent
from store.database import Engine
from tests.service.cli.conftest import Barprop, hourly_file


def commands(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of every command."""
    if hasattr(command, "commands"):
        for name, inner in command.commands.items():
            yield from commands(inner, (*words, name))
    else:
        yield words


EVERY = list(commands(typer.main.get_command(service.cli.app)))
# One call of each command that ends by itself, on the filled database.
CALLS: dict[tuple[str, ...], list[str]] = {
    ("ingest",): ["FILE", "LIVE", "1h"],
    ("train",): ["LIVE", "1h"],
    ("predict",): ["LIVE", "1h"],
    ("replay",): ["LIVE", "1h"],
    ("backtest",): ["LIVE", "1h", "--window", "600", "--last", "200"],
    ("tune",): ["LIVE", "1h", "--trials", "2"],
    ("doctor",): ["LIVE", "1h"],
    ("features", "list"): [],
    ("features", "show"): ["rsi_14"],
    ("features", "check"): ["LIVE", "1h", "--cuts", "2"],
    ("markets", "list"): [],
    ("markets", "skill"): [],
    ("markets", "breaks"): ["LIVE", "1h"],
    ("markets", "pause"): ["FEW", "1h"],
    ("markets", "resume"): ["FEW", "1h"],
    ("versions", "list"): [],
    ("versions", "show"): ["1"],
    ("versions", "promote"): ["2"],
    ("versions", "rollback"): ["LIVE", "1h"],
    ("versions", "export"): ["1", "--output", "OUTPUT"],
    ("schedules", "list"): [],
    ("schedules", "set"): ["retrain", "--param", "min_new_bars=50"],
    ("keys", "create"): ["my-bot"],
    ("keys", "list"): [],
    ("keys", "rotate"): ["2"],
    ("keys", "revoke"): ["1"],
    ("audit",): [],
    ("db", "upgrade"): [],
    ("config", "show"): [],
}


def arguments_of(words: tuple[str, ...], folder: Path) -> list[str]:
    """The call's arguments, its file made and its output in a folder of its own."""
    made = {"FILE": lambda: hourly_file(folder, "LIVE"), "OUTPUT": lambda: folder / "model.onnx"}
    return [str(made[word]()) if word in made else word for word in CALLS[words]]


LASTING = {("serve",), ("worker",), ("demo",)}  # test_serve, test_worker and test_demo have them
OF_A_MARKET = [words for words, arguments in CALLS.items() if "1h" in arguments and words != ("ingest",)]


def test_every_command_is_called_here_or_lasts() -> None:
    assert set(EVERY) == set(CALLS) | LASTING


@pytest.mark.parametrize("words", EVERY, ids=" ".join)
def test_help_shows_an_example_and_json(barprop: Barprop, words: tuple[str, ...]) -> None:
    ran = barprop(*words, "--help")
    assert ran.code == 0
    assert re.search(rf"^\s+(\S+=\S+ )?barprop {' '.join(words)}\b", ran.out, re.MULTILINE), ran.out
    assert "--json" in ran.out


@pytest.mark.parametrize("words", CALLS, ids=" ".join)
def test_json_is_one_document_on_stdout(
    barprop: Barprop, filled: Engine, tmp_path: Path, words: tuple[str, ...]
) -> None:
    ran = barprop(*words, *arguments_of(words, tmp_path), "--json")
    assert ran.code == 0, ran.err
    assert isinstance(json.loads(ran.out), dict)
    assert ran.err == ""


@pytest.mark.parametrize("words", CALLS, ids=" ".join)
def test_without_json_it_speaks_in_plain_lines(
    barprop: Barprop, filled: Engine, tmp_path: Path, words: tuple[str, ...]
) -> None:
    ran = barprop(*words, *arguments_of(words, tmp_path))
    assert ran.code == 0, ran.err
    assert ran.out.strip()
    assert not re.search(r"[\x1b\u2500-\u257f]", ran.out + ran.err), "colours or boxes without a terminal"


@pytest.mark.parametrize("words", EVERY, ids=" ".join)
def test_wrong_usage_is_one_line_and_exit_code_2(barprop: Barprop, words: tuple[str, ...]) -> None:
    ran = barprop(*words, "--no-such-option")
    assert (ran.code, ran.out) == (2, "")
    assert one_line(ran.err)
    assert f"barprop {' '.join(words)} --help" in ran.err


@pytest.mark.parametrize("words", OF_A_MARKET, ids=" ".join)
def test_an_unknown_market_is_named_with_what_to_do(
    barprop: Barprop, filled: Engine, words: tuple[str, ...]
) -> None:
    ran = barprop(*words, "NOSUCH", "1h")
    assert (ran.code, ran.out) == (1, "")
    assert one_line(ran.err)
    assert "NOSUCH 1h" in ran.err
    assert "barprop ingest" in ran.err


@pytest.mark.parametrize("words", OF_A_MARKET, ids=" ".join)
@pytest.mark.parametrize(("symbol", "timeframe"), [("BTC/USDT", "1h"), ("BTCUSDT", "7x")])
def test_a_market_that_cannot_be_is_wrong_usage(
    barprop: Barprop, words: tuple[str, ...], symbol: str, timeframe: str
) -> None:
    ran = barprop(*words, symbol, timeframe)
    assert (ran.code, ran.out) == (2, "")
    assert one_line(ran.err)


NEED_DATABASE = [
    w for w in CALLS if w not in {("features", "list"), ("features", "show"), ("config", "show"), ("ingest",)}
]


@pytest.mark.parametrize("words", NEED_DATABASE, ids=" ".join)
def test_a_database_that_does_not_answer_is_exit_code_3(
    barprop: Barprop, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.setenv("BARPROP_DATABASE__URL", "postgresql://somebody:secret@127.0.0.1:9/none")
    ran = barprop(*words, *CALLS[words])
    assert (ran.code, ran.out) == (3, "")
    assert one_line(ran.err)
    assert "secret" not in ran.err


@pytest.mark.parametrize("name", ["BARPROP_SERVICE__PORT", "BARPROP_JOBS__PROCESSES"])
def test_a_setting_that_does_not_fit_is_wrong_usage(
    barprop: Barprop, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "many")
    ran = barprop("config", "show")
    assert ran.code == 2
    assert one_line(ran.err)
    assert name in ran.err


def one_line(err: str) -> bool:
    """Whether it is one plain line."""
    return err.startswith("barprop: ") and err.count("\n") == 1 and "Traceback" not in err


def test_no_command_at_all_is_the_help(barprop: Barprop) -> None:
    assert barprop() == barprop("--help")
    assert barprop().code == 0


def test_the_version_is_the_distribution_s(barprop: Barprop) -> None:
    from importlib.metadata import version

    assert barprop("--version").out == f"barprop {version('barprop')}\n"


def test_a_fault_of_the_program_is_one_line_too(barprop: Barprop, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise ZeroDivisionError("two\nlines")

    monkeypatch.setattr("service.cli.opening.settings", broken)
    ran = barprop("config", "show")
    assert ran.code == 1
    assert one_line(ran.err)
    assert "ZeroDivisionError: two lines" in ran.err


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys, service.cli; service.cli.run(['--help']); "
        "print(sorted({'numpy', 'polars', 'sqlalchemy', 'fastapi', 'pydantic', 'rich'} & set(sys.modules)), file=sys.stderr)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stderr.strip() == "[]"


def test_a_reader_that_has_seen_enough_is_no_fault() -> None:
    line = f"{' '.join(parent.BARPROP)} features list --json | head -c 1"
    ran = subprocess.run(["bash", "-o", "pipefail", "-c", line], capture_output=True, text=True, check=False)
    assert (ran.stdout, ran.stderr) == ("{", "")


def test_a_folder_of_the_same_name_is_not_taken_for_ours(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "__init__.py").write_text("raise SystemExit('the wrong model')\n")
    ran = subprocess.run(
        [*parent.BARPROP, "--help"], cwd=tmp_path, env=os.environ, capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stderr) == (0, "")
