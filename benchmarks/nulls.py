"""How often skill is claimed where there is none: `python -m benchmarks.nulls [--quick] [--json]`.

WALKS walk-forward backtests by the settings that ship, but for shorter windows, on what nobody can forecast: random walks
with clustered volatility (benchmarks/markets.py), and real bars whose labels have changed places among the rows, each
time otherwise. A test at 5 % claims skill in one of twenty; a right one claims it in more than 16 of 200 in 2 % of
draws, and the draws here have fixed seeds.

Every null is another walk, or another shuffle of other rows, so that claims are as good as independent.
"""

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from rich.console import Console
from threadpoolctl import threadpool_limits

from benchmarks import markets, report
from benchmarks.doctor import REAL
from benchmarks.report import Row
from model import backtest, bars, dataset
from model.config import TrainConfig
from model.dataset import Dataset
from model.errors import TrainingFailed
from model.features import WARMUP
from model.significance import Z_CLAIM, Gain

WALKS, QUICK_WALKS = 200, 12
WINDOW, JUDGED, REFIT_EVERY = 1_500, 1_500, 250
ROWS = (
    WINDOW + 2 + JUDGED
)  # of a null: a window, the row of the first training, those judged, and the last one's label
WALK, SHUFFLED = "random walks", "shuffled labels"
REAL_NAME = "ETHUSDT_1h"
PROCESSES = 2


@dataclass(frozen=True)
class Case:
    """A null to judge: of which kind, and its seed."""

    kind: str
    seed: int


def data_of(case: Case) -> Dataset:
    """The rows of a null."""
    if case.kind == WALK:
        walk = markets.random_walk(WARMUP + ROWS, case.seed)
        return dataset.from_bars(walk, bars.timeframe("1h"), TrainConfig())
    history = pl.read_parquet(REAL / f"{REAL_NAME}.parquet")
    rng = np.random.default_rng(case.seed)
    first = int(rng.integers(len(history) - WARMUP - ROWS))
    real = dataset.from_bars(history[first : first + WARMUP + ROWS], bars.timeframe("1h"), TrainConfig())
    return shuffled(real, rng)


def shuffled(data: Dataset, rng: np.random.Generator) -> Dataset:
    """The same rows with the labels of others: moves change places in units of the volatility of their time."""
    other = rng.permutation(len(data))
    moved = (data.log_return / data.scale)[other] * data.scale
    return replace(data, up=data.up[other], log_return=moved)


def gain_of(data: Dataset, config: TrainConfig, refit_every: int) -> Gain:
    """What a walk forward gains on the base rate. Raises TrainingFailed where it has nothing to judge."""
    result = backtest.run(data, config, backtest.Policy(refit_every=refit_every))
    return backtest.judge(result.data, result.said).gain


def judged(case: Case) -> Gain | None:
    """The gain on a null; None where no training gave a model that may answer."""
    with threadpool_limits(1, "blas"):
        try:
            return gain_of(data_of(case), replace(TrainConfig(), window=WINDOW, seed=case.seed), REFIT_EVERY)
        except TrainingFailed:
            return None


def rows(kind: str, gains: Sequence[Gain | None]) -> list[Row]:
    """Claims of skill and of its opposite, of which a true level makes 5 % on average; and the mean of z and its
    deviation, which has to be 1 for the level to be true."""
    found = [gain for gain in gains if gain is not None]
    z = np.array([gain.z for gain in found])
    return [
        Row(f"{kind}, skill claimed of {len(found)}", 1, float(np.sum(z > Z_CLAIM)), "claims"),
        Row(f"{kind}, worse claimed of {len(found)}", 1, float(np.sum(z < -Z_CLAIM)), "claims"),
        Row(f"{kind}, z, mean", 1, float(z.mean()), "errors"),
        Row(f"{kind}, z, standard deviation", 1, float(z.std(ddof=1)), "errors"),
        Row(f"{kind}, not judged", 1, float(len(gains) - len(found)), "walks"),
    ]


def main() -> None:
    """Judges all nulls that can be had here."""
    given = report.arguments(str(__doc__).split("\n", 1)[0])
    kinds = [WALK]
    if (REAL / f"{REAL_NAME}.parquet").exists():
        kinds.append(SHUFFLED)
    else:
        Console(stderr=True).print(f"{SHUFFLED}: skipped, there is no {REAL_NAME} in {REAL.name}/")
    found: list[Row] = []
    with ProcessPoolExecutor(PROCESSES, multiprocessing.get_context("spawn")) as pool:
        for kind in kinds:
            cases = [Case(kind, seed) for seed in range(QUICK_WALKS if given.quick else WALKS)]
            found += rows(kind, list(pool.map(judged, cases, chunksize=2)))
    report.show("nulls", found, given.json)


if __name__ == "__main__":
    main()
