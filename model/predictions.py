"""A Signal is the answer for a market's bar: a Prediction, or an Abstention with its reason, told apart by type."""

from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from model.bars import Market, iso


class Reason(StrEnum):
    """Why there is no number. The list is closed: bots switch on it."""

    NO_MODEL = "no_model"
    TOO_FEW_BARS = "too_few_bars"
    STALE_BARS = "stale_bars"
    STALE_MODEL = "stale_model"
    GAP = "gap"
    OUT_OF_DOMAIN = "out_of_domain"
    LOW_CONFIDENCE = "low_confidence"
    UNHEALTHY_MODEL = "unhealthy_model"
    PAUSED = "paused"


@dataclass(frozen=True)
class Prediction:
    """What a version says of the `horizon` bars after `as_of`, the close of the bar that it stands on."""

    market: Market
    as_of: datetime
    version: int
    horizon: int  # bars
    p_up: float  # calibrated probability that the close `horizon` bars on is above this close
    expected_return: float  # log return over the horizon, unscaled
    price: float  # close x exp(expected_return)
    interval: tuple[float, float]  # of the price, at `level`
    level: float
    skill: bool | None  # what live and held-back evidence says so far; None: too little of it
    weights: str  # first 12 digits of the weights' SHA-256
    position: float | None = (
        None  # to hold by the market's policy, as a share of the capital; None: not kept then
    )
    # the round trip's cost from which on that position no longer pays; None: nothing is held
    pays_up_to_bps: float | None = None


@dataclass(frozen=True)
class Abstention:
    """Why there is no number for the bar that closed at `as_of`."""

    market: Market
    as_of: datetime | None  # None: the market has no bar yet
    version: int | None
    reason: Reason
    detail: str


Signal = Prediction | Abstention


def document(signal: Signal) -> dict[str, Any]:
    """The Signal as JSON has it, the same from a command and from a route."""
    if isinstance(signal, Abstention):
        return {
            "kind": "abstention",
            "market": asdict(signal.market),
            "as_of": None if signal.as_of is None else iso(signal.as_of),
            "version": signal.version,
            "reason": signal.reason.value,
            "detail": signal.detail,
        }
    return {
        "kind": "prediction",
        **asdict(signal),
        "as_of": iso(signal.as_of),
        "interval": list(signal.interval),
    }
