"""Laws of recalibration: outcomes move temperature and width towards what they show, and no further than that."""

import math

import numpy as np
import pytest

from model import recalibration
from model.recalibration import FRESH, HALF_LIFE, PRIOR_SPREAD, WIDEST, Recalibration


def moved(logits: np.ndarray, ups: np.ndarray, inside: np.ndarray | None = None) -> Recalibration:
    now = FRESH
    hits = np.ones(len(logits), bool) if inside is None else inside
    for row in zip(logits.tolist(), ups.tolist(), hits.tolist(), strict=True):
        now = recalibration.after(now, *row, 0.9)
    return now


def drawn(n: int, temperature: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are right once divided by `temperature`, and what came."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, n)
    return logits, rng.random(n) < 1 / (1 + np.exp(-logits / temperature))


@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.6])
def test_the_temperature_goes_to_where_it_is_most_probable(temperature: float) -> None:
    """Against a search of the same posterior, written out: discounted log loss and prior."""
    logits, ups = drawn(4_000, temperature)
    age = np.arange(len(logits))[::-1]
    weight = 0.5 ** (age / HALF_LIFE)

    def cost(log_t: float) -> float:
        z = logits * math.exp(-log_t)
        loss = np.logaddexp(0, z) - ups * z
        return float(weight @ loss + 0.5 * (log_t / PRIOR_SPREAD) ** 2)

    grid = np.linspace(-0.7, 0.8, 1_501)
    best = grid[np.argmin([cost(at) for at in grid])]
    assert moved(logits, ups).log_temperature == pytest.approx(best, abs=0.03)


def test_noise_moves_a_right_temperature_little() -> None:
    """Over 200 runs no more than the posterior's own spread."""
    ends = [moved(*drawn(500, 1.0, seed)) for seed in range(200)]
    spread = np.mean([end.certainty**-0.5 for end in ends])
    assert np.std([end.log_temperature for end in ends]) < spread


def test_little_signal_tells_little_and_the_prior_holds() -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 0.1, 1_000)
    end = moved(logits, rng.random(1_000) < 0.5)
    assert abs(end.log_temperature) < PRIOR_SPREAD


@pytest.mark.parametrize("share", [0.8, 0.9, 0.97])
def test_the_width_follows_the_share_inside(share: float) -> None:
    rng = np.random.default_rng(2)
    end = moved(np.zeros(2_000), np.zeros(2_000, bool), rng.random(2_000) < share)
    if share == 0.9:
        assert abs(end.log_width) < 0.4
    else:
        assert end.log_width * (0.9 - share) > 0


def test_in_the_long_run_the_share_inside_is_the_level_whatever_the_market_does() -> None:
    """Residuals whose size halves at once, and waves up and down by half; beside them an interval that stays as it is."""
    rng = np.random.default_rng(3)
    n = 30_000
    size = np.where(np.arange(n) < 10_000, 1.5, 0.7) * (1.2 + 0.6 * np.sin(np.arange(n) / 700))
    residuals = np.abs(rng.standard_t(4, n) * size)
    now, inside = FRESH, []
    for residual in residuals.tolist():
        hit = residual <= 1.645 * math.exp(now.log_width)
        inside.append(hit)
        now = recalibration.after(now, 0.0, True, hit, 0.9)
    assert np.mean(inside) == pytest.approx(0.9, abs=0.01)
    blocks = np.mean(np.reshape(inside, (30, -1)), axis=1)
    assert blocks.min() > 0.83
    fixed = np.mean(np.reshape(residuals <= 1.645, (30, -1)), axis=1)
    assert fixed.min() < blocks.min() - 0.1, "or else this market would show nothing"


def test_it_never_runs_away() -> None:
    never = moved(np.full(20_000, 15.0), np.zeros(20_000, bool), np.zeros(20_000, bool))
    always = moved(np.full(20_000, 15.0), np.ones(20_000, bool), np.ones(20_000, bool))
    assert never.log_width == WIDEST
    assert always.log_width == -WIDEST
    for end in (never, always):
        assert math.log(0.5) <= end.log_temperature <= math.log(5.0)
        assert math.isfinite(end.certainty)
