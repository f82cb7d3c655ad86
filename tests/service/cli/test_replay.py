"""`barprop replay`: equal is exit 0, different is exit 1 and said in a line, in this process and in one of its own."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from sqlalchemy import select, update

import service.cli
import store.database
from model.bars import iso
from store.database import Engine
from store.tables import predictions
from tests.processes import started
from tests.service.cli.conftest import Barprop, hourly_file


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """A database that commands use, with a market that was trained, and one without bars enough."""
    folder = tmp_path_factory.mktemp("trained")
    url = f"sqlite:///{folder / 'bars.db'}"
    engine = store.database.connect(url)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("BARPROP_DATABASE__URL", url)
        for line in (
            ["ingest", hourly_file(folder, "LIVE"), "LIVE", "1h"],
            ["ingest", hourly_file(folder, "FEW", 20), "FEW", "1h"],
            ["train", "LIVE", "1h"],
        ):
            assert service.cli.run([str(word) for word in line]) == 0
        yield engine
    engine.dispose()


@pytest.fixture
def served(trained: Engine, barprop: Barprop) -> datetime:
    """The newest close of LIVE 1h, once it was answered for."""
    ran = barprop("predict", "LIVE", "1h", "--json")
    assert ran.code == 0, ran.err
    return datetime.fromisoformat(json.loads(ran.out)["as_of"])


@pytest.fixture
def tampered(trained: Engine, served: datetime) -> Iterator[tuple[float, float]]:
    """The probability that was served, and the one that the ledger has instead, one bit away."""
    here = predictions.c.as_of == served
    with store.database.write(trained) as conn:
        right = conn.scalars(select(predictions.c.p_up).where(here)).one()
        wrong = float(np.nextafter(right, 1.0))
        conn.execute(update(predictions).where(here).values(p_up=wrong))
    yield right, wrong
    with store.database.write(trained) as conn:
        conn.execute(update(predictions).where(here).values(p_up=right))


def test_what_was_served_is_equal_to_the_bit(served: datetime, barprop: Barprop) -> None:
    ran = barprop("replay", "LIVE", "1h", "--from", iso(served), "--to", iso(served), "--json")
    assert (ran.code, ran.err) == (0, "")
    assert json.loads(ran.out) == {
        "market": {"symbol": "LIVE", "timeframe": "1h"},
        "from": iso(served),
        "to": iso(served),
        "served": 1,
        "equal": 1,
        "within_tolerance": 0,
        "differing": 0,
        "different": [],
        "skipped": {},
        "bits": True,
    }
    ran = barprop("replay", "LIVE", "1h")
    assert (ran.code, ran.err) == (0, "")
    assert "equal to the bit" in ran.out


def test_a_process_of_its_own_finds_it_equal_too(trained: Engine, served: datetime) -> None:
    env = {"BARPROP_DATABASE__URL": str(trained.url)}
    with started("replay", "LIVE", "1h", "--json", env=env) as process:
        out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    assert json.loads(out)["equal"] == json.loads(out)["served"] > 0


def test_one_bit_is_exit_code_1_and_a_line_says_where(
    served: datetime, tampered: tuple[float, float], barprop: Barprop
) -> None:
    right, wrong = tampered
    ran = barprop("replay", "LIVE", "1h", "--json")
    assert ran.code == 1
    (difference,) = json.loads(ran.out)["different"]
    assert (difference["as_of"], difference["what"]) == (iso(served), "p_up")
    assert (difference["ledger"], difference["replayed"]) == (wrong, right)
    (line,) = ran.err.splitlines()
    for part in (iso(served), "p_up", repr(wrong), repr(right), f"id {difference['id']}"):
        assert part in line
    shown = barprop("replay", "LIVE", "1h")
    assert shown.code == 1
    assert iso(served) in shown.out


def test_what_cannot_be_replayed_is_said(served: datetime, barprop: Barprop) -> None:
    later = datetime.now(UTC) + timedelta(days=2)
    for arguments, code, said in (
        (("NOSUCH", "1h"), 1, "no market NOSUCH 1h"),
        (("FEW", "1h", "--to", "2020-01-01"), 1, "nothing was served"),
        (("LIVE", "1h", "--from", iso(later)), 1, f"nothing was served for LIVE 1h from {iso(later)}"),
        (("LIVE", "1h", "--from", "2024-02-01", "--to", "2024-01-01"), 2, "later than"),
        (("LIVE", "1h", "--from", "yesterday"), 2, "not a time"),
        (("LIVE", "1 h"), 2, "timeframe"),
    ):
        ran = barprop("replay", *arguments)
        assert (ran.code, ran.out) == (code, "")
        assert said in ran.err
        assert len(ran.err.splitlines()) == 1
