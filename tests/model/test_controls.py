"""Control models: a sound path passes them all, a planted fault fails some, and what they expect is right."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from time import process_time

import numpy as np
import pytest
from numpy.typing import NDArray

from model import controls, features, scores
from model.backtest import Said
from model.controls import CONTROLS, Check, noisy
from model.dataset import Dataset
from model.scores import Paired

Float64 = NDArray[np.float64]
Figures = Mapping[str, float | None]
Judge = Callable[[Dataset, Said], Figures]


def market(n: int, seed: int, drift: float = 0.05) -> Dataset:
    """n made-up rows of heavy-tailed moves, of which some are none at all."""
    rng = np.random.default_rng(seed)
    moves = np.round((rng.standard_t(4, n) + drift) * 0.005, 4)
    closed_at = np.arange(n, dtype=np.int64) * 3_600_000_000
    return Dataset(
        features=features.DEFAULT,
        horizon=1,
        closed_at=closed_at,
        known_at=closed_at + 3_600_000_000,
        X=np.zeros((n, 1), np.float32),
        up=(moves > 0).astype(np.float32),
        log_return=moves,
        scale=np.full(n, 0.005),
        close=100 * np.exp(np.cumsum(moves) - moves),
    )


def judge(data: Dataset, said: Said) -> Figures:
    """The figures of what was said of these rows."""
    up = data.up.astype(np.float64)
    ends = (np.log(end / data.close) for end in (said.low, said.high))
    found = scores.of(Paired(said.p_up, up, said.expected_return, data.log_return, *ends)).document()
    base = scores.log_losses(said.base_rate, up)
    return {**found, "gain": float(np.mean(base - scores.log_losses(said.p_up, up)))}


def earn(data: Dataset, said: Said) -> Float64:
    """What the sign of the expected return earned."""
    earned: Float64 = np.sign(said.expected_return) * np.expm1(data.log_return)
    return earned


def failed(checks: tuple[Check, ...]) -> set[tuple[str, str]]:
    return {(check.name, check.figure) for check in checks if not check.passed}


@pytest.mark.parametrize("n", [100, 400, 5_000, 30_000])
@pytest.mark.parametrize("drift", [0.0, 0.4, -0.4])
def test_a_sound_path_passes_all_whatever_the_market(n: int, drift: float) -> None:
    for seed in range(3):
        checks = controls.check(market(n, seed, drift), judge, earn, seed)
        assert failed(checks) == set()
        assert {check.name for check in checks} == set(CONTROLS)


def test_each_figure_is_named_as_the_judge_names_it_and_is_expected_once() -> None:
    known = {*judge(market(400, 0), noisy.noisy(market(400, 0), np.random.default_rng(0))), "return_bar"}
    checks = controls.check(market(400, 0), judge, earn)
    assert {check.figure for check in checks} <= known
    assert len({(check.name, check.figure) for check in checks}) == len(checks)


def later(values: Float64) -> Float64:
    return np.roll(values, 1)


# What could be wrong in the path, and a control and figure that must tell.
def outcomes_a_bar_off(data: Dataset, said: Said) -> Figures:
    return judge(replace(data, up=later(data.up), log_return=later(data.log_return)), said)


def up_for_down(data: Dataset, said: Said) -> Figures:
    return judge(replace(data, up=1 - data.up), said)


def answers_a_bar_late(data: Dataset, said: Said) -> Figures:
    return judge(data, replace(said, p_up=later(said.p_up), expected_return=later(said.expected_return)))


def ends_swapped(data: Dataset, said: Said) -> Figures:
    return judge(data, replace(said, low=said.high, high=said.low))


def ends_of_the_bar_before(data: Dataset, said: Said) -> Figures:
    return judge(data, replace(said, low=later(said.low), high=later(said.high)))


def return_of_the_wrong_sign(data: Dataset, said: Said) -> Figures:
    return judge(data, replace(said, expected_return=-said.expected_return))


def simple_for_log_returns(data: Dataset, said: Said) -> Figures:
    """A hundredth of a hundredth of a move of one per cent: the smallest of these faults."""
    return judge(replace(data, log_return=np.expm1(data.log_return)), said)


def bits_for_nats(data: Dataset, said: Said) -> Figures:
    found = dict(judge(data, said))
    return {**found, **{name: (found[name] or 0.0) / math.log(2) for name in ("log_loss", "gain")}}


def a_base_rate_of_a_half(data: Dataset, said: Said) -> Figures:
    return judge(data, replace(said, base_rate=np.full(len(data), 0.5)))


def sharper_than_said(data: Dataset, said: Said) -> Figures:
    """Probabilities by another temperature."""
    logit = np.log(np.clip(said.p_up, 1e-9, 1 - 1e-9)) - np.log1p(-np.clip(said.p_up, 1e-9, 1 - 1e-9))
    return judge(data, replace(said, p_up=1 / (1 + np.exp(-1.3 * logit))))


def a_figure_left_out(data: Dataset, said: Said) -> Figures:
    return {name: value for name, value in judge(data, said).items() if name != "rank_ic"}


def a_number_without_meaning(data: Dataset, said: Said) -> Figures:
    return {name: 0.0 if value is None else value for name, value in judge(data, said).items()}


FAULTS: dict[Judge, tuple[str, str]] = {
    outcomes_a_bar_off: ("noisy oracle", "auc"),
    up_for_down: ("noisy oracle", "accuracy"),
    answers_a_bar_late: ("noisy oracle", "gain"),
    ends_swapped: ("noisy oracle", "coverage_90"),
    ends_of_the_bar_before: ("noisy oracle", "pinball_low"),
    return_of_the_wrong_sign: ("noisy oracle", "r2"),
    simple_for_log_returns: ("perfect oracle", "mae"),
    bits_for_nats: ("base rate", "log_loss"),
    a_base_rate_of_a_half: ("base rate", "gain"),
    sharper_than_said: ("base rate", "gain"),
    a_figure_left_out: ("shuffled labels", "rank_ic"),
    a_number_without_meaning: ("no change", "ic"),
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_planted_fault_is_told(fault: Judge) -> None:
    assert FAULTS[fault] in failed(controls.check(market(5_000, 1, drift=0.4), fault, earn))


def looks_a_bar_ahead(data: Dataset, said: Said) -> Figures:
    """A model without skill that is scored on what it was shown: the shuffled one must not gain by it."""
    shown = np.where(data.up > 0.5, 0.02, -0.02)
    return judge(data, replace(said, p_up=np.clip(said.p_up + shown, 1e-3, 1 - 1e-3)))


def test_a_leak_of_the_outcome_into_what_is_said_is_told() -> None:
    found = failed(controls.check(market(30_000, 2), looks_a_bar_ahead))
    assert {("shuffled labels", "gain"), ("shuffled labels", "auc"), ("base rate", "gain")} <= found


POSITIONS: dict[str, Callable[[Dataset, Said], Float64]] = {
    "a bar late": lambda data, said: later(np.sign(said.expected_return)) * np.expm1(data.log_return),
    "short for long": lambda data, said: -earn(data, said),
    "costs that nobody asked for": lambda data, said: earn(data, said) - 1e-6,
}


@pytest.mark.parametrize("fault", POSITIONS)
def test_a_fault_between_forecast_and_return_is_told(fault: str) -> None:
    found = failed(controls.check(market(5_000, 3), judge, POSITIONS[fault]))
    assert ("perfect oracle", "return_bar") in found
    assert {figure for _, figure in found} == {"return_bar"}


@pytest.mark.parametrize("name", ["noisy oracle", "shuffled labels"])
def test_expected_values_and_their_standard_errors_are_those_of_many_draws(name: str) -> None:
    """Of 400 draws of a control's own noise over the same outcomes: the mean within four of its errors, the spread within
    15 per cent, which is four standard errors of a deviation from 400."""
    data, control, draws = market(1_000, 4, drift=0.3), CONTROLS[name], 400
    apart: dict[str, list[float]] = {}
    for seed in range(draws):
        said = control.say(data, np.random.default_rng(seed))
        found = {**judge(data, said), "return_bar": float(earn(data, said).mean())}
        for expected in control.expect(data, said):
            value = found[expected.figure]
            assert value is not None
            assert expected.value is not None
            if expected.error:
                apart.setdefault(expected.figure, []).append((value - expected.value) / expected.error)
            else:
                assert value == pytest.approx(expected.value, rel=1e-9), expected.figure
    assert len(apart) >= 9
    for figure, z in apart.items():
        assert abs(np.mean(z)) < 4 / math.sqrt(draws) + 0.05, (
            figure
        )  # the delta method's own bias is of that size
        assert np.std(z) == pytest.approx(1, abs=0.15), figure


def test_the_noisy_oracles_log_loss_is_the_integral_that_scipy_finds() -> None:
    integrate = pytest.importorskip("scipy.integrate", reason="needs SciPy, which CI installs")
    stats = pytest.importorskip("scipy.stats", reason="needs SciPy, which CI installs")
    data = market(2_000, 5, drift=0.3)
    base = float(data.up.mean())
    law = {1: stats.norm(1, noisy.SIGMA), -1: stats.norm(-1, noisy.SIGMA)}

    def p_up(x: float) -> float:
        up, down = base * law[1].pdf(x), (1 - base) * law[-1].pdf(x)
        return float(up / (up + down))

    def mean(of_up: Callable[[float], float], of_down: Callable[[float], float]) -> float:
        up = integrate.quad(lambda x: law[1].pdf(x) * of_up(p_up(x)), -19, 21, epsabs=1e-12)[0]
        down = integrate.quad(lambda x: law[-1].pdf(x) * of_down(p_up(x)), -21, 19, epsabs=1e-12)[0]
        return float(base * up + (1 - base) * down)

    said = noisy.noisy(data, np.random.default_rng(0))
    expected = {each.figure: each.value for each in noisy.of_noisy(data, said)}
    assert expected["log_loss"] == pytest.approx(mean(lambda p: -math.log(p), lambda p: -math.log1p(-p)))
    assert expected["brier"] == pytest.approx(mean(lambda p: (1 - p) ** 2, lambda p: p**2))
    ranked = integrate.quad(lambda x: law[1].pdf(x) * law[-1].cdf(x), -19, 21, epsabs=1e-12)[0]
    assert expected["auc"] == pytest.approx(ranked)


def test_what_is_expected_of_the_noisy_oracles_returns_is_what_summing_over_its_noise_gives() -> None:
    """Each row's score for each of many sizes of noise, weighed by the normal density: no closed form."""
    stats = pytest.importorskip("scipy.stats", reason="needs SciPy, which CI installs")
    data = market(120, 10, drift=0.3)
    r, q = data.log_return[:, None], np.sqrt(np.mean(data.log_return**2))
    z = np.linspace(-8, 8, 20_001)
    weight = stats.norm.pdf(z) / stats.norm.pdf(z).sum()
    e = (r + noisy.KAPPA * q * z) / (1 + noisy.KAPPA**2)  # (n, sizes of noise)
    half = stats.norm.ppf(0.95) * q * noisy.KAPPA / np.sqrt(1 + noisy.KAPPA**2)
    low, high = r - (e - half), r - (e + half)
    rows: dict[str, Float64] = {
        "r2": 1 - (r - e) ** 2 / q**2,
        "mae": np.abs(r - e),
        "coverage_90": np.where((low >= 0) & (high <= 0), 1.0, 0.0),
        "pinball_low": np.where(low > 0, 0.05 * low, -0.95 * low),
        "pinball_high": np.where(high > 0, 0.95 * high, -0.05 * high),
        "return_bar": np.sign(e) * np.expm1(r),
    }
    said = noisy.noisy(data, np.random.default_rng(0))
    expected = {each.figure: each for each in noisy.of_noisy(data, said)}
    for figure, terms in rows.items():
        mean = terms @ weight
        error = np.sqrt(np.sum((terms - mean[:, None]) ** 2 @ weight)) / len(data)
        assert expected[figure].value == pytest.approx(mean.mean(), rel=1e-3), figure
        assert expected[figure].error == pytest.approx(error, rel=1e-3), figure
    assert expected["rmse"].error == pytest.approx(
        expected["r2"].error * q**2 / (2 * np.sqrt(q**2 * np.mean(1 - rows["r2"] @ weight))), rel=1e-3
    )


