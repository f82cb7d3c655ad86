"""How a benchmark reports: a table for people, or one JSON document, each with the machine that it ran on."""

import argparse
import json
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_info

WIDTH = 140  # of a table that goes to a file, where nobody has said how wide that is


@dataclass(frozen=True)
class Row:
    """One case: our value, and that of a peer measured in the same run (None: there is no peer for it)."""

    case: str
    threads: int  # BLAS threads that both sides were given
    ours: float
    unit: str  # "us", "rows/s", "MiB" …
    peer: str | None = None
    peer_value: float | None = None
    lower_is_better: bool = True
    limit: float | None = None  # what ours must keep to
    limit_of_peer: float | None = None  # the same, in units of the peer's value

    @property
    def ratio(self) -> float | None:
        """How many times better ours is; below 1 the peer is better."""
        if self.peer_value is None:
            return None
        return self.peer_value / self.ours if self.lower_is_better else self.ours / self.peer_value

    @property
    def goal(self) -> str | None:
        """What ours must keep to, where anything is asked of it."""
        sign = "≤" if self.lower_is_better else "≥"
        if self.limit is not None:
            return f"{sign} {self.limit:g}"
        return None if self.limit_of_peer is None else f"{sign} {self.limit_of_peer:g} × peer's"

    @property
    def met(self) -> bool | None:
        """Whether it does; None where nothing is asked or there is no peer to compare with."""
        limit = self.limit
        if self.limit_of_peer is not None and self.peer_value is not None:
            limit = self.limit_of_peer * self.peer_value
        if limit is None:
            return None
        return self.ours <= limit if self.lower_is_better else self.ours >= limit


def arguments(about: str) -> argparse.Namespace:
    """The command line that every benchmark has: `quick` (within 60 s) and `json`."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--quick", action="store_true", help="fewer and smaller cases, within 60 s")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of a table")
    return parser.parse_args()


def show(name: str, rows: Sequence[Row], as_json: bool) -> None:
    """Prints the rows of the benchmark `name` on stdout."""
    if as_json:
        print(json.dumps({"name": name, "machine": machine(), "rows": [_document(row) for row in rows]}))
        return
    table = Table(title=name)
    columns = ["case", "threads", "ours", "peer", "peer's", "unit", "ratio"]
    columns += ["goal"] if any(row.goal for row in rows) else []
    for column in columns:
        table.add_column(column, justify="left" if column in {"case", "peer", "unit", "goal"} else "right")
    for row in rows:
        figures = (
            row.case, str(row.threads), _figure(row.ours), row.peer or "", _figure(row.peer_value), row.unit,
            "" if row.ratio is None else f"{row.ratio:.2f}", _goal(row),
        )  # fmt: skip
        table.add_row(*figures[: len(columns)])
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    console.print(table)
    console.print(
        "ratio above 1: ours is better.", ", ".join(f"{k} {v}" for k, v in machine().items()), style="dim"
    )


def machine() -> dict[str, Any]:
    """What the figures depend on: processor, cores, and the versions and threads of the number libraries."""
    blas = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "polars": pl.__version__,
        "blas": " ".join(
            sorted({f"{p['internal_api']} {p['version']} {p.get('architecture', '')}".strip() for p in blas})
        ),
        "blas_threads": max((pool["num_threads"] for pool in blas), default=1),
    }


def _cpu() -> str:
    """The processor's own name where the system tells it, and its model number: names alone are often generic."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    facts = dict(line.split(":", 1) for line in reversed(lines) if ":" in line)
    facts = {key.strip(): value.strip() for key, value in facts.items()}
    name = facts.get("model name", platform.machine())
    return f"{name} (family {facts['cpu family']}, model {facts['model']})" if "model" in facts else name


def _goal(row: Row) -> str:
    said = {True: ": met", False: ": missed", None: ""}[row.met]
    return f"{row.goal}{said}" if row.goal else ""


def _document(row: Row) -> dict[str, Any]:
    asked = {"goal": row.goal, "met": row.met} if row.goal else {}
    return {
        "case": row.case,
        "threads": row.threads,
        "ours": row.ours,
        "peer": row.peer,
        "peer_value": row.peer_value,
        "unit": row.unit,
        "ratio": row.ratio,
        **asked,
    }


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:,.4g}" if abs(value) < 10_000 else f"{value:,.0f}"
