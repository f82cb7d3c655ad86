"""Files into the store: whole or not at all, and from the inbox each state of a file once."""

import gzip
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import jobs.ingest
import samples
import store.bars
import store.jobs
import store.markets
from model.bars import Bars, Market, timeframe
from model.errors import BadBars, BadInput
from store import database as db
from store.database import Engine
from store.settings import Jobs, Settings
from tests import real_bars
from tests.model import synthetic

ETH = Market("ETHUSDT", "1h")
NOW = datetime(2024, 7, 1, tzinfo=UTC)
BARS = synthetic.bars(30)
LEASE = timedelta(seconds=30)


def kept(engine: Engine, market: Market = ETH) -> Bars:
    with db.read(engine) as conn:
        row = store.markets.need(conn, market)
        return store.bars.read(conn, row.id, timeframe(market.timeframe))


def markets(engine: Engine) -> list[str]:
    with db.read(engine) as conn:
        return [str(row.market) for row in store.markets.all(conn)]


def with_symbol(*symbols: str) -> Bars:
    return BARS.with_columns(symbol=pl.Series([symbols[at % len(symbols)] for at in range(len(BARS))]))


# ---------------------------------------------------------------- a named file


def test_a_file_is_kept_and_reported(engine: Engine, tmp_path: Path) -> None:
    BARS.write_csv(tmp_path / "bars.csv")
    report = jobs.ingest.ingest_file(engine, tmp_path / "bars.csv", ETH, NOW)
    assert (report.market, report.added, report.rejected) == (ETH, 30, ())
    assert kept(engine).equals(BARS)


def test_the_options_reach_the_reader(engine: Engine, tmp_path: Path) -> None:
    local = BARS.with_columns(ts=pl.col("ts").dt.convert_time_zone("Asia/Tokyo").dt.replace_time_zone(None))
    closes = local.with_columns(pl.col("ts") + pl.duration(hours=1)).rename({"ts": "Stand", "close": "Last!"})
    closes.rename({"high": "Top"}).write_csv(tmp_path / "bars.csv")
    options: dict[str, Any] = {
        "tz": "Asia/Tokyo",
        "stamp": "close",
        "columns": {"ts": "Stand", "high": "Top"},
    }
    jobs.ingest.ingest_file(engine, tmp_path / "bars.csv", ETH, NOW, **options)
    assert kept(engine).equals(BARS)


@pytest.mark.parametrize("symbols", [("BTC/USDT",), ("ETH/USDT", "BTC/USDT")])
def test_a_file_that_names_another_market_is_questioned(
    engine: Engine, tmp_path: Path, symbols: tuple[str, ...]
) -> None:
    path = tmp_path / "bars.parquet"
    with_symbol(*symbols).write_parquet(path)
    with pytest.raises(BadBars, match=r"^bars\.parquet: its own symbol column says BTC/USDT, not ETHUSDT;"):
        jobs.ingest.ingest_file(engine, path, ETH, NOW)
    assert markets(engine) == []
    assert jobs.ingest.ingest_file(engine, path, ETH, NOW, columns={"symbol": ""}).added == 30


def test_a_file_that_names_this_market_is_taken(engine: Engine, tmp_path: Path) -> None:
    with_symbol("ETH/USDT").write_parquet(tmp_path / "bars.parquet")
    assert jobs.ingest.ingest_file(engine, tmp_path / "bars.parquet", ETH, NOW).added == 30


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (BARS.with_columns(close=pl.lit(-1.0)), "not one row can be kept: 30 not_positive"),
        (synthetic.bars(30, every=timedelta(minutes=5)), "the usual step between these bars is 0:05:00"),
        (BARS.drop("close"), "line 1: no column for close"),
    ],
)
def test_a_refused_file_is_named_and_leaves_no_trace(
    engine: Engine, tmp_path: Path, frame: pl.DataFrame, reason: str
) -> None:
    frame.write_csv(tmp_path / "bars.csv")
    with pytest.raises(BadBars) as caught:
        jobs.ingest.ingest_file(engine, tmp_path / "bars.csv", ETH, NOW)
    assert str(caught.value).startswith(f"bars.csv: {reason}")
    assert markets(engine) == []


