"""Laws of early stopping: an honest tail to stop on, counters of one fit only, and the best epoch put back.

Where a test says what another program does, that is FreqAI of freqtrade 2026.9, vnpy 4.5 or scikit-learn 1.9.
"""

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from model import dataset, features, training
from model.bars import timeframe
from model.config import TrainConfig
from model.dataset import Dataset
from model.epochs import batches_of, epochs, examples
from model.network import network
from model.network.losses import cross_entropy
from model.network.network import Network
from model.training import Fit
from tests.model import synthetic

CONFIG = TrainConfig(
    window=900, hidden=(16, 8), epochs=8, batch=64, patience=8, members=1, relearn=False, half_life=None
)
# a rate that grows too large makes later epochs worse than earlier ones
WORSE: dict[str, Any] = {"learning_rate": 0.05, "dropout": 0.0, "weight_decay": 0.0}


def made(n: int = 1_400, seed: int = 0, momentum: float = 0.6, horizon: int = 1) -> Dataset:
    rows = features.rows(synthetic.bars(n, seed, momentum), timeframe("1h"))
    return dataset.build(rows, features.DEFAULT, horizon)


DATA = made()


def parts_of(data: Dataset, config: TrainConfig) -> dict[str, Dataset]:
    """The rows of the window, by what they are for."""
    newest = data.part(slice(max(0, len(data) - config.window), None))
    split = dataset.split(newest, config.stop_fraction, config.held_fraction)
    return {name: newest.part(getattr(split, name)) for name in ("fit", "stop", "held")}


def _huber(error: np.ndarray) -> np.ndarray:
    away = np.abs(error)
    return np.where(away <= 1, 0.5 * error**2, away - 0.5)


def stop_loss(net: Network, fit: Fit, stop: Dataset) -> float:
    """The joint loss over the stop rows, in float64 and from other functions than training's."""
    z = network.forward(net.astype(np.float64), fit.scaler.apply(stop.X))[0]
    loss = cross_entropy(z[:, 0], stop.up)[0] + fit.config.return_weight * _huber(z[:, 1] - stop.target)
    return float(loss.mean())


def changed(data: Dataset, rows: slice, seed: int = 9) -> Dataset:
    """Other features and outcomes in these rows."""
    X, up, log_return = data.X.copy(), data.up.copy(), data.log_return.copy()
    X[rows] = np.random.default_rng(seed).standard_normal(X[rows].shape)
    up[rows], log_return[rows] = 1 - up[rows], -log_return[rows]
    return replace(data, X=X, up=up, log_return=log_return)


# --- which rows say when to stop


def test_the_stop_rows_follow_all_rows_that_move_weights_and_precede_those_that_judge() -> None:
    config = replace(CONFIG, horizon=5)
    data = made(horizon=5)
    parts, fit = parts_of(data, config), training.fit(data, config)
    assert parts["fit"].known_at[-1] <= parts["stop"].closed_at[0]
    assert parts["stop"].known_at[-1] <= parts["held"].closed_at[0]
    assert fit.rows == len(parts["fit"])
    assert fit.fitted_until == parts["stop"].known_at[-1]
    assert fit.best_epochs[0] == min(fit.curve, key=lambda entry: entry[2])[0]
    assert min(stop for _, _, stop in fit.curve) == pytest.approx(
        stop_loss(fit.network, fit, parts["stop"]), rel=1e-5
    )


def test_rows_whose_labels_reach_into_a_later_part_are_seen_by_nothing() -> None:
    """Purged rows may hold whatever they like, numbers or not."""
    config = replace(CONFIG, horizon=20, normalisation="batch")
    data = made(horizon=20)
    parts = parts_of(data, config)
    used = np.concatenate([part.closed_at for part in parts.values()])
    window = data.closed_at >= parts["fit"].closed_at[0]
    purged = window & ~np.isin(data.closed_at, used)
    assert purged.sum() == 2 * (20 - 1)
    X, log_return = data.X.copy(), data.log_return.copy()
    X[purged], log_return[purged] = np.nan, np.nan
    one, other = training.fit(data, config), training.fit(replace(data, X=X, log_return=log_return), config)
    assert one.curve == other.curve
    assert one.interval == other.interval
    assert (one.network.parameters == other.network.parameters).all()
    assert (one.network.statistics == other.network.statistics).all()


