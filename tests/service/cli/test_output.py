"""What a person sees: tables, bars and colours on a terminal, plain lines anywhere else."""

import os
import pty
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from service.cli import output, parent
from store.database import Engine
from tests.service.cli.conftest import Barprop, hourly_file

BOXES = "\u2500\u2501"  # lines of tables and progress bars


def on_a_terminal(stream: str, *arguments: str, env: Mapping[str, str]) -> str:
    """What a command writes to stdout or stderr where that is a terminal."""
    ours, theirs = pty.openpty()
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, stream: theirs}
    terminal = {"TERM": "xterm-256color", "COLUMNS": "120"}
    process = subprocess.Popen(
        [*parent.BARPROP, *arguments], env={**os.environ, **terminal, **env}, **streams
    )  # type: ignore[call-overload]
    os.close(theirs)
    seen = b""
    try:
        while chunk := os.read(ours, 65_536):
            seen += chunk
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    assert process.wait(60) == 0
    return seen.decode()


def test_a_terminal_gets_a_table(filled: Engine) -> None:
    assert BOXES[0] in on_a_terminal("stdout", "markets", "list", env={})


def test_a_terminal_gets_json_as_plain_as_anybody(filled: Engine) -> None:
    assert "\x1b" not in on_a_terminal("stdout", "markets", "list", "--json", env={})


def test_work_draws_its_progress_on_a_terminal_s_stderr(
    fresh: Engine, barprop: Barprop, tmp_path: Path
) -> None:
    barprop("ingest", hourly_file(tmp_path, "LIVE"), "LIVE", "1h")
    seen = on_a_terminal("stderr", "train", "LIVE", "1h", env={})
    assert BOXES[1] in seen
    assert "retrain LIVE 1h" in seen


def test_no_color_is_heeded(filled: Engine) -> None:
    seen = on_a_terminal("stderr", "train", "LIVE", "1h", env={"NO_COLOR": "1"})
    assert "\x1b[38" not in seen


def test_names_are_not_read_as_markup(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(["name"], [["[bold]x[/bold]"]])
    assert "[bold]x[/bold]" in capsys.readouterr().out


def test_plain_columns_are_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(["a", "long name"], [["wide cell", None], [1, True]])
    assert capsys.readouterr().out.splitlines() == ["a          long name", "wide cell  -", "1          yes"]


def test_an_empty_table_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(["a"], [], empty="none yet")
    assert capsys.readouterr().out == "none yet\n"
