"""Training: `fit` divides the rows, trains an ensemble on them, calibrates it, and keeps all that was learned; `fit_tasks`
does so for many trainings at once, each of which comes out bit for bit as if it had been alone."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import groupby, zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model import calibration, dataset, health, members, weights
from model.config import TrainConfig
from model.dataset import Dataset
from model.epochs import Examples, examples
from model.errors import TrainingFailed
from model.features import FeatureSet
from model.health import GradientHealth
from model.members import Member
from model.network import gradcheck, network
from model.network.gradcheck import GradientCheck
from model.network.network import Network
from model.network.schedules import SCHEDULES, constant, warmed
from model.predictor import LEVEL, TWIN, learned
from model.scaler import Scaler, distances, fit_scaler

Float32 = NDArray[np.float32]

# Of the work, roughly, where all rows are learned from afterwards.
FIRST = 0.6
GRAIN = 20  # parts of an epoch that a schedule is summed over


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
    twin: "Fit | None" = None  # where all rows were learned from: the same training with the newest held back

    @property
    def judged(self) -> "Fit":
        """What can be judged on rows that it has not learned from: itself, or the twin that was trained alike and held
        the newest back. It chose the epochs, the calibration and the interval."""
        return self.twin or self

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
    anew with each fit. With `config.relearn` new networks then learn from all rows, for as many epochs. Raises TrainingFailed where there are too few rows or what came out is not to be trusted.
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
    first = FIRST if config.relearn else 1.0
    lessons = [_lesson(task, config) for task in tasks]
    ready = [lesson for lesson in lessons if isinstance(lesson, _Lesson)]
    learners = [member for lesson in ready for member in lesson.members]
    members.train(learners, config, threads, lambda done: progress(first * done))
    results = [_finish(lesson, config) if isinstance(lesson, _Lesson) else lesson for lesson in lessons]
    if config.relearn:
        results = _learned_again(
            tasks, results, config, threads, lambda done: progress(first + (1 - first) * done)
        )
    return tuple(results)


def _learned_again(
    tasks: Sequence[Task],
    results: Sequence[Fit | TrainingFailed],
    config: TrainConfig,
    threads: int,
    progress: Callable[[float], None],
) -> list[Fit | TrainingFailed]:
    """Each fit with networks that learned from all of its rows, for as many epochs as were best on average when the
    newest were held back. The fit that held them back stays beside as its twin."""
    again = list(results)
    fits = {place: fit for place, fit in enumerate(results) if isinstance(fit, Fit)}
    done = 0

    def told(count: int, part: float) -> None:
        progress((done + part * count) / len(fits))

    for epochs, group in groupby(
        sorted(fits, key=lambda place: _epochs(fits[place])), lambda place: _epochs(fits[place])
    ):
        places = list(group)
        wholes = [_whole(tasks[place], replace(config, epochs=epochs)) for place in places]
        every = [member for whole in wholes for member in whole.members]
        members.train(every, replace(config, epochs=epochs), threads, partial(told, len(places)))
        done += len(places)
        for place, whole in zip(places, wholes, strict=True):
            again[place] = _with(fits[place], whole)
    return again


def _epochs(fit: Fit) -> int:
    """For how long to learn from all rows: as far as until the best epochs, counted by the sum of learning rates.

    A training that is planned to end there has its rate fall sooner, so it takes more epochs to go as far.
    """
    config = fit.config
    schedule = warmed(SCHEDULES.get(config.schedule, constant), config.warm_up)

    def far(epochs: float, planned: int) -> float:
        steps = np.arange(GRAIN * planned)
        return float(sum(schedule(int(step), len(steps)) for step in steps[: round(GRAIN * epochs)]))

    wanted = float(np.mean([far(epoch, config.epochs) for epoch in fit.best_epochs]))
    reached = (epochs for epochs in range(1, config.epochs) if far(epochs, epochs) >= wanted)
    return next(reached, config.epochs)


@dataclass(frozen=True)
class _Whole:
    """All rows of a task, and the members that learn from them."""

    rows: Dataset
    scaler: Scaler
    members: tuple[Member, ...]


def _whole(task: Task, config: TrainConfig) -> _Whole:
    rows = task.data.part(slice(max(0, len(task.data) - config.window), len(task.data)))
    initial, own = _rngs(task.seed, config.members)
    scaler, start = _start(task.warm, config, rows, initial)
    given = _given(rows, scaler, config)
    each = tuple(Member(start.member(k), given, None, scaler, rng) for k, rng in enumerate(own))
    return _Whole(rows, scaler, each)


def _with(fit: Fit, whole: _Whole) -> Fit | TrainingFailed:
    """The fit once its members have learned from all rows."""
    broke = next((member.broke for member in whole.members if member.broke is not None), None)
    last = [member.best for member in whole.members if member.best is not None]
    if broke is not None or len(last) < len(whole.members):
        return TrainingFailed(broke or "no epoch had a finite loss")
    until = int(whole.rows.known_at.max())
    return replace(
        fit,
        network=_frozen(last),
        scaler=whole.scaler,
        domain=float(distances(whole.scaler, whole.rows.X).max()),
        health=_worst(whole.members),
        rows=len(whole.rows),
        fitted_until=max(until, fit.fitted_until),
        seen_until=max(until, fit.seen_until),
        twin=fit,
    )


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
    initial, own = _rngs(task.seed, config.members)
    try:
        parts = dataset.split(newest, config.stop_fraction, config.held_fraction)
        learn, stop = newest.part(parts.fit), newest.part(parts.stop)
        scaler, start = _start(task.warm, config, learn, initial)
    except TrainingFailed as failed:
        return failed
    given = _given(learn, scaler, config)
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


def _rngs(seed: int, count: int) -> tuple[tuple[np.random.Generator, ...], ...]:
    """What each of so many members starts from, and what it shuffles and drops out by."""
    seeds = np.random.SeedSequence(seed).spawn(2 * count)
    return tuple(tuple(map(np.random.default_rng, seeds[i::2])) for i in (0, 1))


def _given(rows: Dataset, scaler: Scaler, config: TrainConfig) -> Examples:
    return examples(scaler.apply(rows.X), (rows.up, rows.target), weights.of(rows, config))


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
    learned, stop, held = _frozen(best), lesson.stop, lesson.held
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
        health=_worst(each),
        best_epochs=tuple(member.best_epoch for member in each),
        broke=broke,
        rows=len(lesson.learn),
        first_closed_at=int(lesson.learn.closed_at[0]) if warm is None else warm.first_closed_at,
        fitted_until=max(int(stop.known_at.max()), 0 if warm is None else warm.fitted_until),
        seen_until=max(int(held.known_at.max()), 0 if warm is None else warm.seen_until),
    )


def _frozen(networks: Sequence[Network]) -> Network:
    """As the read-only members of one."""
    together = network.stacked(networks)
    for array in (together.parameters, together.statistics):
        array.flags.writeable = False
    return together


def _worst(members: Sequence[Member]) -> tuple[tuple[GradientHealth, ...], ...]:
    """By epoch and layer, of the members that were still learning."""
    by_epoch = zip_longest(*(member.health for member in members))
    return tuple(health.worst([rows for rows in of_epoch if rows is not None]) for of_epoch in by_epoch)


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
    twin = fit.twin
    if twin is not None:
        arrays |= {
            TWIN + "parameters": twin.network.parameters,
            TWIN + "statistics": twin.network.statistics,
            TWIN + "mean": twin.scaler.mean,
            TWIN + "scale": twin.scaler.scale,
        }
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
        "twin": None if twin is None else {"fitted_until": twin.fitted_until, "seen_until": twin.seen_until},
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
