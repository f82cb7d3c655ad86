"""Training: `fit` divides the rows, trains an ensemble on them, calibrates it, and keeps all that was learned; `fit_tasks`
does so for many trainings at once, each of which comes out bit for bit as if it had been alone."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model import calibration, dataset, health, members, weights
from model.config import TrainConfig
from model.dataset import Dataset
from model.epochs import examples
from model.errors import TrainingFailed
from model.features import FeatureSet
from model.health import GradientHealth
from model.members import Member
from model.network import gradcheck, network
from model.network.gradcheck import GradientCheck
from model.network.network import Network
from model.predictor import LEVEL, learned
from model.scaler import Scaler, distances, fit_scaler

Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class WarmStart:
    """Where a training may go on from: an earlier version's network and the scaling that it was learned in."""

    features: FeatureSet
    network: Network
    scaler: Scaler
    first_closed_at: int  # microseconds, as of the Fit that it was
    fitted_until: int
    seen_until: int


@dataclass(frozen=True)
class Task:
    """One training to do: on the newest rows of what data, from what seed, and where from."""

    data: Dataset
    seed: int
    warm: WarmStart | None = None


@dataclass(frozen=True)
class Fit:
    """All that a training learned. Arrays are read-only."""

    config: TrainConfig
    features: FeatureSet
    network: Network  # each member that of its best epoch; their mean answers
    scaler: Scaler
    temperature: float
    knots: Float32 | None  # (2, n): of the isotonic calibration, where the config asks for it
    spread: float  # nats: standard deviation of the logit of up, before calibration, over the rows of early stopping
    interval: float  # half-width of the 90 % interval of the return, in units of its expected size
    base_rate: float  # share of up in the whole window, the held-back rows included
    domain: float  # the largest distance of the rows that weights learned from, as `scaler.distances` has it
    gradient_check: GradientCheck
    curve: tuple[tuple[int, float, float], ...]  # epoch, and the members' mean train loss and stop loss
    health: tuple[
        tuple[GradientHealth, ...], ...
    ]  # by epoch, by layer; of the member that is worst off there
    best_epochs: tuple[int, ...]  # by member
    broke: str | None  # what was not finite, where that ended a member's training; it is its last good self
    rows: int  # that the weights learned from
    first_closed_at: int  # microseconds: the first row's bar
    fitted_until: int  # microseconds: no label known later moved a weight, the best epoch or the calibration
    seen_until: int  # microseconds: no label known later was used at all, the interval included

    @property
    def verdict(self) -> str:
        """The gradients' health over the training as a whole."""
        return "non_finite" if self.broke else health.verdict_of(self.health)


def fit(
    data: Dataset,
    config: TrainConfig,
    warm: WarmStart | None = None,
    progress: Callable[[float], None] = lambda share: None,
) -> Fit:
    """Trains on the newest `config.window` rows of `data`: scale, check gradients, learn, stop early, calibrate.

    Early stopping watches a chronological, purged tail and puts the best epoch's weights back; its counters start
    anew with each fit. Raises TrainingFailed where there are too few rows or what came out is not to be trusted.
    """
    (result,) = fit_tasks((Task(data, config.seed, warm),), config, progress=progress)
    if isinstance(result, TrainingFailed):
        raise result
    return result


def fit_tasks(
    tasks: Sequence[Task],
    config: TrainConfig,
    threads: int = 1,
    progress: Callable[[float], None] = lambda share: None,
) -> tuple[Fit | TrainingFailed, ...]:
    """What `fit` gives for each of `tasks`, in their order; one that fails does not stop the others.

    All of their members are trained side by side, which changes no bit.
    """
    lessons = [_lesson(task, config) for task in tasks]
    ready = [lesson for lesson in lessons if isinstance(lesson, _Lesson)]
    members.train([member for lesson in ready for member in lesson.members], config, threads, progress)
    return tuple(_finish(lesson, config) if isinstance(lesson, _Lesson) else lesson for lesson in lessons)


@dataclass(frozen=True)
class _Lesson:
    """A task's rows as they are divided, and the members that learn from them."""

    learn: Dataset
    stop: Dataset
    held: Dataset
    base_rate: float
    scaler: Scaler
    checked: GradientCheck
    members: tuple[Member, ...]
    warm: WarmStart | None


def _lesson(task: Task, config: TrainConfig) -> _Lesson | TrainingFailed:
    newest = task.data.part(slice(max(0, len(task.data) - config.window), len(task.data)))
    seeds = np.random.SeedSequence(task.seed).spawn(2 * config.members)
    initial, own = (tuple(map(np.random.default_rng, seeds[i::2])) for i in (0, 1))
    try:
        parts = dataset.split(newest, config.stop_fraction, config.held_fraction)
        learn, stop = newest.part(parts.fit), newest.part(parts.stop)
        scaler, start = _start(task.warm, config, learn, initial)
    except TrainingFailed as failed:
        return failed
    given = examples(scaler.apply(learn.X), (learn.up, learn.target), weights.of(learn, config))
    return _Lesson(
        learn=learn,
        stop=stop,
        held=newest.part(parts.held),
        base_rate=float(newest.up.mean(dtype=np.float64)),
        scaler=scaler,
        # all members are of the same parts and learn from the same rows
        checked=gradcheck.check(start.member(0), given.x[:, :-1], given.targets, config.heads()),
        members=tuple(Member(start.member(k), given, stop, scaler, rng) for k, rng in enumerate(own)),
        warm=task.warm,
    )


