"""A search for a better configuration as a job: trials on a market's older bars, a judgement on its newest. It changes
no setting.

Every trial is counted as it comes.
"""

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from functools import cache
from typing import Any

import numpy as np
import polars as pl

import store.bars
import store.inputs
import store.jobs
import store.trials
from jobs import folds, proposals, reports
from jobs.backtest import policy_of
from jobs.proposals import Proposals
from jobs.retrain import config_of
from model import backtest, bars, dataset, tuning
from model.backtest import Fits
from model.backtest import trading as trade
from model.config import TrainConfig
from model.dataset import Dataset
from model.errors import TrainingFailed
from model.significance import sharpe
from model.tuning import Nested, Trial, Walked
from store import database
from store.database import Connection, Engine
from store.jobs import Job, Keep
from store.settings import Settings

log = logging.getLogger(__name__)

TRIALS = 30
JUDGE = 0.3
SEARCH = 0.9  # of the work, roughly; judging is the rest
# Settings of trainings that are not called as in TrainConfig.
NAMED = {"window": "window_bars", "horizon": "horizon_bars"}


@dataclass(frozen=True)
class Ground:
    """What all walks of a search share."""

    settings: Settings
    refit: Mapping[str, int]  # the job's own interval between trainings, where it has one
    history: bars.Bars
    timeframe: bars.Timeframe
    data: Callable[[int], Dataset]  # of that horizon
    fits: Fits


def run(
    engine: Engine,
    job: Job,
    settings: Settings,
    clock: Callable[[], datetime],
    progress: Callable[[float], None],
) -> Keep:
    """Searches on the job's market; what it gives back tells the document of design `tune`.

    An interrupt ends the search, and what was found so far is judged; another one ends the job. Raises BadInput where
    Optuna is not installed, TrainingFailed where there is no room to judge or every trial fails.
    """
    assert job.market is not None
    assert job.market_id is not None
    market, market_id, params = job.market, job.market_id, job.params
    default, seed = config_of(settings, {}), params.get("seed", 0)
    searched = tuning.space(default, params.get("only") or tuning.SPACE)
    start = {name: value for name, value in tuning.point_of(default).items() if name in searched}
    proposals.need()
    horizon = tuning.longest(searched, default)
    ground = _ground(engine, market_id, bars.timeframe(market.timeframe), settings, params, horizon, clock())
    whole = ground.data(horizon)
    split = tuning.nested(whole, params.get("judge", JUDGE))
    inner = int((whole.closed_at <= split.inner_until).sum())
    searched = tuning.within(searched, default, inner)
    trials: list[Trial] = []
    stopped = None
    began, timeout, limit = time.monotonic(), params.get("timeout"), params.get("trials", TRIALS)

    def searching(tried: float) -> None:
        spent = 0.0 if timeout is None else (time.monotonic() - began) / timeout
        progress(SEARCH * min(1.0, max(tried / limit, spent)))

    try:
        for trial in search(
            ground, default, split, proposals.points(searched, start, seed), limit, searching
        ):
            with database.write(engine) as conn:
                _count(conn, job, ground, trial, clock())
            trials.append(trial)
            if timeout is not None and time.monotonic() - began >= timeout:
                stopped = "timeout"
                break
    except KeyboardInterrupt:
        if not trials or not _goes_on(engine, job):
            raise
        stopped = "interrupted"
        log.warning("the search ends after %d trials, and what it found is judged now", len(trials))
    best = tuning.choose(trials)

    def judging(done: float) -> None:
        progress(SEARCH + (1 - SEARCH) * done)

    half = 1.0 if best.number == 0 else 0.5
    by_default = _outcome(ground, default, split.outer_from, None, lambda done: judging(done * half))
    by_best = (
        by_default
        if best.number == 0
        else _outcome(ground, best.config, split.outer_from, None, lambda done: judging(half + done * half))
    )
    document = {
        "market": asdict(market),
        "searched": list(searched),
        "seed": seed,
        "stopped": stopped,
        "trials": [trial.document() for trial in trials],
        "chosen": {
            "number": best.number,
            "params": dict(best.point),
            "settings": settings_for(default, best.config),
        },
        "inner": _inner(trials, best),
        "outer": _outer(by_default, by_best),
        "overfitting": asdict(tuning.overfit(trials)),
    }

    def keep(conn: Connection) -> dict[str, Any]:
        tried = store.trials.others(conn, market_id, {})
        others = store.trials.others(conn, market_id, _described(ground, best.config))
        worth = None if isinstance(by_best, str) else reports.significance(by_best.net_return, others)
        return {**document, "significance": worth, "trials_counted": tried.count}

    return keep


