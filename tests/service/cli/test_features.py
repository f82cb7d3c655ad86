"""`barprop features`: what there is, and the proof, which names what it caught."""

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

import store.database
import store.jobs
import store.markets
from jobs import executors
from model.bars import Market
from model.features import FEATURES, user
from service.cli import app
from store import settings
from store.database import Engine
from tests.service.cli.conftest import Barprop, hourly_file

runner = CliRunner()


def test_a_clean_table_passes_on_the_shipped_bars() -> None:
    done = runner.invoke(app, ["features", "check", "--cuts", "3", "--json"])
    assert done.exit_code == 0
    said = json.loads(done.stdout)
    assert said["features"] == len(FEATURES)
    assert said["look_ahead"] == said["unmet_needs"] == []


# --- a user's own

HONEST = """
import polars as pl
from model.features import feature

C = pl.col("close")


@feature(needs=20)
def stretch_20() -> pl.Expr:
    \"\"\"Distance of the close from its mean of 20 bars, in percent.\"\"\"
    return (100 * (C / C.rolling_mean(20) - 1)).clip(-8, 8)
"""
CHEAT = """

@feature(needs=3)
def tomorrow() -> pl.Expr:
    \"\"\"The next bar.\"\"\"
    return (C.shift(-1) / C - 1).fill_null(0.0).clip(-1, 1)
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file that the settings name."""
    file = tmp_path / "mine.py"
    file.write_text(HONEST)
    monkeypatch.setenv("BARPROP_FEATURES__FILE", str(file))
    yield file
    user.register(())


def test_a_users_feature_is_listed_shown_and_checked(barprop: Barprop, mine: Path) -> None:
    (item,) = [i for i in json.loads(barprop("features", "list", "--json").out)["items"] if i["own"]]
    assert (item["name"], item["needs"], item["default"]) == ("stretch_20", 20, False)
    shown = json.loads(barprop("features", "show", "stretch_20", "--json").out)
    assert shown["trained_on"] is False
    assert "rolling_mean" in shown["expression"]
    checked = barprop("features", "check", "--cuts", "2", "--json")
    assert checked.code == 0
    assert json.loads(checked.out)["features"] == len(user._BUILT_IN) + 1
    assert barprop("features", "show", "stretch_21").code == 1


@pytest.mark.parametrize(
    "line",
    [
        ["serve", "--port", "0"],
        ["worker"],
        ["train", "LIVE", "1h"],
        ["predict", "LIVE", "1h"],
        ["features", "list"],
    ],
)
def test_nothing_starts_with_a_cheat(barprop: Barprop, fresh: Engine, mine: Path, line: list[str]) -> None:
    mine.write_text(HONEST + CHEAT)
    refused = barprop(*line)
    assert refused.code == 1
    assert refused.err.startswith("barprop: feature 'tomorrow' looks ahead: its value at 2021-")
    assert refused.err.endswith("it looks at their close\n")
    assert refused.err.count("\n") == 1


def test_a_check_names_a_users_cheat(barprop: Barprop, mine: Path) -> None:
    mine.write_text(HONEST + CHEAT)
    found = barprop("features", "check", "--cuts", "3", "--json")
    assert found.code == 1
    (cheat,) = json.loads(found.out)["look_ahead"]
    assert (cheat["feature"], cheat["column"]) == ("tomorrow", "close")
    assert cheat["first_moved"] < cheat["cut"]