def _start(
    warm: WarmStart | None, config: TrainConfig, learn: Dataset, rngs: Sequence[np.random.Generator]
) -> tuple[Scaler, Network]:
    """The scaling to learn in, and the networks to learn on from: fresh ones where there is no warm start."""
    architecture = config.architecture(learn.X.shape[1])
    if warm is None:
        return fit_scaler(learn.X), network.initialise(architecture, rngs)
    kept = warm.network
    if warm.features != learn.features or not network.alike(kept.architecture, architecture):
        raise TrainingFailed("a warm start needs the same features and layers as the version it starts from")
    if kept.members != config.members:
        raise TrainingFailed(
            f"a warm start goes on with the {kept.members} members of the version it starts from, not "
            f"{config.members}: train cold once"
        )
    return warm.scaler, Network(architecture, kept.parameters, kept.statistics)


def _finish(lesson: _Lesson, config: TrainConfig) -> Fit | TrainingFailed:
    """Calibrates the mean of the best epochs' networks. A member that broke before its first epoch ended left nothing
    good, and there is no mean without it."""
    each = lesson.members
    broke = next((member.broke for member in each if member.broke is not None), None)
    best = [member.best for member in each if member.best is not None]
    if len(best) < len(each):
        return TrainingFailed(broke or "no epoch had a finite loss on the rows that choose the best one")
    learned, stop, held = network.stacked(best), lesson.stop, lesson.held
    for array in (learned.parameters, learned.statistics):
        array.flags.writeable = False
    on_stop, on_held = (
        network.forward(learned, lesson.scaler.apply(part.X)).mean(axis=0, dtype=np.float64)
        for part in (stop, held)
    )
    logit, up = on_stop[:, 0], stop.up.astype(np.float64)
    isotonic = config.calibration == "isotonic"
    warm = lesson.warm
    return Fit(
        config=config,
        features=lesson.learn.features,
        network=learned,
        scaler=lesson.scaler,
        temperature=1.0 if isotonic else calibration.temperature(logit, up),
        knots=calibration.isotonic(logit, up).astype(np.float32) if isotonic else None,
        spread=float(np.ptp(logit) and logit.std()),
        interval=calibration.conformal_width(held.log_return / held.scale - on_held[:, 1], LEVEL),
        base_rate=lesson.base_rate,
        domain=float(distances(lesson.scaler, lesson.learn.X).max()),
        gradient_check=lesson.checked,
        curve=_curve(each),
        health=tuple(
            health.worst([rows for rows in of_epoch if rows is not None])
            for of_epoch in zip_longest(*(member.health for member in each))
        ),
        best_epochs=tuple(member.best_epoch for member in each),
        broke=broke,
        rows=len(lesson.learn),
        first_closed_at=int(lesson.learn.closed_at[0]) if warm is None else warm.first_closed_at,
        fitted_until=max(int(stop.known_at.max()), 0 if warm is None else warm.fitted_until),
        seen_until=max(int(held.known_at.max()), 0 if warm is None else warm.seen_until),
    )


def _curve(members: Sequence[Member]) -> tuple[tuple[int, float, float], ...]:
    """Epoch by epoch the mean losses of the members that were still learning."""
    longest = max(len(member.curve) for member in members)
    by_epoch = ([member.curve[i] for member in members if i < len(member.curve)] for i in range(longest))
    return tuple(
        (entries[0][0], *(float(np.mean([entry[of] for entry in entries])) for of in (1, 2)))  # type: ignore[misc]
        for entries in by_epoch
    )


def contents(fit: Fit) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """A fit as a version keeps it: plain arrays, and the manifest that says what they are."""
    arrays: dict[str, NDArray[Any]] = {
        "parameters": fit.network.parameters,
        "statistics": fit.network.statistics,
        "mean": fit.scaler.mean,
        "scale": fit.scaler.scale,
        "calibration": np.array([fit.temperature, fit.interval, fit.base_rate, fit.domain]),
    }
    if fit.knots is not None:
        arrays["knots"] = fit.knots
    manifest = {
        "horizon": fit.config.horizon,
        "architecture": fit.network.architecture.document(),
        "features": list(fit.features.names),
        "inputs": [asdict(each) for each in fit.features.inputs],
        "features_sha256": fit.features.sha256,
        "config": fit.config.document(),
        "rows": fit.rows,
        "first_closed_at": fit.first_closed_at,
        "fitted_until": fit.fitted_until,
        "seen_until": fit.seen_until,
        "best_epochs": list(fit.best_epochs),
        "gradient_check": fit.gradient_check.worst,
        "gradient_health": fit.verdict,
    }
    return arrays, manifest


def warm_start(arrays: dict[str, NDArray[Any]], manifest: dict[str, Any]) -> WarmStart:
    """Where a version's arrays and manifest let a training go on from. Raises BadArtifact where they do not fit together."""
    kept = learned(arrays, manifest)
    known = (int(manifest[name]) for name in ("first_closed_at", "fitted_until", "seen_until"))
    return WarmStart(kept.features, kept.network, Scaler(arrays["mean"], arrays["scale"]), *known)
