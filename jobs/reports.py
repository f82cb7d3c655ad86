"""What a walk comes to, as the document that is stored, printed and drawn, and as a table of every judged row."""

import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from model import backtest, bars, controls, dataset, scores
from model.backtest import REASONS, Judgement, Policy, Result, Said
from model.backtest import trading as trade
from model.backtest.trading import Market
from model.config import TrainConfig
from model.controls import Check
from model.dataset import Dataset
from model.portfolio import Costs, performance, policies, sensitivity
from model.portfolio.trading import Traded
from model.significance import sharpe
from store.trials import Trials

Float64 = NDArray[np.float64]

TRADES_LISTED = 200
# Each-way costs that the result is told for, as shares of those assumed.
SWEEP = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)


@dataclass(frozen=True)
class Walked:
    """A walk, and what it was of."""

    market: bars.Market
    history: bars.Bars
    timeframe: bars.Timeframe
    data: Dataset
    config: TrainConfig
    policy: Policy
    result: Result
    beside: backtest.Others
    trading: policies.Policy
    costs: Costs
    latency: int  # bars until a position is traded, beyond the next open


@dataclass(frozen=True)
class Evaluation:
    """What a walk comes to."""

    document: dict[str, Any]
    rows: pl.DataFrame
    sharpe_bar: float | None  # of the strategy's returns after costs


def evaluate(walked: Walked, tried: Trials) -> Evaluation:
    """All of it; `tried` are the other ways that were tried in this market."""
    result = walked.result
    on = trade.market(result, walked.history, walked.timeframe, walked.config.jump_z)
    strategy = trade.traded(on, result, walked.trading, walked.costs, walked.latency)
    hold = trade.held(on, walked.costs)
    worth = significance(strategy.net_return, tried)
    document = {
        **described(walked),
        **scored(walked),
        "trading": trading(walked, on, strategy, hold),
        "significance": worth,
        "controls": [check.document() for check in checked(result.data)],
    }
    return Evaluation(document, frame(walked, on, strategy, hold), worth["sharpe_bar"])


def scored(walked: Walked) -> dict[str, Any]:
    """How good what was said was, beside baselines, with and without the rows on which the version had doubts."""
    result = walked.result
    judged = backtest.judge(result.data, result.said, walked.beside, intervals=True)
    return {
        "scores": judged.document(),
        "intervals": judged.intervals,
        "paired": {name: each.document() for name, each in judged.paired.items()},
        "reliability": scores.reliability(result.said.p_up, result.data.up.astype(np.float64)),
        "abstained": _abstained(result),
        "verdict": _verdict(judged),
    }


def _verdict(judged: Judgement) -> dict[str, Any]:
    gain = judged.gain
    return {"skill": gain.skill, "text": backtest.plain(gain), "gain": gain.mean, "z": gain.z}


def _abstained(result: Result) -> dict[str, Any]:
    """On how many rows the version had better not have answered, why, and the scores of all others."""
    answered = result.refused == 0
    counts = np.bincount(result.refused, minlength=len(REASONS))
    reasons = {
        reason.value: int(count)
        for reason, count in zip(REASONS, counts.tolist(), strict=True)
        if reason is not None and count
    }
    if answered.all() or not answered.any():
        return {"rows": int((~answered).sum()), "reasons": reasons, "scores": None}
    said = Said(*(getattr(result.said, column.name)[answered] for column in fields(Said)))
    kept = backtest.judge(result.data.part(answered), said).model
    return {"rows": int((~answered).sum()), "reasons": reasons, "scores": kept.document()}


def checked(data: Dataset, earn: Any = None) -> tuple[Check, ...]:
    """Forecasters whose scores are known beforehand, through the very path that the walk's forecasts take."""

    def judge(rows: Dataset, said: Said) -> Mapping[str, float | None]:
        judged = backtest.judge(rows, said)
        return {**judged.model.document(), "gain": judged.gain.mean}

    return controls.check(data, judge, earn)


def trading(walked: Walked, on: Market, strategy: Traded, hold: Traded) -> dict[str, Any]:
    """What was earned beside holding, after what costs, and how much of it depends on these."""
    earned = performance.measure(strategy)
    costs = strategy.costs
    points = sensitivity.sweep(strategy, [costs.each_way_bps * share for share in SWEEP])
    return {
        "strategy": earned.document(),
        "buy_and_hold": performance.measure(hold).document(),
        "policy": walked.trading.document(),
        "costs": {**asdict(costs), "each_way_bps": costs.each_way_bps},
        "latency_bars": walked.latency,
        "break_even_bps": sensitivity.break_even_bps(strategy),
        "sweep": [point.document() for point in points],
        "trades": _trades(strategy, on),
        "text": performance.plain(earned),
    }


