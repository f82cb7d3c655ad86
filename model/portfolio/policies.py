"""From a forecast to a target position. Add a policy by adding a row to RULES.

A position is a share of the capital: 1 all long, -1 all short, 0 out. It is decided at a bar's close, from what was said
at that close and from the position held until then, by `target`; `positions` is the same for n bars that follow each
other, and equal to it to the bit.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.errors import BadInput
from model.portfolio.costs import BPS, Costs

Float64 = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Forecasts:
    """What was said of n bars, (n,) each: of the chance of a rise, of the log return over the horizon, and how large that
    return usually is. A bar that was abstained from is told apart by a mask, not by a number.

    Raises BadInput for columns of different length, and for a row without a number that is not abstained from.
    """

    p_up: Float64
    expected_return: Float64
    scale: Float64  # expected size of the log return over the horizon
    abstained: Bools | None = None  # None: none was

    def __post_init__(self) -> None:
        n = len(self.p_up)
        for name in ("expected_return", "scale", "abstained"):
            column = getattr(self, name)
            if column is not None and len(column) != n:
                raise BadInput(f"{name} has {len(column)} rows, but p_up has {n}")
        missing = ~(np.isfinite(self.p_up) & np.isfinite(self.expected_return) & np.isfinite(self.scale))
        if self.abstained is not None:
            missing &= ~self.abstained
        if missing.any():
            rows = int(np.count_nonzero(missing))
            raise BadInput(f"{rows} of {n} forecasts are no numbers: mark those rows as abstained")


@dataclass(frozen=True)
class Policy:
    """How a forecast becomes a position. Raises BadInput for what cannot be.

    Only `kelly` reads kelly_fraction, only `volatility` target_volatility_bps, only `threshold` threshold.
    """

    name: str = "cost_aware"
    long_only: bool = False  # where it would be short it is out
    cap: float = 1.0  # largest position, either way; that of policies which know but one size
    threshold: float = 0.55  # p_up from which to be long; short from its complement downwards
    kelly_fraction: float = 0.5  # of the position that Kelly's rule gives
    target_volatility_bps: float = 50.0  # of the capital over the horizon

    def __post_init__(self) -> None:
        self._must("name", self.name in RULES, f"one of {', '.join(RULES)}")
        self._must("long_only", isinstance(self.long_only, bool), "True or False")
        for name in ("cap", "threshold", "kelly_fraction", "target_volatility_bps"):
            value = getattr(self, name)
            real = isinstance(value, int | float) and not isinstance(value, bool)
            self._must(name, real and 0 < value < math.inf, "a number above 0")
        self._must("threshold", 0.5 <= self.threshold < 1, "from 0.5 to below 1")
        self._must("kelly_fraction", self.kelly_fraction <= 1, "above 0 and at most 1")

    def _must(self, name: str, fine: bool, wanted: str) -> None:
        if not fine:
            raise BadInput(f"{name} must be {wanted}, not {getattr(self, name)!r}")

    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


# The position that each bar asks for (n,), and where it is no reason to enter (n,), but one to stay in a position of that
# side; None: all are reasons to enter.
Rule = Callable[[Policy, Costs, Forecasts], tuple[Float64, Bools | None]]


def _cost_aware(policy: Policy, costs: Costs, said: Forecasts) -> tuple[Float64, Bools | None]:
    """Enters where the expected return pays for a round trip, leaves when it no longer points the same way."""
    pays = np.abs(said.expected_return) * BPS > costs.round_trip_bps
    return np.sign(said.expected_return) * policy.cap, ~pays


def _sign(policy: Policy, costs: Costs, said: Forecasts) -> tuple[Float64, Bools | None]:
    """Always on the side of the expected return, whatever changing sides costs."""
    return np.sign(said.expected_return) * policy.cap, None


def _threshold(policy: Policy, costs: Costs, said: Forecasts) -> tuple[Float64, Bools | None]:
    """In where a rise, or a fall, is likely enough."""
    long = said.p_up >= policy.threshold
    short = (1 - said.p_up >= policy.threshold) & ~long
    return (long * 1.0 - short * 1.0) * policy.cap, None


def _kelly(policy: Policy, costs: Costs, said: Forecasts) -> tuple[Float64, Bools | None]:
    """A fraction of the position under which capital grows fastest, mean by variance of the return (Thorp 2006, "The
    Kelly criterion in blackjack, sports betting, and the stock market", section 7).

    The mean is the expected log return itself: with nothing to expect it holds nothing. Half of Kelly's position gives
    three quarters of its growth with half the volatility, and a mean that is overestimated does less harm.
    """
    wanted = policy.kelly_fraction * _by(said.expected_return, said.scale * said.scale)
    return np.clip(wanted, -policy.cap, policy.cap), None


def _volatility(policy: Policy, costs: Costs, said: Forecasts) -> tuple[Float64, Bools | None]:
    """On the side of the expected return, as large as gives the capital the volatility that is aimed at (Moskowitz, Ooi &
    Pedersen 2012, "Time series momentum")."""
    size = np.minimum(_by(policy.target_volatility_bps / BPS, said.scale), policy.cap)
    return np.sign(said.expected_return) * size, None


RULES: dict[str, Rule] = {
    "cost_aware": _cost_aware,
    "sign": _sign,
    "threshold": _threshold,
    "kelly": _kelly,
    "volatility": _volatility,
}


def positions(policy: Policy, costs: Costs, said: Forecasts) -> Float64:
    """The position that is held after each of n bars which follow each other, (n,); nothing is held before the first."""
    wanted, waits = _asked_for(policy, costs, said)
    if waits is None:
        return wanted
    at = np.arange(len(wanted))
    side = np.sign(wanted)
    entered = np.maximum.accumulate(np.where(waits, -1, at))
    turned = np.maximum.accumulate(np.where(np.diff(side, prepend=0.0) != 0, at, 0))
    return np.where(entered >= turned, wanted, 0.0)


def target(
    policy: Policy,
    costs: Costs,
    previous: float,
    p_up: float,
    expected_return: float,
    scale: float,
    abstained: bool = False,
) -> float:
    """The position to hold after one new bar, where `previous` is what was held before it. Raises BadInput."""
    column = np.array([[p_up], [expected_return], [scale]], np.float64)
    said = Forecasts(column[0], column[1], column[2], np.array([abstained]))
    wanted, waits = _asked_for(policy, costs, said)
    stays = waits is not None and bool(waits[0])
    return 0.0 if stays and np.sign(previous) != np.sign(wanted[0]) else float(wanted[0])


def pays_up_to(position: float, expected_return: float) -> float | None:
    """The round trip's cost in basis points from which on a position no longer pays; 0 where the expected log return
    points the other way, None where nothing is held."""
    if position == 0:
        return None
    return max(math.copysign(1.0, position) * expected_return, 0.0) * BPS


def _asked_for(policy: Policy, costs: Costs, said: Forecasts) -> tuple[Float64, Bools | None]:
    """What the rule asks for, without what was abstained from and what the policy may not hold."""
    wanted, waits = RULES[policy.name](policy, costs, said)
    if said.abstained is not None:
        wanted = np.where(said.abstained, 0.0, wanted)
    if policy.long_only:
        wanted = np.maximum(wanted, 0.0)
    return wanted + 0.0, waits  # a zero has no sign


def _by(a: Float64 | float, b: Float64) -> Float64:
    """a / b where b is above 0, else 0: a market that does not move leaves nothing to size a position by."""
    return np.divide(a, b, out=np.zeros(len(b)), where=b > 0)
