"""A file of one-minute bars into a fresh SQLite, and back: `python -m benchmarks.ingest [--quick] [--json]`.

The bars are synthetic. Ours reads the file, checks every row, looks for what is stored already and commits in chunks
that survive a power cut; the peer, `pandas.to_sql` on an engine of the same settings, reads the file and inserts it
into a table without a key, unchecked, in one transaction. Each is measured in a process of its own, whose peak
memory counts all of it, the interpreter and the libraries too.
"""

import importlib.util
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import numpy as np
import polars as pl

import jobs.ingest
import store.bars
import store.database
import store.markets
from benchmarks import report
from benchmarks.report import Row
from model.bars import BAR_SCHEMA, Market, timeframe

T = TypeVar("T")

ROWS, QUICK_ROWS = 1_000_000, 200_000
MARKET = Market("SYNTHETIC", "1m")
NEWEST = 768  # what one prediction reads
NEWEST_ROUNDS = 50
NOW = datetime(2024, 7, 1, tzinfo=UTC)
FIRST_OPEN = 1_500_000_000 // 60 * 60 * 1_000_000  # microseconds


@dataclass(frozen=True)
class Measured:
    """Seconds of each step, and the process's peak memory in MiB."""

    seconds: dict[str, float]
    peak_mib: float


def make(folder: Path, rows: int) -> None:
    """Writes `rows` synthetic one-minute bars as Parquet and as CSV."""
    rng = np.random.default_rng(0)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 1e-4, rows))).round(6)
    opens = np.concatenate([[100.0], close[:-1]])
    bars = pl.DataFrame(
        {
            "ts": FIRST_OPEN + np.arange(rows) * 60_000_000,
            "open": opens,
            "high": (np.maximum(opens, close) * 1.0002).round(6),
            "low": (np.minimum(opens, close) * 0.9998).round(6),
            "close": close,
            "volume": rng.integers(1, 10_000, rows) / 100,
        }
    ).cast(BAR_SCHEMA)
    bars.write_parquet(folder / "bars.parquet")
    bars.write_csv(folder / "bars.csv", datetime_format="%Y-%m-%d %H:%M:%S")


def ours(file: Path) -> Measured:
    """Ingest into a fresh database, ingest again, read everything, read what a prediction reads."""
    engine = store.database.connect(f"sqlite:///{file.parent / 'ours.db'}")
    store.database.upgrade(engine)
    seconds = {}
    for step, wanted in (("ingest", "added"), ("again", "repeated")):
        start = time.perf_counter()
        done = jobs.ingest.ingest_file(engine, file, MARKET, NOW)
        seconds[step] = time.perf_counter() - start
        assert getattr(done, wanted) == done.added + done.repeated
    peak = peak_mib()  # reading back is another matter
    length = timeframe(MARKET.timeframe)

    def read(last: int | None) -> pl.DataFrame:
        with store.database.read(engine) as conn:
            return store.bars.read(conn, store.markets.need(conn, MARKET).id, length, last=last)

    seconds["all"] = seconds_of(lambda: read(None))
    seconds["newest"] = seconds_of(lambda: read(NEWEST), NEWEST_ROUNDS)
    return Measured(seconds, peak)


def pandas(file: Path) -> Measured:
    """The same file by pandas, on an engine of the same settings."""
    import pandas as pd

    engine = store.database.connect(f"sqlite:///{file.parent / 'pandas.db'}")
    start = time.perf_counter()
    if file.suffix == ".csv":
        frame = pd.read_csv(file, parse_dates=["ts"])
    else:  # pandas alone cannot read Parquet
        frame = pd.DataFrame({column.name: column.to_numpy() for column in pl.read_parquet(file)})
    with store.database.write(engine) as conn:
        frame.to_sql("bars", conn, index=False)
    seconds = {"ingest": time.perf_counter() - start}
    peak = peak_mib()

    def read(last: int | None) -> pd.DataFrame:
        limit = "" if last is None else f" DESC LIMIT {last}"
        with store.database.read(engine) as conn:
            return pd.read_sql(f"SELECT * FROM bars ORDER BY ts{limit}", conn, parse_dates=["ts"])

    seconds["all"] = seconds_of(lambda: read(None))
    with store.database.write(engine) as conn:  # as a key would have given it
        conn.exec_driver_sql("CREATE INDEX by_time ON bars (ts)")
    seconds["newest"] = seconds_of(lambda: read(NEWEST), NEWEST_ROUNDS)
    return Measured(seconds, peak)


def seconds_of(call: Callable[[], object], rounds: int = 1) -> float:
    """Mean seconds of a call."""
    start = time.perf_counter()
    for _ in range(rounds):
        call()
    return (time.perf_counter() - start) / rounds


def peak_mib() -> float:
    """This process's peak memory so far."""
    status = Path("/proc/self/status")
    if status.exists():  # a child's ru_maxrss begins at its parent's
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def apart(call: Callable[..., T], *given: object) -> T:
    """The result of a call in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as process:
        return process.apply(call, given)


def rows_of(kind: str, rows: int, mine: Measured, peer: Measured | None) -> list[Row]:
    """The report's rows for one kind of file."""
    size = f"{rows:,} bars"
    name = None if peer is None else "pandas"

    def row(case: str, unit: str, value: Callable[[Measured], float], lower_is_better: bool = True) -> Row:
        return Row(
            case,
            1,
            value(mine),
            unit,
            name,
            None if peer is None else value(peer),
            lower_is_better=lower_is_better,
        )

    found = [
        row(f"{kind} of {size} into SQLite", "s", lambda m: m.seconds["ingest"]),
        row(
            f"{kind} of {size} into SQLite",
            "rows/s",
            lambda m: rows / m.seconds["ingest"],
            lower_is_better=False,
        ),
        row(f"{kind} of {size}: peak memory", "MiB", lambda m: m.peak_mib),
        Row(f"{kind} of {size} again, all known", 1, mine.seconds["again"], "s"),
    ]
    if kind == "Parquet":
        found.append(row(f"all {size} read back", "s", lambda m: m.seconds["all"]))
        found.append(row(f"newest {NEWEST} of {size} read", "ms", lambda m: m.seconds["newest"] * 1e3))
    return found


def main() -> None:
    """Measures both kinds of file."""
    asked = report.arguments("Bars from a file into SQLite and back, beside pandas.")
    rows = QUICK_ROWS if asked.quick else ROWS
    found: list[Row] = []
    for kind, file in (("Parquet", "bars.parquet"), ("CSV", "bars.csv")):
        with tempfile.TemporaryDirectory(prefix="barprop-") as folder:
            apart(make, Path(folder), rows)
            sides = (ours, pandas) if importlib.util.find_spec("pandas") else (ours,)
            measured = [apart(side, Path(folder) / file) for side in sides]
            found += rows_of(kind, rows, measured[0], measured[1] if len(measured) > 1 else None)
    report.show("ingest", found, asked.json)


if __name__ == "__main__":
    main()
