"""What it costs to trade, and to hold what was traded."""

import math
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from model.errors import BadInput

Float64 = NDArray[np.float64]

BPS = 10_000  # basis points of the whole
SECONDS_PER_YEAR = 365.25 * 86_400
FUNDING_SECONDS = 8 * 3_600  # perpetual futures settle funding every eight hours


@dataclass(frozen=True)
class Costs:
    """In basis points: of the value traded for fee, spread and slippage; of the value held for borrow and funding.

    Raises BadInput for a cost that is no finite number, and below 0 for all but funding.
    """

    fee_bps: float  # each way
    slippage_bps: float  # each way, beside half the spread
    spread_bps: float = 0.0  # from bid to ask: each way pays half of it
    borrow_bps_annual: float = 0.0  # paid on short positions
    funding_bps_8h: float = 0.0  # above 0 the long pay the short, below it is the other way round

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            signed = field.name == "funding_bps_8h"
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise BadInput(f"{field.name} must be a number of basis points, not {value!r}")
            if value < 0 and not signed:
                raise BadInput(f"{field.name} must be 0 or more, not {value!r}")

    @property
    def each_way(self) -> float:
        """As a share of the value traded."""
        return (self.fee_bps + self.slippage_bps + self.spread_bps / 2) / BPS

    @property
    def each_way_bps(self) -> float:
        """In basis points of the value traded."""
        return self.each_way * BPS

    @property
    def round_trip_bps(self) -> float:
        """Of entering and leaving, in basis points of the value traded."""
        return 2 * self.each_way_bps

    def carry(self, held: Float64, step_seconds: float) -> Float64 | float:
        """What holding `held` (n,), shares of capital, costs for a step of that length, as shares of capital."""
        cost: Float64 | float = 0.0
        if self.funding_bps_8h:
            cost = held * (self.funding_bps_8h / BPS * step_seconds / FUNDING_SECONDS)
        if self.borrow_bps_annual:
            rate = self.borrow_bps_annual / BPS * step_seconds / SECONDS_PER_YEAR
            cost = cost + np.maximum(-held, 0.0) * rate
        return cost
