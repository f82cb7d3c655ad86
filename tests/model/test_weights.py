"""Laws of sample weights: beside a count bar by bar, and in what a network learns from them."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from model import dataset, epochs, features, training, weights
from model.bars import timeframe
from model.config import TrainConfig, config_from
from model.errors import BadInput, TrainingFailed
from model.labels import triple_barrier
from model.network import objective
from model.network.losses import BinaryCrossEntropy, Huber
from model.network.objective import Head
from model.scaler import fit_scaler
from tests.model import synthetic

HOUR = timeframe("1h")
ROWS = features.rows(synthetic.bars(1_300, seed=1, momentum=0.6), HOUR)
DATA = dataset.build(ROWS, features.DEFAULT, 1)
FAR = dataset.build(ROWS, features.DEFAULT, 12)
SMALL = TrainConfig(hidden=(8,), epochs=3, batch=128, members=1, relearn=False, half_life=None)
Int64 = NDArray[np.int64]


# --- recency


@settings(deadline=None)
@given(rows=st.integers(1, 3_000), half_life=st.integers(1, 10_000))
def test_a_row_older_by_the_half_life_counts_half_as_much_and_the_mean_is_one(
    rows: int, half_life: int
) -> None:
    weight = weights.recency(rows, half_life).astype(np.float64)
    assert weight.shape == (rows,)
    assert weight.mean() == pytest.approx(1, rel=1e-5)
    older, newer = weight[: max(rows - half_life, 0)], weight[half_life:]
    # what has decayed below the least float32 may count for nothing
    np.testing.assert_allclose(older, newer / 2, rtol=1e-5, atol=1e-37)
    assert (np.diff(weight) >= 0).all(), "the newest count most"


@pytest.mark.parametrize("rows", [1, 20, 5_000])
def test_without_a_half_life_all_rows_count_one_to_the_bit(rows: int) -> None:
    weight = weights.recency(rows, None)
    assert weight.dtype == np.float32
    assert weight.tobytes() == np.ones(rows, np.float32).tobytes()


# --- uniqueness


def slow(closed_at: list[int], known_at: list[int]) -> list[float]:
    """For each label the average, over the steps in its span, of one part among all labels that have the step."""
    times = sorted({*closed_at, *known_at})
    steps = list(pairwise(times))
    found = []
    for begin, end in zip(closed_at, known_at, strict=True):
        parts = []
        for a, b in steps:
            if begin <= a and b <= end:
                parts.append(1 / sum(i <= a and b <= j for i, j in zip(closed_at, known_at, strict=True)))
        found.append(sum(parts) / len(parts))
    return found


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(1, 15)), min_size=1, max_size=40),
)
def test_uniqueness_agrees_with_a_count_step_by_step(rows: list[tuple[int, int]]) -> None:
    steps, spans = np.array(rows).T
    closed_at = np.cumsum(steps)
    known_at = closed_at + spans
    found = weights.uniqueness(closed_at, known_at)
    np.testing.assert_allclose(found, slow(closed_at.tolist(), known_at.tolist()), rtol=1e-12)
    assert ((found > 0) & (found <= 1 + 1e-12)).all()


def test_a_hand_made_case() -> None:
    """Spans 0-2, 1-3 and 6-7: the step between 1 and 2 is shared by two, each other has one label."""
    found = weights.uniqueness(np.array([0, 1, 6]), np.array([2, 3, 7]))
    assert found.tolist() == pytest.approx([0.75, 0.75, 1])


def test_labels_over_one_bar_are_unique_to_the_bit() -> None:
    """Though a bar's close ends one and begins the next: no return is in both."""
    assert (weights.uniqueness(DATA.closed_at, DATA.known_at) == 1).all()
    config = replace(SMALL, uniqueness=True)
    assert weights.of(DATA, config).tobytes() == np.ones(len(DATA), np.float32).tobytes()


