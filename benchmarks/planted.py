"""How much of a planted signal is found: `python -m benchmarks.planted [--quick] [--json]`.

Synthetic markets (benchmarks/markets.py) whose probability of up is known bar by bar. Our network, by the settings that
ship but for a window of TRAIN rows, learns from the first TRAIN rows; beside it stand the baselines that ship, logistic
regression and LightGBM, on the same rows and features. All are asked about the FRESH rows that follow. The figure is the
share of what can be gained on the base rate,

    (log loss of the base rate - log loss of the model) / (log loss of the base rate - log loss of the planted p),

where each log loss is the expected one over the outcomes of these rows, given the planted p: -p log q - (1 - p) log(1 - q)
of whoever says q, so that the best there is costs the mean entropy of p, and no coin's luck is in any figure. The mean
of several seeds is told, and the least of them.
"""

import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from benchmarks import markets, report
from benchmarks.report import Row
from model import backtest, bars, baselines, dataset, predictor, training
from model.config import TrainConfig
from model.dataset import Dataset
from model.errors import BadInput
from model.features import WARMUP

Float64 = NDArray[np.float64]

TRAIN, FRESH = 20_000, 50_000
QUICK_TRAIN, QUICK_FRESH = 5_000, 10_000
SEEDS, QUICK_SEEDS = (1, 2, 3), (1,)
PEERS = ("logistic", "lightgbm")
PROCESSES = 2
OURS = "ours"


@dataclass(frozen=True)
class Case:
    """A market to make and to learn: its signal, the AUC of the planted probabilities, its seed, and how many rows."""

    signal: str
    auc: float
    seed: int
    train: int
    fresh: int


@dataclass(frozen=True)
class Found:
    """What can be gained on the base rate (nats a row), and the share of it that each forecaster got."""

    case: Case
    attainable: float
    shares: dict[str, float]


def market(case: Case) -> tuple[Dataset, Dataset, Float64]:
    """The rows to learn from, the fresh ones, and what was planted for the fresh ones."""
    made = markets.planted(
        WARMUP + case.train + case.fresh + 1,
        case.seed,
        markets.SIGNALS[case.signal],
        markets.STRENGTHS[case.signal, case.auc],
    )
    data = dataset.from_bars(made.bars, bars.timeframe("1h"), TrainConfig())
    assert len(data) == case.train + case.fresh  # no row stands on a break, so rows and planted p are in step
    p = made.p[WARMUP : WARMUP + len(data)]
    return data.part(slice(0, case.train)), data.part(slice(case.train, len(data))), p[case.train :]


def ours(learn: Dataset, fresh: Dataset, config: TrainConfig) -> Float64:
    """What a training says of the fresh rows, by the calibration that it was made with."""
    model = predictor.from_arrays(*training.contents(training.fit(learn, config)))
    return backtest.forecasts(model, fresh).p_up


def found(case: Case) -> Found:
    """Everybody's share."""
    with threadpool_limits(1, "blas"):
        learn, fresh, p = market(case)
        config = replace(TrainConfig(), window=case.train, seed=case.seed)
        said = {OURS: ours(learn, fresh, config)}
        for peer in PEERS:
            try:
                said[peer] = baselines.BASELINES[peer](learn, np.ones(len(learn)), fresh)[0]
            except BadInput:  # an extra that is not installed
                continue
    base = markets.log_loss(p, np.full(len(p), learn.up.mean(dtype=np.float64)))
    attainable = base - markets.entropy(p)
    shares = {name: (base - markets.log_loss(p, q)) / attainable for name, q in said.items()}
    return Found(case, attainable, shares)


def rows(of: Sequence[Found]) -> Iterator[Row]:
    """The shares of each signal and AUC over its seeds, ours beside each peer's, and what there was to gain."""
    for signal, auc in markets.STRENGTHS:
        same = [one for one in of if (one.case.signal, one.case.auc) == (signal, auc)]
        case = f"{signal}, AUC {auc:.2f}"

        def percent(name: str, same: list[Found] = same) -> list[float]:
            return [100 * one.shares[name] for one in same]

        mine = percent(OURS)
        for peer in PEERS:
            if peer in same[0].shares:
                value = float(np.mean(percent(peer)))
                yield Row(
                    f"{case}, of the gain", 1, float(np.mean(mine)), "%", peer, value, lower_is_better=False
                )
        yield Row(f"{case}, of the gain, least of {len(same)}", 1, min(mine), "%")
        gain = 1_000 * float(np.mean([one.attainable for one in same]))
        yield Row(f"{case}, what can be gained", 1, gain, "millinats")


def main() -> None:
    """Makes and learns every market."""
    given = report.arguments(str(__doc__).split("\n", 1)[0])
    sizes = (QUICK_TRAIN, QUICK_FRESH) if given.quick else (TRAIN, FRESH)
    seeds = QUICK_SEEDS if given.quick else SEEDS
    cases = [Case(signal, auc, seed, *sizes) for signal, auc in markets.STRENGTHS for seed in seeds]
    with ProcessPoolExecutor(PROCESSES, multiprocessing.get_context("spawn")) as pool:
        report.show("planted", list(rows(list(pool.map(found, cases)))), given.json)


if __name__ == "__main__":
    main()
