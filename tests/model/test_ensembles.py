"""An ensemble: members that differ by their random numbers alone, trained together, whose mean answers."""

from dataclasses import replace

import numpy as np
import pytest

from model import backtest, calibration, dataset, health, predictor, scores, training
from model.config import TrainConfig
from model.epochs import epochs, examples
from model.errors import BadInput, SeenRows, TrainingFailed
from model.health import GradientHealth
from model.network import network as networks
from model.network.schedules import cosine
from model.scaler import fit_scaler
from tests.model.test_members import MARKETS, same

CONFIG = TrainConfig(
    window=1_000, hidden=(16, 8), epochs=5, patience=2, members=1, relearn=False, half_life=None
)
DATA = MARKETS[0]
FIVE = training.fit(DATA, replace(CONFIG, members=5))


def test_the_first_member_is_what_one_alone_is_and_more_members_change_none() -> None:
    one, three = (training.fit(DATA, replace(CONFIG, members=members)) for members in (1, 3))
    assert same(one.network.parameters, FIVE.network.parameters[:1])
    assert same(three.network.parameters, FIVE.network.parameters[:3])
    assert one.best_epochs == FIVE.best_epochs[:1]
    assert len({own.tobytes() for own in FIVE.network.parameters}) == 5


def test_the_mean_of_the_members_answers() -> None:
    model = predictor.from_arrays(*training.contents(FIVE))
    X = DATA.X[-50:]
    each = networks.forward(FIVE.network, FIVE.scaler.apply(X))
    logit, scaled = each.mean(axis=0, dtype=np.float64).T
    said = [model.predict(x, 0.01, 9.0) for x in X]
    np.testing.assert_allclose([s.p_up for s in said], 1 / (1 + np.exp(-logit / FIVE.temperature)), atol=1e-5)
    np.testing.assert_allclose([s.expected_return for s in said], 0.01 * scaled, atol=1e-6)


def test_temperature_and_interval_are_those_of_the_mean() -> None:
    newest = DATA.part(slice(len(DATA) - 1_000, None))
    parts = dataset.split(newest, CONFIG.stop_fraction, CONFIG.held_fraction)
    stop, held = newest.part(parts.stop), newest.part(parts.held)
    mean = [networks.forward(FIVE.network, FIVE.scaler.apply(part.X)).mean(axis=0) for part in (stop, held)]
    cooled = calibration.temperature(mean[0][:, 0].astype(np.float64), stop.up.astype(np.float64))
    assert pytest.approx(cooled, rel=1e-3) == FIVE.temperature
    residuals = held.log_return / held.scale - mean[1][:, 1]
    assert calibration.conformal_width(residuals, 0.9) == pytest.approx(FIVE.interval, rel=1e-5)


def test_a_training_is_as_healthy_as_its_worst_member() -> None:
    def layer(verdict: str, norm: float) -> GradientHealth:
        return GradientHealth(0, "hidden 1", norm, 0.1, 0.0, 0.0, 0, verdict)

    first, second = (layer("healthy", 1.0), layer("dead", 2.0)), (layer("vanishing", 3.0), layer("dead", 4.0))
    assert health.worst([first, second]) == (second[0], first[1])
    assert len(FIVE.health) == len(FIVE.curve) == max(epochs for epochs, *_ in FIVE.curve)


def test_a_warm_start_goes_on_with_all_members_and_remembers_what_they_have_seen() -> None:
    warm = training.warm_start(*training.contents(FIVE))
    earlier = DATA.part(slice(0, len(DATA) - 200))
    again = training.fit(earlier, replace(CONFIG, members=5), warm)
    assert again.network.members == 5
    assert (again.fitted_until, again.seen_until) == (FIVE.fitted_until, FIVE.seen_until)
    assert again.first_closed_at == FIVE.first_closed_at
    with pytest.raises(TrainingFailed, match=r"the 5 members .* not 2: train cold once"):
        training.fit(DATA, replace(CONFIG, members=2), warm)


def test_a_member_that_breaks_spoils_the_whole() -> None:
    """A mean has to be of all of them, and none may be passed over in silence."""
    config = replace(CONFIG, members=3, optimiser="sgd", learning_rate=1e30, clip_norm=1e30)
    with pytest.raises(TrainingFailed, match="not finite"):
        training.fit(DATA, config)


