"""The walk-forward backtest of a stored market as a job; what it found is kept, and printed by the command line."""

import io
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from typing import Any

import numpy as np
import polars as pl

import store.backtests
import store.bars
from jobs.retrain import config_of
from model import backtest, bars, dataset, features, portfolio
from model.backtest import Result
from model.errors import TrainingFailed
from model.features import FeatureSet
from model.portfolio import Costs
from store import database
from store.database import Engine
from store.jobs import Job
from store.settings import Settings


def run(
    engine: Engine,
    job: Job,
    settings: Settings,
    clock: Callable[[], datetime],
    progress: Callable[[float], None],
) -> dict[str, Any]:
    """Walks through the job's market and gives the document of design `backtest`. Raises TrainingFailed."""
    assert job.market is not None
    assert job.market_id is not None
    config = config_of(settings, job.params)
    refit_every = job.params.get("refit_every", settings.backtest.refit_every_bars)
    costs = Costs(settings.backtest.fee_bps, settings.backtest.slippage_bps)
    kept = bars.timeframe(job.market.timeframe)
    last = job.params.get("last")
    needed = None if last is None else last + config.window + config.horizon + features.HISTORY
    with database.read(engine) as conn:
        history = store.bars.read(conn, job.market_id, kept, closed_by=clock(), last=needed)
    feature_set = FeatureSet(config.features)
    data = dataset.build(features.rows(history, kept, feature_set), feature_set, config.horizon)
    if last is not None:
        data = data.part(slice(max(0, len(data) - last - config.window - config.horizon), len(data)))
    result = backtest.run(data, config, refit_every, progress)
    document = {
        "market": asdict(job.market),
        "rows": len(result.data),
        "first_read": bars.iso(history["ts"][0]),
        "first_judged": bars.iso(_moment(result.data.closed_at[0])),
        "last_judged": bars.iso(_moment(result.data.closed_at[-1])),
        "window": config.window,
        "refit_every": refit_every,
        "refits": [asdict(refit) for refit in result.refits],
        **backtest.judge(result),
        "trading": _trading(result, history, kept, costs),
    }
    with database.write(engine) as conn:
        ident = store.backtests.add(
            conn,
            job.id,
            job.market_id,
            {"train": config.document(), "refit_every": refit_every, "costs": asdict(costs)},
            document,
            _parquet(result),
            clock(),
        )
    return {"id": ident, **document}


def _moment(micros: np.int64) -> datetime:
    return pl.Series([int(micros)]).cast(bars.TS).item()  # type: ignore[no-any-return]


def _trading(result: Result, history: bars.Bars, kept: bars.Timeframe, costs: Costs) -> dict[str, Any]:
    """What the forecasts would have earned, traded at the next bar's open, beside buying once and holding."""
    closed_at = history.select(kept.closes(pl.col("ts")).dt.epoch("us")).to_series().to_numpy()
    first = int(np.searchsorted(closed_at, result.data.closed_at[0]))
    n = len(result.data)
    opens = history["open"].to_numpy()[first + 1 : first + 1 + n]
    if len(opens) < n:
        raise TrainingFailed("the judged bars have no bars after them to trade at")
    returns = portfolio.bar_returns(opens, history["close"][first + n])
    seconds = float(result.data.closed_at[-1] - result.data.closed_at[0]) / 1e6
    strategy = portfolio.positions(result.said.expected_return, costs)
    return {
        "strategy": portfolio.trade(strategy, returns, seconds, costs).document(),
        "buy_and_hold": portfolio.trade(np.ones(n), returns, seconds, costs).document(),
        "costs": asdict(costs),
    }


def _parquet(result: Result) -> bytes:
    """What was said of each judged bar, and what came of it."""
    columns = ("base_rate", "p_up", "expected_return", "price", "low", "high")
    frame = pl.DataFrame(
        {
            "as_of": pl.Series(result.data.closed_at).cast(bars.TS),
            **{name: getattr(result.said, name) for name in columns},
            "close": result.data.close,
            "log_return": result.data.log_return,
            "up": result.data.up > 0.5,
        }
    )
    buffer = io.BytesIO()
    frame.write_parquet(buffer, compression="zstd")
    return buffer.getvalue()
