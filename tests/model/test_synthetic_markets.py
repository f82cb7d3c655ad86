"""Laws of the benchmarks' synthetic markets: what they say was planted, was; and it can be seen at the close before."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from benchmarks import markets
from benchmarks.markets import SIGNALS, STRENGTHS
from model import bars, breaks, features

HOURLY = bars.timeframe("1h")
STRONG = 0.7  # the AUC of the market that most tests look at

Float64 = NDArray[np.float64]


def made(name: str, n: int, seed: int = 5, flips: tuple[int, ...] = ()) -> markets.Planted:
    return markets.planted(n, seed, SIGNALS[name], STRENGTHS[name, STRONG], flips)


def from_features(name: str, column: dict[str, Float64]) -> Float64:
    """What a signal says, in terms of the default feature set alone."""
    now, busy = column["return_1"], column["volume_1"]
    if name == "linear":
        lags = [now, *(column[f"lag_{k}"] for k in range(1, 6))]
        return -0.8 * lags[0] + 0.5 * lags[1] + 0.4 * lags[2] - 0.3 * lags[3] + 0.3 * lags[5]
    if name == "product":
        return now * (busy + 0.1)
    return np.where(column["volatility_6_48"] > 0, -now, 0.0)


@pytest.mark.parametrize("name", SIGNALS)
def test_what_is_planted_is_a_function_of_the_default_features_at_the_close(name: str) -> None:
    market = made(name, 3_000)
    rows = features.rows(market.bars, HOURLY)
    column = dict(zip(features.DEFAULT.names, rows.X.T.astype(np.float64), strict=True))
    z = STRENGTHS[name, STRONG] * from_features(name, column)
    of_rows = market.p[-len(rows) :]
    settled = slice(markets.WARM, None)
    np.testing.assert_allclose(of_rows[settled], 1 / (1 + np.exp(-z[settled])), atol=1e-5)


@pytest.mark.parametrize("name", SIGNALS)
def test_the_next_bar_rises_as_often_as_planted(name: str) -> None:
    """Of bars with alike p the share of rises is that p, as far as coins allow; and so is the z score of all of them."""
    market = made(name, 30_000)
    close = market.bars["close"].to_numpy()
    up, p = (close[1:] > close[:-1]).astype(np.float64), market.p[:-1]
    order = np.argsort(p, kind="stable")
    for group in np.array_split(order, 20):
        error = np.sqrt(np.sum(p[group] * (1 - p[group])))
        assert abs(np.sum(up[group] - p[group])) < 4.5 * error
    cost = -np.where(up > 0, np.log(p), np.log1p(-p))
    spread = np.sqrt(np.mean(p * (1 - p) * np.log(p / (1 - p)) ** 2) / len(p))  # of the mean cost, given p
    assert abs(cost.mean() - markets.entropy(p)) < 4.5 * spread


@pytest.mark.parametrize(("name", "auc"), STRENGTHS)
def test_the_planted_probabilities_have_the_auc_that_is_told(name: str, auc: float) -> None:
    market = markets.planted(30_000, 77, SIGNALS[name], STRENGTHS[name, auc])
    assert markets.auc(market.p[markets.WARM :]) == pytest.approx(auc, abs=0.01)


@pytest.mark.parametrize("name", SIGNALS)
def test_no_later_bar_moves_an_earlier_one(name: str) -> None:
    """Bars are drawn one after another, and the same draws under another signal differ from where it begins to speak."""
    whole, flipped = made(name, 1_000), made(name, 1_000, flips=(700,))
    assert whole.bars[:701].equals(flipped.bars[:701])
    np.testing.assert_array_equal(whole.p[:700], flipped.p[:700])
    assert whole.p[700] == pytest.approx(1 - flipped.p[700])
    walk = markets.random_walk(1_000, 5)
    assert walk[: markets.WARM].equals(whole.bars[: markets.WARM])
    assert walk["volume"].equals(whole.bars["volume"])


def test_a_second_flip_restores_the_signal() -> None:
    twice = made("linear", 1_200, flips=(600, 900))
    z = np.log(twice.p / (1 - twice.p))
    rows = features.rows(twice.bars, HOURLY)
    column = dict(zip(features.DEFAULT.names, rows.X.T.astype(np.float64), strict=True))
    said = np.sign(from_features("linear", column))
    agrees = said == np.sign(z[-len(rows) :])
    assert agrees[600 - 256 : 900 - 256].mean() == 0
    assert agrees[900 - 256 :].all()


def test_a_random_walk_plants_nothing() -> None:
    assert markets.planted(500, 3, SIGNALS["linear"], 0.0).p.tolist() == [0.5] * 500


def test_volatility_clusters_and_directions_do_not() -> None:
    """Squared returns are correlated over many bars, returns are not: the band is five standard errors of a walk whose
    variance is as uneven (White 1980)."""
    walk = markets.random_walk(30_000, 11)
    r = np.diff(np.log(walk["close"].to_numpy()))
    sizes = np.abs(r)
    for lag in (1, 5, 20):
        assert np.corrcoef(sizes[lag:], sizes[:-lag])[0, 1] > 0.05
        products = r[lag:] * r[:-lag]
        assert abs(products.mean()) < 5 * products.std() / np.sqrt(len(products))
    excess = np.mean((r - r.mean()) ** 4) / r.var() ** 2 - 3
    assert excess > 1


@given(seed=st.integers(0, 10_000), n=st.integers(301, 700))
def test_bars_are_sane_and_without_breaks(seed: int, n: int) -> None:
    walk = markets.random_walk(n, seed)
    assert len(walk) == n
    o, h, low, c, v = (walk[name].to_numpy() for name in ("open", "high", "low", "close", "volume"))
    assert (np.maximum(o, c) <= h).all()
    assert (np.minimum(o, c) >= low).all()
    assert (low > 0).all()
    assert (v > 0).all()
    assert not breaks.find(walk, HOURLY).broken.any()
    assert walk.equals(markets.random_walk(n, seed))


@given(p=st.lists(st.floats(0.01, 0.99), min_size=2, max_size=30))
def test_auc_and_entropy_agree_with_their_definitions(p: list[float]) -> None:
    """By pairs and by outcomes, without a sort."""
    ahead = sum(a * (1 - b) * ((a > b) + (a == b) / 2) for a in p for b in p)
    assert markets.auc(np.array(p)) == pytest.approx(ahead / (sum(p) * sum(1 - a for a in p)))
    best = np.mean([sum(-q * np.log(q) for q in (a, 1 - a)) for a in p])
    assert markets.entropy(np.array(p)) == pytest.approx(best)
    assert markets.log_loss(np.array(p), np.array(p)) == pytest.approx(best)
    other = np.array(p)[::-1]
    assert markets.log_loss(np.array(p), other) >= markets.entropy(np.array(p)) - 1e-12
