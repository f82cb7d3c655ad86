"""The doctor's confusion matrix: `python -m benchmarks.doctor [--quick] [--json]`.

Every fault of benchmarks/faults in trainings of several seeds, each with a problem, a shape and settings of its own,
beside healthy trainings of the same kinds, made-up ones and those of real markets, where the folder with real bars is at
hand. Counted is whether the verdict is the fault's true class. Thresholds were chosen on the seeds from 1000 to 1999;
those counted here begin at FIRST_SEED.
"""

import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import polars as pl
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from benchmarks import report
from benchmarks.faults import FAULTS, KINDS, healthy, learns, settings
from benchmarks.report import Row
from model import bars, dataset, doctor, features
from model.config import TrainConfig
from model.doctor import Patient

FIRST_SEED = 10_000
SEEDS, QUICK_SEEDS = 20, 1
HEALTHY, QUICK_HEALTHY = 200, 20
SPARE = 1.2  # so many times as many are drawn, as some do not learn and are passed over
MARKET_SETTINGS, QUICK_MARKET_SETTINGS = 4, 1
NEWEST = 6000  # bars of a market
PROCESSES = 2
REAL = Path(os.environ.get("BARPROP_REAL_BARS") or Path(__file__).resolve().parents[2] / "shared" / "data")
MADE_UP = "healthy, made up"
VERDICTS = (*doctor.KINDS, doctor.HEALTHY)


@dataclass(frozen=True)
class Case:
    """A patient to make: a fault's name, MADE_UP, or a file of a market; and the seed."""

    name: str
    seed: int

    @property
    def truth(self) -> str:
        """Where its fault lies, or "healthy"."""
        return next((kind for kind, own in KINDS.items() if self.name in own), doctor.HEALTHY)


@dataclass(frozen=True)
class Examined:
    """A verdict, the first check that failed, and the seconds that the examination took."""

    case: Case
    verdict: str
    check: str
    seconds: float


def patient(case: Case) -> Patient:
    """The patient of a case."""
    if case.name in FAULTS:
        return FAULTS[case.name](case.seed)
    return healthy(case.seed) if case.name == MADE_UP else market(case.name, case.seed)


def market(name: str, seed: int) -> Patient:
    """A market's newest rows, under the settings that ship (seed 0) or others that are healthy."""
    history = pl.read_parquet(REAL / f"{name}.parquet")[-NEWEST:]
    rows = features.rows(history, bars.timeframe(name.split("_")[1]))
    data = dataset.build(rows, features.DEFAULT, 1)
    config = TrainConfig() if seed == 0 else settings(np.random.default_rng(seed))
    return doctor.admit(data.X, data.up, data.target, config, data.closes)


def examined(case: Case) -> Examined | None:
    """The doctor's word on a case; None for a training that was made up to be healthy, and learns nothing."""
    with threadpool_limits(1, "blas"):
        given = patient(case)
        if case.name == MADE_UP and not learns(given):
            return None
        start = time.perf_counter()
        findings = doctor.examine(given)
        seconds = time.perf_counter() - start
    first = next((finding.check for finding in findings if not finding.passed), "")
    return Examined(case, doctor.verdict(findings), first, seconds)


def wanted(quick: bool) -> int:
    """How many healthy trainings are counted."""
    return QUICK_HEALTHY if quick else HEALTHY


def cases(quick: bool) -> list[Case]:
    """All that is examined."""

    def seeds(number: int) -> range:
        return range(FIRST_SEED, FIRST_SEED + number)

    faulty = [Case(name, seed) for name in FAULTS for seed in seeds(QUICK_SEEDS if quick else SEEDS)]
    sound = [Case(MADE_UP, seed) for seed in seeds(round(SPARE * wanted(quick)))]
    real = [
        Case(file.stem, seed)
        for file in sorted(REAL.glob("*.parquet"))
        for seed in range(QUICK_MARKET_SETTINGS if quick else MARKET_SETTINGS)
    ]
    return faulty + sound + real


def matrix(of: Iterable[Examined]) -> dict[str, Counter[str]]:
    """True class x verdict; classes in causal order."""
    counts = {truth: Counter[str]() for truth in VERDICTS}
    for one in of:
        counts[one.case.truth][one.verdict] += 1
    return counts


def rows(of: Sequence[Examined]) -> list[Row]:
    """The figures: shares, seconds, and every field of the matrix and of each fault that is not zero."""
    faulty = [one for one in of if one.case.name in FAULTS]
    made_up = [one for one in of if one.case.name == MADE_UP]
    real = [one for one in of if one.case.name not in FAULTS and one.case.name != MADE_UP]
    right = sum(one.verdict == one.case.truth for one in faulty)
    figures = [
        Row(f"right class, {len(faulty)} cases of {len(FAULTS)} faults", 1, 100 * right / len(faulty), "%"),
        Row("seconds of an examination, median of healthy", 1, median(one.seconds for one in made_up), "s"),
    ]
    for said, sound in (("made-up", made_up), ("market", real)):
        if sound:
            alarms = sum(one.verdict != doctor.HEALTHY for one in sound)
            figures.append(
                Row(f"false alarms, {len(sound)} healthy {said} trainings", 1, 100 * alarms / len(sound), "%")
            )
    for truth, counts in matrix(of).items():
        figures += [
            Row(f"{truth} -> {verdict}", 1, counts[verdict], "cases")
            for verdict in VERDICTS
            if counts[verdict]
        ]
    for name in FAULTS:
        own = Counter(one.verdict for one in faulty if one.case.name == name)
        figures += [
            Row(f"{name} -> {verdict}", 1, own[verdict], "cases") for verdict in VERDICTS if own[verdict]
        ]
    return figures


def tables(of: Sequence[Examined]) -> Iterable[Table]:
    """For people: fault x verdict with the checks that found it, and the confusion matrix."""
    by_fault = Table(title="faults")
    by_class = Table(title="true class x verdict")
    for table, first in ((by_fault, ("fault", "true class")), (by_class, ("true class",))):
        for column in (*first, *VERDICTS):
            table.add_column(column, justify="left" if column in first else "right")
    by_fault.add_column("found by")
    for name in dict.fromkeys(one.case.name for one in of):
        own = [one for one in of if one.case.name == name]
        counts = Counter(one.verdict for one in own)
        found = Counter(one.check for one in own if one.check)
        by_fault.add_row(
            name,
            own[0].case.truth,
            *(str(counts[verdict] or "") for verdict in VERDICTS),
            ", ".join(f"{check} ({number})" for check, number in found.most_common()),
        )
    for truth, counts in matrix(of).items():
        by_class.add_row(truth, *(str(counts[verdict] or "") for verdict in VERDICTS))
    return by_fault, by_class


def main() -> None:
    """Examines all cases and shows what came of them."""
    given = report.arguments(str(__doc__).split("\n", 1)[0])
    with ProcessPoolExecutor(PROCESSES, multiprocessing.get_context("spawn")) as pool:
        done = [one for one in pool.map(examined, cases(given.quick), chunksize=4) if one is not None]
    healthy_ones = [one for one in done if one.case.name == MADE_UP]
    spare = set(healthy_ones[wanted(given.quick) :])
    seen = [one for one in done if one not in spare]
    if given.json:
        report.show("doctor", rows(seen), as_json=True)
        return
    console = Console(width=200)
    for table in tables(seen):
        console.print(table)
    report.show("doctor", [row for row in rows(seen) if "->" not in row.case], as_json=False)


if __name__ == "__main__":
    main()
