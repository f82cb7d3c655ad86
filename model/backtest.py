"""The walk-forward backtest: the very functions that run live, under a simulated clock.

At every `refit_every`-th bar a training sees what was known at that bar's close, the gate decides as it would have
live, and what it promotes answers from the next bar on. Each bar is answered by the one-row forward pass.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model import dataset, gate, predictor, scores, significance, training
from model.config import TrainConfig
from model.dataset import Dataset
from model.errors import TrainingFailed
from model.predictor import Predictor
from model.training import Fit

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Refit:
    """One training of the walk: at which row's close, and what became of it."""

    row: int
    outcome: str  # promoted, challenger, rejected, failed
    reason: str
    verdict: str  # of its gradients' health; empty where the training failed


@dataclass(frozen=True)
class Said:
    """What was said of n rows, each at its close, (n,) each."""

    base_rate: Float64
    p_up: Float64
    expected_return: Float64
    price: Float64
    low: Float64
    high: Float64


@dataclass(frozen=True)
class Block:
    """The rows that were answered between two refits, and what was said of them."""

    refit: Refit
    rows: slice
    said: Said


def known_at_close(data: Dataset, row: int) -> Dataset:
    """What a training at that row's close may see: the rows whose label is known by then."""
    return data.part(slice(0, dataset.known_by(data, row)))


def first_refit(data: Dataset, window: int) -> int | None:
    """The first row at whose close a whole window of rows has known labels; None where there is none."""
    if len(data) < window:
        return None
    enough = int(np.searchsorted(data.closed_at, data.known_at[:window].max()))
    return enough if enough < len(data) - 1 else None


def forecasts(model: Predictor, data: Dataset) -> Said:
    """What is said of every row, to the bit as of each alone."""
    said = model.forecasts(data.X, data.scale / np.sqrt(float(data.horizon)), data.close)
    return Said(np.full(len(said), model.base_rate), *np.array(said).reshape(-1, 5).T)


def decide(fit: Fit, candidate: Predictor, champion: Predictor | None, seen: Dataset) -> gate.Verdict:
    """The gate's verdict on a fresh training, over the rows of `seen` that neither model has learned from.

    Live retraining calls this too.
    """
    if champion is None:
        return gate.judge(fit, np.empty(0), None, candidate.horizon)
    if candidate.sha256 == champion.sha256:
        return gate.Verdict("challenger", "the champion has exactly these weights already")
    unseen_from = max(candidate.fitted_until, champion.fitted_until)
    rows = seen.part(slice(int(np.searchsorted(seen.closed_at, unseen_from)), len(seen)))
    own, its = (scores.log_losses(forecasts(model, rows).p_up, rows.up) for model in (candidate, champion))
    return gate.judge(fit, own, its, candidate.horizon)


def walk_forward(data: Dataset, config: TrainConfig, refit_every: int) -> Iterator[Block]:
    """Walks through `data`, a block of judged rows after each refit. Raises TrainingFailed where there is no room."""
    start = first_refit(data, config.window)
    if start is None:
        raise TrainingFailed(
            f"{len(data)} rows with features and a known label leave none to judge after a window of {config.window}: "
            "more bars or a smaller window are needed"
        )
    champion: Predictor | None = None
    for row in range(start, len(data) - 1, refit_every):
        seen = known_at_close(data, row)
        try:
            fit = training.fit(seen, config)
            candidate = predictor.from_arrays(*training.contents(fit))
            verdict = decide(fit, candidate, champion, seen)
            refit = Refit(row, verdict.outcome, verdict.reason, fit.verdict)
        except TrainingFailed as error:
            refit = Refit(row, "failed", str(error), "")
        if refit.outcome == "promoted":
            champion = candidate
        if champion is None:
            continue
        rows = slice(row + 1, min(row + 1 + refit_every, len(data)))
        yield Block(refit, rows, forecasts(champion, data.part(rows)))


@dataclass(frozen=True)
class Result:
    """A whole walk: the judged rows, what was said of them, and the refits."""

    data: Dataset
    said: Said
    refits: tuple[Refit, ...]


def run(
    data: Dataset,
    config: TrainConfig,
    refit_every: int,
    progress: Callable[[float], None] = lambda share: None,
) -> Result:
    """The walk from its first judged row to the last."""
    blocks = []
    for block in walk_forward(data, config, refit_every):
        blocks.append(block)
        progress(block.rows.stop / len(data))
    if not blocks:
        raise TrainingFailed("no refit gave a network that may answer, so there is nothing to judge")
    said = (np.concatenate([getattr(block.said, column.name) for block in blocks]) for column in fields(Said))
    rows = slice(blocks[0].rows.start, blocks[-1].rows.stop)
    return Result(data.part(rows), Said(*said), tuple(block.refit for block in blocks))


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