def test_a_check_names_a_users_feature_that_states_too_few_bars(barprop: Barprop, mine: Path) -> None:
    mine.write_text(HONEST.replace("needs=20", "needs=3"))
    done = barprop("features", "check", "--cuts", "3", "--json")
    assert done.code == 1
    (found,) = json.loads(done.out)["unmet_needs"]
    assert (found["feature"], found["needs"]) == ("stretch_20", 3)
    assert "feature 'stretch_20' needs more than the 3 bars it states" in barprop("features", "list").err


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("x = 1\ny = 1 / 0\n", "line 2: ZeroDivisionError: division by zero"),
        ("def x(:\n", "line 1: SyntaxError"),
        ("import no_such_module\n", "line 1: ModuleNotFoundError"),
        ("", "brings no feature: write @feature"),
        (
            HONEST.replace("needs=20", "needs=0"),
            "line 8: feature 'stretch_20' needs 0 bars: 1 to 256 are given",
        ),
        (HONEST.replace("stretch_20", "rsi_14"), "feature 'rsi_14' cannot be added: a built-in feature"),
    ],
)
def test_a_file_that_cannot_be_used_is_said_in_one_line(
    barprop: Barprop, mine: Path, text: str, fault: str
) -> None:
    mine.write_text(text)
    refused = barprop("features", "list")
    assert refused.code == 1
    assert fault in refused.err
    assert refused.err.count("\n") == 1
    mine.unlink()
    assert "does not exist" in barprop("features", "list").err
    assert not (mine.parent / "__pycache__").exists()


def test_training_names_only_features_that_are_there(
    barprop: Barprop, mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BARPROP_TRAINING__FEATURES", '["default", "no_such"]')
    refused = barprop("features", "list")
    assert refused.code == 1
    assert "unknown feature 'no_such'" in refused.err


def test_a_version_answers_with_a_users_feature_and_not_without(
    barprop: Barprop, fresh: Engine, mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BARPROP_TRAINING__FEATURES", '["return_1", "z_24", "rsi_14", "stretch_20"]')
    assert barprop("ingest", hourly_file(tmp_path, "LIVE"), "LIVE", "1h").code == 0
    trained = barprop("train", "LIVE", "1h", "--json")
    assert trained.code == 0, trained.err
    version = json.loads(trained.out)["version"]
    manifest = json.loads(barprop("versions", "show", version, "--json").out)["manifest"]
    assert manifest["features"] == ["return_1", "z_24", "rsi_14", "stretch_20"]

    def asked() -> dict[str, object]:
        # of a version by name, since the ledger keeps a bar's first answer
        answer: dict[str, object] = json.loads(
            barprop("predict", "LIVE", "1h", "--version", version, "--json").out
        )
        return answer

    first = asked()
    assert first["kind"] == "prediction"
    mine.write_text(HONEST.replace("100 *", "99 *"))
    changed = asked()
    assert changed["reason"] == "unhealthy_model"
    assert "another definition now" in str(changed["detail"])
    monkeypatch.delenv("BARPROP_FEATURES__FILE")
    monkeypatch.delenv("BARPROP_TRAINING__FEATURES")
    gone = asked()
    assert gone["reason"] == "unhealthy_model"
    assert "features are not all there any more: unknown feature 'stretch_20'" in str(gone["detail"])
    mine.write_text(HONEST)
    monkeypatch.setenv("BARPROP_FEATURES__FILE", str(mine))
    assert asked() == first


def test_a_jobs_process_has_the_features_of_its_worker_or_none(
    barprop: Barprop, fresh: Engine, mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BARPROP_TRAINING__FEATURES", '["return_1", "z_24", "stretch_20"]')
    assert barprop("ingest", hourly_file(tmp_path, "LIVE"), "LIVE", "1h").code == 0
    assert barprop("features", "list").code == 0  # as a worker does at its start
    loaded = settings.load()

    def ended() -> store.jobs.Job:
        with store.database.read(fresh) as conn:
            market_id = store.markets.need(conn, Market("LIVE", "1h")).id
        job = store.jobs.start(
            fresh, "retrain", market_id, {}, "me", executors.machine_now(), timedelta(seconds=60)
        )
        child = executors.start(job, loaded)
        child.process.join(120)
        with store.database.read(fresh) as conn:
            return store.jobs.get(conn, job.id)

    assert ended().state == "succeeded"
    mine.write_text(HONEST.replace("100 *", "99 *"))
    failed = ended()
    assert failed.state == "failed"
    assert "has changed since the worker was started: start it again" in str(failed.error)