@pytest.mark.parametrize("kind", ["temperature", "isotonic"])
def test_rows_that_later_judge_a_promotion_choose_nothing(kind: str) -> None:
    """Whatever happens in them: the same epochs, the same best one, the same weights and calibration."""
    config = replace(CONFIG, **WORSE, calibration=kind, held_fraction=0.2)
    held = len(parts_of(DATA, config)["held"])
    one, other = training.fit(DATA, config), training.fit(changed(DATA, slice(-held, None)), config)
    assert one.curve == other.curve
    assert one.best_epochs[0] == other.best_epochs[0]
    assert one.temperature == other.temperature
    assert (one.network.parameters == other.network.parameters).all()
    if one.knots is not None:
        assert (one.knots == other.knots).all()
    assert one.interval != other.interval, "that is what they are for"


def test_stop_rows_choose_an_epoch_and_change_no_weight_of_it() -> None:
    config = replace(CONFIG, epochs=1)
    rows = slice(-len(parts_of(DATA, config)["held"]) - 90, -len(parts_of(DATA, config)["held"]))
    one, other = training.fit(DATA, config), training.fit(changed(DATA, rows), config)
    assert one.curve[0][2] != other.curve[0][2]
    assert (one.network.parameters == other.network.parameters).all()


def test_rows_to_stop_on_drawn_at_random_know_the_regime_that_is_still_to_come() -> None:
    """scikit-learn sets its validation rows aside at random, so that rows of the newest bars are learned from, too.

    In the newest bars, marked by a feature, the relation turns round. Nobody can know that from the bars before; a
    validation score that holds it known is a leak. Ours is from the newest bars alone, and does not.
    """
    neural = pytest.importorskip("sklearn.neural_network", reason="needs scikit-learn, which CI installs")
    n = 900
    rng = np.random.default_rng(0)
    newest = np.arange(n) >= n - 140  # the stop rows and the held ones
    X = np.stack([rng.choice([-1.0, 1.0], n), newest, rng.standard_normal(n)], axis=1).astype(np.float32)
    up = np.where(newest, X[:, 0] < 0, X[:, 0] > 0).astype(np.float32)

    for peer, known in ((neural.MLPClassifier, 0.97), (neural.MLPRegressor, 0.9)):  # accuracy, and R²
        theirs = peer(
            hidden_layer_sizes=(16,),
            early_stopping=True,
            n_iter_no_change=50,
            max_iter=200,
            learning_rate_init=0.01,
            random_state=0,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it might go on
            assert theirs.fit(X, up).best_validation_score_ > known

    data = replace(DATA.part(slice(len(DATA) - n, None)), X=X, up=up)
    config = replace(CONFIG, epochs=30, patience=30, dropout=0.0, learning_rate=0.01, return_weight=0.0)
    fit = training.fit(data, config)
    assert all(stop > np.log(2) for epoch, _, stop in fit.curve)
    assert fit.curve[-1][1] < 0.2, "it did learn what there was to learn"


# --- when to stop


def test_patience_ends_a_training_that_no_longer_improves() -> None:
    fit = training.fit(DATA, replace(CONFIG, **WORSE, epochs=30, patience=2))
    assert len(fit.curve) == fit.best_epochs[0] + 2 < 30


def test_without_such_a_streak_every_epoch_is_had() -> None:
    fit = training.fit(DATA, replace(CONFIG, learning_rate=1e-4, epochs=6, patience=1))
    assert len(fit.curve) == 6 == fit.best_epochs[0]


def test_a_second_fit_starts_with_fresh_counters() -> None:
    config = replace(CONFIG, **WORSE, epochs=30, patience=2)
    first, second = training.fit(DATA, config), training.fit(DATA, config)
    assert first.curve == second.curve
    assert first.best_epochs[0] == second.best_epochs[0]


def test_a_warm_start_brings_no_best_loss_and_no_spent_patience() -> None:
    """FreqAI's trainer keeps both from the training that it goes on from: a better past would end the next at once.

    Here the past is a market with a signal, and the next training one without: no loss of its own comes near.
    """
    past = training.fit(DATA, replace(CONFIG, epochs=30, patience=2, **WORSE))
    warm = training.warm_start(*training.contents(past))
    noise = made(seed=5, momentum=0.0)
    config = replace(CONFIG, epochs=10, patience=3, dropout=0.0)
    fit = training.fit(noise, config, warm)
    own, ours = min(stop for _, _, stop in past.curve), [stop for _, _, stop in fit.curve]
    assert min(ours) > own + 0.05
    assert fit.curve[0][0] == 1
    assert fit.best_epochs[0] == int(np.argmin(ours)) + 1
    assert len(ours) == min(10, fit.best_epochs[0] + 3)
    parts = parts_of(noise, config)
    assert stop_loss(fit.network, fit, parts["stop"]) == pytest.approx(min(ours), rel=1e-5)


# --- what is put back


@pytest.mark.parametrize("normalisation", [None, "batch", "layer"])
def test_the_best_epochs_weights_and_statistics_are_put_back(normalisation: str | None) -> None:
    """FreqAI stops early but keeps the last weights: those of `patience` epochs past the best."""
    config = replace(CONFIG, **WORSE, normalisation=normalisation)
    fit = training.fit(DATA, config)
    losses = [stop for _, _, stop in fit.curve]
    assert len(losses) == 8
    assert fit.best_epochs[0] == int(np.argmin(losses)) + 1
    assert fit.best_epochs[0] < 8, "this training was meant to get worse again"
    stop = parts_of(DATA, config)["stop"]
    assert stop_loss(fit.network, fit, stop) == pytest.approx(min(losses), rel=1e-5)
    assert stop_loss(fit.network, fit, stop) < losses[-1] - 1e-3


def test_an_epoch_that_does_not_improve_leaves_the_kept_weights_alone() -> None:
    """vnpy clears what it has kept at each evaluation that is no better, so that only a best last one is put back.

    The same training ended right at its best epoch has those weights last, and nothing after it to spoil them.
    """
    config = replace(CONFIG, **WORSE, schedule="constant", normalisation="batch")
    fit = training.fit(DATA, config)
    assert 1 <= fit.best_epochs[0] < 8
    ended = training.fit(DATA, replace(config, epochs=fit.best_epochs[0]))
    assert ended.best_epochs[0] == fit.best_epochs[0] == len(ended.curve)
    assert (ended.network.parameters == fit.network.parameters).all()
    assert (ended.network.statistics == fit.network.statistics).all()


def test_a_batch_larger_than_the_data_shrinks_and_the_network_still_learns() -> None:
    """FreqAI drops a last batch that is not full: with fewer rows than a batch it takes no step, and keeps what it drew."""
    config = replace(CONFIG, batch=1_000_000, epochs=20, patience=20, learning_rate=0.01)
    fit = training.fit(DATA, config)
    assert batches_of(fit.rows, config.batch) == (1, fit.rows)
    assert len(fit.curve) == 20
    assert fit.curve[-1][1] < fit.curve[0][1] - 0.02
    drawn = training.fit(DATA, replace(config, learning_rate=1e-12, epochs=1))
    assert np.abs(fit.network.parameters - drawn.network.parameters).max() > 0.01


# --- a rate that follows the stop losses


def test_the_plateau_schedule_lowers_the_rate_when_stop_losses_stop_falling() -> None:
    """The fit's curve is that of its epochs, driven by hand with a tenth of the rate each time that the losses have
    not fallen for more than half the patience."""
    config = replace(CONFIG, **WORSE, schedule="plateau", epochs=14, patience=6)
    fit = training.fit(DATA, config)
    parts = parts_of(DATA, config)
    initial, rng = (np.random.default_rng(s) for s in np.random.SeedSequence(config.seed).spawn(2))
    start = network.initialise(config.architecture(DATA.X.shape[1]), (initial,))
    given = examples(fit.scaler.apply(parts["fit"].X), (parts["fit"].up, parts["fit"].target))
    losses: list[float] = []
    lowered = {"by": 1.0, "best": np.inf, "bad": 0}
    rates = []

    def pace(member: int) -> float:
        rates.append(lowered["by"])
        return lowered["by"]

    for epoch in epochs(start, given, config.heads(), config, (rng,), pace):
        losses.append(stop_loss(epoch.networks, fit, parts["stop"]))
        if losses[-1] < lowered["best"] * (1 - 1e-4):
            lowered |= {"best": losses[-1], "bad": 0}
        else:
            lowered["bad"] += 1
        if lowered["bad"] > 3:
            lowered |= {"by": lowered["by"] / 10, "bad": 0}
        if len(losses) == len(fit.curve):
            break
    np.testing.assert_allclose([stop for _, _, stop in fit.curve], losses, rtol=1e-5)
    assert rates[-1] < rates[0] == 1.0, "this training was meant to reach a plateau"
    steady = training.fit(DATA, replace(config, schedule="constant"))
    turned = rates.index(rates[-1]) if rates.count(1.0) == len(rates) else rates.count(1.0)
    assert [c[:2] for c in fit.curve[:turned]] == [c[:2] for c in steady.curve[:turned]]
    assert fit.curve[turned:] != steady.curve[turned : len(fit.curve)]
