"""From positions to what they would have earned after costs, bar by bar and trade by trade.

The convention. A position h, decided at the close of bar i, is traded at the next bar's open and held for a *step*, from
there to the open after it; the last step ends at a close, where all is sold. At the start of every step the position is
made the share h of the capital again, and that is paid for: after a return r a position of share h has become the share
h (1 + r) / (1 + h r), so a step trades |h - the share it finds|. A long position of 1 finds 1 and trades nothing; a short
one of -1 trades about 2 |r| a step, which at 10 bps each way and moves of 0.5 % costs 0.1 bps a step. Capital grows in a
step by (1 - each-way cost x traded) (1 + h r - carry), and is never below 0: a ruined account trades no more. What is
traded is measured before its own cost is paid.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.errors import BadInput
from model.portfolio.costs import Costs

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]


@dataclass(frozen=True)
class Trades:
    """Positions from entering to leaving, (m,) each, in order of time. A change of size is no new trade, one of side is."""

    entered: Int64  # the step at whose start it was entered
    left: Int64  # the step at whose start it was left; n for what was sold at the end
    side: Int64  # 1 long, -1 short
    net_return: Float64  # of the capital, after costs: the product of all 1 + net_return is that of all steps

    def __len__(self) -> int:
        return len(self.entered)

    @property
    def bars(self) -> Int64:
        """How long each was held."""
        return self.left - self.entered


@dataclass(frozen=True)
class Traded:
    """What n steps of positions came to. Shares are of the capital."""

    held: Float64  # (n,) position in each step
    growth: Float64  # (n,) what the step made of the capital, costs of trading apart
    traded: Float64  # (n + 1,) value traded at the start of each step, and at the end
    net_return: Float64  # (n,) simple return of each step, after all costs
    seconds: float  # from the first step's start to the last one's end
    costs: Costs
    trades: Trades

    def __len__(self) -> int:
        return len(self.held)

    @property
    def equity(self) -> Float64:
        """(n,) capital after each step, of 1 at the start."""
        capital: Float64 = np.multiply.accumulate(1 + self.net_return)
        return capital


def bar_returns(opens: Float64, last_close: float) -> Float64:
    """Each decision's simple return, from the open that it is traded at to the next one; the last ends at a close.

    `opens` (n,) are the opens of the bars after the n bars that were decided on.
    """
    ends = np.append(opens[1:], last_close)
    return ends / opens - 1


def trade(position: Float64, returns: Float64, seconds: float, costs: Costs, latency: int = 0) -> Traded:
    """What `position` (n,) came to on the `returns` (n,) of n steps, which took so many seconds together.

    Holding costs are those of steps of one length. A position is traded `latency` bars later than at the next open.
    Raises BadInput where lengths differ or nothing is there.
    """
    n = len(position)
    if n == 0 or len(returns) != n:
        raise BadInput(f"{n} positions and {len(returns)} returns: there must be one each, and at least one")
    if latency < 0:
        raise BadInput(f"latency must be a number of bars from 0 on, not {latency!r}")
    held = np.zeros(n)
    held[latency:] = position[: max(n - latency, 0)]
    growth = held * returns
    growth += 1
    growth -= costs.carry(held, seconds / n)
    np.maximum(growth, 0.0, out=growth)
    traded = _traded(held, returns, growth)
    net = net_returns(growth, traded, costs.each_way)
    if net.min() <= -1:
        after = int(np.argmax(net <= -1)) + 1
        held[after:], growth[after:], traded[after:] = 0.0, 1.0, 0.0
    return Traded(
        held, growth, traded, net, seconds, costs, _trades(held, growth, traded, net, costs.each_way)
    )


def net_returns(growth: Float64, traded: Float64, each_way: float) -> Float64:
    """The steps' simple returns (n,) at this each-way cost, a share of the value traded: -1 at ruin, and 0 from there on."""
    kept = traded * -each_way
    kept += 1
    np.maximum(kept, 0.0, out=kept)
    net = kept[:-1] * growth
    net[-1] *= kept[-1]
    net -= 1
    if net.min() <= -1:
        net[int(np.argmax(net <= -1)) + 1 :] = 0.0
    return net


def _traded(held: Float64, returns: Float64, growth: Float64) -> Float64:
    """(n + 1,) what is bought or sold at the start of each step, and at the end, as a share of the capital then."""
    found = returns + 1
    found *= held
    np.divide(found, growth, out=found, where=growth > 0)
    traded = np.empty(len(held) + 1)
    traded[0] = held[0]
    np.subtract(held[1:], found[:-1], out=traded[1:-1])
    traded[-1] = found[-1]
    return np.abs(traded, out=traded)


def _trades(held: Float64, growth: Float64, traded: Float64, net: Float64, each_way: float) -> Trades:
    """The trades: runs of steps on one side. What turning from one side to the other costs is shared between them."""
    n = len(held)
    side = np.sign(held).astype(np.int8)
    starts = np.concatenate([[0], np.flatnonzero(side[1:] != side[:-1]) + 1])
    amount, opened = traded[starts], np.abs(held[starts])
    opening = np.divide(opened, amount, out=np.zeros(len(starts)), where=amount > 0)
    kept = np.maximum(1 - each_way * amount, 0.0)
    factors = net + 1
    factors[starts] = growth[starts] * kept**opening
    if starts[-1] == n - 1:
        factors[-1] *= max(1 - each_way * float(traded[-1]), 0.0)
    earned = np.multiply.reduceat(factors, starts)
    earned[:-1] *= kept[1:] ** (1 - opening[1:])
    real = np.flatnonzero(side[starts])
    left = np.append(starts[1:], n)
    return Trades(starts[real], left[real], side[starts[real]].astype(np.int64), earned[real] - 1)
