"""The doctor: tells faults of the data, of the forward pass, of the backward pass, of the update and of the settings
apart, each with evidence and a remedy. Add an examination by adding a row to RULES.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import count, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model import dataset, health, training
from model.errors import BadInput, TrainingFailed
from model.features import FEATURES
from model.network import gradcheck
from model.network.losses import cross_entropy, joint
from model.network.network import Architecture, Network, backward, forward, initialise, over
from model.network.optimisers import OPTIMISERS
from model.training import TrainConfig

Float32 = NDArray[np.float32]

# As many rows are learned by heart; fewer are no examination.
TINY = 16
# In nats: outputs start small, so a fresh network knows nothing and says so.
FIRST_LOSS_TOLERANCE = 0.1
# By heart is below this joint loss, within so many steps at the best of these learning rates.
LEARNED_BY_HEART = 0.05
STEPS = 1000
RATES = (1e-3, 1e-2, 1e-1, 1.0)
# So small a step of any optimiser follows the slope: only its direction matters.
SMALL_RATE = 1e-5
# A training of this many epochs over this many of the newest rows shows how its gradients do.
EPOCHS = 3
NEWEST = 2000


@dataclass(frozen=True)
class Finding:
    """What one examination found. `kind` is where its fault lies: data, forward, backward, update or setting;
    `advice` is empty where it passed."""

    check: str
    kind: str
    passed: bool
    evidence: str
    advice: str


@dataclass(frozen=True)
class Patient:
    """What is examined: features as they came, x (n, F), and standardised, X; labels up (n,), target (n,); and the
    config of the network and its training."""

    x: Float32
    X: Float32
    up: Float32
    target: Float32
    config: TrainConfig

    def network(self, dtype: Any = np.float32) -> Network:
        """A fresh network, always the same one."""
        c = self.config
        architecture = Architecture(self.x.shape[1], c.hidden, c.activation, c.initialiser, c.dropout)
        return initialise(architecture, np.random.default_rng(c.seed), dtype)


@dataclass(frozen=True)
class Rule:
    """`look` says whether the patient passes, and the evidence. Where a `vital` rule fails, none after it means
    anything, so none is asked."""

    kind: str
    look: Callable[[Patient], tuple[bool, str]]
    advice: str
    vital: bool = False


def examine(x: Float32, up: Float32, target: Float32, config: TrainConfig) -> tuple[Finding, ...]:
    """Examines a training of `config` on features x (n, F), as they come from the bars, and labels up and target (n,).

    The findings are in the order of RULES. Raises BadInput where there are fewer than TINY rows.
    """
    if len(x) < TINY:
        raise BadInput(f"the doctor needs at least {TINY} rows with features and a label, not {len(x)}")
    with np.errstate(all="ignore"):  # what overflows is found, and not a warning
        patient = Patient(x, dataset.fit_scaler(x).apply(x), up, target, config)
        findings = []
        for check, rule in RULES.items():
            passed, evidence = rule.look(patient)
            findings.append(Finding(check, rule.kind, passed, evidence, "" if passed else rule.advice))
            if rule.vital and not passed:
                break
    return tuple(findings)


def synthetic(seed: int = 0, rows: int = 2000, features: int = 24) -> tuple[Float32, Float32, Float32]:
    """A made-up problem that can be learned, to examine the program itself where there is no market: x, up, target."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, features)).astype(np.float32)
    target = np.tanh(x[:, 0] * x[:, 1] + x[:, 2]) + 0.5 * rng.standard_normal(rows)
    return x, (target > 0).astype(np.float32), target.astype(np.float32)


def document(finding: Finding) -> dict[str, Any]:
    """One finding, JSON-ready."""
    return asdict(finding)


def _finite(patient: Patient) -> tuple[bool, str]:
    counts = {
        name: int(np.count_nonzero(~np.isfinite(part)))
        for name, part in (("features", patient.x), ("up", patient.up), ("target", patient.target))
    }
    bad = ", ".join(f"{count} in {name}" for name, count in counts.items() if count)
    return not bad, f"numbers that are not finite: {bad or 'none'}"


def _features_move(patient: Patient) -> tuple[bool, str]:
    width, given = patient.x.shape[1], patient.config.features
    names = given if len(given) == width else tuple(f"column {i}" for i in range(width))
    stands = patient.x.min(axis=0) == patient.x.max(axis=0)
    still = [
        name
        for name, constant in zip(names, stands.tolist(), strict=True)
        # on daily bars the hour never moves, and some markets tell no volume, as it should be
        if constant and not (name in FEATURES and FEATURES[name].group in ("time", "volume"))
    ]
    listed = f": {', '.join(still[:5])}" if still else ""
    return not still, f"{len(still)} of {width} features never move{listed}"


def _both_labels(patient: Patient) -> tuple[bool, str]:
    share = float(patient.up.mean(dtype=np.float64))
    return 0 < share < 1, f"{share:.1%} of {len(patient.up)} labels are up"


