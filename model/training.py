"""Training: an iterator of epochs, and `fit`, which drives it with early stopping and keeps all that was learned."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from model import calibration, dataset, health
from model.dataset import Dataset, Scaler
from model.errors import BadInput, TrainingFailed
from model.features import DEFAULT, FeatureSet
from model.network import gradcheck
from model.network.losses import joint
from model.network.network import Architecture, Network, backward, forward, initialise, over
from model.network.optimisers import OPTIMISERS
from model.predictor import LEVEL

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides a training besides its bars. Equal bars, config and library versions: equal weights."""

    horizon: int = 1  # bars
    window: int = 10_000  # newest rows that are used at all
    features: tuple[str, ...] = DEFAULT.names
    hidden: tuple[int, ...] = (64, 32, 16)
    activation: str = "relu"
    initialiser: str = "he"
    dropout: float = 0.3
    optimiser: str = "adamw"
    learning_rate: float = 2e-3  # at the start; falls along half a cosine to zero at the last epoch
    weight_decay: float = 1.0  # decoupled, times the learning rate: strong, for there is little signal
    clip_norm: float = 1.0  # a longer gradient is shortened to this
    batch: int = 256
    epochs: int = 12
    patience: int = 4  # epochs without a better stop loss
    return_weight: float = 0.2  # of the return head's loss, beside 1 for the up head's
    stop_fraction: float = 0.1
    held_fraction: float = 0.05
    seed: int = 0
    blas_threads: int = 1

    def __post_init__(self) -> None:
        for name in ("horizon", "window", "batch", "epochs", "patience", "blas_threads"):
            if getattr(self, name) < 1:
                raise BadInput(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("stop_fraction", "held_fraction"):
            if not 0 < getattr(self, name) < 0.5:
                raise BadInput(f"{name} must lie between 0 and 0.5, not {getattr(self, name)}")
        if self.optimiser not in OPTIMISERS:
            raise BadInput(f"unknown optimiser {self.optimiser!r}; one of {', '.join(OPTIMISERS)}")

    def document(self) -> dict[str, Any]:
        """As a manifest has it."""
        return asdict(self)


def config_from(document: dict[str, Any]) -> TrainConfig:
    """The config that a manifest holds."""
    named: dict[str, Any] = {field.name: document[field.name] for field in fields(TrainConfig)}
    for name in ("features", "hidden"):
        named[name] = tuple(named[name])
    return TrainConfig(**named)


@dataclass(frozen=True)
class Epoch:
    """What one pass over the rows left: a copy of the parameters, the mean loss, and the gradients' health."""

    number: int  # from 1
    parameters: Float32
    train_loss: float
    health: tuple[health.GradientHealth, ...]


def epochs(
    start: Network, X: Float32, up: Float32, target: Float32, config: TrainConfig, rng: np.random.Generator
) -> Iterator[Epoch]:
    """Trains from `start` on standardised X (n, F) for as many epochs as the config says, one at a time.

    The buffers that change live in here and never escape. Raises TrainingFailed, before the step that would have
    spread it, where a loss or a gradient is not finite.
    """
    network = over(start.architecture, start.parameters.copy())
    gradient = over(start.architecture, np.zeros_like(start.parameters))
    before = np.empty_like(start.parameters)
    optimiser = OPTIMISERS[config.optimiser]
    moments = tuple(np.zeros_like(start.parameters) for _ in range(optimiser.moments))
    # a batch larger than the data shrinks, so that small data never means zero steps
    batches = max(1, round(len(X) / config.batch))
    step = 0
    for number in range(1, config.epochs + 1):
        losses = 0.0
        for batch, rows in enumerate(np.array_split(rng.permutation(len(X)), batches)):
            with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is caught just below
                tape = forward(network, X[rows], rng)
                loss, d_out = joint(tape.outputs, up[rows], target[rows], config.return_weight)
                backward(network, tape, d_out, gradient)
                norm = float(np.sqrt(np.dot(gradient.parameters, gradient.parameters)))
            if not np.isfinite(loss + norm):
                raise TrainingFailed(_what_broke(network, gradient, number))
            shrink = config.clip_norm / max(norm, config.clip_norm)
            gradient.parameters[...] *= shrink
            rate = config.learning_rate * 0.5 * (1 + np.cos(np.pi * step / (config.epochs * batches)))
            step += 1
            before[...] = network.parameters
            optimiser.step(network.parameters, gradient.parameters, moments, step, rate, config.weight_decay)
            losses += loss
            if batch == batches // 2:  # one step speaks for its epoch
                raw = over(start.architecture, gradient.parameters / shrink)
                measured = health.measure(network, tape, raw, network.parameters - before)
        yield Epoch(number, network.parameters.copy(), losses / batches, measured)


def _what_broke(network: Network, gradient: Network, epoch: int) -> str:
    layers = zip(network.architecture.layer_names, network.layers, gradient.layers, strict=True)
    for name, layer, slope in layers:
        if not all(np.isfinite(part).all() for part in (layer.W, layer.b, slope.W, slope.b)):
            return f"a loss or gradient was not finite in epoch {epoch}, first in layer {name!r}: training was stopped"
    return f"the loss was not finite in epoch {epoch} though every gradient was: training was stopped"


@dataclass(frozen=True)
class Fit:
    """All that a training learned. Arrays are read-only."""

    config: TrainConfig
    features: FeatureSet
    architecture: Architecture
    parameters: Float32
    scaler: Scaler
    temperature: float
    interval: float  # half-width of the 90 % interval of the return, in units of its expected size
    base_rate: float  # share of up in the whole window, the held-back rows included
    gradient_check: gradcheck.GradientCheck
    curve: tuple[tuple[int, float, float], ...]  # epoch, train loss, stop loss
    health: tuple[tuple[health.GradientHealth, ...], ...]  # by epoch, by layer
    best_epoch: int
    rows: int  # that the weights learned from
    first_closed_at: int  # microseconds: the first row's bar
    fitted_until: int  # microseconds: no label known later moved a weight, the best epoch or the temperature
    seen_until: int  # microseconds: no label known later was used at all, the interval included

    @property
    def verdict(self) -> str:
        """The gradients' health over the training as a whole."""
        return health.verdict_of(self.health)


@dataclass(frozen=True)
class WarmStart:
    """Where a training may go on from: an earlier version's parameters and the scaling that they were learned in."""

    architecture: Architecture
    parameters: Float32
    scaler: Scaler


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
    data = data.part(slice(max(0, len(data) - config.window), len(data)))
    parts = dataset.split(data, config.stop_fraction, config.held_fraction)
    learn, stop, held = data.part(parts.fit), data.part(parts.stop), data.part(parts.held)
    initial_rng, epochs_rng = (np.random.default_rng(s) for s in np.random.SeedSequence(config.seed).spawn(2))
    architecture = Architecture(
        learn.X.shape[1], config.hidden, config.activation, config.initialiser, config.dropout
    )
    if warm is not None and warm.architecture != architecture:
        raise TrainingFailed("a warm start needs the same features and layers as the version it starts from")
    scaler = warm.scaler if warm is not None else dataset.fit_scaler(learn.X)
    with threadpool_limits(config.blas_threads, "blas"):
        start = initialise(architecture, initial_rng) if warm is None else over(architecture, warm.parameters)
        X, target = scaler.apply(learn.X), learn.target
        checked = gradcheck.check(start, X, learn.up, target, config.return_weight)
        best: Float32 = start.parameters
        best_loss, best_epoch = float("inf"), 0
        curve, healths = [], []
        stop_X, stop_up, stop_target = scaler.apply(stop.X), stop.up, stop.target
        for epoch in epochs(start, X, learn.up, target, config, epochs_rng):
            outputs = forward(over(architecture, epoch.parameters), stop_X).outputs
            stop_loss, _ = joint(outputs, stop_up, stop_target, config.return_weight)
            curve.append((epoch.number, epoch.train_loss, stop_loss))
            healths.append(epoch.health)
            if stop_loss < best_loss:
                best, best_loss, best_epoch = epoch.parameters, stop_loss, epoch.number
            progress(epoch.number / config.epochs)
            if epoch.number - best_epoch >= config.patience:
                break
        trained = over(architecture, best)
        stop_logits = forward(trained, stop_X).outputs[:, 0].astype(np.float64)
        held_returns = forward(trained, scaler.apply(held.X)).outputs[:, 1].astype(np.float64)
    best.flags.writeable = False
    return Fit(
        config=config,
        features=data.features,
        architecture=architecture,
        parameters=best,
        scaler=scaler,
        temperature=calibration.temperature(stop_logits, stop.up.astype(np.float64)),
        interval=calibration.conformal_width(held.log_return / held.scale - held_returns, LEVEL),
        base_rate=float(data.up.mean(dtype=np.float64)),
        gradient_check=checked,
        curve=tuple(curve),
        health=tuple(healths),
        best_epoch=best_epoch,
        rows=len(learn),
        first_closed_at=int(learn.closed_at[0]),
        fitted_until=int(stop.known_at[-1]),
        seen_until=int(held.known_at[-1]),
    )


def contents(fit: Fit) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """A fit as a version keeps it: plain arrays, and the manifest that says what they are."""
    arrays: dict[str, NDArray[Any]] = {
        "parameters": fit.parameters,
        "mean": fit.scaler.mean,
        "scale": fit.scaler.scale,
        "calibration": np.array([fit.temperature, fit.interval, fit.base_rate]),
    }
    manifest = {
        "horizon": fit.config.horizon,
        "sizes": list(fit.architecture.sizes),
        "activation": fit.architecture.activation,
        "features": list(fit.features.names),
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
    """Where a version's arrays and manifest let a training go on from."""
    config = config_from(manifest["config"])
    architecture = Architecture(
        manifest["sizes"][0], config.hidden, config.activation, config.initialiser, config.dropout
    )
    return WarmStart(architecture, arrays["parameters"], Scaler(arrays["mean"], arrays["scale"]))
