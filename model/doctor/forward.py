"""Faults of the forward pass: whatever computes something else than its formula says."""

import math
from itertools import count

import numpy as np

from model.doctor import plain
from model.doctor.patient import Patient, Rule
from model.network import network, objective
from model.network.gates import Dropout
from model.network.normalisation import MOMENTUM, BatchNorm
from model.network.wires import Part, Share, Wire

# Both sides compute in float64, in another order of operations: their last bits differ, and by more where numbers
# cancel. A wrong formula is off in its first digits.
WITHIN = 1e-7
ROWS = 64
# A part by itself sees so many rows, in standard errors of the share that dropout keeps.
ALONE, SURE = 200, 5.0


def as_described(patient: Patient) -> tuple[bool, str]:
    """The parts are those of the settings, in their order."""
    p = patient
    wanted = p.config.architecture(p.x.shape[1])
    kinds, given = (
        [plain.kind_of(part).__name__ for part, _ in plain.leaves(a.parts, a.inputs)]
        for a in (wanted, p.architecture)
    )
    columns = sum(head.loss.outputs for head in p.heads)
    if p.architecture.inputs != p.x.shape[1] or p.architecture.outputs != columns:
        return False, (
            f"{p.x.shape[1]} features for a network of {p.architecture.inputs} inputs, and {p.architecture.outputs} "
            f"outputs for heads that read {columns}"
        )
    if kinds == given:
        return True, f"{len(given)} parts, as the settings say, and {columns} outputs, as the heads read"
    at = next(i for i in count() if kinds[i : i + 1] != given[i : i + 1])
    where = [" ".join(part[at : at + 1]) or "the end" for part in (kinds, given)]
    return False, f"part {at + 1} is {where[1]} where the settings say {where[0]}"


def parts_alone(patient: Patient) -> tuple[bool, str]:
    """Every part by itself in training, beside its formula; dropout keeps its share, and the signal's size."""
    seen = 0
    for number, (part, inputs) in enumerate(plain.leaves(patient.architecture.parts, patient.x.shape[1]), 1):
        if plain.kind_of(part).__name__ != "Residual":
            seen += 1
            if wrong := _alone(part, inputs):
                return False, f"part {number}, {plain.kind_of(part).__name__}: {wrong}"
    return True, f"{seen} parts in training, each by itself, agree with their formulas to {WITHIN:.0e}"


def _alone(part: Part, inputs: int) -> str:
    """What is wrong with a part in a training pass, or nothing."""
    rng = np.random.default_rng(0)
    parameters = rng.uniform(0.1, 1, part.parameters(inputs)) * rng.choice((-1, 1), part.parameters(inputs))
    statistics = rng.uniform(0.1, 1, part.statistics(inputs))
    noted = statistics.copy()
    x = np.ones((1, ALONE, inputs + 1))
    x[..., :-1] = rng.standard_normal((1, ALONE, inputs))
    before = x[0, :, :-1].copy()
    share = Share(parameters[None], np.zeros((1, len(parameters))), statistics[None], (rng,))
    bound = part.bind(Wire(x, np.zeros_like(x)), share)
    bound.forward()
    y = bound.out.value[0, :, :-1].astype(np.float64)
    if not (bound.out.value[..., -1] == 1).all():
        return "the constant column, which carries the biases, is no longer 1"
    kept = y != 0
    if isinstance(part, Dropout) and part.rate > 0:
        share_kept, keep = float(kept.mean()), 1 - part.rate
        if abs(share_kept - keep) > SURE * math.sqrt(keep * part.rate / kept.size):
            return f"keeps {share_kept:.1%} of its numbers instead of {keep:.1%}"
        size = float(np.abs(y[kept]).sum() / np.abs(before[kept]).sum())
        if not abs(size * keep - 1) < WITHIN:
            return f"makes what it keeps {size:.4g} times as large, instead of 1/(1 - rate) = {1 / keep:.4g} times"
    error = _apart(y, plain.value(part, before, parameters, noted, True, kept))
    if not error <= WITHIN:
        return f"its outputs are off by {error:.1e} of their size"
    if isinstance(part, BatchNorm):
        running = noted.reshape(2, -1) * (1 - MOMENTUM)
        running += MOMENTUM * np.stack((before.mean(axis=0), before.var(axis=0, ddof=1)))
        error = _apart(statistics.reshape(2, -1), running)
        if not error <= WITHIN:
            return f"its running statistics are off by {error:.1e} of their size"
    return ""


def answers(patient: Patient) -> tuple[bool, str]:
    """The answering pass as a whole, beside the formulas; twice, as it must be the same for the same rows."""
    probe, x = patient.probe(), patient.X[-ROWS:].astype(np.float64)
    expected = plain.chain(patient.architecture.parts, x, probe.parameters[0], probe.statistics[0])
    error = max(_apart(network.forward(probe, x)[0].astype(np.float64), expected) for _ in range(2))
    return error <= WITHIN, (
        f"outputs for {len(x)} rows are off by {error:.1e} of their size from a plain recomputation; "
        f"the limit is {WITHIN:.0e}"
    )


def losses_agree(patient: Patient) -> tuple[bool, str]:
    """The joint loss of outputs drawn at random, beside its formula."""
    rng = np.random.default_rng(patient.config.seed)
    targets = [target[-ROWS:] for target in patient.targets]
    n = len(targets[0])
    outputs = 2 * rng.standard_normal((n, patient.architecture.outputs))
    weight = rng.uniform(0.5, 1.5, n)
    given = [target[None].astype(np.float64) for target in targets]
    bound = objective.bind(patient.heads, outputs[None], given, weight[None], np.zeros((1, *outputs.shape)))
    found, expected, column = float(bound()[0]), 0.0, 0
    for head, target in zip(patient.heads, targets, strict=True):
        columns = slice(column, column + head.loss.outputs)
        expected += head.weight * float((weight * plain.loss(head.loss, outputs[:, columns], target)).mean())
        column = columns.stop
    error = abs(found - expected) / max(abs(expected), 1e-12)
    return error <= WITHIN, (
        f"the joint loss of {n} rows is {found:.6f}, and {expected:.6f} by its formula from the same outputs"
    )


def _apart(found: plain.Float64, expected: plain.Float64) -> float:
    """The largest difference, relative to the size of what is expected; infinite where something is not finite."""
    if found.shape != expected.shape:
        return math.inf
    error = float(np.abs(found - expected).max() / max(float(np.abs(expected).max()), 1e-300))
    return error if math.isfinite(error) else math.inf


RULES: dict[str, Rule] = {
    "the network is the one described": Rule(
        as_described,
        "Put the network together as its settings say: an activation, a normalisation or dropout is missing or too many.",
        vital=True,
    ),
    "each part computes its formula": Rule(
        parts_alone,
        "Look at the forward pass of the part named, and at what it does in training only.",
        vital=True,
    ),
    "answers agree with a plain recomputation": Rule(
        answers,
        "Look at what is different when answering: dropout must be gone, batch statistics the running ones, nothing "
        "written over that a later part reads.",
        vital=True,
    ),
    "the loss is what its formula says": Rule(
        losses_agree,
        "A loss of probabilities needs the last activation (the sigmoid) before it or in it; look also at means and sums.",
        vital=True,
    ),
}
