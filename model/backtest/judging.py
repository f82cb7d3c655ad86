"""Judging: how what was said compares with what came, and with having said the base rate."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from model import scores, significance
from model.backtest.answers import Said
from model.dataset import Dataset


@dataclass(frozen=True)
class Judgement:
    """A forecaster's scores beside the base rate's over the same rows, and by how much its log loss is lower."""

    model: scores.Scores
    base_rate: scores.Scores
    gain: significance.Gain

    def document(self) -> dict[str, Any]:
        """The two scores as JSON has them."""
        return {"model": self.model.document(), "base_rate": self.base_rate.document()}


def judge(data: Dataset, said: Said) -> Judgement:
    """How what was said of these rows compares with what came, and with having said the base rate."""
    up = data.up.astype(np.float64)
    outcome = data.close * np.exp(data.log_return)
    inside = (outcome >= said.low) & (outcome <= said.high)
    return Judgement(
        model=scores.score(said.p_up, up, said.expected_return, data.log_return, inside),
        base_rate=scores.score(said.base_rate, up, np.zeros(len(up)), data.log_return, None),
        gain=significance.gain(
            scores.log_losses(said.base_rate, up), scores.log_losses(said.p_up, up), data.horizon
        ),
    )


def plain(gain: significance.Gain) -> str:
    """The verdict as one would say it."""
    figures = f"log loss {abs(gain.mean):.5f} {'below' if gain.mean >= 0 else 'above'} the base rate's"
    evidence = f"{figures} over {gain.rows} bars, z = {gain.z:.1f}"
    if gain.skill is None:
        return f"too few bars to tell: {evidence}"
    if gain.skill:
        return f"skill: {evidence}"
    if gain.z < -significance.Z_CLAIM:
        return f"worse than the base rate: {evidence}"
    return f"no evidence of skill: {evidence}"