def _first_loss(patient: Patient) -> tuple[bool, str]:
    outputs = forward(patient.network(), patient.X).outputs
    loss = float(cross_entropy(outputs[:, 0], patient.up)[0].mean(dtype=np.float64))
    expected = math.log(2)
    return abs(loss - expected) <= FIRST_LOSS_TOLERANCE, (
        f"before any training the loss of up is {loss:.4f}; knowing nothing costs ln 2 = {expected:.4f}"
    )


def _gradients(patient: Patient) -> tuple[bool, str]:
    p = patient
    found = gradcheck.check(p.network(), p.X, p.up, p.target, p.config.return_weight, seed=p.config.seed)
    worst = max(found.layers, key=lambda layer: layer.relative_error)
    return found.passed, (
        f"largest relative error against numerical gradients {found.worst:.1e}, in {worst.name}; "
        f"the limit is {gradcheck.LIMIT:.0e}"
    )


def _small_step(patient: Patient) -> tuple[bool, str]:
    losses = _descent(patient, np.arange(len(patient.X)), SMALL_RATE, np.float64)
    before, after = next(losses), next(losses)
    return after < before, (
        f"one step of {patient.config.optimiser} at a learning rate of {SMALL_RATE:.0e} changes the loss "
        f"by {after - before:+.1e}, from {before:.4f}"
    )


def _by_heart(patient: Patient) -> tuple[bool, str]:
    # no more rows than the narrowest layer has units, so that a small network is not asked for what it cannot hold
    few = min(TINY, *patient.config.hidden, patient.X.shape[1])
    rows = np.random.default_rng(patient.config.seed).choice(len(patient.X), few, replace=False)
    lowest, at = math.inf, RATES[0]
    for rate in RATES:
        for step, loss in enumerate(islice(_descent(patient, rows, rate), STEPS + 1)):
            if loss < LEARNED_BY_HEART:
                return True, f"{few} rows learned by heart after {step} steps at a learning rate of {rate}"
            if loss < lowest:
                lowest, at = loss, rate
    return False, (
        f"{few} rows not learned by heart in {STEPS} steps at any of the learning rates {RATES}: "
        f"lowest loss {lowest:.4f}, at {at}, instead of {LEARNED_BY_HEART}"
    )


def _descent(
    patient: Patient, rows: NDArray[np.intp], rate: float, dtype: Any = np.float32
) -> Iterator[float]:
    """The joint loss over `rows` before the first step of the optimiser and after each; no dropout, decay or clipping."""
    network, optimiser = patient.network(dtype), OPTIMISERS[patient.config.optimiser]
    gradient = over(network.architecture, np.empty_like(network.parameters))
    moments = tuple(np.zeros_like(network.parameters) for _ in range(optimiser.moments))
    X, up, target = (part[rows].astype(dtype) for part in (patient.X, patient.up, patient.target))
    for step in count(1):
        tape = forward(network, X)
        loss, d_out = joint(tape.outputs, up, target, patient.config.return_weight)
        yield loss
        backward(network, tape, d_out, gradient)
        optimiser.step(network.parameters, gradient.parameters, moments, step, rate, 0.0)


def _short_training(patient: Patient) -> tuple[bool, str]:
    config = replace(patient.config, epochs=EPOCHS)
    X, up, target = (part[-NEWEST:] for part in (patient.X, patient.up, patient.target))
    rng = np.random.default_rng(config.seed)
    try:
        epochs = [epoch.health for epoch in training.epochs(patient.network(), X, up, target, config, rng)]
    except TrainingFailed as failed:
        return False, str(failed)
    verdict = health.verdict_of(epochs)
    sick = [f"{layer.name} {layer.verdict}" for layer in epochs[-1] if layer.verdict != "healthy"]
    return verdict == "healthy", f"gradients over {EPOCHS} epochs: {verdict}" + (
        f" (last: {', '.join(sick)})" if sick else ""
    )


RULES: dict[str, Rule] = {
    "every number is finite": Rule(
        "data",
        _finite,
        "Find the bars that these rows come from: a feature must give a number for every bar it is asked for.",
        vital=True,
    ),
    "every feature moves": Rule(
        "data",
        _features_move,
        "Drop these features for this market, or look why the source never changes them (a volume of zero?).",
    ),
    "both labels occur": Rule(
        "data",
        _both_labels,
        "Take more bars or another horizon: from labels of one kind there is nothing to learn.",
    ),
    "the first loss is that of knowing nothing": Rule(
        "forward",
        _first_loss,
        "Look at the scale of initial weights and of features, and at the loss: the outputs should start near zero.",
    ),
    "gradients agree with numerical ones": Rule(
        "backward",
        _gradients,
        "Look at the local derivative of the layer named, its cached inputs and its dropout mask: backward is wrong.",
    ),
    "one small step lowers the loss": Rule(
        "update",
        _small_step,
        "The gradient is one thing, the step another: look at the optimiser's sign and its moments.",
    ),
    "a few rows are learned by heart": Rule(
        "update",
        _by_heart,
        "Rows with equal features and different labels cannot be learned; else look at the optimiser, then at "
        "gates that are shut from the start.",
    ),
    "a short training is healthy": Rule(
        "setting",
        _short_training,
        "Vanishing: fewer layers, or relu. Dead or exploding: a lower learning rate. Saturated: smaller initial "
        "weights, or scaled features.",
    ),
}
