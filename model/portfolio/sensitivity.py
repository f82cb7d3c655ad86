"""How much of what was earned depends on what trading costs. Holding costs stay as they are."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from model.portfolio.costs import BPS
from model.portfolio.performance import sharpe_annual
from model.portfolio.trading import Traded, net_returns

PRECISION = 1e-12  # of the break-even cost, as a share of it
STEPS = 200  # of Newton's method at most; it takes a handful


@dataclass(frozen=True)
class Point:
    """What the same positions would have come to at another cost."""

    each_way_bps: float
    net_return: float
    sharpe_annual: float | None

    def document(self) -> dict[str, float | None]:
        """As JSON has it."""
        return asdict(self)


def sweep(traded: Traded, each_way_bps: Sequence[float]) -> tuple[Point, ...]:
    """The net result of these very positions at each of these costs, in basis points of the value traded."""
    points = []
    for bps in each_way_bps:
        net = net_returns(traded.growth, traded.traded, bps / BPS)
        points.append(Point(bps, float(np.prod(1 + net) - 1), sharpe_annual(net, traded.seconds)))
    return tuple(points)


def break_even_bps(traded: Traded) -> float | None:
    """The each-way cost in basis points at which these positions come to nothing: above it they lose, below it they earn.

    None where they lose already without cost, and where nothing was traded.
    """
    amounts = traded.traded[traded.traded > 0]
    if len(amounts) == 0 or traded.growth.min() <= 0:
        return None
    gross = float(np.log(traded.growth).sum())
    if gross < 0:
        return None
    # gross + sum log(1 - cost x amount) falls ever more steeply: from above its root, Newton's method falls to the root
    highest = (1 - PRECISION) / float(amounts.max())
    cost = min(gross / float(amounts.sum()), highest)
    for _ in range(STEPS):
        kept = 1 - cost * amounts
        step = (gross + float(np.log(kept).sum())) / float((amounts / kept).sum())
        cost = min(cost + step, highest)
        if abs(step) <= PRECISION * cost:
            break
    return max(cost, 0.0) * BPS
