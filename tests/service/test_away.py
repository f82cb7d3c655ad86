"""A database that goes away: what is known goes on to be answered, nothing is lost, and nobody starts anything again."""

import queue
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import service.answers
import store.bars
import store.changes
import store.database
import store.markets
import store.predictions
import store.settings
from model.artifact import Packed
from model.bars import Market
from model.portfolio import Costs, policies
from model.portfolio.policies import Policy
from model.predictions import Prediction
from service.answers import Answered, Answers
from service.app import create_app
from service.readiness import CHECKS
from store.database import Engine
from store.journal import Journal
from store.settings import Settings
from tests import postgres as real_postgres
from tests.service.conftest import BARS, CLOSE, ETH, HERE, Clock, TestClient, add_version, bar, problem, walk
from tests.waiting import until

ASK = {"symbol": "ETHUSDT", "timeframe": "1h"}
SECOND = {"symbol": "BTCUSDT", "timeframe": "1h"}


class Away:
    """A service over a PostgreSQL that can be stopped and started."""

    def __init__(self, client: TestClient, engine: Engine, stop: Any, start: Any, clock: Clock) -> None:
        self.client, self.engine, self._stop, self._start, self.clock = client, engine, stop, start, clock

    def stop(self) -> None:
        """The database goes away."""
        self._stop()
        until(lambda: self.client.post("/v1/predict", json=SECOND).status_code == 503, 30)

    def start(self) -> None:
        """It comes back."""
        self._start()
        until(lambda: "degraded" not in self.client.post("/v1/predict", json=ASK).json(), 30)

    def ledger(self) -> list[store.predictions.Entry]:
        """What is in it."""
        with store.database.read(self.engine) as conn:
            return store.predictions.page(conn)


@pytest.fixture
def away(packed: Packed, clock: Clock, tmp_path: Path) -> Iterator[Away]:
    """Its clock shows twenty minutes after the newest bar's close; ETHUSDT 1h has a champion."""
    with real_postgres.of_its_own() as (url, stop, start):
        engine = store.database.connect(url)
        store.database.upgrade(engine)
        store.bars.add(engine, ETH, walk(), CLOSE)
        with store.database.read(engine) as conn:
            market_id = store.markets.need(conn, ETH).id
        add_version(engine, market_id, packed, "champion")
        settings = store.settings.load(
            database={"url": url}, service={"journal": tmp_path / "journal", "journal_rows": 2}
        )
        with TestClient(
            create_app(engine, settings, clock), base_url=HERE, raise_server_exceptions=False
        ) as client:
            yield Away(client, engine, stop, start, clock)
        engine.dispose()


def test_what_is_known_is_answered_and_marked_and_the_rest_is_refused(away: Away) -> None:
    away.clock.now = CLOSE + timedelta(minutes=65)
    first = away.client.post("/v1/predict", json=ASK)
    assert "degraded" not in first.json()
    away.stop()
    again = away.client.post("/v1/predict", json=ASK)
    assert again.status_code == 200
    assert again.json() == first.json() | {"degraded": True}
    assert again.headers["etag"] != first.headers["etag"]
    unknown = away.client.post("/v1/predict", json=SECOND)
    assert problem(unknown)["type"] == "/problems/unreachable"
    assert int(unknown.headers["retry-after"]) > 0
    push = away.client.post("/v1/bars", json=ASK | {"bars": [bar(CLOSE)]})
    assert push.status_code == 503
    batch = away.client.post("/v1/predict/batch", json={"markets": [ASK]}).json()
    assert batch["items"] == [again.json()]
    away.start()
    assert away.client.post("/v1/predict", json=ASK).content == first.content
    assert away.client.post("/v1/bars", json=ASK | {"bars": [bar(CLOSE)]}).json()["added"] == 1


def test_what_is_answered_anew_waits_in_the_journal_and_comes_to_the_ledger(away: Away) -> None:
    first = away.client.post("/v1/predict", json=ASK).json()
    away.stop()
    away.clock.now = CLOSE + timedelta(hours=3)
    stale = away.client.post("/v1/predict", json=ASK).json()
    assert (stale["kind"], stale["reason"], stale["degraded"]) == ("abstention", "stale_bars", True)
    assert (stale["as_of"], stale["version"]) == (first["as_of"], first["version"])
    assert away.client.post("/v1/predict", json=ASK).json() == stale
    away._start()
    until(lambda: len(away.ledger()) == 2, 30)
    newest = store.predictions.entry_document(away.ledger()[0])
    assert {name: newest[name] for name in stale if name != "degraded"} == {
        name: value for name, value in stale.items() if name != "degraded"
    }
    assert newest["served_at"] == "2024-07-01T03:00:00Z"
    after = away.client.post("/v1/predict", json=ASK).json()
    assert after == {name: value for name, value in stale.items() if name != "degraded"}
    time.sleep(1)
    assert len(away.ledger()) == 2


