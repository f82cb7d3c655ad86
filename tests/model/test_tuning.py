"""Tuning: what is searched, that the rows which judge are never chosen by, and what is made of the trials."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model import backtest, dataset, features, tuning
from model.backtest import Policy
from model.bars import timeframe
from model.config import TrainConfig
from model.dataset import Dataset
from model.errors import BadInput, TrainingFailed
from model.scores import Paired
from model.scores import of as scores_of
from model.significance import Gain
from model.tuning import SPACE, Range, Steps, Trial, Walked
from tests.model import markets, synthetic

HOUR = timeframe("1h")
DEFAULT = TrainConfig()
GAPPY = markets.bars(2_500, seed=2, skip=0.02)


def data_of(horizon: int) -> Dataset:
    return dataset.from_bars(GAPPY, HOUR, replace(DEFAULT, horizon=horizon))


ROWS = {horizon: data_of(horizon) for horizon in (1, 4, 24)}


def made(
    p: np.ndarray, up: np.ndarray, horizon: int = 1, net: np.ndarray | None = None, since: int = 0
) -> Walked:
    """A walk that said p of n rows, where the base rate was a half."""
    n = len(p)
    losses = -np.where(up > 0.5, np.log(p), np.log(1 - p))
    base = np.full(n, np.log(2))
    gain = Gain(n, float((base - losses).mean()), float((base - losses).std() / np.sqrt(n)))
    zero = np.zeros(n)
    scores = scores_of(Paired(p, up, zero, zero))
    closed_at = since + np.arange(n, dtype=np.int64)
    return Walked(horizon, closed_at, losses, base, zero if net is None else net, scores, gain, None)


def trial(number: int, outcome: Walked | str) -> Trial:
    return Trial(number, {"depth": number}, DEFAULT, outcome, 1.0)


def told(n: int, share: float, seed: int, horizon: int = 1) -> tuple[Walked, Walked]:
    """Two walks over the same rows: one that says a half, and one that is right about `share` of what it could be."""
    rng = np.random.default_rng(seed)
    up = (rng.random(n) < 0.5).astype(float)
    lean = 0.5 + share * 0.1 * np.where(up > 0.5, 1, -1) + 0.02 * rng.standard_normal(n)
    return made(0.5 + 0.001 * rng.standard_normal(n), up), made(lean, up, horizon)


shapes = st.lists(st.integers(1, 300), max_size=5).map(tuple)


@given(shapes, st.floats(1e-6, 1.0), st.floats(0, 0.9), st.integers(1, 100_000), st.integers(1, 60))
def test_the_default_is_a_point_of_every_space_and_at_its_point_stands_the_default(
    hidden: tuple[int, ...], rate: float, dropout: float, window: int, horizon: int
) -> None:
    default = replace(
        DEFAULT, hidden=hidden, learning_rate=rate, dropout=dropout, window=window, horizon=horizon
    )
    start = tuning.point_of(default)
    assert tuning.config_at(default, start) == default
    searched = tuning.within(tuning.space(default, SPACE), default, 1_000)
    assert list(searched) == list(SPACE)
    for name, axis in searched.items():
        if isinstance(axis, Steps):
            assert start[name] in axis.values
            assert list(axis.values) == sorted(set(axis.values))
        else:
            assert axis.low <= start[name] <= axis.high
    for width in searched["width"].values:  # type: ignore[union-attr]
        for depth in searched["depth"].values:  # type: ignore[union-attr]
            found = tuning.config_at(default, {"width": width, "depth": depth})
            assert len(found.hidden) == depth
            assert found.hidden[:1] == ((width,) if depth else ())
            assert replace(found, hidden=hidden) == default


def test_each_layer_has_half_as_many_units_as_the_one_before() -> None:
    other = replace(DEFAULT, hidden=(5,))
    assert tuning.config_at(other, {"width": 64, "depth": 3}).hidden == (64, 32, 16)
    assert tuning.config_at(other, {"width": 16, "depth": 4}).hidden == (16, 8, 8, 8)


def test_windows_wider_than_the_rows_are_one_and_are_left_out() -> None:
    searched = tuning.space(replace(DEFAULT, window=20_000), ["window"])
    found = tuning.within(searched, replace(DEFAULT, window=20_000), 1_999)
    assert found == {"window": Steps((500, 1_000, 20_000))}


@pytest.mark.parametrize("names", [["momentum"], ["width", "seed"], []])
def test_what_cannot_be_searched_is_refused_with_what_can(names: list[str]) -> None:
    with pytest.raises(BadInput, match="learning_rate, width, depth, dropout, window, horizon"):
        tuning.space(DEFAULT, names)


def test_only_what_is_named_is_searched() -> None:
    searched = tuning.space(DEFAULT, ["dropout"])
    assert searched == {"dropout": Range(0.0, 0.6)}
    assert tuning.longest(searched, DEFAULT) == 1
    assert tuning.longest(tuning.space(DEFAULT, ["horizon"]), DEFAULT) == 24


@pytest.mark.parametrize("judge", [0.1, 0.3, 0.5])
def test_no_label_of_an_inner_row_is_known_after_the_first_outer_row(judge: float) -> None:
    split = tuning.nested(ROWS[24], judge)
    assert split.inner_from < split.inner_until < split.outer_from
    outer = sum(1 for at in ROWS[24].closed_at.tolist() if at >= split.outer_from)
    assert outer == round(len(ROWS[24]) * judge)
    for data in ROWS.values():
        pairs = zip(data.closed_at.tolist(), data.known_at.tolist(), strict=True)
        known = [known for closed, known in pairs if closed <= split.inner_until]
        assert max(known) <= split.outer_from
    # and no more is thrown away than the longest horizon
    between = (ROWS[1].closed_at > split.inner_until) & (ROWS[1].closed_at < split.outer_from)
    assert 23 <= between.sum() <= 24 + 24


def test_a_market_too_small_to_search_and_to_judge_is_refused() -> None:
    with pytest.raises(TrainingFailed, match="too few to search"):
        tuning.nested(ROWS[24].part(slice(0, 60)), 0.3)


@pytest.mark.parametrize("horizon", ROWS)
def test_a_walk_judges_from_the_close_that_was_asked_for(horizon: int) -> None:
    data = ROWS[horizon]
    for since in data.closed_at[[300, 700, 1_200]].tolist():
        policy = Policy(refit_every=10_000, first=tuning.rows_before(data, since))
        config = replace(DEFAULT, horizon=horizon, hidden=(4,), epochs=1, window=600)
        (refit,) = backtest.refit_rows(data, config, policy)
        assert data.closed_at[refit] < since
        assert backtest.known_at_close(data, refit).known_at.max() <= data.closed_at[refit]
    result = backtest.run(data, config, policy)
    kept = tuning.judged_since(result, since)
    assert kept.data.closed_at[0] == since
    lost = len(result.data) - len(kept.data)
    assert np.array_equal(kept.said.p_up, result.said.p_up[lost:])
    assert len(kept.refused) == len(kept.refit) == len(kept.data)


@pytest.mark.parametrize("since", [0, 10**18])
def test_no_rows_before_or_after_are_no_room(since: int) -> None:
    with pytest.raises(TrainingFailed, match="no rows to learn from"):
        tuning.rows_before(ROWS[1], since)


def test_the_largest_gain_per_bar_is_chosen_the_default_where_none_is_larger_and_no_failed_one() -> None:
    base, better = told(1_000, 0.5, seed=1)
    assert tuning.choose([trial(0, base), trial(1, "no"), trial(2, better)]).number == 2
    assert tuning.choose([trial(0, better), trial(1, better)]).number == 0
    assert tuning.choose([trial(0, "no"), trial(1, base)]).number == 1
    assert tuning.choose([trial(0, better), trial(1, replace(better, horizon=2))]).number == 0
    with pytest.raises(TrainingFailed, match="none of 2 trials came to an end; the first: too dry"):
        tuning.choose([trial(0, "too dry"), trial(1, "no")])


def test_where_nothing_gains_the_default_stays_whatever_loses_least() -> None:
    worst, bad = (told(1_000, share, seed=1)[1] for share in (-0.6, -0.3))
    assert tuning.objective(worst) < tuning.objective(bad) < 0  # type: ignore[operator]
    assert tuning.choose([trial(0, worst), trial(1, bad)]).number == 0


def test_a_forecast_that_hardly_leaves_the_base_rate_is_not_taken_for_the_better_one() -> None:
    """Leans that are right, and a tenth of them: the gain is what falls, while its z does not."""
    rng = np.random.default_rng(3)
    p = 0.5 + 0.15 * rng.choice([-1, 1], 20_000)
    up = (rng.random(20_000) < p).astype(float)
    right, timid = made(p, up), made(0.5 + (p - 0.5) / 10, up)
    assert timid.gain.z > right.gain.z
    assert tuning.choose([trial(0, timid), trial(1, right)]).number == 1


def test_a_trial_tells_its_figures_or_why_it_has_none() -> None:
    base, _ = told(1_000, 0.5, seed=1)
    said = trial(3, base).document()
    assert said["z"] == pytest.approx(base.gain.mean / base.gain.error)
    assert said["gain"] == said["gain_bar"] == pytest.approx((base.base_losses - base.losses).mean())
    assert trial(3, replace(base, horizon=4)).document()["gain_bar"] == pytest.approx(base.gain.mean / 4)
    assert (said["number"], said["params"], said["failed"]) == (3, {"depth": 3}, None)
    failed = trial(1, "why").document()
    assert failed["failed"] == "why"
    assert failed["gain"] is failed["gain_bar"] is failed["z"] is failed["log_loss"] is None


@pytest.mark.parametrize(
    ("share", "better", "text"),
    [(0.5, True, "better than the default"), (-0.5, False, "worse than"), (0.0, False, "no evidence")],
)
def test_the_verdict_is_that_of_a_paired_test(share: float, better: bool, text: str) -> None:
    base, other = told(2_000, share, seed=5)
    said = tuning.verdict(base, other)
    assert said.better is better
    assert said.text.startswith(text)
    assert said.paired is not None
    # independent rows: an ordinary paired t-test, but for the few lags that are looked at too
    d = base.losses - other.losses
    oracle = d.mean() / (d.std(ddof=1) / np.sqrt(len(d)))
    assert said.paired.gain == pytest.approx(d.mean())
    assert said.paired.z == pytest.approx(oracle, rel=0.15, abs=0.3)
    assert f"over 2000 bars, z = {said.paired.z:.1f}" in said.text


def test_other_horizons_are_compared_by_what_each_gains_per_bar() -> None:
    base, other = told(2_000, 0.5, seed=5)
    harder = replace(other, horizon=4, losses=other.losses + 1, base_losses=other.base_losses + 1)
    said = tuning.verdict(base, harder)
    assert said.paired is not None
    assert said.paired.gain == pytest.approx(other.gain.mean / 4 - base.gain.mean)
    assert said.text.startswith("better than the default on rows that no choice saw: at a horizon of 4 bars")


def test_only_rows_that_both_judged_are_compared() -> None:
    base, other = told(2_000, 0.5, seed=5)
    later = replace(
        other, closed_at=other.closed_at[500:], losses=other.losses[500:], base_losses=other.base_losses[500:]
    )
    found = tuning.paired(base, later)
    assert found.rows == 1_500
    assert found.gain == pytest.approx((base.losses[500:] - other.losses[500:]).mean())


def test_what_cannot_be_told_is_not_claimed() -> None:
    base, other = told(150, 1.0, seed=5)
    few = tuning.verdict(base, other)
    assert few.better is None
    assert few.text.startswith("too few bars to tell")
    failed = tuning.verdict("it broke", other)
    assert (failed.better, failed.paired) == (None, None)
    assert "the default failed on the newest rows: it broke" in failed.text
    assert "default stays" in tuning.verdict(base, base).text


def noise(count: int, n: int, edge: float = 0.0) -> list[Trial]:
    """Trials that know nothing and earn noise; the last one has an edge."""
    rng = np.random.default_rng(11)
    up = (rng.random(n) < 0.5).astype(float)
    right = np.where(up > 0.5, 1, -1)
    return [
        trial(
            number,
            made(
                np.clip(
                    0.5 + 0.05 * rng.standard_normal(n) + 0.05 * (number == count - 1) * edge * right,
                    0.1,
                    0.9,
                ),
                up,
                net=0.01 * (rng.standard_normal(n) + (number == count - 1) * edge),
                since=number,  # each begins a row later
            ),
        )
        for number in range(count)
    ]


def test_choosing_among_equals_is_blind_and_among_one_better_is_not() -> None:
    blind, seeing = tuning.overfit(noise(10, 2_000)), tuning.overfit(noise(10, 2_000, edge=0.3))
    assert (blind.rows, blind.trials) == (2_000 - 9, 10)
    assert blind.probability is not None
    assert blind.probability > 0.2
    assert (seeing.probability, seeing.probability_by_gain) == (0.0, 0.0)


def test_failed_trials_and_those_that_never_traded_have_no_say() -> None:
    still = [trial(i, replace(told(500, 0.1, seed=i)[1], net_return=np.zeros(500))) for i in range(3)]
    found = tuning.overfit([*still, trial(3, "no")])
    assert (found.trials, found.probability, found.loss) == (3, None, None)
    assert found.probability_by_gain is not None
    assert tuning.overfit([trial(0, "no")]).trials == 0
    assert tuning.overfit(still[:1]).probability_by_gain is None


def test_what_a_walk_comes_to_is_what_it_said_beside_what_came() -> None:
    rows = features.rows(synthetic.bars(1_500, 1, 0.8), HOUR)
    data = dataset.build(rows, features.DEFAULT, 1)
    config = TrainConfig(window=600, hidden=(16,), epochs=6)
    result = backtest.run(data, config, Policy(refit_every=300, first=600))
    found = tuning.walked(data, result, np.arange(len(result.data), dtype=float), 0.5)
    up = result.data.up > 0.5
    assert found.losses == pytest.approx(-np.log(np.where(up, result.said.p_up, 1 - result.said.p_up)))
    assert found.gain.mean == pytest.approx((found.base_losses - found.losses).mean())
    assert found.scores.log_loss == pytest.approx(found.losses.mean())
    assert found.sharpe_bar == 0.5
    # whoever trains on less does not have an easier base rate to beat
    for i in (0, 250, len(up) - 1):
        trained_at = data.closed_at[result.refits[result.refit[i]].row]
        share = np.mean([u for u, at in zip(data.up, data.known_at, strict=True) if at <= trained_at])
        assert found.base_losses[i] == pytest.approx(-np.log(share if up[i] else 1 - share), rel=1e-6)
    narrow = backtest.run(data, replace(config, window=420), Policy(refit_every=300, first=600))
    other = tuning.walked(data, narrow, np.zeros(len(narrow.data)), None)
    assert np.array_equal(found.base_losses, other.base_losses)
    assert not np.array_equal(found.losses, other.losses)
