"""The walk forward: the very functions that run live, under a simulated clock.

At every `refit_every`-th bar a training sees what was known at that bar's close, the gate decides as it would have
live, and what it promotes answers from the next bar on.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model import artifact, dataset, gate, health, predictor, scores, training
from model.backtest.answers import Said, Standing, answers, forecasts, fresh, joined
from model.caution import Caution
from model.config import TrainConfig
from model.dataset import Dataset
from model.errors import BadInput, TrainingFailed
from model.training import Fit

Float64 = NDArray[np.float64]
LATELY = 500  # rows
KEPT = "kept"  # the outcome of a refit that was not needed
Contents = tuple[dict[str, NDArray[Any]], dict[str, Any]]  # of a version: arrays and manifest


@dataclass(frozen=True)
class Policy:
    """When a walk trains, from what, and who answers. Raises BadInput for what cannot be."""

    refit_every: int = 1_000  # rows from one training to the next
    first: int | None = None  # rows with a known label before the first training; None: a window of them
    by_need: bool = (
        False  # train only where the champion has gained nothing over the base rate since the last one
    )
    warm: bool = False  # go on from the champion's weights
    latency: int = 0  # rows until what was promoted answers, beyond the next one
    caution: Caution = field(default_factory=Caution)

    def __post_init__(self) -> None:
        for name, value, least in (
            ("refit_every", self.refit_every, 1),
            ("first", 1 if self.first is None else self.first, 1),
            ("latency", self.latency, 0),
        ):
            if value < least:
                raise BadInput(f"{name} must be at least {least}, not {value!r}")


def way(policy: Policy) -> dict[str, Any]:
    """The policy as JSON has it, without where the walk began: the same way on other bars is no other way."""
    return {name: value for name, value in asdict(policy).items() if name != "first"}


@dataclass(frozen=True)
class Refit:
    """One training of the walk: at which row's close (microseconds), and what became of it."""

    row: int
    closed_at: int
    outcome: str  # promoted, challenger, rejected, failed; kept where none was needed
    reason: str
    verdict: str  # of its gradients' health; empty where there is none
    health: tuple[dict[str, Any], ...]  # by layer, of the last epoch


@dataclass(frozen=True)
class Block:
    """A refit, the rows that were answered before the next, and what was said of them.

    `made` is the version that this refit promoted, `standing` who answers after it: together they are what a walk needs
    to go on from here.
    """

    refit: Refit
    rows: slice
    said: Said
    refused: NDArray[np.uint8]  # (n,) places in REASONS
    standing: Standing | None
    made: Contents | None


# How trainings that do not depend on each other are carried out: those of a walk's data at the closes of these rows, in
# their order.
Fits = Callable[[Dataset, TrainConfig, Sequence[int]], Iterable[Fit | TrainingFailed]]


def one_by_one(data: Dataset, config: TrainConfig, rows: Sequence[int]) -> Iterator[Fit | TrainingFailed]:
    """Each when it is asked for, in this process."""
    for row in rows:
        yield training.fit_tasks((training.Task(known_at_close(data, row), config.seed),), config)[0]


def known_at_close(data: Dataset, row: int) -> Dataset:
    """What a training at that row's close may see: the rows whose label is known by then."""
    return data.part(slice(0, dataset.known_by(data, row)))


def first_refit(data: Dataset, first: int) -> int | None:
    """The first row at whose close so many rows have known labels; None where there is none."""
    if len(data) < first:
        return None
    enough = int(np.searchsorted(data.closed_at, data.known_at[:first].max()))
    return enough if enough < len(data) - 1 else None


def decide(fit: Fit, made: Contents, champion: Contents | None, seen: Dataset) -> gate.Verdict:
    """The gate's verdict on a fresh training and the version that was made of it, over the rows of `seen` that it and the
    champion have not learned from. Of versions that have learned from all rows their twins are compared, each of which
    held its newest back.

    Live retraining calls this too.
    """
    candidate = predictor.judged(*made)
    if champion is None:
        return gate.judge(fit, np.empty(0), None, candidate.horizon)
    if artifact.digest(made[0]) == artifact.digest(champion[0]):
        return gate.Verdict("challenger", "the champion has exactly these weights already")
    models = candidate, predictor.judged(*champion)
    unseen_from = max(model.fitted_until for model in models)
    rows = seen.part(slice(int(np.searchsorted(seen.closed_at, unseen_from)), len(seen)))
    own, its = (scores.log_losses(forecasts(model, rows).p_up, rows.up) for model in models)
    return gate.judge(fit, own, its, candidate.horizon)


def refit_rows(data: Dataset, config: TrainConfig, policy: Policy) -> range:
    """The rows at whose close a walk trains. Raises TrainingFailed where there is no room to judge."""
    wanted = policy.first or config.window
    start = first_refit(data, wanted)
    if start is None:
        raise TrainingFailed(
            f"{len(data)} rows with features and a known label leave none to judge after {wanted} to train on "
            f"(labels are known {data.horizon} bars later): more bars, or a smaller window or horizon are needed"
        )
    return range(start, len(data) - 1, policy.refit_every)


