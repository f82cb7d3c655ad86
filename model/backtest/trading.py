"""What a walk's forecasts would have earned: each bar's position traded at the next bar's open, beside holding."""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from model import breaks
from model.backtest.walk import Result
from model.bars import Bars, Timeframe, as_micros
from model.errors import TrainingFailed
from model.portfolio import Costs, policies, trading
from model.portfolio.policies import Forecasts, Policy
from model.portfolio.trading import Traded

Int64 = NDArray[np.int64]


@dataclass(frozen=True)
class Market:
    """What could be earned on the n bars from the first judged one to the last: a bar without a row is among them."""

    places: Int64  # of the judged rows among the n bars
    returns: NDArray[np.float64]  # (n,) of the step that each bar's position is held for; 0 across a break
    opens: Int64  # (n + 1,) microseconds: when each step began, and when the last one ended
    seconds: float


def market(result: Result, history: Bars, timeframe: Timeframe, jump_z: float) -> Market:
    """Raises TrainingFailed where the bars end with the judged ones, so that nothing could be traded after them."""
    closed_at = history.select(timeframe.closes(pl.col("ts")).dt.epoch("us")).to_series().to_numpy()
    places = np.searchsorted(closed_at, result.data.closed_at)
    first, n = int(places[0]), int(places[-1] - places[0]) + 1
    after = slice(first + 1, first + 1 + n)
    opens = history["open"].to_numpy()[after]
    if len(opens) < n:
        raise TrainingFailed("the judged bars have no bars after them to trade at")
    returns = trading.bar_returns(opens, history["close"][first + n])
    found = breaks.find(history, timeframe, jump_z)
    # a jump comes before its bar's open or within it
    returns[found.jump[after] != 0] = 0.0
    returns[:-1][found.broken[first + 2 : first + 1 + n]] = 0.0
    times = np.append(as_micros(history["ts"])[after], closed_at[first + n])
    return Market(places - first, returns, times, float(times[-1] - times[0]) / 1e6)


def traded(on: Market, result: Result, policy: Policy, costs: Costs, latency: int) -> Traded:
    """The walk's own positions. On a bar without an answer, and on one of which the version had doubts, nothing is held."""
    n = len(on.returns)
    said = np.zeros((3, n))
    said[0] = 0.5
    said[:, on.places] = result.said.p_up, result.said.expected_return, result.data.scale
    abstained = np.ones(n, bool)
    abstained[on.places] = result.refused != 0
    held = policies.positions(policy, costs, Forecasts(said[0], said[1], said[2], abstained))
    return trading.trade(held, on.returns, on.seconds, costs, latency)


def held(on: Market, costs: Costs) -> Traded:
    """Bought once and held."""
    return trading.trade(np.ones(len(on.returns)), on.returns, on.seconds, costs)