def test_labels_over_h_bars_share_each_return_with_h() -> None:
    found = weights.uniqueness(FAR.closed_at, FAR.known_at)
    np.testing.assert_allclose(found[11:-11], 1 / 12, rtol=1e-9)
    assert found[0] == found.max()
    assert (found[[0, -1]] > 0.25).all(), "at the ends there are fewer to share with"


def test_labels_that_are_soon_decided_count_more() -> None:
    known = triple_barrier(ROWS, 24, 0.5, 0.5)
    closed_at = ROWS.closed_at[: len(known)]
    found = weights.uniqueness(closed_at, known.known_at)
    np.testing.assert_allclose(found, slow(closed_at.tolist(), known.known_at.tolist()), rtol=1e-10)
    span = known.known_at - closed_at
    assert found[span < np.quantile(span, 0.2)].mean() > found[span > np.quantile(span, 0.8)].mean()


# --- what rows count for


def test_with_default_settings_every_row_counts_one_to_the_bit() -> None:
    assert weights.of(FAR, SMALL).tobytes() == np.ones(len(FAR), np.float32).tobytes()


@pytest.mark.parametrize("half_life", [None, 100])
@pytest.mark.parametrize("uniqueness", [False, True])
@pytest.mark.parametrize("dead_zone", [0.0, 0.4])
def test_what_a_row_counts_for_is_a_product_and_one_on_average(
    half_life: int | None, uniqueness: bool, dead_zone: float
) -> None:
    config = replace(SMALL, half_life=half_life, uniqueness=uniqueness, dead_zone=dead_zone)
    found = weights.of(FAR, config)
    expected = np.ones(len(FAR))
    if half_life is not None:
        expected *= 0.5 ** ((len(FAR) - 1 - np.arange(len(FAR))) / half_life)
    if uniqueness:
        expected *= weights.uniqueness(FAR.closed_at, FAR.known_at)
    heads = [expected]
    if dead_zone:
        moves = np.abs(np.log(ROWS.close[12:] / ROWS.close[:-12])) / (ROWS.scale[:-12] * 12**0.5)
        assert 0.1 < (moves < dead_zone).mean() < 0.9
        heads = [np.where(moves < dead_zone, 0, expected), expected]
    assert found.dtype == np.float32
    for of_head, wanted in zip(np.atleast_2d(found), heads, strict=True):
        np.testing.assert_allclose(of_head, wanted / wanted.mean(), rtol=1e-5)


def test_a_dead_zone_that_nothing_leaves_is_refused() -> None:
    with pytest.raises(TrainingFailed, match="moves none left the dead zone of 100"):
        training.fit(DATA, replace(SMALL, dead_zone=100.0))


# --- what is learned from them


def test_heads_with_weights_of_their_own_are_as_if_each_were_alone() -> None:
    rng = np.random.default_rng(0)
    outputs, d_outputs = rng.standard_normal((2, 3, 50, 2))
    up, target = (rng.random((3, 50)) < 0.5).astype(float), rng.standard_normal((3, 50))
    weight = rng.uniform(0, 2, (2, 3, 50))
    heads = (Head(BinaryCrossEntropy(), 1.0, "up"), Head(Huber(), 0.3, "return"))
    found = objective.bind(heads, outputs, (up, target), weight, d_outputs)().copy()
    expected = np.zeros(3)
    for i, (head, own) in enumerate(zip(heads, (up, target), strict=True)):
        alone, column = np.empty((3, 50, 1)), outputs[..., i : i + 1].copy()
        expected += objective.bind((head,), column, (own,), weight[i], alone)()
        np.testing.assert_allclose(d_outputs[..., i : i + 1], alone, rtol=1e-12)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    alike = np.stack((weight[0], weight[0]))
    both = objective.bind(heads, outputs, (up, target), alike, d_outputs)().copy()
    one = objective.bind(heads, outputs, (up, target), weight[0], np.empty_like(d_outputs))()
    assert (both == one).all()
    with pytest.raises(BadInput, match="is wanted"):
        objective.bind(heads, outputs, (up, target), weight[:1], d_outputs)