def walk_forward(
    data: Dataset,
    config: TrainConfig,
    policy: Policy,
    fits: Fits = one_by_one,
    done: Sequence[Block] = (),
) -> Iterator[Block]:
    """Walks through `data`, a block after each refit, on from those that are `done` already.

    Raises TrainingFailed where there is no room to judge.
    """
    refits = refit_rows(data, config, policy)[len(done) :]
    standing = done[-1].standing if done else None
    made = next((block.made for block in reversed(done) if block.made is not None), None)
    gains: list[Float64] = []  # since the last training
    for block in done:
        gains = [*(gains if block.refit.outcome == KEPT else []), _gains(data, block)]
    early = policy.warm or policy.by_need  # what is trained depends on what came before
    fitted = iter(() if early else fits(data, config, refits))
    for row in refits:
        rows = answered_after(row, policy, len(data))
        if policy.by_need and not needed(gains):
            refit, fresh_made = _kept(data, row), None
        else:
            result = _train(data, config, row, made if policy.warm else None) if early else next(fitted)
            refit, fresh_made = _judged(data, row, result, made)
        if fresh_made is not None:
            made = fresh_made
            standing = fresh(predictor.from_arrays(*made))
        if standing is None:
            said, refused = joined([]), np.empty(0, np.uint8)
            block = Block(refit, slice(rows.stop, rows.stop), said, refused, None, None)
        else:
            said, refused, standing = answers(standing, data, rows, policy.caution)
            block = Block(refit, rows, said, refused, standing, fresh_made)
        gains = [*(gains if refit.outcome == KEPT else []), _gains(data, block)]
        yield block


def answered_after(row: int, policy: Policy, n: int) -> slice:
    """The rows, of n, that are answered by what stands after the refit at that row."""
    return slice(*(min(row + 1 + policy.latency + after, n) for after in (0, policy.refit_every)))


def needed(gains: Sequence[Float64]) -> bool:
    """Whether a champion has to be trained anew: of late, and since the last training, it has gained nothing over the base
    rate. A long good past would hide a turn."""
    since = np.concatenate([*gains, np.empty(0)])[-LATELY:]
    return len(since) < gate.ROWS_TO_JUDGE or float(since.mean()) <= 0


def _gains(data: Dataset, block: Block) -> Float64:
    up = data.up[block.rows]
    return scores.log_losses(block.said.base_rate, up) - scores.log_losses(block.said.p_up, up)


def _train(data: Dataset, config: TrainConfig, row: int, made: Contents | None) -> Fit | TrainingFailed:
    warm = None if made is None else training.warm_start(*made)
    task = training.Task(known_at_close(data, row), config.seed, warm)
    return training.fit_tasks((task,), config)[0]


def _judged(
    data: Dataset, row: int, result: Fit | TrainingFailed, champion: Contents | None
) -> tuple[Refit, Contents | None]:
    """What became of a training, and the version where it was promoted."""
    closed_at = int(data.closed_at[row])
    if isinstance(result, TrainingFailed):
        return Refit(row, closed_at, "failed", str(result), "", ()), None
    made = training.contents(result)
    try:
        predictor.from_arrays(*made)  # what cannot be folded cannot answer
        verdict = decide(result, made, champion, known_at_close(data, row))
    except BadInput as error:  # its weights cannot be folded, and are kept nowhere
        return Refit(row, closed_at, "failed", str(error), "", ()), None
    layers = tuple(health.document(layer) for layer in result.health[-1])
    refit = Refit(row, closed_at, verdict.outcome, verdict.reason, result.verdict, layers)
    return refit, made if verdict.outcome == "promoted" else None


def _kept(data: Dataset, row: int) -> Refit:
    return Refit(row, int(data.closed_at[row]), KEPT, "it gains on the base rate as it is", "", ())


@dataclass(frozen=True)
class Result:
    """A whole walk: the judged rows, what was said of them, after which refit, and the refits."""

    data: Dataset
    said: Said
    refused: NDArray[np.uint8]  # (n,) places in REASONS
    refit: NDArray[np.int64]  # (n,) places in refits
    refits: tuple[Refit, ...]


def result(data: Dataset, blocks: Sequence[Block]) -> Result:
    """What these blocks of a walk say together. Raises TrainingFailed where no row of them was answered."""
    answered = [block for block in blocks if len(block.said.p_up)]
    if not answered:
        why = f"; the last of {len(blocks)}: {blocks[-1].refit.reason}" if blocks else ""
        raise TrainingFailed(f"no refit gave a network that may answer, so there is nothing to judge{why}")
    numbers = np.repeat(np.arange(len(blocks)), [len(block.said.p_up) for block in blocks])
    return Result(
        data.part(slice(answered[0].rows.start, answered[-1].rows.stop)),
        joined([block.said for block in answered]),
        np.concatenate([block.refused for block in answered]),
        numbers,
        tuple(block.refit for block in blocks),
    )


def run(
    data: Dataset,
    config: TrainConfig,
    policy: Policy,
    fits: Fits = one_by_one,
    progress: Callable[[float], None] = lambda share: None,
) -> Result:
    """The walk from its first judged row to the last."""
    blocks = []
    for block in walk_forward(data, config, policy, fits):
        blocks.append(block)
        progress(block.rows.stop / len(data))
    return result(data, blocks)
