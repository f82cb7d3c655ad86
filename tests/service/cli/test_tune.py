"""`barprop tune` as it is used: its document and its words, what it refuses, and what an interrupt leaves."""

import json
import signal
import sys
from pathlib import Path

import pytest

import store.database
import store.jobs
import store.markets
from jobs.executors import machine_now
from model.bars import Market
from model.tuning import SPACE
from store.database import Engine
from tests.processes import started
from tests.service.cli.conftest import Barprop, hourly_file
from tests.waiting import until

LIVE = Market("LIVE", "1h")
QUICK = ("tune", "LIVE", "1h", "--refit-every", "400", "--only", "learning_rate", "--only", "width")
ENV = {"BARPROP_TRAINING__EPOCHS": "2"}


@pytest.fixture
def market_id(fresh: Engine, barprop: Barprop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """A market with bars in a fresh database, of quick trainings."""
    for name, value in ENV.items():
        monkeypatch.setenv(name, value)
    assert barprop("ingest", hourly_file(tmp_path, "LIVE"), "LIVE", "1h").code == 0
    with store.database.read(fresh) as conn:
        return store.markets.need(conn, LIVE).id


def trials(engine: Engine) -> int:
    with store.database.read(engine) as conn:
        return int(conn.exec_driver_sql("SELECT count(*) FROM trials").scalar_one())


def test_the_document_is_the_jobs_result(fresh: Engine, market_id: int, barprop: Barprop) -> None:
    ran = barprop(*QUICK, "--trials", "3", "--seed", "4", "--judge", "0.2", "--json")
    assert (ran.code, ran.err) == (0, "")
    said = json.loads(ran.out)
    with store.database.read(fresh) as conn:
        job = store.jobs.last(conn, market_id, "tune")
    assert job is not None
    assert (job.state, job.result) == ("succeeded", said)
    assert job.params == {
        **{"trials": 3, "seed": 4, "judge": 0.2, "refit_every": 400},
        "only": ["learning_rate", "width"],
    }
    assert said["searched"] == ["learning_rate", "width"]
    assert said["trials_counted"] == trials(fresh) == 3


def test_for_a_person_the_verdict_comes_first_and_every_trial_has_a_line(
    market_id: int, barprop: Barprop
) -> None:
    said = json.loads(barprop(*QUICK, "--trials", "3", "--json").out)
    ran = barprop(*QUICK, "--trials", "3")
    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert lines[0] == f"LIVE 1h: {said['outer']['verdict']['text']}"
    assert lines[1].split()[:3] == ["trial", "learning_rate", "width"]
    for trial, line in zip(said["trials"], lines[2:], strict=False):
        rate, width = (trial["params"][name] for name in ("learning_rate", "width"))
        assert line.split()[:3] == [str(trial["number"]), f"{rate:g}", str(width)]
    assert f"judged on {said['outer']['rows']} bars" in ran.out
    assert said["chosen"]["settings"].rstrip() in ran.out


def test_without_optuna_it_says_what_to_install(
    market_id: int, barprop: Barprop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    ran = barprop(*QUICK)
    assert (ran.code, ran.out, ran.err.count("\n")) == (1, "", 1)
    assert "pip install '.[tune]'" in ran.err


def test_what_cannot_be_searched_is_wrong_usage_and_help_names_what_can(barprop: Barprop) -> None:
    ran = barprop("tune", "LIVE", "1h", "--only", "momentum")
    assert (ran.code, ran.out) == (2, "")
    assert all(name in ran.err for name in ("momentum", *SPACE))
    assert all(name in barprop("tune", "--help").out for name in SPACE)


def test_an_interrupt_ends_the_search_and_its_document_is_told(fresh: Engine, market_id: int) -> None:
    with started(*QUICK, "--trials", "500", "--json", env=ENV) as process:
        until(lambda: trials(fresh) >= 2)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0
    said = json.loads(out)
    assert said["stopped"] == "interrupted"
    assert 2 <= len(said["trials"]) < 500
    assert trials(fresh) - len(said["trials"]) in (0, 1)
    assert said["outer"]["default"] is not None
    assert err.count("\n") == 1
    assert "what it found is judged now" in err


def test_a_cancel_from_elsewhere_ends_the_command(fresh: Engine, market_id: int) -> None:
    with started(*QUICK, "--trials", "500", env={**ENV, "BARPROP_JOBS__HEARTBEAT_SECONDS": "0.2"}) as process:
        until(lambda: trials(fresh) >= 2)
        with store.database.write(fresh) as conn:
            job = store.jobs.last(conn, market_id, "tune")
            assert job is not None
            store.jobs.cancel(conn, job.id, machine_now())
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (1, "")
    assert err.startswith(f"barprop: job {job.id} (tune LIVE 1h) was cancelled")
    assert trials(fresh) >= 2
