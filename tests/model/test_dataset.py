"""Datasets: splits are purged by label span, scalers see training rows only."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model import backtest, dataset, features, training
from model.bars import timeframe
from model.config import TrainConfig
from model.dataset import Dataset
from model.errors import TrainingFailed
from model.labels import triple_barrier
from model.scaler import fit_scaler
from tests.model import synthetic

ROWS = features.rows(synthetic.bars(1_500), timeframe("1h"))


def made(horizon: int = 1) -> Dataset:
    return dataset.build(ROWS, features.DEFAULT, horizon)


@given(
    horizon=st.integers(1, 40),
    stop=st.floats(0.05, 0.4),
    held=st.floats(0.05, 0.4),
    start=st.integers(0, 500),
)
@settings(max_examples=60, deadline=None)
def test_no_label_is_known_later_than_a_later_parts_first_features(
    horizon: int, stop: float, held: float, start: int
) -> None:
    data = made(horizon).part(slice(start, None))
    try:
        parts = dataset.split(data, stop, held)
    except TrainingFailed:
        return
    learn, early, late = (data.part(p) for p in (parts.fit, parts.stop, parts.held))
    assert learn.known_at[-1] <= early.closed_at[0]
    assert early.known_at[-1] <= late.closed_at[0]
    # and nothing is thrown away beyond that: the next row's label would be known too late
    assert data.known_at[parts.fit.stop] > early.closed_at[0]


def test_labels_that_are_known_out_of_turn_are_purged_as_well() -> None:
    """Labels of barriers: an older one may be known later than a newer."""
    known = triple_barrier(ROWS, 24, 0.5, 0.5)
    falls = int(
        np.flatnonzero(np.diff(known.known_at) < 0)[-1]
    )  # so that the last row is not the last to be known
    data = replace(made(1).part(slice(falls + 2)), known_at=known.known_at[: falls + 2])
    for row in range(0, len(data), 7):
        n = dataset.known_by(data, row)
        assert (data.known_at[:n] <= data.closed_at[row]).all()
        assert data.known_at[n] > data.closed_at[row]
    parts = dataset.split(data, 0.1, 0.1)
    for earlier, later in ((parts.fit, parts.stop), (parts.stop, parts.held)):
        assert data.known_at[earlier].max() <= data.closed_at[later.start]
    for window in range(20, 120, 5):
        start = backtest.first_refit(data, window)
        assert start is not None
        assert dataset.known_by(data, start) >= window > dataset.known_by(data, start - 1)
    fit = training.fit(data, TrainConfig(hidden=(4,), epochs=1, stop_fraction=0.2, relearn=False))
    parts = dataset.split(data, 0.2, fit.config.held_fraction)
    assert fit.fitted_until == max(data.known_at[: parts.stop.stop].tolist())
    assert fit.seen_until == max(data.known_at.tolist())


def test_the_newest_rows_are_held_back() -> None:
    data = made()
    parts = dataset.split(data, 0.1, 0.1)
    assert parts.held.stop == len(data)
    assert parts.fit.start == 0


def test_too_few_rows_are_refused_with_their_number() -> None:
    with pytest.raises(TrainingFailed, match="100 rows"):
        dataset.split(made().part(slice(0, 100)), 0.1, 0.1)


def test_rows_without_a_known_label_are_left_out() -> None:
    data = made(5)
    assert len(data) == len(ROWS.ts) - 5
    assert data.known_at[-1] == ROWS.closed_at[-1]


@pytest.mark.parametrize("horizon", [1, 4])
def test_the_target_is_the_return_in_units_of_its_expected_size(horizon: int) -> None:
    data = made(horizon)
    i = 700
    log_return = np.log(ROWS.close[i + horizon] / ROWS.close[i])
    assert data.log_return[i] == pytest.approx(log_return, rel=1e-12)
    assert data.target[i] == pytest.approx(log_return / (ROWS.scale[i] * horizon**0.5), rel=1e-6)
    assert data.up[i] == (log_return > 0)


def test_a_scaled_training_part_has_mean_zero_and_spread_one() -> None:
    X = made().X[:900]
    scaled = fit_scaler(X).apply(X)
    moving = X.std(axis=0) > 1e-6
    np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(scaled.std(axis=0)[moving], 1, atol=1e-3)


def test_a_feature_that_never_moves_becomes_zero_and_not_infinite() -> None:
    X = np.full((50, 2), 3.25, np.float32)
    assert (fit_scaler(X).apply(X) == 0).all()


def test_the_scaler_does_not_depend_on_later_rows() -> None:
    X = made().X.copy()
    before = fit_scaler(X[:600])
    X[600:] *= 100
    after = fit_scaler(X[:600])
    assert (before.mean == after.mean).all()
    assert (before.scale == after.scale).all()
