"""The gate: may this candidate replace that champion, and why."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model import significance
from model.training import Fit

Float64 = NDArray[np.float64]

# With these the gradients say that the training itself went wrong, whatever its scores are.
UNFIT = ("non_finite", "exploding", "vanishing")
# Fewer bars that neither has seen than this decide nothing.
ROWS_TO_JUDGE = 50
# Nats. 0.037 and up was measured on daily and hourly markets that showed no skill; a network whose units have all died
# leaves 0.
LEAST_SPREAD = 1e-6


@dataclass(frozen=True)
class Verdict:
    """`promoted`: answers from the next bar on. `challenger`: kept. `rejected`: kept, for the record only."""

    outcome: str
    reason: str


def unfit(fit: Fit) -> Verdict | None:
    """Why this training's result may not be promoted at all, whatever it scores; None where it may."""
    if not fit.gradient_check.passed:
        return Verdict(
            "rejected",
            f"gradient check failed: relative error {fit.gradient_check.worst:.1e} in the network trained",
        )
    if fit.broke is not None:
        return Verdict("rejected", fit.broke)
    if fit.spread < LEAST_SPREAD:
        return Verdict("rejected", "the network answers the same whatever it is asked")
    if fit.verdict in UNFIT:
        return Verdict("rejected", f"gradient health: {fit.verdict}")
    return None


def judge(fit: Fit, candidate: Float64, champion: Float64 | None, horizon: int) -> Verdict:
    """The verdict, given each one's log losses over the same bars that neither has seen (none without a champion)."""
    refused = unfit(fit)
    if refused is not None:
        return refused
    if champion is None:
        return Verdict("promoted", "first")
    if len(candidate) < ROWS_TO_JUDGE:
        return Verdict(
            "challenger",
            f"only {len(candidate)} bars that neither has seen, {ROWS_TO_JUDGE} are needed to judge",
        )
    gain = significance.gain(champion, candidate, horizon)
    figures = (
        f"log loss {candidate.mean():.5f} against the champion's {champion.mean():.5f} "
        f"over {gain.rows} bars that neither has seen"
    )
    if gain.mean >= 0:
        return Verdict("promoted", f"not worse: {figures}")
    if gain.z > -significance.Z_CLAIM:
        return Verdict("challenger", f"worse, though within chance: {figures}")
    return Verdict("rejected", f"worse: {figures}")
