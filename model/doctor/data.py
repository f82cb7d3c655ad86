"""Faults of the data: what is wrong before anything is computed from it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from model import scores
from model.doctor.patient import Float64, Patient, Rule
from model.features import FEATURES

# A single feature that ranks the outcomes so well is no forecast but the outcome itself (Kaufman, Rosset & Perlich 2012,
# "Leakage in data mining": what is too good is the symptom). On markets an AUC of 0.55 is rare.
LEAK_AUC = 0.95
# Standardised on the rows themselves: mean 0 and deviation 1, but for rounding and rows cut off at either end.
MEAN_WITHIN, SPREAD_WITHIN = 0.5, 2.0
# A feature is made to be of the size of 1, so what deviates less than this is constant but for its rounding.
ROUNDING = 1e-10
# A judge without weights to train: ridge regression on so many random units (Rahimi & Recht 2008), which judges each of
# so many blocks of adjacent rows by what it learned from the others.
UNITS, RIDGE, BLOCKS = 256, 0.3, 4
NEWEST = 4000
FEWEST = 200
# In standard errors of an AUC that knows nothing. Measured: at most 3.5 where labels were shuffled (blocks share what
# they learned from, so the tail is a little fatter than a normal one), and from 7 on where there was something to learn.
SURE = 4.5


def shapes(patient: Patient) -> tuple[bool, str]:
    """One row of features, one label of each head and perhaps two closes for each bar."""
    p = patient
    n = len(p.x)
    wanted: list[tuple[str, NDArray[Any], tuple[int, ...]]] = [
        ("X", p.X, p.x.shape),
        ("up", p.up, (n,)),
        ("target", p.target, (n,)),
    ]
    if p.closes is not None:
        wanted.append(("closes", p.closes, (n, 2)))
    wrong = [f"{name} is {array.shape}, not {shape}" for name, array, shape in wanted if array.shape != shape]
    return not wrong, "; ".join(wrong) or f"{n} rows of {p.x.shape[1]} features, each with its labels"


def finite(patient: Patient) -> tuple[bool, str]:
    """No NaN, no infinity."""
    counts = {
        name: int(np.count_nonzero(~np.isfinite(part)))
        for name, part in (
            ("features", patient.x),
            ("standardised features", patient.X),
            ("up", patient.up),
            ("target", patient.target),
        )
    }
    bad = ", ".join(f"{count} in {name}" for name, count in counts.items() if count)
    return not bad, f"numbers that are not finite: {bad or 'none'}"


def features_move(patient: Patient) -> tuple[bool, str]:
    """No column is constant, but for those that may be."""
    width = patient.x.shape[1]
    stands = (patient.x.min(axis=0) == patient.x.max(axis=0)) | (
        patient.X.min(axis=0) == patient.X.max(axis=0)
    )
    still = [
        name
        for name, constant in zip(_names(patient), stands.tolist(), strict=True)
        # on daily bars the hour never moves, and some markets tell no volume, as it should be
        if constant and not (name in FEATURES and FEATURES[name].group in ("time", "volume"))
    ]
    listed = f": {', '.join(still[:5])}" if still else ""
    return not still, f"{len(still)} of {width} features never move{listed}"


def standardised(patient: Patient) -> tuple[bool, str]:
    """Mean 0 and deviation 1 in every column that moves."""
    X = patient.X.astype(np.float64)
    mean, spread = X.mean(axis=0), X.std(axis=0)
    moves = patient.x.std(axis=0, dtype=np.float64) > ROUNDING
    off = moves & ((np.abs(mean) > MEAN_WITHIN) | (spread > SPREAD_WITHIN) | (spread < 1 / SPREAD_WITHIN))
    worst = int(np.argmax(np.where(moves, np.abs(mean) + np.abs(np.log(np.maximum(spread, 1e-9))), -1)))
    return not off.any(), (
        f"{int(off.sum())} of {X.shape[1]} features are not standardised; furthest is {_names(patient)[worst]}, "
        f"mean {mean[worst]:.3g} and deviation {spread[worst]:.3g} instead of 0 and 1"
    )


def both_labels(patient: Patient) -> tuple[bool, str]:
    """up is 0 or 1, and both occur."""
    others = int(np.count_nonzero((patient.up != 0) & (patient.up != 1)))
    if others:
        return False, f"{others} of {len(patient.up)} labels are neither 0 nor 1"
    share = float(patient.up.mean(dtype=np.float64))
    return 0 < share < 1, f"{share:.1%} of {len(patient.up)} labels are up"


def labels_agree(patient: Patient) -> tuple[bool, str]:
    """The two labels of a row tell one story, and where closes are known, it is theirs."""
    p = patient
    apart = int(np.count_nonzero((p.up > 0.5) != (p.target > 0)))
    # a rise may be too small for the target's float32
    allowed = len(p.up) // 1000
    if apart > allowed:
        return False, f"in {apart} of {len(p.up)} rows up and the sign of the return contradict each other"
    if p.closes is None:
        return True, f"in {apart} of {len(p.up)} rows up and the sign of the return contradict each other"
    now, then = p.closes.T
    known = np.isfinite(then)
    wrong = int(np.count_nonzero((then > now)[known] != (p.up > 0.5)[known]))
    said = (
        f"{wrong} of {np.count_nonzero(known)} labels are not what the closes {p.config.horizon} bars on say"
    )
    return not wrong, said


def no_leak(patient: Patient) -> tuple[bool, str]:
    """No single feature tells the label."""
    p, aucs = patient.rows(NEWEST), []
    up = p.up.astype(np.float64)
    for column in p.x.T.astype(np.float64):
        auc = scores.auc(column, up)
        aucs.append(0.5 if auc is None else max(auc, 1 - auc))
    best = int(np.argmax(aucs))
    return aucs[best] < LEAK_AUC, (
        f"{_names(patient)[best]} alone ranks up before down with an AUC of {aucs[best]:.3f}; a leak has {LEAK_AUC}"
    )


def labels_can_be_told(patient: Patient) -> tuple[bool, str]:
    """Features say something of labels on rows unseen. A market need not be so kind: its closes vouch for it instead."""
    p = patient.rows(NEWEST)
    n = len(p.x)
    sure: list[float] = []
    for block in np.array_split(np.arange(n), BLOCKS):
        late, others = p.up[block].astype(np.float64), np.delete(np.arange(n), block)
        ups, downs = int(late.sum()), int(len(late) - late.sum())
        auc = scores.auc(_ridge(p.X[others], p.target[others], p.X[block]), late)
        if auc is not None:
            # without skill the deviation of an AUC is √((n₁ + n₀ + 1) / (12 n₁ n₀)) (Mann & Whitney 1947)
            sure.append((auc - 0.5) / np.sqrt((ups + downs + 1) / (12 * ups * downs)))
    if n < FEWEST or not sure:
        return True, f"{n} rows are too few to say whether labels can be told from features"
    together = float(np.sum(sure) / np.sqrt(len(sure)))
    told = together > SURE
    said = (
        f"a plain regression on the other rows ranks up before down in each of {len(sure)} blocks of {n // BLOCKS}, "
        f"together {together:+.1f} standard errors from chance"
    )
    if patient.closes is not None and not told:
        return True, f"{said}: no signal worth mention, but the labels are those of the closes"
    return told, said


def _ridge(X: NDArray[np.float32], target: NDArray[np.float32], later: NDArray[np.float32]) -> Float64:
    """Forecasts of `later` by ridge regression on the features and on random rectified sums of them."""
    rng = np.random.default_rng(0)
    W = rng.standard_normal((X.shape[1], UNITS)) * np.sqrt(2 / X.shape[1])
    b = rng.standard_normal(UNITS)

    def seen(X: NDArray[np.float32]) -> Float64:
        exact = np.clip(X.astype(np.float64), -5, 5)
        return np.column_stack((np.ones(len(X)), exact, np.maximum(exact @ W + b, 0)))

    A, y = seen(X), np.clip(target.astype(np.float64), -3, 3)
    penalty = RIDGE * len(A) * np.eye(A.shape[1])
    penalty[: X.shape[1] + 1] *= 0.1
    forecast: Float64 = seen(later) @ np.linalg.solve(A.T @ A + penalty, A.T @ y)
    return forecast


def _names(patient: Patient) -> tuple[str, ...]:
    width, given = patient.x.shape[1], patient.config.feature_set.columns
    return given if len(given) == width else tuple(f"column {i}" for i in range(width))


RULES: dict[str, Rule] = {
    "rows belong together": Rule(
        shapes,
        "Features and labels must be of the same rows, labels as plain vectors: look where they are cut or reshaped.",
        vital=True,
    ),
    "every number is finite": Rule(
        finite,
        "Find the bars that these rows come from: a feature must give a number for every bar it is asked for.",
        vital=True,
    ),
    "every feature moves": Rule(
        features_move,
        "Drop these features for this market, or look why the source never changes them (a volume of zero?).",
    ),
    "features are standardised": Rule(
        standardised,
        "Bring every feature to mean 0 and deviation 1 by the rows that weights learn from, before the network sees it.",
    ),
    "both labels occur": Rule(
        both_labels,
        "Labels are 0 and 1, and both must occur: take more bars or another horizon, there is nothing to learn.",
        vital=True,
    ),
    "labels agree with each other": Rule(
        labels_agree,
        "Make labels and features from the same rows in the same order: something shuffled, shifted or cut one of them.",
    ),
    "no feature gives the outcome away": Rule(
        no_leak,
        "Look what this feature is made from: it must be known at the bar's close, so nothing of a later bar is in it.",
    ),
    "labels can be told from features": Rule(
        labels_can_be_told,
        "Labels look as if drawn at random: check that they belong to the rows that their features come from.",
    ),
}
