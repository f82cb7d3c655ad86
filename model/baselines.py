"""Baselines: what a model's forecasts have to be better than, learned from the very rows and weights that it had.

A baseline is told the rows of its training window, how much each counts, and the rows to answer; it gives their
probability of up and their expected log return. Add one by adding a row to BASELINES.

Letters: X are features in standard deviations of the training window, with a last column of 1; b are coefficients, the
last of which is the intercept; n rows to learn from, m to answer, F features.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from model import dataset, extras
from model.dataset import Dataset
from model.errors import BadInput
from model.network.losses import cross_entropy
from model.predictor import LARGEST_LOGIT, LARGEST_RETURN

Float64 = NDArray[np.float64]
Answers = tuple[
    Float64, Float64
]  # the probability of up (m,), and the expected log return over the horizon (m,)
Baseline = Callable[[Dataset, NDArray[np.floating], Dataset], Answers]

# Strongest first, so that each fit can begin where the one before ended. They are sums over rows that count 1 on average:
# scikit-learn's C is one divided by this.
PENALTIES = (100_000.0, 10_000.0, 1_000.0, 100.0, 10.0, 1.0)
HELD = 0.2  # the newest share of the training window, which chooses the penalty
FEWEST = 100  # rows to choose it on, or to fit before: with fewer the strongest is taken
NEWTON_STEPS = 50
CONVERGED = 1e-9  # nats, of the whole objective: what another step could still gain

# What LightGBM is told: small trees that each see little, as there is little signal; and how many there are at least,
# which served best on the two markets that Barprop's defaults were chosen on, and at most. In between the held-out rows
# decide, or a strong signal would be half learned. Equal rows give equal trees, on one kind of CPU.
LEAST_TREES, MOST_TREES, PATIENCE = 150, 1_000, 50
LIGHTGBM = {
    "learning_rate": 0.02,
    "num_leaves": 8,
    "min_data_in_leaf": 200,
    "lambda_l2": 10.0,
    "feature_fraction": 0.2,
    "bagging_fraction": 0.5,
    "bagging_freq": 1,
    "seed": 0,
    "num_threads": 1,
    "deterministic": True,
    "force_row_wise": True,
    "verbosity": -1,
}


def base_rate(learn: Dataset, weight: NDArray[np.floating], rows: Dataset) -> Answers:
    """The share of ups in the training window, and the mean return there."""
    share = float(np.average(learn.up > 0.5, weights=weight))
    mean = float(np.average(learn.log_return, weights=weight))
    return np.full(len(rows), share), np.full(len(rows), mean)


def no_change(learn: Dataset, weight: NDArray[np.floating], rows: Dataset) -> Answers:
    """The share of ups, and the price that stays where it is."""
    return base_rate(learn, weight, rows)[0], np.zeros(len(rows))


def logistic(learn: Dataset, weight: NDArray[np.floating], rows: Dataset) -> Answers:
    """A logistic regression for up and a ridge regression for the scaled return, each with the L2 penalty that served
    best on the newest HELD of the training window, fitted again on all of it."""
    mean = learn.X.mean(axis=0, dtype=np.float64)
    spread = learn.X.std(axis=0, dtype=np.float64)
    spread[spread <= 1e-6] = np.inf  # a feature that never moves says nothing

    def standardised(data: Dataset) -> Float64:
        X: Float64 = np.column_stack(((data.X - mean) / spread, np.ones(len(data))))
        return X

    X, w = standardised(learn), weight.astype(np.float64)
    up, target = (learn.up > 0.5).astype(np.float64), learn.log_return / learn.scale
    fit, held = _split(learn)
    choose = _enough(fit, held)

    def chosen(
        fitted: Callable[[slice], Float64], loss: Callable[[Float64], NDArray[np.floating]]
    ) -> Float64:
        """The coefficients on all rows under the penalty whose coefficients on the older ones cost the newest least."""
        best = int(np.argmin([loss(b).mean() for b in fitted(fit)])) if choose else 0
        b: Float64 = fitted(slice(None))[best]
        return b

    of_up = chosen(
        lambda part: logistic_path(X[part], up[part], w[part]),
        lambda b: cross_entropy(X[held] @ b, up[held])[0],
    )
    of_return = chosen(
        lambda part: ridge_path(X[part], target[part], w[part]),
        lambda b: (target[held] - X[held] @ b) ** 2,
    )
    asked = standardised(rows)
    logits: Float64 = np.clip(asked @ of_up, -LARGEST_LOGIT, LARGEST_LOGIT)
    expected = np.clip(asked @ of_return, -LARGEST_RETURN, LARGEST_RETURN) * rows.scale
    return 1 / (1 + np.exp(-logits)), expected


def _split(learn: Dataset) -> tuple[slice, slice]:
    """The rows of the training window to fit while something is chosen, and the newest HELD, which choose it. No label of
    the first is known later than the features of the second."""
    held_from = len(learn) - round(len(learn) * HELD)
    return slice(0, dataset.known_by(learn, held_from)), slice(held_from, len(learn))


def _enough(fit: slice, held: slice) -> bool:
    return bool(min(fit.stop, held.stop - held.start) >= FEWEST)


def logistic_path(X: Float64, up: Float64, weight: Float64) -> Float64:
    """The coefficients (penalties, F + 1) that make the weighted cross-entropy and half the penalty on squares least.

    Newton's method (iteratively reweighted least squares: Hastie, Tibshirani & Friedman 2009, ch. 4.4.1), a step halved
    until it gains; the intercept is free. Where all rows are of one class there is an intercept alone, at LARGEST_LOGIT.
    """
    b, found = np.zeros(X.shape[1]), []
    if up.min() == up.max():
        b[-1] = LARGEST_LOGIT if up[0] else -LARGEST_LOGIT
        return np.tile(b, (len(PENALTIES), 1))
    for penalty in PENALTIES:
        ridge = np.append(np.full(len(b) - 1, penalty), 0.0)

        def cost(b: Float64, ridge: Float64 = ridge) -> float:
            return float(weight @ cross_entropy(X @ b, up)[0] + ridge @ (b * b) / 2)

        for _ in range(NEWTON_STEPS):
            p = 0.5 * (1 + np.tanh(X @ b / 2))
            gradient = X.T @ (weight * (p - up)) + ridge * b
            hessian = (X * (weight * p * (1 - p))[:, None]).T @ X + np.diag(ridge)
            step = np.linalg.solve(hessian, gradient)
            size, before = 1.0, cost(b)
            while size > 1e-6 and cost(b - size * step) > before:
                size /= 2
            b = b - size * step
            if gradient @ step < 2 * CONVERGED:
                break
        found.append(b)
    return np.stack(found)


def ridge_path(X: Float64, target: Float64, weight: Float64) -> Float64:
    """The coefficients (penalties, F + 1) that make the weighted squares of the errors and the penalty on squares least
    (Hoerl & Kennard 1970); the intercept is free."""
    features, total = X[:, :-1], weight.sum()
    middle, height = weight @ features / total, float(weight @ target / total)
    centred = features - middle
    values, vectors = np.linalg.eigh((centred * weight[:, None]).T @ centred)
    together = vectors.T @ (centred.T @ (weight * (target - height)))
    b = np.stack([vectors @ (together / (np.maximum(values, 0) + penalty)) for penalty in PENALTIES])
    return np.column_stack((b, height - b @ middle))


def lightgbm(learn: Dataset, weight: NDArray[np.floating], rows: Dataset) -> Answers:
    """Boosted trees for up, and others for the scaled return (Ke et al. 2017), as many each as served best on the newest
    HELD of the training window, grown again on all of it. Needs the extra `baselines`.

    Raises BadInput where LightGBM is not installed, or cannot be loaded.
    """
    try:
        import lightgbm as lgb
    except ModuleNotFoundError as error:
        raise extras.missing(error.name, "baselines") from error
    except OSError as error:  # its OpenMP library is the system's
        raise BadInput(f"LightGBM cannot be loaded: {error}") from error

    fit, held = _split(learn)

    def boosted(objective: str, label: Float64) -> Float64:
        told = {**LIGHTGBM, "objective": objective}
        trees = LEAST_TREES
        if _enough(fit, held):
            older = lgb.Dataset(learn.X[fit], label[fit], weight=weight[fit])
            newest = lgb.Dataset(learn.X[held], label[held], reference=older)
            stop = lgb.early_stopping(PATIENCE, verbose=False)
            tried = lgb.train(told, older, MOST_TREES, valid_sets=[newest], callbacks=[stop])
            trees = max(tried.best_iteration, trees)
        grown = lgb.train(told, lgb.Dataset(learn.X, label, weight=weight), trees)
        return np.asarray(grown.predict(rows.X, num_threads=LIGHTGBM["num_threads"]), np.float64)

    p_up = boosted("binary", (learn.up > 0.5).astype(np.float64))
    scaled = boosted("regression", learn.log_return / learn.scale)
    return p_up, np.clip(scaled, -LARGEST_RETURN, LARGEST_RETURN) * rows.scale


BASELINES: dict[str, Baseline] = {
    "base_rate": base_rate,
    "no_change": no_change,
    "logistic": logistic,
    "lightgbm": lightgbm,
}
