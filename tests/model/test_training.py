"""Training: deterministic, stopped early on a chronological tail, and never further than the last good weights."""

from dataclasses import replace

import numpy as np
import pytest

from model import artifact, dataset, features, training
from model.bars import timeframe
from model.dataset import Dataset
from model.errors import BadInput, TrainingFailed
from model.network.losses import joint
from model.network.network import forward, over
from model.training import Fit, TrainConfig
from tests.model import synthetic

SMALL = TrainConfig(window=900, hidden=(16, 8), epochs=4, batch=64)


def made(n: int = 1_400, seed: int = 0, momentum: float = 0.6) -> Dataset:
    rows = features.rows(synthetic.bars(n, seed, momentum), timeframe("1h"))
    return dataset.build(rows, features.DEFAULT, 1)


DATA = made()


def sha256(fit: Fit) -> str:
    return artifact.digest(training.contents(fit)[0])


def test_the_same_data_config_and_seed_give_the_same_weights() -> None:
    assert sha256(training.fit(DATA, SMALL)) == sha256(training.fit(DATA, SMALL))


@pytest.mark.parametrize("change", [{"seed": 1}, {"dropout": 0.1}, {"epochs": 3}, {"window": 800}])
def test_another_config_gives_other_weights(change: dict[str, float]) -> None:
    assert sha256(training.fit(DATA, SMALL)) != sha256(training.fit(DATA, replace(SMALL, **change)))


def test_rows_before_the_window_change_nothing() -> None:
    shorter = DATA.part(slice(len(DATA) - SMALL.window, None))
    assert sha256(training.fit(DATA, SMALL)) == sha256(training.fit(shorter, SMALL))


def test_a_planted_signal_is_learned_and_noise_is_not() -> None:
    def gain(momentum: float) -> float:
        data = made(3_000, seed=3, momentum=momentum)
        fit = training.fit(data, replace(SMALL, window=2_500, epochs=30, held_fraction=0.3))
        held = data.part(slice(len(data) - 700, None))
        outputs = forward(over(fit.architecture, fit.parameters), fit.scaler.apply(held.X)).outputs
        loss, _ = joint(outputs, held.up, held.target, 0.0)
        return float(np.log(2) - loss)

    assert gain(0.6) > 0.05
    assert gain(0.0) < 0.01


def test_the_best_epochs_weights_are_put_back() -> None:
    # a rate that grows too large makes later epochs worse than earlier ones
    config = replace(SMALL, learning_rate=0.05, epochs=8, patience=8, dropout=0.0, weight_decay=0.0)
    fit = training.fit(DATA, config)
    losses = [stop for _, _, stop in fit.curve]
    assert len(losses) == 8
    assert fit.best_epoch == int(np.argmin(losses)) + 1
    assert fit.best_epoch < 8, "this training was meant to get worse again"
    data = DATA.part(slice(len(DATA) - config.window, None))
    stop = data.part(dataset.split(data, config.stop_fraction, config.held_fraction).stop)
    outputs = forward(over(fit.architecture, fit.parameters), fit.scaler.apply(stop.X)).outputs
    loss, _ = joint(outputs, stop.up, stop.target, config.return_weight)
    assert loss == pytest.approx(min(losses), rel=1e-6)


def test_patience_ends_a_training_that_no_longer_improves() -> None:
    config = replace(SMALL, learning_rate=0.05, epochs=30, patience=2, dropout=0.0)
    fit = training.fit(DATA, config)
    assert len(fit.curve) == fit.best_epoch + 2 < 30


def test_a_second_fit_starts_with_fresh_counters() -> None:
    config = replace(SMALL, learning_rate=0.05, epochs=30, patience=2, dropout=0.0)
    first, second = training.fit(DATA, config), training.fit(DATA, config)
    assert first.curve == second.curve


def test_a_warm_start_goes_on_from_the_weights_and_scaling_it_is_given() -> None:
    first = training.fit(DATA, SMALL)
    warm = training.warm_start(*training.contents(first))
    second = training.fit(DATA, replace(SMALL, learning_rate=1e-9), warm)
    np.testing.assert_allclose(second.parameters, first.parameters, atol=1e-6)
    assert (second.scaler.mean == first.scaler.mean).all()
    assert second.curve[0][0] == 1, "the counters start anew"


def test_a_warm_start_of_another_shape_is_refused() -> None:
    warm = training.warm_start(*training.contents(training.fit(DATA, SMALL)))
    with pytest.raises(TrainingFailed, match="same features and layers"):
        training.fit(DATA, replace(SMALL, hidden=(8,)), warm)


def test_a_batch_larger_than_the_data_shrinks_and_the_network_still_learns() -> None:
    fit = training.fit(DATA, replace(SMALL, batch=1_000_000))
    start = training.fit(DATA, replace(SMALL, batch=1_000_000, learning_rate=1e-12))
    assert not np.allclose(fit.parameters, start.parameters, atol=1e-4)


def test_what_was_learned_is_read_only() -> None:
    fit = training.fit(DATA, SMALL)
    with pytest.raises(ValueError, match="read-only"):
        fit.parameters[0] = 1.0


def test_a_loss_that_is_not_finite_stops_the_training_and_names_the_layer() -> None:
    X = DATA.X.copy()
    X[-500, 3] = np.nan
    broken = replace(DATA, X=X)
    with pytest.raises((TrainingFailed, BadInput), match="finite"):
        training.fit(broken, SMALL)


def test_the_stop_and_held_rows_do_not_move_the_weights_of_an_epoch() -> None:
    """What early stopping and the held-back rows say may choose an epoch, but not change its weights."""
    X = DATA.X.copy()
    held = round(SMALL.window * (SMALL.stop_fraction + SMALL.held_fraction)) - 5
    X[-held:] = X[-held:][::-1]
    changed = training.fit(replace(DATA, X=X), replace(SMALL, epochs=1))
    assert (changed.parameters == training.fit(DATA, replace(SMALL, epochs=1)).parameters).all()


@pytest.mark.parametrize(
    "wrong", [{"batch": 0}, {"optimiser": "adamm"}, {"held_fraction": 0.9}, {"horizon": 0}]
)
def test_a_config_that_cannot_be_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(BadInput):
        replace(SMALL, **wrong)  # type: ignore[arg-type]


def test_a_config_survives_its_document() -> None:
    assert training.config_from(SMALL.document()) == SMALL
