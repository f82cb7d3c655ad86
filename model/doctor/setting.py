"""Faults of the settings: everything computes as it should, and still will not learn."""

import math
from dataclasses import replace
from itertools import repeat

import numpy as np

from model import epochs, health, range_test, weights
from model.doctor.patient import Float32, Patient, Rule
from model.network import network, objective
from model.network.activations import Array
from model.network.objective import Head

# Rows by how much each counts, or so large a share of them all: the weights of fewer learn noise. The doctor asks for
# as many before it judges whether labels can be told.
COUNTED, COUNTED_SHARE = 200, 0.5
# By head, in nats for up: outputs start small, so a fresh network knows nothing and says so.
FIRST_LOSS_WITHIN = 0.1
ROWS = 1000
# The spread of a hidden layer's units over rows, of features whose spread is 1. Initialisers are made to keep it
# (Glorot & Bengio 2010; He et al. 2015); a layer of sigmoid takes four fifths of it.
SPREADS = (1e-3, 300.0)
# Half a layer that passes nothing back leaves a network of half the size (Lu et al. 2019).
SHUT = 0.5
# A rate may lie below the span of the range test by this factor: a training has more steps than the test has at a rate,
# and needs no more than to begin. Above the span there is no such reserve.
BELOW = 50.0
# What decay alone makes of weights by the end of the training.
DECAYED_TO = 0.05
# As many rows are learned by heart, within so many steps, at the best of these learning rates.
TINY, STEPS, LEARNED_BY_HEART = 16, 1000, 0.05
RATES = (1e-3, 1e-2, 1e-1, 1.0)
# A training of this many epochs over this many of the newest rows shows how its gradients do. The first are not judged:
# outputs start small, so that a healthy step can be longer than they are.
EPOCHS, NEWEST = 3 + health.LATER_EPOCHS, 2000


def rows_count(patient: Patient) -> tuple[bool, str]:
    """Of those that weights learn from, as many rows as (Σ w)² / Σ w² says of their own weights (Kish 1965)."""
    c = patient.config
    rows = min(len(patient.x), c.window)
    target = patient.target[-rows:][: round(rows * (1 - c.stop_fraction - c.held_fraction))]
    w = weights.recency(len(target), c.half_life).astype(np.float64) * (np.abs(target) >= c.dead_zone)
    counted = float(w.sum() ** 2 / max(float(w @ w), 1e-300))
    needed = min(COUNTED, COUNTED_SHARE * len(target))
    return counted >= needed, (
        f"of {len(target)} rows about {counted:.0f} count for up, by their age and by the size of their move; "
        f"{needed:.0f} have to"
    )


def nothing_zeroed(patient: Patient) -> tuple[bool, str]:
    """No layer normalisation reads a single unit."""
    zeroed = len(patient.zeroed)
    return not zeroed, (
        f"{zeroed or 'no'} layer normalisation over a single unit, which would be zero whatever it reads"
    )


def first_loss(patient: Patient) -> tuple[bool, str]:
    """Before any training the loss of each head that counts is that of knowing nothing: outputs of zero, ln 2 for up."""
    p = patient.rows(ROWS)
    outputs = network.forward(p.start(), p.X)
    said, within, column = [], True, 0
    for head, target in zip(p.heads, p.targets, strict=True):
        given, column = outputs[..., column : column + head.loss.outputs], column + head.loss.outputs
        found, nothing = (_alone(head, answers, target) for answers in (given, np.zeros_like(given)))
        if head.weight:
            said.append(f"{found:.4f} for {head.name}, where knowing nothing costs {nothing:.4f}")
            within &= abs(found - nothing) <= FIRST_LOSS_WITHIN
    return within, f"before any training the loss is {'; '.join(said)} (ln 2 = {math.log(2):.4f} for up)"


def _alone(head: Head, outputs: Array, target: Float32) -> float:
    """The mean loss of one head, whatever its weight beside others."""
    row = np.asarray(target[None], np.float32)
    bound = objective.bind(
        (replace(head, weight=1.0),), outputs, [row], np.ones_like(row), np.empty_like(outputs)
    )
    return float(bound()[0])


def units_live(patient: Patient) -> tuple[bool, str]:
    """At the start, no layer is shut, at the ends of its range, or blind to which row it sees."""
    p = patient.rows(ROWS)
    tape = network.bind(p.start(), len(p.X))
    tape.inputs[..., :-1] = p.X
    tape.forward()
    said = []
    for number, gate in enumerate(tape.gates, 1):
        flat = gate.activation.is_flat(gate.z, gate.a)[0]
        share = float(flat.all(axis=0).mean() if gate.activation.flat_means == "dead" else flat.mean())
        spread = float(np.sqrt(np.square(gate.a[0].astype(np.float64).std(axis=0)).mean()))
        if not (share <= SHUT and SPREADS[0] <= spread <= SPREADS[1]):
            said.append(
                f"hidden {number} is {share:.0%} {gate.activation.flat_means} and spreads {spread:.1e} over rows"
            )
    return not said, "; ".join(
        said[:3]
    ) or f"{len(tape.gates)} activations pass signal and gradient at the start"


