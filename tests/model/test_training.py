"""Training: deterministic, calibrated, going on from where it is told to, and never further than the last good weights."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from model import artifact, calibration, dataset, features, gate, training, weights
from model.bars import timeframe
from model.config import TrainConfig
from model.dataset import Dataset
from model.errors import BadArtifact, TrainingFailed
from model.features import FeatureSet
from model.network.losses import cross_entropy
from model.network.network import forward
from model.training import Fit
from tests.model import synthetic

SMALL = TrainConfig(window=900, hidden=(16, 8), epochs=4, batch=64, members=1, relearn=False, half_life=None)


def made(n: int = 1_400, seed: int = 0, momentum: float = 0.6) -> Dataset:
    rows = features.rows(synthetic.bars(n, seed, momentum), timeframe("1h"))
    return dataset.build(rows, features.DEFAULT, 1)


DATA = made()


def sha256(fit: Fit) -> str:
    return artifact.digest(training.contents(fit)[0])


def outputs(fit: Fit, rows: Dataset) -> np.ndarray:
    """(n, 2)"""
    return forward(fit.network, fit.scaler.apply(rows.X))[0].astype(np.float64)


def test_the_same_data_config_and_seed_give_the_same_weights() -> None:
    assert sha256(training.fit(DATA, SMALL)) == sha256(training.fit(DATA, SMALL))


CHANGES: list[dict[str, Any]] = [
    {"seed": 1},
    {"dropout": 0.1},
    {"epochs": 3},
    {"window": 800},
    {"half_life": 200},
    {"normalisation": "layer"},
    {"normalisation": "batch"},
    {"hidden": (16, 16), "residual": True},
    {"schedule": "constant"},
    {"warm_up": 0.3},
    {"clip_value": 0.01},
    {"optimiser": "lion"},
    {"activation": "gelu"},
    {"initialiser": "orthogonal"},
    {"return_weight": 0.0},
    {"calibration": "isotonic"},
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: ", ".join(change))
def test_another_config_gives_other_weights(change: dict[str, Any]) -> None:
    fit = training.fit(DATA, replace(SMALL, **change))
    assert sha256(training.fit(DATA, SMALL)) != sha256(fit)
    assert fit.gradient_check.passed
    assert np.isfinite(fit.network.parameters).all()


def test_rows_before_the_window_change_nothing() -> None:
    shorter = DATA.part(slice(len(DATA) - SMALL.window, None))
    assert sha256(training.fit(DATA, SMALL)) == sha256(training.fit(shorter, SMALL))


def test_a_planted_signal_is_learned_and_noise_is_not() -> None:
    def gain(momentum: float) -> float:
        data = made(3_000, seed=3, momentum=momentum)
        fit = training.fit(data, replace(SMALL, window=2_500, epochs=30, held_fraction=0.3))
        held = data.part(slice(len(data) - 700, None))
        return float(np.log(2) - cross_entropy(outputs(fit, held)[:, 0], held.up)[0].mean())

    assert gain(0.6) > 0.05
    assert gain(0.0) < 0.01


def test_a_short_half_life_learns_the_newest_relation() -> None:
    """Halfway the sign of what a feature tells turns round: old rows that count for nothing cannot say so any more."""
    X = np.random.default_rng(0).standard_normal((len(DATA), 3)).astype(np.float32)
    turned = np.where(np.arange(len(DATA)) < len(DATA) - 350, X[:, 0], -X[:, 0])
    data = replace(DATA, X=X, up=(turned > 0).astype(np.float32))
    newest = data.part(slice(len(data) - 60, None))

    def right(half_life: int | None) -> float:
        config = replace(SMALL, epochs=15, patience=15, half_life=half_life, learning_rate=0.01, dropout=0.0)
        config = replace(config, weight_decay=0.0, return_weight=0.0)
        logit = outputs(training.fit(data, config), newest)[:, 0]
        return float(((logit > 0) == (newest.up > 0)).mean())

    assert right(60) > 0.9
    assert right(None) < 0.6


def test_without_a_half_life_every_row_counts_the_same_to_the_bit() -> None:
    assert (weights.recency(9, None) == 1).all()
    forever = replace(SMALL, half_life=10**12)
    one, other = training.fit(DATA, SMALL), training.fit(DATA, forever)
    assert (weights.recency(900, forever.half_life) == 1).all()
    assert (one.network.parameters == other.network.parameters).all()
    assert one.curve == other.curve


# --- going on from an earlier version


def test_a_warm_start_goes_on_from_the_weights_statistics_and_scaling_it_is_given() -> None:
    still = replace(SMALL, normalisation="batch", learning_rate=1e-9, epochs=1, batch=10_000)
    other = made(seed=4)
    first = training.fit(DATA, replace(SMALL, normalisation="batch"))
    second = training.fit(other, still, training.warm_start(*training.contents(first)))
    np.testing.assert_allclose(second.network.parameters, first.network.parameters, atol=1e-6)
    fresh = training.fit(other, still)
    assert (second.scaler.mean == first.scaler.mean).all()
    assert (second.scaler.scale == first.scaler.scale).all()
    assert (second.scaler.mean != fresh.scaler.mean).any()
    # of running statistics nine tenths are left after a step; those of a fresh start were 0 and 1
    apart, together = (
        np.abs(fit.network.statistics - first.network.statistics).max() for fit in (fresh, second)
    )
    assert together < apart / 2


def test_a_warm_start_leaves_the_version_it_starts_from_as_it_was() -> None:
    arrays, manifest = training.contents(training.fit(DATA, SMALL))
    kept = {name: array.copy() for name, array in arrays.items()}
    training.fit(DATA, SMALL, training.warm_start(arrays, manifest))
    for name, array in arrays.items():
        assert (array == kept[name]).all()


def test_a_warm_start_of_a_version_without_statistics_is_possible() -> None:
    arrays, manifest = training.contents(training.fit(DATA, SMALL))
    del arrays["statistics"]
    for younger in (
        "normalisation",
        "residual",
        "schedule",
        "warm_up",
        "clip_value",
        "half_life",
        "calibration",
    ):
        del manifest["config"][younger]
    training.fit(DATA, SMALL, training.warm_start(arrays, manifest))


@pytest.mark.parametrize(
    "other",
    [{"dropout": 0.0}, {"dropout": 0.6}, {"initialiser": "xavier"}, {"dropout": 0.1, "residual": True}],
)
def test_a_warm_start_may_drop_out_more_or_less(other: dict[str, Any]) -> None:
    """Dropout has no numbers, and neither has what fresh weights would be drawn from."""
    first = training.fit(DATA, SMALL)
    still = replace(SMALL, learning_rate=1e-9, epochs=1, batch=10_000, **other)
    second = training.fit(DATA, still, training.warm_start(*training.contents(first)))
    np.testing.assert_allclose(second.network.parameters, first.network.parameters, atol=1e-6)
    assert second.network.architecture == still.architecture(DATA.X.shape[1])


def test_a_warm_start_in_a_residual_network_may_drop_out_more_or_less() -> None:
    deep = replace(SMALL, hidden=(16, 16), residual=True)
    warm = training.warm_start(*training.contents(training.fit(DATA, deep)))
    training.fit(DATA, replace(deep, dropout=0.0), warm)
    with pytest.raises(TrainingFailed, match="same features and layers"):
        training.fit(DATA, replace(deep, residual=False), warm)


def test_a_warm_start_goes_by_the_architecture_that_was_kept() -> None:
    arrays, manifest = training.contents(training.fit(DATA, SMALL))
    del manifest["config"]
    training.fit(DATA, SMALL, training.warm_start(arrays, manifest))


def test_a_warm_start_of_a_version_from_before_architectures_were_kept_is_possible() -> None:
    arrays, manifest = training.contents(training.fit(DATA, SMALL))
    del manifest["architecture"]
    manifest |= {"sizes": [DATA.X.shape[1], 16, 8, 2], "activation": "relu"}
    training.fit(DATA, SMALL, training.warm_start(arrays, manifest))


@pytest.mark.parametrize("name", ["parameters", "mean", "scale", "statistics"])
def test_a_warm_start_of_arrays_that_do_not_fit_is_refused(name: str) -> None:
    arrays, manifest = training.contents(training.fit(DATA, replace(SMALL, normalisation="batch")))
    short = {**arrays, name: arrays[name][:-1]}
    without = {other: array for other, array in arrays.items() if other != name}
    for wrong in (short, without):
        with pytest.raises(BadArtifact) as refused:
            training.warm_start(wrong, manifest)
        assert "\n" not in str(refused.value)


def test_a_warm_start_of_a_manifest_without_a_network_is_refused() -> None:
    arrays, manifest = training.contents(training.fit(DATA, SMALL))
    for lost in (("architecture", "config"), ("features",)):
        with pytest.raises(BadArtifact, match="manifest"):
            training.warm_start(arrays, {key: each for key, each in manifest.items() if key not in lost})


def test_a_warm_start_with_other_features_is_refused() -> None:
    """As many, so that the weights would fit."""
    names = features.DEFAULT.names
    one, other = FeatureSet(names[:-1]), FeatureSet(names[1:])
    bars = synthetic.bars(1_400, 0, 0.6)
    first, second = (
        dataset.build(features.rows(bars, timeframe("1h"), chosen), chosen, 1) for chosen in (one, other)
    )
    warm = training.warm_start(*training.contents(training.fit(first, SMALL)))
    with pytest.raises(TrainingFailed, match="same features and layers"):
        training.fit(second, SMALL, warm)


@pytest.mark.parametrize("other", [{"hidden": (8,)}, {"normalisation": "layer"}, {"activation": "tanh"}])
def test_a_warm_start_of_another_shape_is_refused(other: dict[str, Any]) -> None:
    warm = training.warm_start(*training.contents(training.fit(DATA, SMALL)))
    with pytest.raises(TrainingFailed, match="same features and layers"):
        training.fit(DATA, replace(SMALL, **other), warm)


# --- what is not finite

# Decay times rate is 3, so that every step turns the weights round and makes them twice as long: they are beyond
# float32 after some hundred steps.
DOUBLING: dict[str, Any] = {
    "optimiser": "sgd",
    "schedule": "constant",
    "learning_rate": 0.1,
    "weight_decay": 30.0,
    "dropout": 0.0,
    "epochs": 40,
    "patience": 40,
}


@pytest.mark.parametrize(
    "shape", [{}, {"normalisation": "batch"}, {"normalisation": "layer"}, {"activation": "gelu"}]
)
def test_a_training_that_explodes_keeps_its_last_good_weights_and_says_where_it_broke(
    shape: dict[str, Any],
) -> None:
    config = replace(SMALL, **DOUBLING, **shape)
    fit = training.fit(DATA, config)
    assert fit.broke is not None
    assert "not finite in epoch" in fit.broke
    broke_in = int(fit.broke.split("epoch ")[1].split(",")[0])
    assert 1 < broke_in == len(fit.curve) + 1 == len(fit.health)
    assert np.isfinite(fit.network.parameters).all()
    assert np.isfinite(fit.network.statistics).all()
    assert fit.verdict == "non_finite"
    # the weights are those that a training has which ends in time
    best = min(fit.curve, key=lambda entry: entry[2])
    assert fit.best_epochs[0] == best[0]
    in_time = training.fit(DATA, replace(config, epochs=fit.best_epochs[0]))
    assert (in_time.network.parameters == fit.network.parameters).all()
    assert in_time.broke is None
    refused = gate.unfit(fit)
    assert refused is not None
    assert refused.outcome == "rejected"
    assert refused.reason == fit.broke


# The first number that overflows: one on the way forward, or the square of a gradient where that is much larger.
FIRST: list[tuple[dict[str, Any], str]] = [
    ({"hidden": ()}, "first in layer 'output'"),
    ({"activation": "tanh"}, "first in layer 'hidden 2'"),
    ({}, "too large, the largest in layer 'output'"),
]


@pytest.mark.parametrize(("shape", "where"), FIRST)
def test_a_training_that_explodes_names_the_layer(shape: dict[str, Any], where: str) -> None:
    broke = training.fit(DATA, replace(SMALL, **DOUBLING, **shape)).broke
    assert broke is not None
    assert where in broke


def test_a_training_that_breaks_before_an_epoch_is_over_fails() -> None:
    with pytest.raises(TrainingFailed, match="not finite in epoch 1"):
        training.fit(DATA, replace(SMALL, **{**DOUBLING, "learning_rate": 1e30}))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_feature_that_is_not_finite_fails_the_training(value: float) -> None:
    X = DATA.X.copy()
    X[-500, 3] = value
    with np.errstate(all="ignore"), pytest.raises(TrainingFailed, match="epoch 1, first in the inputs"):
        training.fit(replace(DATA, X=X), SMALL)


def test_a_stop_row_that_is_not_finite_fails_the_training() -> None:
    X = DATA.X.copy()
    X[-100, 3] = np.nan
    with pytest.raises(TrainingFailed, match="finite loss on the rows that choose"):
        training.fit(replace(DATA, X=X), SMALL)


# --- what a fit is


def test_what_was_learned_is_read_only() -> None:
    fit = training.fit(DATA, replace(SMALL, normalisation="batch"))
    for array in (fit.network.parameters, fit.network.statistics):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1.0


def test_a_fit_keeps_its_curve_and_its_health_by_epoch_and_layer() -> None:
    fit = training.fit(DATA, replace(SMALL, normalisation="layer"))
    assert [number for number, _, _ in fit.curve] == [1, 2, 3, 4]
    assert len(fit.health) == len(fit.curve)
    names = tuple(layer.name for layer in fit.network.architecture.layers)
    assert all(tuple(row.name for row in epoch) == names for epoch in fit.health)
    assert fit.broke is None


@pytest.mark.parametrize("kind", ["temperature", "isotonic"])
def test_calibration_is_made_on_the_stop_rows_and_the_interval_on_the_held_ones(kind: str) -> None:
    config = replace(SMALL, calibration=kind)
    fit = training.fit(DATA, config)
    data = DATA.part(slice(len(DATA) - config.window, None))
    parts = dataset.split(data, config.stop_fraction, config.held_fraction)
    stop, held = data.part(parts.stop), data.part(parts.held)
    logit, up = outputs(fit, stop)[:, 0], stop.up.astype(np.float64)
    errors = held.log_return / held.scale - outputs(fit, held)[:, 1]
    assert fit.interval == calibration.conformal_width(errors, 0.9)
    assert fit.base_rate == pytest.approx(data.up.mean(), abs=1e-6)
    if kind == "temperature":
        assert fit.temperature == calibration.temperature(logit, up)
        assert fit.knots is None
        assert "knots" not in training.contents(fit)[0]
    else:
        assert fit.temperature == 1.0
        assert fit.knots is not None
        np.testing.assert_array_equal(fit.knots, calibration.isotonic(logit, up).astype(np.float32))
        assert training.contents(fit)[0]["knots"] is fit.knots
    assert fit.seen_until == data.known_at[-1]
    assert fit.fitted_until == stop.known_at[-1]
    assert fit.first_closed_at == data.closed_at[0]


def test_progress_is_told_epoch_by_epoch_and_never_falls() -> None:
    told: list[float] = []
    training.fit(DATA, SMALL, progress=told.append)
    assert told == pytest.approx([0.25, 0.5, 0.75, 1.0])
