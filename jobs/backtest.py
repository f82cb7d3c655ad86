"""The walk-forward backtest of a stored market as a job; what it found is kept, and printed by the command line."""

import io
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from datetime import datetime
from typing import Any

import numpy as np
import polars as pl

import store.backtests
import store.bars
import store.inputs
from jobs.retrain import config_of
from model import backtest, bars, breaks, dataset, portfolio
from model.backtest import Result, Said
from model.config import TrainConfig
from model.errors import TrainingFailed
from model.portfolio import Costs
from store import database
from store.database import Connection, Engine
from store.jobs import Job, Keep
from store.settings import Settings


def run(
    engine: Engine,
    job: Job,
    settings: Settings,
    clock: Callable[[], datetime],
    progress: Callable[[float], None],
) -> Keep:
    """Walks through the job's market; what it gives back keeps the walk and tells the document of design `backtest`.

    Raises TrainingFailed where there is no room to judge.
    """
    assert job.market is not None
    assert job.market_id is not None
    market_id = job.market_id
    config = config_of(settings, job.params)
    refit_every = job.params.get("refit_every", settings.backtest.refit_every_bars)
    costs = Costs(settings.backtest.fee_bps, settings.backtest.slippage_bps)
    kept = bars.timeframe(job.market.timeframe)
    last = job.params.get("last")
    wanted = None if last is None else last + config.window + config.horizon
    needed = None if wanted is None else dataset.bars_for(config, kept, wanted)
    with database.read(engine) as conn:
        history = store.bars.read(conn, market_id, kept, closed_by=clock(), last=needed)
        others = store.inputs.beside(conn, config.feature_set, history, kept)
    data = dataset.from_bars(history, kept, config, wanted, others)
    if (
        "window" not in job.params
    ):  # a young market is judged by windows of half its rows, unless somebody says otherwise
        config = replace(config, window=max(1, min(config.window, len(data) // 2)))
    if last is not None:
        data = data.part(slice(max(0, len(data) - last - config.window - config.horizon), len(data)))
    result = backtest.run(data, config, backtest.Policy(refit_every), progress=progress)
    judged = backtest.judge(result.data, result.said)
    gain = judged.gain
    document = {
        "market": asdict(job.market),
        "rows": len(result.data),
        "first_read": bars.iso(history["ts"][0]),
        "first_judged": bars.iso(_moment(result.data.closed_at[0])),
        "last_judged": bars.iso(_moment(result.data.closed_at[-1])),
        "window": config.window,
        "refit_every": refit_every,
        "refits": [asdict(refit) for refit in result.refits],
        "scores": judged.document(),
        "verdict": {"skill": gain.skill, "text": backtest.plain(gain), "gain": gain.mean, "z": gain.z},
        "trading": _trading(result, history, kept, config, costs),
        "breaks": dataset.left_out(history, kept, config, data),
    }
    described = {"train": config.document(), "refit_every": refit_every, "costs": asdict(costs)}
    rows, now = _parquet(result), clock()

    def keep(conn: Connection) -> dict[str, Any]:
        ident = store.backtests.add(conn, job.id, market_id, described, document, rows, now)
        return {"id": ident, **document}

    return keep


def _moment(micros: np.int64) -> datetime:
    return pl.Series([int(micros)]).cast(bars.TS).item()  # type: ignore[no-any-return]


def _trading(
    result: Result, history: bars.Bars, kept: bars.Timeframe, config: TrainConfig, costs: Costs
) -> dict[str, Any]:
    """What the forecasts would have earned, traded at the next bar's open, beside buying once and holding.

    A bar without a row is an abstention: nothing is held. What lies across a break counts for neither.
    """
    closed_at = history.select(kept.closes(pl.col("ts")).dt.epoch("us")).to_series().to_numpy()
    places = np.searchsorted(closed_at, result.data.closed_at)
    first, n = int(places[0]), int(places[-1] - places[0]) + 1
    opens = history["open"].to_numpy()[first + 1 : first + 1 + n]
    if len(opens) < n:
        raise TrainingFailed("the judged bars have no bars after them to trade at")
    returns = portfolio.bar_returns(opens, history["close"][first + n])
    found = breaks.find(history, kept, config.jump_z)
    # a jump comes before its bar's open or within it
    returns[found.jump[first + 1 : first + 1 + n] != 0] = 0.0
    returns[:-1][found.broken[first + 2 : first + 1 + n]] = 0.0
    # n bars from first to last close are n - 1 steps
    seconds = float(result.data.closed_at[-1] - result.data.closed_at[0]) / 1e6 * n / max(n - 1, 1)
    expected = np.zeros(n)
    expected[places - first] = result.said.expected_return
    strategy = portfolio.positions(expected, costs)
    return {
        "strategy": portfolio.trade(strategy, returns, seconds, costs).document(),
        "buy_and_hold": portfolio.trade(np.ones(n), returns, seconds, costs).document(),
        "costs": asdict(costs),
    }


def _parquet(result: Result) -> bytes:
    """What was said of each judged bar, and what came of it."""
    frame = pl.DataFrame(
        {
            "as_of": pl.Series(result.data.closed_at).cast(bars.TS),
            **{column.name: getattr(result.said, column.name) for column in fields(Said)},
            "close": result.data.close,
            "log_return": result.data.log_return,
            "up": result.data.up > 0.5,
        }
    )
    buffer = io.BytesIO()
    frame.write_parquet(buffer, compression="zstd")
    return buffer.getvalue()
