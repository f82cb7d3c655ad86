"""Judging: how what was said compares with what came, and with what baselines would have said of the same rows."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model import scores, significance
from model.backtest.answers import Said
from model.dataset import Dataset
from model.scores import Paired, Scores
from model.significance import Comparison, bootstrap

Float64 = NDArray[np.float64]

RESAMPLES = 200
LEVEL = 0.9  # of the intervals around scores

# What baselines say besides: for each name the probability of up and the expected log return, (n,) each.
Others = Mapping[str, tuple[Float64, Float64]]


@dataclass(frozen=True)
class Judgement:
    """A forecaster's scores beside those of baselines over the very same rows, and by how much its log loss is lower."""

    model: Scores
    baselines: dict[str, Scores]
    intervals: dict[str, dict[str, list[float] | None]]  # by forecaster and score, LEVEL of a block bootstrap
    paired: dict[str, Comparison]  # ours against each baseline

    @property
    def base_rate(self) -> Scores:
        """Those of having said the base rate."""
        return self.baselines["base_rate"]

    @property
    def gain(self) -> significance.Gain:
        """By how much the log loss is below the base rate's."""
        found = self.paired["base_rate"]
        return significance.Gain(found.rows, found.gain, found.error)

    def document(self) -> dict[str, Any]:
        """The scores as JSON has them."""
        named = {"model": self.model, **self.baselines}
        return {name: each.document() for name, each in named.items()}


def judge(data: Dataset, said: Said, others: Others | None = None, intervals: bool = False) -> Judgement:
    """How what was said of these rows compares with what came, and with the base rate; and with `others` too."""
    up = data.up.astype(np.float64)
    model = Paired(
        said.p_up,
        up,
        said.expected_return,
        data.log_return,
        np.log(said.low / data.close),
        np.log(said.high / data.close),
    )
    stated = {"base_rate": (said.base_rate, np.zeros(len(up))), **(others or {})}
    baselines = {name: Paired(p, up, expected, data.log_return) for name, (p, expected) in stated.items()}
    losses = scores.log_losses(said.p_up, up)
    return Judgement(
        scores.of(model),
        {name: scores.of(paired) for name, paired in baselines.items()},
        _intervals({"model": model, **baselines}, losses) if intervals else {},
        {
            name: significance.compare(scores.log_losses(paired.p, up), losses, data.horizon)
            for name, paired in baselines.items()
        },
    )


def _intervals(named: Mapping[str, Paired], losses: Float64) -> dict[str, dict[str, list[float] | None]]:
    """Of every score of each, over the same resampled rows."""
    length = bootstrap.block_length(losses)
    rows: Iterable[NDArray[np.int64]] = list(bootstrap.rows(len(losses), length, RESAMPLES, seed=0))
    return {name: scores.intervals(paired, rows, LEVEL) for name, paired in named.items()}


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
