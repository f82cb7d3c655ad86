"""The default policy and its figures as the walk-forward job reads them until it moves to `policies` and `trading`.

A position is decided at a bar's close and traded at the next bar's open. Positions are shares of the capital:
1 all long, -1 all short, 0 out.
"""

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from model.portfolio.costs import SECONDS_PER_YEAR, Costs

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Trading:
    """What a sequence of positions earned, net of costs. None where a figure has no meaning there."""

    net_return: float  # over the whole period: 0.1 is ten per cent
    sharpe_annual: float | None
    max_drawdown: float  # largest fall from a peak, as a share of the peak
    turnover_annual: float  # value traded a year, in units of the capital
    trades: int
    exposure: float  # share of bars with a position

    def document(self) -> dict[str, float | int | None]:
        """As JSON has it."""
        return asdict(self)


def positions(expected_return: Float64, costs: Costs) -> Float64:
    """Enters where the expected return pays for a round trip, and leaves when it no longer points the same way."""
    side = np.sign(expected_return)
    pays = np.abs(expected_return) > 2 * costs.each_way
    at = np.arange(len(side))
    last_paid = np.maximum.accumulate(np.where(pays, at, -1))
    turned = np.maximum.accumulate(np.where(np.diff(side, prepend=0.0) != 0, at, 0))
    return np.where(last_paid >= turned, side, 0.0)


def trade(position: Float64, returns: Float64, seconds: float, costs: Costs) -> Trading:
    """What `position` (n,) earned on `returns` (n,) over `seconds`; the last position is closed at the end.

    Annual figures follow from the bars that this market really had in that time, not from a typed number of days.
    """
    n = len(position)
    years = seconds / SECONDS_PER_YEAR
    traded = np.abs(np.diff(position, prepend=0.0))
    closing = abs(float(position[-1]))
    net = position * returns - traded * costs.each_way
    net[-1] -= closing * costs.each_way
    equity = np.cumprod(1 + np.maximum(net, -1.0))
    peaks = np.maximum.accumulate(np.maximum(equity, 1.0))
    spread = float(net.std(ddof=1)) if n > 1 else 0.0
    return Trading(
        net_return=float(equity[-1] - 1),
        sharpe_annual=float(net.mean() / spread * np.sqrt(n / years)) if spread > 0 and years > 0 else None,
        max_drawdown=float(np.max(1 - equity / peaks)),
        turnover_annual=float(traded.sum() + closing) / years if years > 0 else 0.0,
        trades=int(np.count_nonzero(traded)) + int(closing > 0),
        exposure=float(np.mean(position != 0)),
    )
