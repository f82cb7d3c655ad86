"""The bars of a demo as if they came live: clock, bar, question, again; and on the terminal what happens meanwhile."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Protocol

import httpx

import store.clock
import store.database
import store.jobs
import store.markets
import store.outcomes
import store.predictions
import store.versions
from jobs.sources import replay
from model.bars import Bars, Market, iso
from model.errors import BarpropError, Unreachable
from service.cli import output, parent
from store.database import Engine

if TYPE_CHECKING:
    from rich.table import Table

START_SECONDS = 60.0
STOP_SECONDS = 20.0
LOOK_SECONDS = 1.0  # how often versions, scores and jobs are looked at
PLAIN_SECONDS = 10.0  # without a terminal: how often a line says how far it is

COLUMNS = ("market", "as of", "up next", "version", "scored", "log loss", "base rate", "at work")


def run(engine: Engine, database_url: str, port: int, to_come: Mapping[Market, Bars], speed: float) -> None:
    """Starts the service beside this process, lets the bars come at `speed` a second, and serves on until it is
    interrupted."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as good as Ctrl-C
    url = f"http://127.0.0.1:{port}"
    service = parent.start(["serve", "--port", str(port)], {"BARPROP_DATABASE__URL": database_url})
    try:
        with httpx.Client(base_url=url, timeout=30.0) as client:
            _wait(client, service)
            output.line(f"open {url} and watch, or {url}/docs for the routes; Ctrl-C stops it")
            _replay(engine, client, to_come, speed)
        output.line(f"the bars are at their end; {url} goes on until Ctrl-C")
        code = service.wait()
        raise Unreachable(f"the service ended with exit code {code}")
    except KeyboardInterrupt:
        output.note("stopped")  # a demo that was watched is done
    finally:
        parent.stop(service, STOP_SECONDS)


def _wait(client: httpx.Client, service: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if service.poll() is not None:
            raise Unreachable(f"the service ended with exit code {service.returncode} before it answered")
        try:
            if client.get("/livez").status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise Unreachable(f"the service did not answer within {START_SECONDS:.0f} s")


def _replay(engine: Engine, client: httpx.Client, to_come: Mapping[Market, Bars], speed: float) -> None:
    """Clock, bar, question for each close."""
    signals: dict[Market, dict[str, Any]] = {}
    watch = Watch(engine, list(to_come))
    look_at = 0.0
    moments = replay.replay(to_come, replay.evenly(speed), clock=time.monotonic, sleep=time.sleep)
    with _screen() as screen:
        for moment, bars in moments:
            store.clock.set(engine, moment)
            for market, bar in bars:
                _post(client, "/v1/bars", {**asdict(market), "bars": [{**bar, "ts": iso(bar["ts"])}]})
                signals[market] = _post(client, "/v1/predict", asdict(market))
            if (now := time.monotonic()) >= look_at:
                look_at = now + LOOK_SECONDS
                for line in watch.news():
                    screen.event(line)
                screen.state(watch.state(signals))


def _post(client: httpx.Client, path: str, body: dict[str, Any]) -> dict[str, Any]:
    try:
        response = client.post(path, json=body)
    except httpx.HTTPError as error:
        raise Unreachable(f"the service does not answer: {error}") from error
    content: dict[str, Any] = response.json()
    if response.is_error:
        raise BarpropError(f"{path} answered {response.status_code}: {content.get('detail', content)}")
    return content


class Watch:
    """Reads from the database what happened since it was last asked, and how things stand."""

    def __init__(self, engine: Engine, markets: list[Market]) -> None:
        self._engine = engine
        with store.database.read(engine) as conn:
            self._ids = {market: store.markets.need(conn, market).id for market in markets}
        self._told: set[int] = set()  # ids of jobs
        self.news()  # what the preparation did was told there

    def news(self) -> list[str]:
        """A line for each training, backtest and failure that came to its end."""
        lines = []
        with store.database.read(self._engine) as conn:
            for job in reversed(store.jobs.page(conn, limit=20)):
                if job.state not in ("succeeded", "failed") or job.id in self._told:
                    continue
                self._told.add(job.id)
                lines.append(f"{job.market}: {_told(job)}")
        return lines

    def state(self, signals: Mapping[Market, dict[str, Any]]) -> list[list[str]]:
        """A row a market, under COLUMNS."""
        rows = []
        with store.database.read(self._engine) as conn:
            for market, market_id in self._ids.items():
                signal = signals.get(market, {})
                version = store.versions.champion(conn, market_id)
                live = None if version is None else store.outcomes.live(conn, version)
                jobs = [store.jobs.last(conn, market_id, kind) for kind in ("retrain", "backtest")]
                rows.append(
                    [
                        str(market),
                        str(signal.get("as_of") or "-")[:10],
                        output.percent(signal["p_up"])
                        if "p_up" in signal
                        else str(signal.get("reason", "-")),
                        str(version or "-"),
                        str(live.rows if live else 0),
                        output.number(live.log_loss if live else None),
                        output.number(live.base_log_loss if live else None),
                        " ".join(job.kind for job in jobs if job is not None and job.state == "running"),
                    ]
                )
        return rows


def _told(job: store.jobs.Job) -> str:
    """One line about a job that came to its end."""
    result = job.result or {}
    if job.state == "failed":
        return f"{job.kind} failed: {job.error}"
    if job.kind == "retrain":
        return f"version {result['version']} {result['outcome']}: {result['reason']}"
    return f"{job.kind}: {result['verdict']['text']}" if "verdict" in result else f"{job.kind} done"


class Screen(Protocol):
    """Where a replay is watched."""

    def event(self, line: str) -> None:
        """Something happened."""

    def state(self, rows: list[list[str]]) -> None:
        """How things stand."""


class Lines:
    """Plain lines, for a pipe or a log."""

    def __init__(self) -> None:
        self._next = 0.0

    def event(self, line: str) -> None:
        """At once."""
        output.line(line)

    def state(self, rows: list[list[str]]) -> None:
        """Now and then, each market in a line."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + PLAIN_SECONDS
        for row in rows:
            named = (f"{name} {cell}" for name, cell in zip(COLUMNS[1:], row[1:], strict=True) if cell)
            output.line(f"{row[0]}: {', '.join(named)}")


class Board:
    """A table that stays in place at the terminal's foot, with the events above it."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self.live = Live(console=Console(), auto_refresh=False)

    def event(self, line: str) -> None:
        """Above the table."""
        self.live.console.print(line, markup=False, highlight=False)

    def state(self, rows: list[list[str]]) -> None:
        """In the table."""
        self.live.update(_table(rows), refresh=True)


def _table(rows: list[list[str]]) -> Table:
    import rich.box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=rich.box.SIMPLE_HEAD, pad_edge=False)
    for name in COLUMNS:
        table.add_column(name)
    for row in rows:
        table.add_row(*map(Text, row))
    return table


@contextmanager
def _screen() -> Iterator[Screen]:
    if not sys.stdout.isatty():
        yield Lines()
        return
    board = Board()
    with board.live:
        yield board