def rate_in_range(patient: Patient) -> tuple[bool, str]:
    """The learning rate lies in the span that a range test finds useful."""
    p = patient.rows(patient.config.batch).steady()
    found = range_test.range_test(
        p.start(),
        p.X,
        p.targets,
        p.heads,
        p.optimiser,
        clip_value=p.config.clip_value,
        clip_norm=p.config.clip_norm,
    )
    low, high, rate = found.low or math.inf, found.high or math.inf, p.config.learning_rate
    return low / BELOW <= rate <= high, (
        f"in a range test the loss has fallen at a learning rate of {low:.1e} and falls apart at {high:.1e}; "
        f"the setting is {rate:.1e}"
    )


def decay_leaves_weights(patient: Patient) -> tuple[bool, str]:
    """What decay alone leaves of weights, at the learning rate's mean over the training."""
    c = patient.config
    batches, _ = epochs.batches_of(len(patient.X), c.batch)
    left = math.exp(-0.5 * c.learning_rate * c.weight_decay * batches * c.epochs)
    return left >= DECAYED_TO, (
        f"over {c.epochs} epochs of {batches} steps a decay of {c.weight_decay:g} leaves {left:.2g} of a weight that "
        "no gradient holds"
    )


def by_heart(patient: Patient) -> tuple[bool, str]:
    """A few rows, at the best of several learning rates."""
    # no more rows than the narrowest layer has units, so that a small network is not asked for what it cannot hold
    p = patient.steady()
    few = min(TINY, *p.config.hidden, p.X.shape[1])
    rows = np.random.default_rng(p.config.seed).choice(len(p.X), few, replace=False)
    lowest, at = math.inf, RATES[0]
    for rate in RATES:
        targets = [target[rows] for target in p.targets]
        walk = range_test.descent(p.start(), p.X[rows], targets, p.heads, p.optimiser, repeat(rate, STEPS))
        for step, (loss, _) in enumerate(walk):
            if loss < LEARNED_BY_HEART:
                return True, f"{few} rows learned by heart after {step} steps at a learning rate of {rate}"
            if loss < lowest:
                lowest, at = loss, rate
    return False, (
        f"{few} rows not learned by heart in {STEPS} steps at any of the learning rates {RATES}: "
        f"lowest loss {lowest:.4f}, at {at}, instead of {LEARNED_BY_HEART}"
    )


def short_training(patient: Patient) -> tuple[bool, str]:
    """The gradients of a real, short training are healthy."""
    p = patient.rows(NEWEST)
    config = replace(p.config, epochs=EPOCHS)
    rng = np.random.default_rng(config.seed)
    walk = list(epochs.epochs(p.start(), epochs.examples(p.X, p.targets), p.heads, config, (rng,)))
    if broke := walk[-1].broke[0]:
        return False, broke
    layers = [epoch.health[0] for epoch in walk]
    verdict = health.verdict_of(layers)
    sick = [f"{layer.name} {layer.verdict}" for layer in layers[-1] if layer.verdict != "healthy"]
    return verdict == "healthy", f"gradients over {EPOCHS} epochs: {verdict}" + (
        f" (last: {', '.join(sick)})" if sick else ""
    )


RULES: dict[str, Rule] = {
    "enough rows count": Rule(
        rows_count,
        "Take a longer half-life, a smaller dead zone or more rows: so few are learned by heart, and nothing else is.",
    ),
    "no layer is normalised away": Rule(
        nothing_zeroed,
        "Give that layer more units, or take batch normalisation or none: one unit is its own mean, so that layer "
        "normalisation always makes zero of it, and nothing before it learns.",
    ),
    "the first loss is that of knowing nothing": Rule(
        first_loss,
        "Outputs should start near zero: look at the scale of initial weights, and at how many layers it is multiplied in.",
    ),
    "units are alive at the start": Rule(
        units_live,
        "Dead: biases near zero. Saturated: smaller initial weights. Not spread: larger ones, fewer layers, or relu.",
    ),
    "the learning rate is useful": Rule(
        rate_in_range,
        "Take a learning rate between the two of the evidence, nearer to the upper one. Where none of use is left, let "
        "clip_value and clip_norm leave more of the gradient.",
    ),
    "weight decay leaves weights": Rule(
        decay_leaves_weights,
        "Lower the weight decay, or the learning rate that it is multiplied with.",
    ),
    "a few rows are learned by heart": Rule(
        by_heart,
        "Rows with equal features and different labels cannot be learned; else take more units or fewer layers, "
        "another initialiser or another optimiser.",
    ),
    "a short training is healthy": Rule(
        short_training,
        "Vanishing: fewer layers, or relu. Dead or exploding: a lower learning rate. Saturated: smaller initial "
        "weights.",
    ),
}
