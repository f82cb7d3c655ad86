"""The walk-forward backtest of a stored market as a job; what it found is kept, and printed by the command line."""

import os
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any

import store.backtests
import store.bars
import store.inputs
import store.trials
from jobs import folds, reports, walks
from jobs.reports import Walked
from jobs.retrain import config_of
from model import backtest, bars, dataset
from model.backtest import Policy
from model.config import TrainConfig
from model.errors import BadInput, BrokenEvaluation
from store import database
from store.database import Connection, Engine
from store.jobs import Job, Keep
from store.settings import Settings

# Of the work, roughly: the walk, then the baselines; judging is the rest.
WALK, BASELINES = 0.7, 0.95


def run(
    engine: Engine,
    job: Job,
    settings: Settings,
    clock: Callable[[], datetime],
    progress: Callable[[float], None],
) -> Keep:
    """Walks through the job's market; what it gives back keeps the walk and tells the document of design `backtest`.

    Raises TrainingFailed where there is no room to judge, BrokenEvaluation where a control scores otherwise than it must:
    then nothing that this path says can be believed, and nothing is kept.
    """
    assert job.market is not None
    assert job.market_id is not None
    market_id, params = job.market_id, job.params
    config = config_of(settings, params)
    if params.get("expanding"):
        if "window" in params:
            raise BadInput(
                "a window that grows with the bars (expanding) has no length: leave one of them out"
            )
        config = replace(config, window=10**9)
    kept = bars.timeframe(job.market.timeframe)
    last = params.get("last")
    reads = None if params.get("expanding") else last
    wanted = None if reads is None else reads + config.window + config.horizon
    needed = None if wanted is None else dataset.bars_for(config, kept, wanted)
    with database.read(engine) as conn:
        history = store.bars.read(conn, market_id, kept, closed_by=clock(), last=needed)
        others = store.inputs.beside(conn, config.feature_set, history, kept)
    data = dataset.from_bars(history, kept, config, wanted, others)
    if wanted is not None:
        data = data.part(slice(max(0, len(data) - wanted), len(data)))
    policy = policy_of(settings, params, config, kept, len(data))
    fits = folds.over(settings, settings.backtest.processes or max(1, (os.cpu_count() or 1) - 1))
    blocks = []
    for block in walks.blocks(
        engine, market_id, data, config, policy, fits, bool(params.get("resume")), clock
    ):
        blocks.append(block)
        progress(WALK * block.rows.stop / len(data))
    result = backtest.result(data, blocks)
    beside = backtest.beside(
        data,
        config,
        policy,
        result,
        params.get("baselines", settings.backtest.baselines),
        lambda done: progress(WALK + done * (BASELINES - WALK)),
    )
    trading, costs, latency = (
        settings.portfolio.chosen(params.get("policy")),
        settings.backtest.costs(),
        settings.backtest.latency_bars,
    )
    walked = Walked(job.market, history, kept, data, config, policy, result, beside, trading, costs, latency)
    described = {
        "train": config.document(),
        "policy": backtest.way(policy),
        "trading": trading.document(),
        "costs": {**asdict(costs), "latency_bars": latency},
    }
    with database.read(engine) as conn:
        tried = store.trials.others(conn, market_id, described)
    evaluation = reports.evaluate(walked, tried)
    if broken := [check for check in evaluation.document["controls"] if not check["passed"]]:
        first = broken[0]
        raise BrokenEvaluation(
            f"the control {first['name']} has {first['figure']} {first['found']} and must have {first['expected']}: "
            "this evaluation is broken, and nothing that it says can be believed"
        )
    rows, now = reports.parquet(evaluation.rows), clock()

    def keep(conn: Connection) -> dict[str, Any]:
        document = evaluation.document
        loss = document["scores"]["model"]["log_loss"]
        store.trials.add(
            conn, market_id, job.id, described, document["rows"], loss, evaluation.sharpe_bar, now
        )
        store.backtests.drop_blocks(conn, walks.name(market_id, config, policy))
        ident = store.backtests.add(conn, job.id, market_id, described, document, rows, now)
        return {"id": ident, **document}

    return keep


def policy_of(
    settings: Settings, params: dict[str, Any], config: TrainConfig, kept: bars.Timeframe, rows: int
) -> Policy:
    """How a walk over so many rows trains and who answers, as the settings and the job's own parameters have it.

    Where nobody says otherwise, the first training is done on a window of rows, or on half of what there is; and where
    only the newest are to be judged, on those before them.
    """
    first = params.get("first")
    if first is None:
        first = params.get("window", max(1, min(settings.training.window_bars, rows // 2)))
    if "last" in params:
        first = max(first, rows - params["last"] - config.horizon)
    return Policy(
        refit_every=params.get("refit_every", settings.backtest.refit_every_bars),
        first=first,
        by_need=bool(params.get("by_need")),
        warm=bool(params.get("warm")),
        latency=params.get("latency", 0),
        caution=settings.signals.caution(kept.length),
    )
