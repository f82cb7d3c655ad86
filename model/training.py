"""Training: `fit` drives the epochs with early stopping, and keeps all that was learned; `fit_members` does so for
many networks at once, each of which comes out bit for bit as if it had been trained alone."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from model import calibration, dataset, health, weights
from model.config import PLATEAU, TrainConfig
from model.dataset import Dataset, Scaler
from model.epochs import Examples, batches_of, epochs, examples, pooled
from model.errors import TrainingFailed
from model.features import FeatureSet
from model.health import GradientHealth
from model.network import gradcheck, network, objective
from model.network.gradcheck import GradientCheck
from model.network.network import Network
from model.network.schedules import plateau
from model.predictor import LEVEL, learned

Float32 = NDArray[np.float32]

# Members are trained side by side as long as what a step of theirs touches fits a core's cache; more wait their turn.
# Measured: eight networks 32-64-32-2 gain 1.7 times, of larger ones each is as fast alone; a second thread pays where
# single products take long, from some hundred units and a thousand rows on.
CACHE_BYTES = 1 << 20


@dataclass(frozen=True)
class WarmStart:
    """Where a training may go on from: an earlier version's network and the scaling that it was learned in."""

    features: FeatureSet
    network: Network  # of one member
    scaler: Scaler


@dataclass(frozen=True)
class Member:
    """One network to train: on the newest rows of what data, from what seed, and where from."""

    data: Dataset
    seed: int
    warm: WarmStart | None = None


@dataclass(frozen=True)
class Fit:
    """All that a training learned. Arrays are read-only."""

    config: TrainConfig
    features: FeatureSet
    network: Network  # of one member: that of the best epoch
    scaler: Scaler
    temperature: float
    knots: Float32 | None  # (2, n): of the isotonic calibration, where the config asks for it
    spread: float  # nats: standard deviation of the logit of up, before calibration, over the rows of early stopping
    interval: float  # half-width of the 90 % interval of the return, in units of its expected size
    base_rate: float  # share of up in the whole window, the held-back rows included
    gradient_check: GradientCheck
    curve: tuple[tuple[int, float, float], ...]  # epoch, train loss, stop loss
    health: tuple[tuple[GradientHealth, ...], ...]  # by epoch, by layer
    best_epoch: int
    broke: str | None  # what was not finite, where that ended the training; the network is the last good one
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
    (result,) = fit_members((Member(data, config.seed, warm),), config, progress=progress)
    if isinstance(result, TrainingFailed):
        raise result
    return result


def fit_members(
    members: Sequence[Member],
    config: TrainConfig,
    threads: int = 1,
    progress: Callable[[float], None] = lambda share: None,
) -> tuple[Fit | TrainingFailed, ...]:
    """What `fit` gives for each of `members`, in their order; one that fails does not stop the others.

    Members with as many batches an epoch go side by side, in blocks that fit a core's cache, and the blocks over
    `threads`. None of that changes a bit of what a member becomes.
    """
    results: dict[int, Fit | TrainingFailed] = {}
    runs: list[_Run] = []
    # products run with the threads that the config names, as their last bits depend on it
    with threadpool_limits(config.blas_threads, "blas"):
        for place, member in enumerate(members):
            try:
                runs.append(_prepare(place, member, config))
            except TrainingFailed as failed:
                results[place] = failed
        done = 0

        def count(members: int) -> None:
            nonlocal done
            done += members
            progress(min(done / (config.epochs * len(runs)), 1.0))

        blocks = list(_blocks(runs, config, threads))
        with ThreadPoolExecutor(threads) as pool:
            for block in pool.map(lambda block: _train(block, config, count), blocks):
                results.update(block)
    return tuple(results[place] for place in range(len(members)))