def test_a_real_file_in_its_own_form_is_its_market_and_no_other(engine: Engine) -> None:
    path = real_bars.path("raw/cryptodatadownload_BTCUSDT_1h.csv")
    with pytest.raises(BadBars, match="its own symbol column says BTC/USDT, not ETHUSDT"):
        jobs.ingest.ingest_file(engine, path, ETH, NOW)
    assert jobs.ingest.ingest_file(engine, path, Market("BTCUSDT", "1h"), NOW).added == 16319


SAMPLES = {"SP500_1d": 5031, "NASDAQ_1d": 5031, "IBM_1d": 3270, "EURUSD_1h": 6225}


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_that_ships_goes_in_whole(engine: Engine, name: str) -> None:
    path = Path(samples.__file__).with_name(f"{name}.parquet")
    report = jobs.ingest.ingest_file(engine, path, Market(*name.split("_")), NOW)
    assert (report.added, report.rejected) == (SAMPLES[name], ())
    assert f"{report.added:,}" in path.with_name("README.md").read_text()


# ---------------------------------------------------------------- the inbox


class Inbox:
    """A folder whose files were written a while ago, and the ingest job that looks into it."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine, self.folder = engine, folder
        self.machine_now = datetime(2024, 7, 1, 12, tzinfo=UTC)
        self.progress: list[float] = []

    def put(self, name: str, write: Callable[[Path], object], age: timedelta = timedelta(minutes=1)) -> None:
        write(self.folder / name)
        changed_at = (self.machine_now - age).timestamp()
        os.utime(self.folder / name, (changed_at, changed_at))

    def waits(self) -> bool:
        return jobs.ingest.waiting(self.engine, self.folder, self.machine_now)

    def look(self, fail: bool = False) -> dict[str, Any]:
        """One ingest job from claim to end; the machine's time goes on by 10 s."""
        job = store.jobs.start(self.engine, "ingest", None, {}, "me", self.machine_now, LEASE)
        keep = jobs.ingest.run(self.engine, job, self.settings(), lambda: NOW, self.progress.append)
        self.machine_now += timedelta(seconds=10)
        with db.write(self.engine) as conn:
            result = keep(conn)
            if fail:
                store.jobs.fail(conn, job.id, "me", self.machine_now, "killed")
            else:
                store.jobs.succeed(conn, job.id, "me", self.machine_now, result)
        return result

    def settings(self) -> Settings:
        return Settings(jobs=Jobs(inbox=self.folder))


@pytest.fixture
def inbox(engine: Engine, tmp_path: Path) -> Inbox:
    folder = tmp_path / "inbox"
    folder.mkdir()
    return Inbox(engine, folder)


def taken(result: dict[str, Any]) -> dict[str, int]:
    """Bars added by file."""
    return {found["file"]: found["added"] for found in result["files"]}


def test_an_inbox_is_taken_file_by_file(inbox: Inbox) -> None:
    inbox.put("ETHUSDT_1h.parquet", BARS.write_parquet)
    inbox.put("BTC_USDT_60m.csv", BARS.head(20).write_csv)
    inbox.put("x.y-z_1h.feather", BARS.head(10).write_ipc)
    assert inbox.waits()
    assert taken(inbox.look()) == {"BTC_USDT_60m.csv": 20, "ETHUSDT_1h.parquet": 30, "x.y-z_1h.feather": 10}
    assert markets(inbox.engine) == ["BTC_USDT 1h", "ETHUSDT 1h", "x.y-z 1h"]
    assert inbox.progress == sorted(inbox.progress)
    assert inbox.progress[-1] == 1.0


def test_what_was_taken_is_not_taken_again_until_it_changes(inbox: Inbox) -> None:
    inbox.put("ETHUSDT_1h.csv", BARS.head(20).write_csv)
    inbox.put("BTCUSDT_1h.csv", BARS.write_csv)
    inbox.look()
    assert not inbox.waits()
    assert taken(inbox.look()) == {}
    inbox.put("ETHUSDT_1h.csv", BARS.write_csv)
    assert inbox.waits()
    assert taken(inbox.look()) == {"ETHUSDT_1h.csv": 10}
    assert not inbox.waits()
    assert kept(inbox.engine).equals(BARS)


def test_what_was_taken_by_a_job_that_failed_is_taken_again_and_changes_nothing(inbox: Inbox) -> None:
    inbox.put("ETHUSDT_1h.csv", BARS.write_csv)
    inbox.look(fail=True)
    assert inbox.waits()
    again = inbox.look()["files"][0]
    assert (again["added"], again["repeated"]) == (0, 30)