def test_weights_by_head_that_are_alike_change_no_bit_of_a_training() -> None:
    counts = weights.recency(len(DATA), 200)
    starts = training.network.initialise(SMALL.architecture(DATA.X.shape[1]), (np.random.default_rng(0),))
    x = fit_scaler(DATA.X).apply(DATA.X)

    def walked(weight: NDArray[np.float32], members: int = 1) -> list[NDArray[np.float32]]:
        start = training.Network(
            starts.architecture,
            np.repeat(starts.parameters, members, 0),
            np.repeat(starts.statistics, members, 0),
        )
        given = epochs.pooled(
            [epochs.examples(x.copy(), (DATA.up, DATA.target), weight) for _ in range(members)]
        )
        rngs = [np.random.default_rng(1) for _ in range(members)]
        walk = epochs.epochs(start, given, SMALL.heads(), SMALL, rngs)
        return [epoch.networks.parameters for epoch in walk]

    alone = walked(counts)
    for members in (1, 2):
        by_head = walked(np.stack((counts, counts)), members)
        for one, both in zip(alone, by_head, strict=True):
            assert (one == both).all()


def test_moves_in_the_dead_zone_teach_nothing_of_up_and_still_teach_the_return() -> None:
    """Their up is turned into its contrary, and so is their return: the first is not seen, the second is."""
    config = replace(SMALL, dead_zone=0.5, dropout=0.0)
    small = np.abs(DATA.target) < 0.5
    assert 0.2 < small.mean() < 0.8
    parts = dataset.split(DATA, config.stop_fraction, config.held_fraction)
    learned = np.arange(len(DATA)) < parts.fit.stop
    other_up = np.where(small & learned, 1 - DATA.up, DATA.up).astype(np.float32)
    other_return = np.where(small & learned, -DATA.log_return, DATA.log_return)

    def weights_of(data: dataset.Dataset, config: TrainConfig) -> NDArray[np.float32]:
        return training.fit(data, config).network.parameters

    plain = weights_of(DATA, config)
    assert (weights_of(replace(DATA, up=other_up), config) == plain).all()
    assert (weights_of(replace(DATA, log_return=other_return), config) != plain).any()
    assert (
        weights_of(replace(DATA, up=other_up), replace(config, dead_zone=0.0))
        != weights_of(DATA, replace(config, dead_zone=0.0))
    ).any()


def test_a_dead_zone_leaves_what_a_probability_of_up_is_held_to() -> None:
    """Base rate, calibration and stopping ask all rows, also those that taught nothing of up."""
    config = replace(SMALL, dead_zone=0.5)
    fit = training.fit(DATA, config)
    assert fit.base_rate == float(DATA.up.mean(dtype=np.float64))
    parts = dataset.split(DATA, config.stop_fraction, config.held_fraction)
    small = np.abs(DATA.target) < 0.5
    small[: parts.stop.start] = False
    turned = replace(DATA, up=np.where(small, 1 - DATA.up, DATA.up).astype(np.float32))
    other = training.fit(turned, config)
    assert other.curve[0][1] == fit.curve[0][1], "one epoch in, the same was learned"
    assert other.curve[0][2] != fit.curve[0][2]


@pytest.mark.parametrize("setting", [{"uniqueness": True}, {"dead_zone": 0.3}, {"half_life": 200}])
def test_a_setting_of_weights_is_kept_and_trains_the_same_again(setting: dict[str, float]) -> None:
    config = replace(SMALL, horizon=12, **setting)  # type: ignore[arg-type]
    one, again = training.fit(FAR, config), training.fit(FAR, config)
    assert (one.network.parameters == again.network.parameters).all()
    assert (one.network.parameters != training.fit(FAR, SMALL).network.parameters).any()
    _, manifest = training.contents(one)
    assert config_from(manifest["config"]) == config