def search(
    ground: Ground,
    default: TrainConfig,
    split: Nested,
    proposed: Proposals,
    limit: int,
    progress: Callable[[float], None],
) -> Iterator[Trial]:
    """Up to so many trials on the inner rows, the default first. One that fails tells why and does not end the others;
    what is proposed again is not tried again. `progress` takes how many trials are done."""
    found: dict[TrainConfig, float | None] = {}
    point = next(proposed)
    for turn in range(limit):
        config = tuning.config_at(default, point)
        if config not in found:
            began, share = time.monotonic(), turn
            outcome = _outcome(
                ground,
                config,
                split.inner_from,
                split.inner_until,
                lambda done, share=share: progress(share + done),  # type: ignore[misc]
            )
            found[config] = tuning.objective(outcome)
            yield Trial(len(found) - 1, point, config, outcome, time.monotonic() - began)
        point = proposed.send(found[config])


def settings_for(default: TrainConfig, chosen: TrainConfig) -> str:
    """What of the settings has to be changed for this configuration, as TOML; nothing where that is the default."""
    changed = {
        NAMED.get(name, name): getattr(chosen, name)
        for name in ("learning_rate", "hidden", "dropout", "window", "horizon")
        if getattr(chosen, name) != getattr(default, name)
    }
    lines = [
        f"{name} = {list(value) if isinstance(value, tuple) else value!r}\n"
        for name, value in changed.items()
    ]
    return "".join(["[training]\n", *lines]) if lines else ""


def _ground(
    engine: Engine,
    market_id: int,
    timeframe: bars.Timeframe,
    settings: Settings,
    params: Mapping[str, Any],
    horizon: int,
    now: datetime,
) -> Ground:
    """All of the market's bars, or those that its newest rows need, for horizons up to this one."""
    default, last = config_of(settings, {}), params.get("last")
    needed = None if last is None else dataset.bars_for(replace(default, horizon=horizon), timeframe, last)
    with database.read(engine) as conn:
        history = store.bars.read(conn, market_id, timeframe, closed_by=now, last=needed)
        others = store.inputs.beside(conn, default.feature_set, history, timeframe)

    @cache
    def data(of: int) -> Dataset:
        rows = dataset.from_bars(history, timeframe, replace(default, horizon=of), last, others)
        return rows if last is None else rows.part(slice(max(0, len(rows) - last), None))

    fits = folds.over(settings, settings.backtest.processes or max(1, (os.cpu_count() or 1) - 1))
    refit = {name: params[name] for name in ("refit_every",) if name in params}
    return Ground(settings, refit, history, timeframe, data, fits)


def _outcome(
    ground: Ground, config: TrainConfig, since: int, until: int | None, progress: Callable[[float], None]
) -> Walked | str:
    """How it does on the rows that closed from `since` to `until`, or why it fails."""
    try:
        return _walk(ground, config, since, until, progress)
    except TrainingFailed as error:
        return str(error)


