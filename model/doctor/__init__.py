"""The doctor: tells faults of the data, of the forward pass, of the backward pass, of the update and of the settings
apart, each with evidence and a remedy. Add an examination by adding a row to the RULES of its kind's module.
"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from model.doctor import backward, data, forward, setting, update
from model.doctor.patient import Finding, Float32, Patient, Rule, admit
from model.errors import BadInput

__all__ = [
    "HEALTHY",
    "KINDS",
    "RULES",
    "Finding",
    "Patient",
    "admit",
    "document",
    "examine",
    "synthetic",
    "verdict",
    "walk",
]

# In causal order: what is wrong in one kind shows in all kinds after it, so the first to fail is the verdict.
KINDS: dict[str, dict[str, Rule]] = {
    "data": data.RULES,
    "forward": forward.RULES,
    "backward": backward.RULES,
    "update": update.RULES,
    "setting": setting.RULES,
}
RULES: dict[str, Rule] = {check: rule for rules in KINDS.values() for check, rule in rules.items()}
HEALTHY = "healthy"
# As many rows are needed to learn some by heart; fewer are no examination.
FEWEST = setting.TINY


def walk(patient: Patient) -> Iterator[Finding]:
    """One finding after the other, in the order of RULES, up to the first vital rule that fails.

    Raises BadInput where there are fewer than FEWEST rows, or a part or loss is of a kind that the doctor does not know.
    """
    if len(patient.x) < FEWEST:
        raise BadInput(
            f"the doctor needs at least {FEWEST} rows with features and a label, not {len(patient.x)}"
        )
    for kind, rules in KINDS.items():
        for check, rule in rules.items():
            try:
                # what overflows is found, and not a warning; products run with the threads that a training has
                with np.errstate(all="ignore"), threadpool_limits(patient.config.blas_threads, "blas"):
                    passed, evidence = rule.look(patient)
            except (ValueError, IndexError) as error:  # shapes that do not fit are a finding too
                passed, evidence = False, f"broke off: {error}".splitlines()[0]
            yield Finding(check, kind, passed, evidence, "" if passed else rule.advice)
            if rule.vital and not passed:
                return


def examine(patient: Patient) -> tuple[Finding, ...]:
    """All findings of a walk through the rules."""
    return tuple(walk(patient))


def verdict(findings: Iterable[Finding]) -> str:
    """Where the fault lies: the kind of the first finding that failed, or "healthy"."""
    return next((finding.kind for finding in findings if not finding.passed), HEALTHY)


def synthetic(seed: int = 0, rows: int = 2000, features: int = 24) -> tuple[Float32, Float32, Float32]:
    """A made-up problem that can be learned, to examine the program itself where there is no market: x, up, target."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, features)).astype(np.float32)
    target = np.tanh(x[:, 0] * x[:, 1] + x[:, 2]) + 0.5 * rng.standard_normal(rows)
    return x, (target > 0).astype(np.float32), target.astype(np.float32)


def document(finding: Finding) -> dict[str, Any]:
    """One finding, JSON-ready."""
    return asdict(finding)
