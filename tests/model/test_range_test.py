"""Laws of the learning-rate range test."""

import numpy as np
import pytest

from model import doctor, range_test
from model.config import TrainConfig
from model.doctor import Patient, plain
from model.errors import BadInput
from model.network.layers import Dense
from model.network.losses import BinaryCrossEntropy, Huber, Squared
from model.network.network import Architecture, Network
from model.network.objective import Head
from model.network.optimisers import OPTIMISERS
from model.range_test import CLIMB, FALL, STEPS_A_DECADE, RangeTest, descent


def patient(**given: object) -> Patient:
    config = TrainConfig(**given)  # type: ignore[arg-type]
    return doctor.admit(*doctor.synthetic(rows=256), config)


def walked(p: Patient, **given: float) -> RangeTest:
    return range_test.range_test(p.start(), p.X, p.targets, p.heads, p.optimiser, **given)


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_the_span_lies_where_the_loss_falls_and_falls_apart(optimiser: str) -> None:
    found = walked(patient(optimiser=optimiser))
    assert found.low is not None
    assert found.high is not None
    assert 1e-6 < found.low < found.high < 1e3
    began = found.losses[0]
    first = int(np.searchsorted(found.rates, found.low * 0.999))
    assert found.losses[first] <= began * (1 - FALL)
    assert (found.losses[:first] > began * (1 - FALL)).all()
    quiet = found.losses[found.rates < found.high * 0.999]
    assert (quiet < np.minimum.accumulate(quiet) + CLIMB * began).all()


def test_rates_are_even_in_their_logarithm() -> None:
    found = walked(patient(), lowest=1e-6, highest=1e-4)
    assert len(found.rates) == len(found.losses) == 2 * STEPS_A_DECADE + 1
    np.testing.assert_allclose(np.diff(np.log10(found.rates)), 1 / STEPS_A_DECADE)
    assert (found.low, found.high) == (None, None)


def test_the_test_is_the_same_each_time_and_moves_nothing() -> None:
    p = patient(dropout=0.5)
    start = p.start()
    before = start.parameters.copy()
    first, again = (
        range_test.range_test(start, p.X, p.targets, p.heads, p.optimiser, clip_norm=1.0) for _ in range(2)
    )
    np.testing.assert_array_equal(first.losses, again.losses)
    np.testing.assert_array_equal(start.parameters, before)


def test_a_steep_valley_has_the_limit_that_arithmetic_gives() -> None:
    """On a parabola of curvature c gradient descent falls apart beyond a rate of 2/c, and not before."""
    curvature = 2 * 10.0**2  # the loss is (10 w - 30)² of one weight; its second derivative is 2 x²
    parts = Architecture(1, (Dense(1, "zero"),))
    x, target = np.array([[10.0], [-10.0]]), np.array([30.0, -30.0])
    start = Network(parts, np.zeros((1, 2)), np.empty((1, 0)))
    found = range_test.range_test(start, x, (target,), (Head(Squared()),), OPTIMISERS["sgd"])
    assert found.high is not None
    assert 2 / curvature < found.high < 20 / curvature
    assert found.low is not None
    assert found.low < 2 / curvature


def test_a_descent_yields_the_loss_before_each_step_and_after_the_last() -> None:
    p = patient(optimiser="sgd", dropout=0.0)
    walk = [(loss, net.parameters.copy()) for loss, net in descent(
        p.start(np.float64), p.X.astype(np.float64), p.targets, p.heads, p.optimiser, [0.1, 0.0, 0.1]
    )]  # fmt: skip
    seen = [loss for loss, _ in walk]
    assert len(seen) == 4
    assert seen[0] > seen[1] == seen[2] > seen[3]
    np.testing.assert_array_equal(walk[1][1], walk[2][1])
    parameters = walk[0][1][0]
    outputs = plain.chain(p.architecture.parts, p.X.astype(np.float64), parameters, parameters[:0])
    expected = plain.loss(BinaryCrossEntropy(), outputs[:, :1], p.up).mean()
    expected += 0.2 * plain.loss(Huber(), outputs[:, 1:], p.target).mean()
    assert seen[0] == pytest.approx(expected, rel=1e-12)


def test_clipping_holds_the_step() -> None:
    p = patient(optimiser="sgd", dropout=0.0)
    start = p.start(np.float64)
    *_, (_, moved) = descent(
        start, p.X.astype(np.float64), p.targets, p.heads, p.optimiser, [1.0], clip_norm=1e-3
    )
    assert np.linalg.norm(moved.parameters - start.parameters) == pytest.approx(1e-3)


def test_rates_that_do_not_grow_are_refused() -> None:
    for lowest, highest in ((0.0, 1.0), (1.0, 1.0), (1.0, 0.1)):
        with pytest.raises(BadInput, match="has to grow from above 0"):
            walked(patient(), lowest=lowest, highest=highest)


def test_a_start_without_a_finite_loss_has_no_range() -> None:
    p = patient()
    start = p.start()
    start.parameters[0, 0] = np.nan
    with pytest.raises(BadInput, match="not finite before any step"):
        range_test.range_test(start, p.X, p.targets, p.heads, p.optimiser)