@dataclass
class _Run:
    """A member on its way: what it was given, and the best that it has been."""

    place: int
    features: FeatureSet
    learn: Dataset
    stop: Dataset
    held: Dataset
    base_rate: float
    scaler: Scaler
    start: Network
    examples: Examples
    rng: np.random.Generator
    checked: GradientCheck
    best: Network | None = None
    best_epoch: int = 0
    best_loss: float = float("inf")
    curve: list[tuple[int, float, float]] = field(default_factory=list)
    health: list[tuple[GradientHealth, ...]] = field(default_factory=list)
    broke: str | None = None
    stopped: bool = False


def _prepare(place: int, member: Member, config: TrainConfig) -> _Run:
    newest = member.data.part(slice(max(0, len(member.data) - config.window), len(member.data)))
    parts = dataset.split(newest, config.stop_fraction, config.held_fraction)
    learn = newest.part(parts.fit)
    initial_rng, rng = (np.random.default_rng(s) for s in np.random.SeedSequence(member.seed).spawn(2))
    architecture = config.architecture(learn.X.shape[1])
    if member.warm is None:
        scaler = dataset.fit_scaler(learn.X)
        start = network.initialise(architecture, (initial_rng,))
    else:
        scaler, kept = member.warm.scaler, member.warm.network
        if member.warm.features != newest.features or not network.alike(kept.architecture, architecture):
            raise TrainingFailed(
                "a warm start needs the same features and layers as the version it starts from"
            )
        start = Network(architecture, kept.parameters, kept.statistics)
    given = examples(scaler.apply(learn.X), (learn.up, learn.target), weights.of(learn, config))
    return _Run(
        place=place,
        features=newest.features,
        learn=learn,
        stop=newest.part(parts.stop),
        held=newest.part(parts.held),
        base_rate=float(newest.up.mean(dtype=np.float64)),
        scaler=scaler,
        start=start,
        examples=given,
        rng=rng,
        checked=gradcheck.check(start, given.x[:, :-1], given.targets, config.heads()),
    )