def _trades(strategy: Traded, on: Market) -> list[dict[str, Any]]:
    """The newest ones, newest first."""
    trades = strategy.trades
    newest = slice(None, -TRADES_LISTED - 1, -1)
    columns = (trades.entered, trades.left, trades.side, trades.bars, trades.net_return)
    return [
        {
            "entered": bars.iso(_moment(on.opens[entered])),
            "left": bars.iso(_moment(on.opens[left])),
            "side": "long" if side > 0 else "short",
            "bars": int(length),
            "net_return": float(earned),
        }
        for entered, left, side, length, earned in zip(*(column[newest] for column in columns), strict=True)
    ]


def significance(net: Float64, tried: Trials) -> dict[str, Any]:
    """What the strategy's Sharpe ratio is worth, given its own length and shape and how many ways were tried: net (n,)
    are its returns per bar after costs."""
    record = sharpe.track_record(net)
    trials = tried.count + 1
    if record is None:
        return {"trials": trials, "sharpe_bar": None, "probabilistic_sharpe": None, "deflated_sharpe": None,
                "min_track_record_bars": None}  # fmt: skip
    known = [*tried.sharpes_bar, record.sharpe_bar]
    # the ways that were tried are as far apart as they turned out; one alone is not deflated
    spread = float(np.std(known, ddof=1)) if len(known) > 1 else 0.0
    return {
        "trials": trials,
        "sharpe_bar": record.sharpe_bar,
        "probabilistic_sharpe": sharpe.probabilistic(record),
        "deflated_sharpe": sharpe.deflated(record, trials, spread),
        "min_track_record_bars": sharpe.min_track_record_bars(record),
    }


def described(walked: Walked) -> dict[str, Any]:
    """What was judged, and how it was trained on the way."""
    result, history = walked.result, walked.history
    return {
        "market": asdict(walked.market),
        "rows": len(result.data),
        "first_read": bars.iso(history["ts"][0]),
        "first_judged": bars.iso(_moment(result.data.closed_at[0])),
        "last_judged": bars.iso(_moment(result.data.closed_at[-1])),
        "window": min(walked.config.window, len(walked.data)),
        "refit_every": walked.policy.refit_every,
        "config": walked.config.document(),
        "policy": asdict(walked.policy),
        "refits": [
            {**asdict(refit), "closed_at": bars.iso(_moment(np.int64(refit.closed_at)))}
            for refit in result.refits
        ],
        "outcomes": _outcomes(walked),
        "breaks": dataset.left_out(history, walked.timeframe, walked.config, result.data),
    }


def _outcomes(walked: Walked) -> dict[str, int]:
    """Of the bars from the first judged on: how many have an outcome, how many have none for a break under or after
    them, and of how many it is yet to come. Nothing in the past is overdue."""
    first = walked.result.data.closed_at[0]
    closes = walked.history.select(walked.timeframe.closes(pl.col("ts")).dt.epoch("us")).to_series()
    since = int((closes >= int(first)).sum())
    scored = len(walked.result.data)
    pending = min(walked.config.horizon, since - scored)
    return {"scored": scored, "void": since - scored - pending, "pending": pending, "overdue": 0}


def frame(walked: Walked, on: Market, strategy: Traded, hold: Traded) -> pl.DataFrame:
    """Every judged row: what was said, what came, and what the strategy and holding earned until the next one."""
    result = walked.result
    reasons = [None if reason is None else reason.value for reason in REASONS]
    return pl.DataFrame(
        {
            "as_of": pl.Series(result.data.closed_at).cast(bars.TS),
            "refit": result.refit,
            **{column.name: getattr(result.said, column.name) for column in fields(Said)},
            "close": result.data.close,
            "log_return": result.data.log_return,
            "up": result.data.up > 0.5,
            "reason": pl.Series([reasons[place] for place in result.refused.tolist()], dtype=pl.String),
            "position": strategy.held[on.places],
            "net_return": _until_the_next(strategy, on),
            "buy_and_hold": _until_the_next(hold, on),
        }
    )


def _until_the_next(traded: Traded, on: Market) -> Float64:
    """What each judged row's step earned, with those of bars without a row that follow it: leaving on one costs too."""
    earned: Float64 = np.multiply.reduceat(1 + traded.net_return, on.places) - 1
    return earned


def parquet(rows: pl.DataFrame) -> bytes:
    """The table as a Parquet file."""
    buffer = io.BytesIO()
    rows.write_parquet(buffer, compression="zstd")
    return buffer.getvalue()


def _moment(micros: np.int64) -> Any:
    return pl.Series([int(micros)]).cast(bars.TS).item()
