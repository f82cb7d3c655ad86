"""Faults of the backward pass: gradients that are not those of the loss."""

import numpy as np

from model.doctor.patient import Float64, Patient, Rule
from model.network import gradcheck, network, objective
from model.network.network import Network

# The same sums over the same numbers: only a fault makes any difference.
WITHIN = 1e-9
ROWS = 16


def gradients(patient: Patient) -> tuple[bool, str]:
    """Beside differences of the loss, at weights that no unit is shut for."""
    p = patient
    found = gradcheck.check(p.probe(), p.X, p.targets, p.heads, seed=p.config.seed)
    worst = max(found.layers, key=lambda layer: layer.relative_error)
    return found.passed, (
        f"largest relative error against numerical gradients {found.worst:.1e}, in {worst.name}; "
        f"the limit is {gradcheck.LIMIT:.0e}"
    )


def cached(patient: Patient) -> tuple[bool, str]:
    """Forward and backward on some rows, then on others: the second gradient owes nothing to the first."""
    rows = min(ROWS, len(patient.X) // 2)
    first, second = slice(0, rows), slice(len(patient.X) - rows, len(patient.X))
    probe = patient.probe()
    used = _gradient(patient, probe.copy(), (first, second))
    fresh = _gradient(patient, probe.copy(), (second,))
    error = float(np.abs(used - fresh).max() / max(float(np.abs(fresh).max()), 1e-300))
    return error <= WITHIN, (
        f"after another batch the gradients differ by {error:.1e} of their size from those without it; "
        f"the limit is {WITHIN:.0e}"
    )


def _gradient(patient: Patient, probe: Network, batches: tuple[slice, ...]) -> Float64:
    """The gradient of the last of these batches, which one tape takes in turn; dropout's masks are the same for each."""
    buffer, masks = np.zeros_like(probe.parameters), np.random.default_rng(patient.config.seed)
    drawn, rows = masks.bit_generator.state, batches[0].stop - batches[0].start
    tape = network.bind(probe, rows, buffer, (masks,))
    assert tape.d_outputs is not None
    targets = [np.empty((1, rows)) for _ in patient.targets]
    loss_of = objective.bind(patient.heads, tape.outputs, targets, np.ones((1, rows)), tape.d_outputs)
    for batch in batches:
        masks.bit_generator.state = drawn
        tape.inputs[..., :-1] = patient.X[batch]
        for into, target in zip(targets, patient.targets, strict=True):
            into[0] = target[batch]
        tape.forward()
        loss_of()
        tape.backward()
    return np.asarray(buffer[0], np.float64)


RULES: dict[str, Rule] = {
    "gradients agree with numerical ones": Rule(
        gradients,
        "Look at the local derivative of the layer named and of what lies behind it, at the dropout mask, and at the "
        "loss's own slope: backward is wrong.",
        vital=True,
    ),
    "no batch remembers the one before": Rule(
        cached,
        "Backward must use what the last forward pass left, and write its gradients over the old ones: look for values "
        "that are kept from an earlier batch, or added up.",
        vital=True,
    ),
}