def test_readiness_says_what_it_lives_on(away: Away) -> None:
    assert away.client.get("/readyz").status_code == 200
    away.client.post("/v1/predict", json=ASK)
    away.stop()
    ready = away.client.get("/readyz")
    assert ready.status_code == 200
    assert ready.json()["status"] == "degraded"
    assert "database" in str(ready.json()["reasons"])
    assert away.client.get("/livez").status_code == 200


def figure(client: TestClient, name: str) -> float:
    """A figure of `/metrics` that has no labels."""
    return float(client.get("/metrics").text.partition(f"\n{name} ")[2].partition("\n")[0])


def test_readiness_and_figures_tell_what_waits_in_the_journal_and_when_it_is_full(away: Away) -> None:
    markets = [ASK, {"symbol": "SOLUSDT", "timeframe": "1h"}, {"symbol": "XRPUSDT", "timeframe": "1h"}]
    for market in markets[1:]:
        store.bars.add(away.engine, Market(market["symbol"], "1h"), walk(), CLOSE)
    for market in markets:
        assert away.client.post("/v1/predict", json=market).status_code == 200
    away.stop()
    assert away.client.get("/readyz").json()["checks"]["journal"] == "ok"
    away.clock.now = CLOSE + timedelta(hours=3)

    away.client.post("/v1/predict", json=markets[0])
    ready = away.client.get("/readyz")
    assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
    assert ready.json()["checks"] == {
        **dict.fromkeys(CHECKS, "unknown"),
        "database": "failed",
        "journal": "degraded",
    }
    assert ready.json()["reasons"][1] == {
        "reason": "journal_waiting",
        "market": None,
        "detail": "1 of at most 2 rows of the ledger wait in the journal for the database",
    }
    assert figure(away.client, "barprop_journal_rows_waiting") == 1

    away.client.post("/v1/predict", json=markets[1])
    assert problem(away.client.post("/v1/predict", json=markets[2]))["type"] == "/problems/unreachable"
    full = away.client.get("/readyz")
    assert (full.status_code, full.json()["status"]) == (503, "unready")
    assert full.json()["checks"]["journal"] == "failed"
    assert [doubt["reason"] for doubt in full.json()["reasons"]] == ["database", "journal_full"]
    assert figure(away.client, "barprop_journal_rows_waiting") == 2

    away.start()
    until(lambda: away.client.get("/readyz").json()["checks"]["journal"] == "ok", 30)
    assert away.client.get("/readyz").status_code == 200
    assert figure(away.client, "barprop_journal_rows_waiting") == 0
    assert figure(away.client, "barprop_journal_rows_refused_total") == 0


def test_a_row_that_the_ledger_refuses_is_counted_and_waits_no_more(
    engine: Engine, champion: int, clock: Clock, tmp_path: Path
) -> None:
    """As where a market is gone since a backup was put back."""
    settings = store.settings.load(
        database={"url": str(engine.url)}, service={"journal": tmp_path / "journal", "journal_rows": 1}
    )
    writer = sqlite3.connect(str(engine.url.database), isolation_level=None)
    with TestClient(create_app(engine, settings, clock), base_url=HERE) as client:
        writer.execute("BEGIN IMMEDIATE")
        assert client.post("/v1/predict", json=ASK).json()["degraded"]
        full = client.get("/readyz")  # the database answers, so that what is known to it goes on to be given
        assert (full.status_code, full.json()["status"]) == (200, "degraded")
        assert full.json()["checks"]["journal"] == "failed"
        assert figure(client, "barprop_journal_rows_waiting") == 1
        writer.execute("DELETE FROM markets")
        writer.execute("COMMIT")
        until(lambda: figure(client, "barprop_journal_rows_refused_total") == 1, 30)
        until(lambda: figure(client, "barprop_journal_rows_waiting") == 0, 30)
        assert client.get("/readyz").json()["checks"]["journal"] == "ok"
    writer.close()
    (aside,) = (tmp_path / "journal").rglob("refused")
    assert len(aside.read_text().splitlines()) == 1


def test_behind_a_writer_that_does_not_end_a_signal_goes_into_the_journal_and_stands(
    engine: Engine, champion: int, clock: Clock, tmp_path: Path
) -> None:
    """SQLite has one writer at a time: another program may hold it for longer than a bot waits."""
    settings = store.settings.load(
        database={"url": str(engine.url)}, service={"journal": tmp_path / "journal"}
    )
    writer = sqlite3.connect(str(engine.url.database), isolation_level=None)
    with TestClient(create_app(engine, settings, clock), base_url=HERE) as client:
        writer.execute("BEGIN IMMEDIATE")
        first = client.post("/v1/predict", json=ASK).json()
        assert (first["kind"], first["degraded"]) == ("prediction", True)
        assert [client.post("/v1/predict", json=ASK).json() for _ in range(20)] == [first] * 20
        writer.execute("ROLLBACK")
        until(lambda: "degraded" not in client.post("/v1/predict", json=ASK).json(), 30)
        with store.database.read(engine) as conn:
            (entry,) = store.predictions.page(conn)
        kept = store.predictions.entry_document(entry)
        assert {name: kept[name] for name in first if name != "degraded"} == {
            name: value for name, value in first.items() if name != "degraded"
        }
    writer.close()


