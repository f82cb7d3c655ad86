"""Caution: when a version that could answer for a bar had better not."""

from dataclasses import dataclass

from model.errors import BadInput
from model.predictions import Reason
from model.predictor import Predictor


@dataclass(frozen=True)
class Caution:
    """What a version needs to be heard. Raises BadInput for a confidence that none or every probability has."""

    min_confidence: float = 0.5  # of p_up or of its complement; 0.5: any
    stale_after: int | None = (
        None  # microseconds since the newest label that the version has seen; None: never
    )

    def __post_init__(self) -> None:
        if not 0.5 <= self.min_confidence < 1:
            raise BadInput(f"min_confidence must be from 0.5 to below 1, not {self.min_confidence!r}")
        if self.stale_after is not None and self.stale_after <= 0:
            raise BadInput(f"stale_after must be above 0, or nothing, not {self.stale_after!r}")


def doubt(caution: Caution, model: Predictor, closed_at: int, distance: float, p_up: float) -> Reason | None:
    """Why `model` had better not answer for the bar that closed then (microseconds), whose features lie so far from what
    it learned from and of which it would say p_up; None where nothing speaks against it."""
    if caution.stale_after is not None and closed_at - model.seen_until > caution.stale_after:
        return Reason.STALE_MODEL
    if not distance <= model.domain:
        return Reason.OUT_OF_DOMAIN
    if max(p_up, 1 - p_up) < caution.min_confidence:
        return Reason.LOW_CONFIDENCE
    return None
