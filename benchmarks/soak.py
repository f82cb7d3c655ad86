"""Mixed load on a real `barprop serve` with its worker: `python -m benchmarks.soak [--minutes 30] [--url URL] [--json]`.

Two markets whose bars end now, one by the minute and one by the second; everything is asked at once, a stream is open,
and the champion changes by hand every minute. Not one request may fail, and memory must be flat: what is held at the
end is compared with what was held after a quarter. SQLite, or the empty database at URL.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

import store.bars
import store.database
import store.markets
import store.versions
from benchmarks import report
from benchmarks.fuzzing import past
from benchmarks.serving import running
from benchmarks.soaking.asking import MOST_TOLD, Kept, keep_asking, kinds
from benchmarks.soaking.feed import Feed
from benchmarks.soaking.listening import Heard, keep_listening
from model.bars import Market
from service.cli import parent

SERVE = (*parent.BARPROP, "serve", "--port", "0", "--json")
LOOK_SECONDS = 1.0
MOST_GROWTH = 1.10  # of memory from the first quarter to the end
NEAR = 0.05  # of the whole time, over which memory is averaged


@dataclass(frozen=True)
class Memory:
    """MiB that a process held when a quarter of the time had passed, and at the end."""

    quarter: float
    end: float

    @property
    def flat(self) -> bool:
        """Whether it held on to no more than it needs."""
        return self.end <= MOST_GROWTH * self.quarter


def main() -> int:
    """Makes the markets, starts the service, asks for so long, tells."""
    asked = _arguments()
    with tempfile.TemporaryDirectory(prefix="barprop-") as name:
        folder = Path(name)
        url = asked.url or f"sqlite:///{folder / 'soak.db'}"
        env = running.environment(url, folder, journal=folder / "journal") | past.QUICK
        minutes, seconds = Feed(Market("MINUTES", "1m"), 1), Feed(Market("SECONDS", "1s"), 2)
        versions = _prepare(env, minutes, seconds)
        with running.answering(SERVE, env, None) as service:
            running.ready(service.port)
            address = f"http://127.0.0.1:{service.port}"
            kept, heard, memory = _soak(address, service.pid, minutes, seconds, versions, asked.minutes * 60)
    _show(kept, heard, memory, asked.json)
    failed = sum(len(each.failures) for each in kept.values()) + len(heard.failures)
    return 0 if failed == 0 and all(each.flat for each in memory.values()) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="how long is asked; else 30")
    parser.add_argument("--url", help="an empty PostgreSQL instead of SQLite")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of a table")
    return parser.parse_args()


def _prepare(env: Mapping[str, str], *feeds: Feed) -> list[int]:
    """Stores the bars so far and trains two versions of each market; gives those of the first."""
    engine = store.database.connect(env["BARPROP_DATABASE__URL"])
    store.database.upgrade(engine)
    for feed in feeds:
        store.bars.add(engine, feed.market, feed.closed(), datetime.now(UTC))
        for seed in ("0", "1"):
            command = ("train", feed.market.symbol, feed.market.timeframe, "--seed", seed)
            subprocess.run([*parent.BARPROP, *command], env=dict(env), check=True, capture_output=True)
    with store.database.read(engine) as conn:
        versions = store.versions.ids(conn, store.markets.need(conn, feeds[0].market).id)
    engine.dispose()
    return versions


def _soak(
    url: str, pid: int, minutes: Feed, seconds: Feed, versions: list[int], lasts_seconds: float
) -> tuple[dict[str, Kept], Heard, dict[str, Memory]]:
    over, heard = threading.Event(), Heard()
    asked = kinds(minutes, seconds, versions)
    kept = {name: Kept() for name in asked}
    threads = [threading.Thread(target=keep_listening, args=(url, heard, over), daemon=True)]
    threads += [
        threading.Thread(target=keep_asking, args=(url, kind, kept[name], over), daemon=True)
        for name, kind in asked.items()
    ]
    for thread in threads:
        thread.start()
    held: dict[str, list[float]] = {"service": [], "worker": []}
    end = time.monotonic() + lasts_seconds
    while time.monotonic() < end:
        for role, found in (("service", pid), ("worker", _worker(pid))):
            if found is not None:
                held[role].append(_resident_mib(found))
        time.sleep(LOOK_SECONDS)
    over.set()
    for thread in threads:
        thread.join(60)
    return kept, heard, {role: _memory(each) for role, each in held.items() if each}


def _worker(pid: int) -> int | None:
    """The worker beside the service that has this process."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent_pid = int(stat.read_text().rpartition(")")[2].split()[1])
            command = (stat.parent / "cmdline").read_text().split("\0") if parent_pid == pid else []
        except OSError:  # it ended meanwhile
            continue
        if "worker" in command:
            return int(stat.parent.name)
    return None


def _resident_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def _memory(held: list[float]) -> Memory:
    near = max(int(len(held) * NEAR), 1)
    quarter = len(held) // 4
    return Memory(statistics.mean(held[quarter : quarter + near]), statistics.mean(held[-near:]))


def _show(kept: Mapping[str, Kept], heard: Heard, memory: Mapping[str, Memory], as_json: bool) -> None:
    rows = {
        name: {
            "requests": len(each.seconds),
            "failed": len(each.failures),
            "p50_ms": _quantile_ms(each.seconds, 50),
            "p99_ms": _quantile_ms(each.seconds, 99),
        }
        for name, each in kept.items()
    }
    failures = [f"{name}: {said}" for name, each in kept.items() for said in each.failures[:MOST_TOLD]]
    failures += [f"stream: {said}" for said in heard.failures[:MOST_TOLD]]
    if as_json:
        told = {role: asdict(each) for role, each in memory.items()}
        document = {"name": "soak", "machine": report.machine(), "kinds": rows, "stream": asdict(heard)}
        print(json.dumps(document | {"memory_mib": told, "failures": failures}))
        return
    table = Table("kind", "requests", "failed", "p50 ms", "p99 ms", title="soak")
    for name, row in rows.items():
        table.add_row(
            name, f"{row['requests']:,}", str(row["failed"]), f"{row['p50_ms']:.1f}", f"{row['p99_ms']:.1f}"
        )
    total = sum(int(row["requests"]) for row in rows.values())
    failed = sum(int(row["failed"]) for row in rows.values()) + len(heard.failures)
    table.add_section()
    table.add_row("all", f"{total:,}", str(failed), "", "")
    Console(width=None if sys.stdout.isatty() else report.WIDTH).print(table)
    print(f"stream: {heard.events:,} events, at most {heard.longest_wait_seconds:.1f} s between two")
    for role, each in memory.items():
        said = "flat" if each.flat else "not flat"
        print(
            f"memory of the {role}: {each.quarter:.0f} MiB after a quarter, {each.end:.0f} at the end: {said}"
        )
    print("\n".join(failures))


def _quantile_ms(seconds: list[float], percent: int) -> float:
    return sorted(seconds)[len(seconds) * percent // 100] * 1e3 if seconds else 0.0


if __name__ == "__main__":
    sys.exit(main())