class HeldJournal(Journal):
    """A journal whose deliveries stop before they begin and after they have ended, until they are let go on."""

    def __init__(self, folder: Path, engine: Engine) -> None:
        super().__init__(folder, engine, 100)
        self._places: queue.Queue[str] = queue.Queue()
        self._go_on = threading.Semaphore(0)
        self._free = False

    def deliver(self) -> int:
        """Delivers what waits, in steps."""
        self._stop_at("beginning")
        delivered = super().deliver()
        self._stop_at("end")
        return delivered

    def stopped_at(self) -> str:
        """Where the delivery has stopped, once it has."""
        return self._places.get(timeout=20)

    def go_on(self) -> None:
        """Lets it go on to where it stops next."""
        self._go_on.release()

    def free(self) -> None:
        """Lets it stop no more."""
        self._free = True
        self._go_on.release()

    def _stop_at(self, place: str) -> None:
        if not self._free:
            self._places.put(place)
            assert self._go_on.acquire(timeout=60)


@contextmanager
def busy(engine: Engine) -> Iterator[None]:
    """Another program writes to the database for as long as the block lasts."""
    with closing(sqlite3.connect(str(engine.url.database), isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        yield
        writer.execute("ROLLBACK")


def test_what_is_put_off_while_the_journal_is_delivered_stands_until_it_is_delivered_itself(
    engine: Engine,
    champion: int,
    packed: Packed,
    settings: Settings,
    clock: Clock,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(service.answers, "PATIENCE_SECONDS", 0.1)
    second = Market("BTCUSDT", "1h")
    bars = walk(seed=8)
    store.bars.add(engine, second, bars, CLOSE)
    with store.database.read(engine) as conn:
        market_id = store.markets.need(conn, second).id
    add_version(engine, market_id, packed, "champion")
    journal = HeldJournal(tmp_path / "journal", engine)
    with closing(store.changes.watch(engine)) as watch, ExitStack() as ending:
        answers = Answers(engine, settings, watch, clock, journal)
        with busy(engine):
            assert answers.signal(ETH).id is None
        answers.start()
        ending.callback(answers.close)
        ending.callback(journal.free)

        assert journal.stopped_at() == "beginning"
        journal.go_on()
        assert journal.stopped_at() == "end"
        with busy(engine):
            given = answers.signal(second)
        journal.go_on()
        assert journal.stopped_at() == "beginning"  # of the next one: the one before has ended altogether
        assert answers.signal(ETH).id is not None

        newest = bars.tail(1).with_columns(pl.col("close", "high") * 1.01)
        assert store.bars.add(engine, second, newest, clock.now).corrected == 1
        with busy(engine):
            assert answers.signal(second).document == given.document
        journal.free()
        until(lambda: answers.signal(second).id is not None)
        document = answers.signal(second).document
        assert document == {name: value for name, value in given.document.items() if name != "degraded"}


@pytest.fixture
def cut_off(
    engine: Engine, champion: int, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Answers, Answered]]:
    """A process whose first Signal, of a position, waits in the journal, and goes on to wait."""
    monkeypatch.setattr(service.answers, "PATIENCE_SECONDS", 0.1)
    settings = store.settings.load(database={"url": str(engine.url)}, portfolio={"policy": "sign"})
    journal = Journal(tmp_path / "journal", engine, 100)
    with closing(store.changes.watch(engine)) as watch:
        answers = Answers(engine, settings, watch, clock, journal)
        with busy(engine):
            waiting = answers.signal(ETH)
        assert waiting.id is None
        assert isinstance(waiting.signal, Prediction)
        assert waiting.signal.position in (-1.0, 1.0)
        yield answers, waiting
        answers.close()


def test_the_next_position_stands_on_the_one_that_waits_in_the_journal(
    engine: Engine, clock: Clock, cut_off: tuple[Answers, Answered], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers, waiting = cut_off
    held = []

    def seen(policy: Policy, costs: Costs, before: float, *rest: float) -> float:
        held.append(before)
        return target(policy, costs, before, *rest)

    target = policies.target
    monkeypatch.setattr(policies, "target", seen)
    clock.now += timedelta(hours=1)
    store.bars.add(engine, ETH, walk(BARS + 1, CLOSE + timedelta(hours=1)).tail(1), clock.now)
    following = answers.signal(ETH)
    assert following.id is not None
    assert following.signal.as_of == CLOSE + timedelta(hours=1)
    assert held == [waiting.signal.position]


def test_what_waits_in_the_journal_stands_though_its_bar_is_corrected(
    engine: Engine, clock: Clock, cut_off: tuple[Answers, Answered]
) -> None:
    answers, waiting = cut_off
    store.bars.add(engine, ETH, walk().tail(1).with_columns(close=pl.col("open")), clock.now)
    for answer in (answers.signal, answers.anew):
        assert (answer(ETH).id, answer(ETH).signal) == (None, waiting.signal)
    answers.start()
    until(lambda: answers.signal(ETH).id is not None, 20)
    assert answers.signal(ETH).signal == waiting.signal