@pytest.mark.parametrize("members", [0, -1, 1.5, "3"])
def test_members_must_be_a_count(members: object) -> None:
    with pytest.raises(BadInput, match="members must be a whole number of at least 1"):
        replace(CONFIG, members=members)


def test_networks_are_stacked_with_numbers_of_their_own() -> None:
    both = networks.stacked([FIVE.network.member(1), FIVE.network.member(3)])
    assert same(both.parameters, FIVE.network.parameters[[1, 3]])
    assert not np.shares_memory(both.parameters, FIVE.network.parameters)


RELEARNED = training.fit(DATA, replace(CONFIG, members=3, relearn=True))


def test_with_relearning_all_rows_are_learned_from_for_as_many_epochs_as_were_best() -> None:
    """Against the loop by hand: the same starts, all rows, and as many epochs as go as far, by the sum of rates."""
    twin = training.fit(DATA, replace(CONFIG, members=3))
    assert same(RELEARNED.twin, replace(twin, config=RELEARNED.config))
    assert RELEARNED.judged is RELEARNED.twin
    assert twin.judged is twin
    rows = DATA.part(slice(len(DATA) - CONFIG.window, None))
    rates = [[cosine(step, 20 * planned) for step in range(20 * planned)] for planned in range(1, 6)]
    went = np.mean([sum(rates[4][: 20 * epoch]) for epoch in twin.best_epochs])
    planned = next((n for n, of in enumerate(rates[:4], 1) if sum(of) >= went), 5)
    config = replace(CONFIG, epochs=planned)
    scaler = fit_scaler(rows.X)
    given = examples(scaler.apply(rows.X), (rows.up, rows.target))
    seeds = np.random.SeedSequence(CONFIG.seed).spawn(6)
    for k in range(3):
        start, own = (np.random.default_rng(seed) for seed in seeds[2 * k : 2 * k + 2])
        net = networks.initialise(config.architecture(rows.X.shape[1]), (start,))
        *_, last = epochs(net, given, config.heads(), config, (own,))
        assert same(last.networks.parameters, RELEARNED.network.parameters[k : k + 1])
    assert RELEARNED.rows == CONFIG.window
    assert RELEARNED.fitted_until == RELEARNED.seen_until == int(rows.known_at.max()) > twin.fitted_until


def test_calibration_and_interval_are_those_of_the_twin_that_held_rows_back() -> None:
    twin = RELEARNED.judged
    assert twin is not RELEARNED
    assert (RELEARNED.temperature, RELEARNED.interval) == (twin.temperature, twin.interval)
    assert RELEARNED.curve == twin.curve


def test_the_gate_compares_twins_on_rows_that_neither_has_learned_from() -> None:
    """What learned from everything cannot be judged on any of these rows: asked for that, the walk refuses."""
    config = replace(CONFIG, members=3, relearn=True)
    earlier = training.fit(DATA.part(slice(0, len(DATA) - 100)), config)
    champion, made = training.contents(earlier), training.contents(RELEARNED)
    verdict = backtest.decide(RELEARNED, made, champion, DATA)
    unseen = int((DATA.closed_at >= RELEARNED.judged.fitted_until).sum())
    assert f"over {unseen} bars that neither has seen" in verdict.reason
    losses = {}
    for name, fit in (("candidate", RELEARNED), ("champion", earlier)):
        twin = predictor.from_arrays(*training.contents(fit.judged))
        rows = DATA.part(slice(len(DATA) - unseen, None))
        losses[name] = scores.log_losses(backtest.forecasts(twin, rows).p_up, rows.up).mean()
    with pytest.raises(SeenRows):
        backtest.forecasts(predictor.from_arrays(*made), rows)
    assert (
        f"log loss {losses['candidate']:.5f} against the champion's {losses['champion']:.5f}"
        in verdict.reason
    )


def test_a_version_that_has_no_twin_is_judged_itself() -> None:
    made = training.contents(training.fit(DATA, CONFIG))
    assert predictor.judged(*made).sha256 == predictor.from_arrays(*made).sha256


def test_relearning_side_by_side_is_as_alone() -> None:
    config = replace(CONFIG, members=2, relearn=True)
    tasks = tuple(training.Task(data, seed) for seed, data in enumerate(MARKETS))
    results = training.fit_tasks(tasks, config)
    for task, result in zip(tasks, results, strict=True):
        alone = training.fit(task.data, replace(config, seed=task.seed))
        assert same(result.network, alone.network)  # type: ignore[union-attr]