def test_the_spread_of_the_noisy_oracles_ic_is_that_of_many_draws() -> None:
    """Of 20,000 draws: two per cent are four standard errors of a deviation."""
    data = market(500, 11, drift=0.3)
    r, rng = data.log_return, np.random.default_rng(12)
    noise = noisy.KAPPA * np.sqrt(np.mean(r**2)) * rng.standard_normal((20_000, 500))
    ics = np.array([np.corrcoef(r, r + each)[0, 1] for each in noise])
    said = noisy.noisy(data, rng)
    ic = next(each for each in noisy.of_noisy(data, said) if each.figure == "ic")
    assert ics.mean() == pytest.approx(ic.value, abs=0.002)
    assert ics.std() == pytest.approx(ic.error, rel=0.025)


def test_too_few_ups_or_downs_are_not_judged_by() -> None:
    few = market(60, 6)
    assert controls.check(replace(few, up=np.zeros(60, np.float32)), judge) == ()


def test_equal_seeds_give_equal_checks() -> None:
    data = market(500, 7)
    assert controls.check(data, judge) == controls.check(data, judge)
    assert controls.check(data, judge) != controls.check(data, judge, seed=1)


def test_all_controls_over_thirty_thousand_rows_take_well_under_a_second() -> None:
    data = market(30_000, 8)
    took = []
    for _ in range(3):
        begun = process_time()
        controls.check(data, judge, earn)
        took.append(process_time() - begun)
    assert min(took) < 1


def test_a_check_is_a_row_of_the_document() -> None:
    check = controls.check(market(500, 9), judge)[0]
    assert set(check.document()) == {"name", "figure", "expected", "tolerance", "found", "passed"}
