"""How soon skill is back after the market has turned: `python -m benchmarks.regimes [--quick] [--json]`.

In a synthetic market (benchmarks/markets.py) the linear signal changes its sign, BEFORE bars after the first training:
what meant up means down from there on. Walks forward by the settings that ship, trained every so many bars, when they
have gained nothing since the last training (`by need`), going on from the champion's weights (`warm`), or never again.

Bars until skill is back: from the flip to the first bar from which on the mean gain over the base rate of the newest
TRAILING bars since the flip is above zero and stays so until the end. Gains are expected ones over the outcomes, given
the planted p, so that no coin's luck is in them. Beside it the share that was got of all that could be gained on the base
rate from the flip to the end: below zero, one would have been better off without. Medians over seeds.
"""

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from statistics import median

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from benchmarks import markets, report
from benchmarks.report import Row
from model import backtest, bars, dataset
from model.backtest import Policy
from model.config import TrainConfig
from model.features import WARMUP

Float64 = NDArray[np.float64]

SIGNAL = "linear"
BEFORE = 1_000  # bars judged before the flip
TRAILING = 500
WINDOWS = {
    TrainConfig().window: 12_000,
    2_500: 6_000,
}  # rows of a training, and bars from the flip to the end
QUICK_WINDOWS = {1_500: 2_500}
AUCS, QUICK_AUCS = (0.6, 0.7), (0.7,)
SEEDS, QUICK_SEEDS = (1, 2, 3), (1,)
PROCESSES = 2
NEVER = 10**9  # bars: no second training
POLICIES = {
    "never again": Policy(refit_every=NEVER),
    "every 2,000": Policy(refit_every=2_000),
    "every 1,000": Policy(refit_every=1_000),
    "every 500": Policy(refit_every=500),
    "every 250": Policy(refit_every=250),
    "by need, asked every 250": Policy(refit_every=250, by_need=True),
    "warm, every 250": Policy(refit_every=250, warm=True),
}


@dataclass(frozen=True)
class Case:
    """A walk: the market's AUC and seed, rows of a training, bars after the flip, and a name of POLICIES."""

    auc: float
    window: int
    after: int
    policy: str
    seed: int


@dataclass(frozen=True)
class Found:
    """Bars until skill was back, None where it was not by the end; the share of what was attainable; and trainings."""

    case: Case
    bars: int | None
    share: float
    trained: int


def walked(case: Case) -> Found:
    """What becomes of a walk after the flip."""
    flip = case.window + 1 + BEFORE  # the first row of which the turned signal speaks
    market = markets.planted(
        WARMUP + flip + case.after + 1,
        case.seed,
        markets.SIGNALS[SIGNAL],
        markets.STRENGTHS[SIGNAL, case.auc],
        (WARMUP + flip,),
    )
    config = replace(TrainConfig(), window=case.window, seed=case.seed)
    data = dataset.from_bars(market.bars, bars.timeframe("1h"), config)
    with threadpool_limits(1, "blas"):
        result = backtest.run(data, config, POLICIES[case.policy])
    new = result.data.closed_at >= data.closed_at[flip]
    p = market.p[WARMUP + flip : WARMUP + len(data)]
    gains = costs(p, result.said.base_rate[new]) - costs(p, result.said.p_up[new])
    best = costs(p, result.said.base_rate[new]) - costs(p, p)
    trained = sum(refit.outcome != "kept" for refit in result.refits)
    return Found(case, until_back(gains), float(gains.sum() / best.sum()), trained)


def costs(p: Float64, said: Float64) -> Float64:
    """The expected log loss of each bar (n,)."""
    loss: Float64 = -p * np.log(said) - (1 - p) * np.log1p(-said)
    return loss


def until_back(gains: Float64) -> int | None:
    """The first bar from which on the mean of the newest TRAILING gains is above zero until the end; None where the end
    is not. The first bars have a mean of as many as there are, so that nobody is back for having been asked late."""
    total = np.concatenate(([0.0], np.cumsum(gains)))
    ends = np.arange(1, len(total))
    lost = np.flatnonzero(total[ends] - total[np.maximum(ends - TRAILING, 0)] <= 0)
    if len(lost) == 0:
        return 0
    return None if lost[-1] == len(gains) - 1 else int(lost[-1]) + 1


def rows(found: Sequence[Found]) -> list[Row]:
    """The medians of each policy; bars beside those of a training every thousand bars."""
    groups: dict[tuple[float, int, int], dict[str, list[Found]]] = {}
    for one in found:
        key = (one.case.auc, one.case.window, one.case.after)
        groups.setdefault(key, {}).setdefault(one.case.policy, []).append(one)
    figures = []
    for (auc, window, after), policies in groups.items():
        for policy, of in policies.items():
            name = f"AUC {auc:.2f}, window {window:,}, {policy}"
            late = sum(one.bars is None for one in of)
            waited = median(after if one.bars is None else one.bars for one in of)
            figures += [
                Row(f"{name}{f' (not back: {late} of {len(of)})' if late else ''}", 1, waited, "bars"),
                Row(f"{name}, attainable gain", 1, 100 * median(one.share for one in of), "%", lower_is_better=False),
                Row(f"{name}, trainings", 1, median(one.trained for one in of), "trainings"),
            ]  # fmt: skip
    return figures


def main() -> None:
    """Walks through every market by every policy."""
    given = report.arguments(str(__doc__).split("\n", 1)[0])
    cases = [
        Case(auc, window, after, policy, seed)
        for window, after in (QUICK_WINDOWS if given.quick else WINDOWS).items()
        for auc in (QUICK_AUCS if given.quick else AUCS)
        for policy in POLICIES
        for seed in (QUICK_SEEDS if given.quick else SEEDS)
    ]
    with ProcessPoolExecutor(PROCESSES, multiprocessing.get_context("spawn")) as pool:
        report.show("regimes", rows(list(pool.map(walked, cases))), given.json)


if __name__ == "__main__":
    main()
