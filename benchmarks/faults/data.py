"""Faults of the data."""

from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.faults.injection import Fault, fault
from benchmarks.faults.trainings import Rng
from model import doctor
from model.doctor import Patient


def nan_feature(p: Patient, rng: Rng) -> Patient:
    x = p.x.copy()
    x[rng.integers(len(x)), rng.integers(x.shape[1])] = rng.choice([np.nan, np.inf])
    return _with_features(p, x)


def constant_feature(p: Patient, rng: Rng) -> Patient:
    x = p.x.copy()
    x[:, rng.integers(x.shape[1])] = rng.choice([0.0, 5.0])
    return _with_features(p, x)


def leaked_label(p: Patient, rng: Rng) -> Patient:
    x = p.x.copy()
    told = (p.up, -p.up, p.target)[int(rng.integers(3))]
    x[:, rng.integers(x.shape[1])] = told + 0.1 * rng.standard_normal(len(told))
    return _with_features(p, x)


def _with_features(p: Patient, x: Any) -> Patient:
    fresh = doctor.admit(x, p.up, p.target, p.config, p.closes)
    return replace(p, x=fresh.x, X=fresh.X)


def unscaled_feature(p: Patient, rng: Rng) -> Patient:
    X = p.X.copy()
    X[:, rng.integers(X.shape[1])] *= rng.choice([30, 1000, 0.01])
    return replace(p, X=X)


def tiny_feature(p: Patient, rng: Rng) -> Patient:
    x = p.x.copy()
    place = rng.integers(x.shape[1])
    x[:, place] *= rng.choice([1e-7, 1e-9]) / x[:, place].std()
    return _with_features(p, x)


def shifted_feature(p: Patient, rng: Rng) -> Patient:
    X = p.X.copy()
    X[:, rng.integers(X.shape[1])] += rng.choice([-20, 3])
    return replace(p, X=X)


def one_class(p: Patient, rng: Rng) -> Patient:
    sign = float(rng.choice([-1, 1]))
    return replace(p, up=np.full_like(p.up, sign > 0), target=np.copysign(p.target, np.float32(sign)))


def shuffled_labels(p: Patient, rng: Rng) -> Patient:
    order = rng.permutation(len(p.up))
    return replace(p, up=p.up[order], target=p.target[order])


def shuffled_up(p: Patient, rng: Rng) -> Patient:
    return replace(p, up=rng.permutation(p.up))


def shifted_labels(p: Patient, rng: Rng) -> Patient:
    by = int(rng.integers(1, 5))
    return replace(p, up=np.roll(p.up, by), target=np.roll(p.target, by))


def signed_labels(p: Patient, rng: Rng) -> Patient:
    return replace(p, up=2 * p.up - 1)


def columns_as_labels(p: Patient, rng: Rng) -> Patient:
    return replace(p, up=p.up[:, None], target=p.target[:, None])


FAULTS: dict[str, Fault] = {
    "NaN or infinite feature": fault(nan_feature),
    "constant feature": fault(constant_feature),
    "leaked label": fault(leaked_label),
    "unscaled feature": fault(unscaled_feature),
    "feature too small to be scaled": fault(tiny_feature),
    "feature off its mean": fault(shifted_feature),
    "one-class labels": fault(one_class),
    "shuffled labels": fault(shuffled_labels),
    "shuffled up, returns left": fault(shuffled_up),
    "labels shifted by some rows": fault(shifted_labels),
    "labels of -1 and 1": fault(signed_labels),
    "labels as a column": fault(columns_as_labels),
}