def _walk(
    ground: Ground, config: TrainConfig, since: int, until: int | None, progress: Callable[[float], None]
) -> Walked:
    data = ground.data(config.horizon)
    if until is not None:
        data = data.part(slice(0, int(np.searchsorted(data.closed_at, until, side="right"))))
    first = tuning.rows_before(data, since)
    policy = policy_of(ground.settings, {**ground.refit, "first": first}, config, ground.timeframe, len(data))
    blocks = []
    for block in backtest.walk_forward(data, config, policy, ground.fits):
        blocks.append(block)
        progress(block.rows.stop / len(data))
    if all(block.standing is None for block in blocks):
        raise TrainingFailed(f"no training gave a network that may answer: {blocks[-1].refit.reason}")
    result = tuning.judged_since(backtest.result(data, blocks), since)
    on = trade.market(result, ground.history, ground.timeframe, config.jump_z)
    portfolio, assumed = ground.settings.portfolio.chosen(), ground.settings.backtest
    strategy = trade.traded(on, result, portfolio, assumed.costs(), assumed.latency_bars)
    record = sharpe.track_record(strategy.net_return)
    return tuning.walked(
        data, result, strategy.net_return[on.places], None if record is None else record.sharpe_bar
    )


def _described(ground: Ground, config: TrainConfig) -> dict[str, Any]:
    """What is counted as one way to train and trade: the same that a backtest with these settings would be."""
    rows = len(ground.data(config.horizon))
    first = max(1, min(config.window, rows // 2))
    policy = policy_of(ground.settings, {**ground.refit, "first": first}, config, ground.timeframe, rows)
    assumed = ground.settings.backtest
    return {
        "train": config.document(),
        "policy": backtest.way(policy),
        "trading": ground.settings.portfolio.chosen().document(),
        "costs": {**asdict(assumed.costs()), "latency_bars": assumed.latency_bars},
    }


def _count(conn: Connection, job: Job, ground: Ground, trial: Trial, now: datetime) -> None:
    """Later claims are to be deflated by this trial, one that failed too."""
    assert job.market_id is not None
    found = None if isinstance(trial.outcome, str) else trial.outcome
    store.trials.add(
        conn,
        job.market_id,
        job.id,
        _described(ground, trial.config),
        0 if found is None else found.scores.rows,
        None if found is None else found.scores.log_loss,
        None if found is None else found.sharpe_bar,
        now,
    )


def _goes_on(engine: Engine, job: Job) -> bool:
    """Whether an interrupt came from the terminal: neither was the job cancelled, nor its lease lost."""
    with database.read(engine) as conn:
        row = store.jobs.get(conn, job.id)
    return row.state == "running" and row.owner == job.owner and not row.cancel_asked


def _inner(trials: list[Trial], best: Trial) -> dict[str, Any]:
    """What the choice was made by: where, and how the default and the chosen one did there."""
    named = {"default": trials[0].outcome, "chosen": best.outcome}
    return {**_where(best.outcome), **{name: _scores(outcome) for name, outcome in named.items()}}


def _outer(default: Walked | str, chosen: Walked | str) -> dict[str, Any]:
    said = tuning.verdict(default, chosen)
    return {
        **_where(chosen),
        "default": _scores(default),
        "chosen": _scores(chosen),
        "paired": None if said.paired is None else said.paired.document(),
        "verdict": {"better": said.better, "text": said.text},
    }


def _where(outcome: Walked | str) -> dict[str, Any]:
    if isinstance(outcome, str):
        return {"rows": 0, "first_judged": None, "last_judged": None}
    first, last = pl.Series(outcome.closed_at[[0, -1]]).cast(bars.TS)
    return {
        "rows": len(outcome.closed_at),
        "first_judged": bars.iso(first),
        "last_judged": bars.iso(last),
    }


def _scores(outcome: Walked | str) -> dict[str, Any] | None:
    if isinstance(outcome, str):
        return None
    gain = outcome.gain
    return {**outcome.scores.document(), "gain": gain.mean, "z": gain.z, "sharpe_bar": outcome.sharpe_bar}
