"""The demo: all of it on the bars that ship, in a fresh folder; and what it says where it cannot begin."""

import json
import signal
import socket
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

import store.clock
import store.database
import store.predictions
from model.bars import timeframe
from service.cli import demo, opening, sample
from tests.processes import alive, descendants, started
from tests.service.cli.conftest import Barprop
from tests.waiting import until


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The document of `barprop demo --once`."""
    folder = tmp_path_factory.mktemp("demo") / "new"
    with started("demo", "--once", "--folder", str(folder), "--json", env={}) as process:
        out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    return dict(json.loads(out))


def test_once_prepares_and_predicts_once(once: dict[str, Any]) -> None:
    assert once["prediction"]["kind"] == "prediction"
    assert once["prediction"]["as_of"] == once["now"]
    assert once["prediction"]["version"] == once["train"][0]["version"]
    assert once["backtest"]["rows"] > 0
    assert once["skill"] == once["backtest"]["verdict"]["skill"]


def test_a_quarter_of_the_bars_is_still_to_come(once: dict[str, Any]) -> None:
    bars = sample.bars(sample.SYMBOLS[0])
    known = once["ingest"][0]["added"]
    assert known == int(0.75 * len(bars))
    assert datetime.fromisoformat(once["ingest"][0]["last"]) == bars["ts"][known - 1]
    close = timeframe(sample.TIMEFRAME).close_of(bars["ts"][known - 1])
    assert datetime.fromisoformat(once["now"]) == close
    engine = store.database.connect(f"sqlite:///{once['folder']}/demo.db")
    assert store.clock.now(engine) == close
    engine.dispose()


def test_it_says_in_plain_words_that_there_is_no_skill(barprop: Barprop, tmp_path: Path) -> None:
    ran = barprop("demo", "--once", "--folder", tmp_path)
    assert ran.code == 0
    assert "No skill was found" in ran.out
    assert "no evidence of skill" in ran.out
    assert f"preparing in {tmp_path}" in ran.err


def test_a_folder_that_holds_something_is_left_alone(barprop: Barprop, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    ran = barprop("demo", "--once", "--folder", tmp_path)
    assert (ran.code, ran.out) == (1, "")
    assert "not empty" in ran.err
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_json_without_an_end_is_wrong_usage(barprop: Barprop) -> None:
    ran = barprop("demo", "--json")
    assert ran.code == 2
    assert "--once" in ran.err


@pytest.fixture
def taken() -> Iterator[int]:
    """A port at which somebody else listens."""
    with closing(socket.socket()) as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield int(other.getsockname()[1])


def test_a_busy_port_is_said_before_any_work_with_a_free_one(
    barprop: Barprop, tmp_path: Path, taken: int
) -> None:
    ran = barprop("demo", "--port", taken, "--folder", tmp_path / "new")
    assert ran.code == 1
    suggested = int(ran.err.rpartition("--port ")[2])
    assert ran.err.startswith(f"barprop: port {taken} is in use")
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", suggested))
    assert not (tmp_path / "new").exists()


def test_the_replay_is_lived_and_a_ctrl_c_ends_all_of_it(tmp_path: Path) -> None:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = tmp_path / "new"
    engine = store.database.connect(f"sqlite:///{folder}/demo.db")

    def scored() -> int:
        with store.database.read(engine) as conn:
            rows = store.predictions.page(conn, limit=500)
        return len([row for row in rows if row.outcome is not None])

    with started("demo", "--port", str(port), "--speed", "100", "--folder", str(folder), env={}) as process:
        assert process.stdout is not None
        until_told = iter(process.stdout.readline, "")
        assert any(f"open http://127.0.0.1:{port}" in line for line in until_told)
        until(lambda: scored() > 20)
        family = descendants(process.pid)
        assert len(family) >= 2, "the service and its worker"
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        until(lambda: not any(map(alive, family)), 15)
    engine.dispose()


def test_the_preparation_has_a_progress_that_grows_to_its_end(tmp_path: Path) -> None:
    seen: list[float] = []
    with opening.database(database={"url": f"sqlite:///{tmp_path / 'demo.db'}"}) as (settings, engine):
        demo.prepare(engine, settings, seen.append)
    assert len(seen) > 5
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