def side_by_side(member: Network, rows: int, members: int, threads: int) -> int:
    """How many of so many such networks, with batches of so many rows, one thread trains at once; see CACHE_BYTES."""
    tape = network.bind(member, rows)
    touched: int = 3 * sum(part.out.value.nbytes for part in tape.parts) + 5 * member.parameters.nbytes
    return max(1, min(CACHE_BYTES // touched, -(-members // threads)))


def _blocks(runs: Sequence[_Run], config: TrainConfig, threads: int) -> list[list[_Run]]:
    """Runs that can go side by side, in their order: equal networks, as many batches, and room in the cache."""

    def alike(run: _Run) -> tuple[int, int, int]:
        return (run.start.architecture.inputs, *batches_of(len(run.learn), config.batch))

    blocks = []
    for _, group in groupby(sorted(runs, key=alike), key=alike):
        same = list(group)
        _, size = batches_of(len(same[0].learn), config.batch)
        width = side_by_side(same[0].start, size, len(same), threads)
        blocks += [same[i : i + width] for i in range(0, len(same), width)]
    return blocks


def _train(
    runs: Sequence[_Run], config: TrainConfig, count: Callable[[int], None]
) -> dict[int, Fit | TrainingFailed]:
    """Trains these side by side until each has stopped by itself."""
    architecture = runs[0].start.architecture
    start = Network(
        architecture,
        np.concatenate([run.start.parameters for run in runs]),
        np.concatenate([run.start.statistics for run in runs]),
    )

    def pace(member: int) -> float:
        if config.schedule != PLATEAU:
            return 1.0
        return plateau([stop for _, _, stop in runs[member].curve], patience=config.patience // 2)

    judges = [_stop_loss(run, config) for run in runs]
    walk = epochs(
        start,
        pooled([run.examples for run in runs]),
        config.heads(),
        config,
        [run.rng for run in runs],
        pace,
    )
    for epoch in walk:
        for k, (run, judge) in enumerate(zip(runs, judges, strict=True)):
            if run.stopped:
                continue
            run.health.append(epoch.health[k])
            run.broke = epoch.broke[k]
            if run.broke is None:
                stop_loss = judge(epoch.networks.member(k))
                run.curve.append((epoch.number, epoch.train_loss[k], stop_loss))
                if stop_loss < run.best_loss:
                    run.best, run.best_loss = epoch.networks.member(k).copy(), stop_loss
                    run.best_epoch = epoch.number
            run.stopped = run.broke is not None or epoch.number - run.best_epoch >= config.patience
        count(len(runs))
        if all(run.stopped for run in runs):
            break
    return {run.place: _finish(run, config) for run in runs}


def _stop_loss(run: _Run, config: TrainConfig) -> Callable[[Network], float]:
    """What judges a network on the run's stop rows: each counts alike, however old."""
    judged, n = run.start.copy(), len(run.stop)
    tape = network.bind(judged, n)
    tape.inputs[..., :-1] = run.scaler.apply(run.stop.X)
    targets = [target[None] for target in (run.stop.up, run.stop.target)]
    alike = np.ones((1, n), np.float32)
    loss_of = objective.bind(config.heads(), tape.outputs, targets, alike, np.empty_like(tape.outputs))

    def judge(net: Network) -> float:
        judged.parameters[...], judged.statistics[...] = net.parameters, net.statistics
        with np.errstate(all="ignore"):  # a loss that overflows is no better than any other
            tape.forward()
            return float(loss_of()[0])

    return judge


def _finish(run: _Run, config: TrainConfig) -> Fit | TrainingFailed:
    """Calibrates the best epoch's network. A training that broke before its first epoch ended left nothing good."""
    if run.best is None:
        return TrainingFailed(run.broke or "no epoch had a finite loss on the rows that choose the best one")
    stop, held = (
        network.forward(run.best, run.scaler.apply(part.X))[0].astype(np.float64)
        for part in (run.stop, run.held)
    )
    up = run.stop.up.astype(np.float64)
    isotonic = config.calibration == "isotonic"
    for array in (run.best.parameters, run.best.statistics):
        array.flags.writeable = False
    return Fit(
        config=config,
        features=run.features,
        network=run.best,
        scaler=run.scaler,
        temperature=1.0 if isotonic else calibration.temperature(stop[:, 0], up),
        knots=calibration.isotonic(stop[:, 0], up).astype(np.float32) if isotonic else None,
        spread=float(np.ptp(stop[:, 0]) and stop[:, 0].std()),
        interval=calibration.conformal_width(run.held.log_return / run.held.scale - held[:, 1], LEVEL),
        base_rate=run.base_rate,
        gradient_check=run.checked,
        curve=tuple(run.curve),
        health=tuple(run.health),
        best_epoch=run.best_epoch,
        broke=run.broke,
        rows=len(run.learn),
        first_closed_at=int(run.learn.closed_at[0]),
        fitted_until=int(run.stop.known_at.max()),
        seen_until=int(run.held.known_at.max()),
    )


def contents(fit: Fit) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """A fit as a version keeps it: plain arrays, and the manifest that says what they are."""
    arrays: dict[str, NDArray[Any]] = {
        "parameters": fit.network.parameters[0],
        "statistics": fit.network.statistics[0],
        "mean": fit.scaler.mean,
        "scale": fit.scaler.scale,
        "calibration": np.array([fit.temperature, fit.interval, fit.base_rate]),
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
        "best_epoch": fit.best_epoch,
        "gradient_check": fit.gradient_check.worst,
        "gradient_health": fit.verdict,
    }
    return arrays, manifest


def warm_start(arrays: dict[str, NDArray[Any]], manifest: dict[str, Any]) -> WarmStart:
    """Where a version's arrays and manifest let a training go on from. Raises BadArtifact where they do not fit together."""
    kept = learned(arrays, manifest)
    return WarmStart(kept.features, kept.network, Scaler(arrays["mean"], arrays["scale"]))