def test_other_jobs_in_between_make_nothing_forgotten(inbox: Inbox) -> None:
    inbox.put("ETHUSDT_1h.csv", BARS.write_csv)
    inbox.look()
    inbox.look(fail=True)
    with db.write(inbox.engine) as conn:
        store.jobs.ask(conn, "retrain", store.markets.need(conn, ETH).id, {}, inbox.machine_now)
    assert taken(inbox.look()) == {}


def test_hundreds_of_other_jobs_in_between_make_nothing_forgotten(inbox: Inbox) -> None:
    inbox.put("ETHUSDT_1h.csv", BARS.write_csv)
    inbox.look()
    with db.write(inbox.engine) as conn:
        for number in range(300):
            store.jobs.ask(conn, "retrain", None, {"seed": number}, inbox.machine_now)
    assert not inbox.waits()
    assert taken(inbox.look()) == {}


def test_after_a_failure_what_an_earlier_job_took_is_not_waited_for(inbox: Inbox) -> None:
    inbox.put("ETHUSDT_1h.csv", BARS.write_csv)
    inbox.look()
    inbox.look(fail=True)
    assert not inbox.waits()
    inbox.put("BTCUSDT_1h.csv", BARS.write_csv)
    assert inbox.waits()
    assert taken(inbox.look()) == {"BTCUSDT_1h.csv": 30}


def test_a_file_that_may_be_half_written_waits(inbox: Inbox) -> None:
    inbox.put("ETHUSDT_1h.csv", BARS.write_csv, age=timedelta(seconds=1))
    assert not inbox.waits()
    assert inbox.look() == {"files": [], "refused": [], "taken": {}}
    assert inbox.waits()
    assert taken(inbox.look()) == {"ETHUSDT_1h.csv": 30}


def test_a_bad_file_is_named_once_and_stops_no_other(inbox: Inbox) -> None:
    inbox.put("AAA_1h.csv", lambda path: path.write_text("<html>429</html>"))
    inbox.put("BBB_5m.csv", BARS.write_csv)
    inbox.put("nomarket.csv", BARS.write_csv)
    inbox.put("C C_1h.csv", BARS.write_csv)
    inbox.put("ETHUSDT_1h.csv", BARS.write_csv)
    result = inbox.look()
    assert taken(result) == {"ETHUSDT_1h.csv": 30}
    refused = {found["file"]: found["error"] for found in result["refused"]}
    assert refused["AAA_1h.csv"] == "AAA_1h.csv: line 1: a web page, not bars"
    assert refused["BBB_5m.csv"].startswith("BBB_5m.csv: the usual step between these bars is 1:00:00")
    assert refused["nomarket.csv"].startswith(
        "nomarket.csv: a file in the inbox is called SYMBOL_TIMEFRAME.KIND"
    )
    assert refused["C C_1h.csv"].startswith("C C_1h.csv: symbol 'C C' is not usable")
    assert markets(inbox.engine) == ["ETHUSDT 1h"]
    assert not inbox.waits()
    assert inbox.look()["refused"] == []


def test_what_is_no_file_of_bars_is_let_lie(inbox: Inbox) -> None:
    for name in (".ETHUSDT_1h.csv", "ETHUSDT_1h.csv.part", "README.md"):
        inbox.put(name, BARS.write_csv)
    (inbox.folder / "ETHUSDT_1h.csv").mkdir()
    assert not inbox.waits()
    assert inbox.look()["taken"] == {}


def test_gzipped_text_is_taken(inbox: Inbox) -> None:
    inbox.put("ETHUSDT_1h.csv.gz", lambda path: path.write_bytes(gzip.compress(BARS.write_csv().encode())))
    assert taken(inbox.look()) == {"ETHUSDT_1h.csv.gz": 30}


def test_an_inbox_that_is_not_there_is_named_and_none_at_all_is_nothing_to_do(inbox: Inbox) -> None:
    inbox.folder.rmdir()
    assert not inbox.waits()
    job = store.jobs.start(inbox.engine, "ingest", None, {}, "me", inbox.machine_now, LEASE)
    with pytest.raises(BadInput, match=r"the inbox .*inbox is no folder"):
        jobs.ingest.run(inbox.engine, job, inbox.settings(), lambda: NOW, inbox.progress.append)
    keep = jobs.ingest.run(inbox.engine, job, Settings(), lambda: NOW, inbox.progress.append)
    with db.write(inbox.engine) as conn:
        assert keep(conn) == {"files": [], "refused": [], "taken": {}}
