"""Laws of the journal: what was appended is delivered, once, in its order, whoever dies in between."""

import os
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import store.database
import store.predictions
from model.errors import Unreachable
from model.predictions import Reason
from store.database import Engine
from store.forecasts import Said
from store.journal import Journal
from tests.store.test_predictions import BARS, HOUR, MARKET, NOW, ask, crown, ingest


def rows(engine: Engine, market_id: int, count: int) -> list[dict[str, Any]]:
    """Rows of the ledger that are not there yet: abstentions of so many bars."""
    found = []
    for i in range(count):
        as_of = NOW + i * HOUR.length
        said = store.predictions.stale(MARKET, as_of, None, as_of)
        found.append(store.predictions.ledger_row(market_id, Said(said), as_of))
    return found


def ledger(engine: Engine) -> list[store.predictions.Entry]:
    with store.database.read(engine) as conn:
        return store.predictions.page(conn)[::-1]


def test_what_waits_is_delivered_once_in_its_order(database: Engine, tmp_path: Path) -> None:
    market_id = ingest(database, BARS)
    journal = Journal(tmp_path, database, 100)
    waiting = rows(database, market_id, 5)
    for row in [*waiting, waiting[0]]:
        journal.append(row)
    assert journal.waiting == 5
    assert ledger(database) == []
    assert journal.deliver() == 5
    assert (journal.waiting, journal.deliver()) == (0, 0)
    said = ledger(database)
    assert [entry.signal.as_of for entry in said] == [row["as_of"] for row in waiting]
    assert {entry.signal.reason for entry in said} == {Reason.STALE_BARS}  # type: ignore[union-attr]
    journal.close()
    assert list(tmp_path.rglob("*.journal")) == []


def test_a_prediction_comes_out_of_the_journal_as_it_went_in(database: Engine, tmp_path: Path) -> None:
    crown(database, ingest(database, BARS), NOW)
    made = store.predictions.make(database, MARKET, NOW, {})
    journal = Journal(tmp_path, database, 10)
    journal.append(made.row)
    assert Journal(tmp_path, database, 10).deliver() == 0  # its process lives
    assert journal.deliver() == 1
    kept = ledger(database)[0]
    assert kept.signal == made.signal
    assert ask(database, NOW).id == kept.id


def test_a_full_journal_says_so_and_keeps_what_it_has(engine: Engine, tmp_path: Path) -> None:
    waiting = rows(engine, ingest(engine, BARS), 4)
    journal = Journal(tmp_path, engine, 3)
    for row in waiting[:3]:
        journal.append(row)
    with pytest.raises(Unreachable, match="journal is full: 3 rows"):
        journal.append(waiting[3])
    journal.append(waiting[2])  # that one it has
    assert journal.deliver() == 3


def test_where_it_cannot_be_written_it_says_so(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    journal = Journal(tmp_path / "file", engine, 3)
    with pytest.raises(Unreachable, match="cannot be written"):
        journal.append(rows(engine, ingest(engine, BARS), 1)[0])
    assert journal.waiting == 0


KILLED = """
import os, signal, sys
from pathlib import Path
import store.database
from store.journal import Journal
from tests.store.test_journal import rows
engine = store.database.connect(sys.argv[1])
journal = Journal(Path(sys.argv[2]), engine, 100)
for row in rows(engine, int(sys.argv[3]), 3):
    journal.append(row)
    print("kept", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("half", [b"", b'deadbeef {"market'])
def test_what_a_killed_process_left_is_delivered_by_the_next(
    engine: Engine, tmp_path: Path, half: bytes
) -> None:
    market_id = ingest(engine, BARS)
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(engine.url), str(tmp_path / "journal"), str(market_id)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        timeout=120,
    )
    assert done.returncode == -signal.SIGKILL
    assert done.stdout.split() == ["kept"] * 3, done.stderr
    (left,) = (tmp_path / "journal").rglob("*.journal")
    with left.open("ab") as file:
        file.write(half)  # what was never acknowledged
    assert Journal(tmp_path / "journal", engine, 100).deliver() == 3
    assert len(ledger(engine)) == 3
    assert not left.exists()


def test_damage_is_said_and_the_rest_delivered(
    engine: Engine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = Journal(tmp_path, engine, 100)
    for row in rows(engine, ingest(engine, BARS), 3):
        journal.append(row)
    (file,) = tmp_path.rglob("*.journal")
    lines = file.read_bytes().split(b"\n")
    lines[1] = lines[1].replace(b"stale", b"stole")
    copy = file.with_name("0-of-a-killed-one.journal")
    copy.write_bytes(b"\n".join(lines))
    assert Journal(tmp_path, engine, 100).deliver() == 2
    assert "line 2 of the journal" in caplog.text
    assert not copy.exists()
    assert copy.with_suffix(".damaged").exists()


def test_a_database_that_is_another_one_is_not_given_its_rows(engine: Engine, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal", engine, 100)
    journal.append(rows(engine, ingest(engine, BARS), 1)[0])
    other = store.database.connect(f"sqlite:///{tmp_path / 'other.db'}")
    store.database.upgrade(other)
    assert Journal(tmp_path / "journal", other, 100).deliver() == 0
    assert ledger(other) == []
    other.dispose()


def test_what_was_answered_meanwhile_stands(engine: Engine, tmp_path: Path) -> None:
    crown(engine, ingest(engine, BARS), NOW)
    late = store.predictions.make(engine, MARKET, NOW + timedelta(minutes=5), {})
    first = ask(engine, NOW)
    journal = Journal(tmp_path, engine, 100)
    journal.append(late.row)
    journal.deliver()
    assert [entry.id for entry in ledger(engine)] == [first.id]
    assert ledger(engine)[0].served_at == first.served_at


def test_a_row_that_the_ledger_refuses_is_set_aside_and_holds_up_no_other(
    database: Engine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    market_id = ingest(database, BARS)
    gone, good = rows(database, market_id + 999, 1)[0], rows(database, market_id, 1)[0]
    noted: list[tuple[int, int]] = []
    journal = Journal(tmp_path, database, 10, lambda waiting, refused: noted.append((waiting, refused)))
    journal.append(gone)
    journal.append(good)
    assert noted == [(1, 0), (2, 0)]
    assert journal.deliver() == 2
    assert noted[2:] == [(2, 1), (0, 0)]
    assert journal.waiting == 0
    assert len(ledger(database)) == 1
    (aside,) = tmp_path.rglob("refused")
    assert str(market_id + 999) in aside.read_text()
    assert "set aside" in caplog.text
