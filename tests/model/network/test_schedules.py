"""Laws of every schedule: PyTorch's numbers where it has the same, and where a training begins and ends."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.errors import BadInput
from model.network.schedules import SCHEDULES, Schedule, cosine, one_cycle, plateau, stairs, warmed

STEPS = 60


def curve(schedule: Schedule, steps: int = STEPS) -> list[float]:
    return [schedule(step, steps) for step in range(steps)]


@pytest.mark.parametrize("name", SCHEDULES)
@given(steps=st.integers(1, 500), share=st.floats(0, 1, exclude_max=True))
def test_a_factor_lies_between_nothing_and_the_whole_rate(name: str, steps: int, share: float) -> None:
    for schedule in (SCHEDULES[name], warmed(SCHEDULES[name], share)):
        assert all(0 < factor <= 1 for factor in curve(schedule, steps))


@pytest.mark.parametrize("name", SCHEDULES)
def test_no_warm_up_changes_nothing(name: str) -> None:
    assert curve(warmed(SCHEDULES[name], 0.0)) == curve(SCHEDULES[name])


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_warm_up_rises_in_equal_steps_to_the_start_of_the_rest(name: str) -> None:
    schedule = SCHEDULES[name]
    found = curve(warmed(schedule, 0.25))
    np.testing.assert_allclose(np.diff([0.0, *found[:16]]), schedule(0, 45) / 16)
    assert found[15:] == curve(schedule, 45)


@pytest.mark.parametrize("share", [-0.1, 1.0, math.nan])
def test_a_warm_up_that_leaves_no_rest_is_refused(share: float) -> None:
    with pytest.raises(BadInput, match="warm-up"):
        warmed(cosine, share)


def test_cosine_is_half_a_cosine_to_zero() -> None:
    for step in range(STEPS):
        assert cosine(step, STEPS) == 0.5 * (1 + np.cos(np.pi * step / STEPS))


@given(st.integers(1, 12), st.integers(1, 40))
def test_stairs_have_equal_treads_whatever_their_share_rounds_to(treads: int, width: int) -> None:
    steps = treads * width
    found = [stairs(step, steps, 0.5, 1 / treads) for step in range(steps)]
    assert found == [0.5 ** (step // width) for step in range(steps)]
    assert 0.07 * 100 > 7
    assert [stairs(step, 100, 0.5, 0.07) for step in (6, 7, 13, 14)] == [1.0, 0.5, 0.5, 0.25]


def test_one_cycle_rises_falls_and_ends_below_its_start() -> None:
    found = curve(one_cycle)
    top = int(np.argmax(found))
    assert (found[0], found[top], found[-1]) == (1 / 25, 1.0, pytest.approx(1 / 250_000))
    assert top == 17  # 0.3 of the steps, counted from 0
    assert (np.diff(found[: top + 1]) > 0).all()
    assert (np.diff(found[top:]) < 0).all()


def _theirs(torch: Any, make: Callable[[Any], Any]) -> list[float]:
    """What PyTorch's scheduler makes of a learning rate of 1, step by step."""
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler, found = make(optimiser), []
    for _ in range(STEPS):
        found.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        scheduler.step()
    return found


@pytest.mark.parametrize("name", SCHEDULES)
def test_factors_are_those_of_pytorch(name: str) -> None:
    torch = pytest.importorskip("torch", reason="needs PyTorch, which CI installs")
    lr = torch.optim.lr_scheduler
    makers: dict[str, Callable[[Any], Any]] = {
        "constant": lambda o: lr.ConstantLR(o, factor=1.0),
        "step": lambda o: lr.StepLR(o, step_size=STEPS // 3, gamma=0.1),
        "cosine": lambda o: lr.CosineAnnealingLR(o, T_max=STEPS),
        "one_cycle": lambda o: lr.OneCycleLR(o, max_lr=1.0, total_steps=STEPS + 1, cycle_momentum=False),
    }
    assert name in makers, f"name PyTorch's {name}, as an oracle for its row"
    ours = curve(SCHEDULES[name], STEPS + 1 if name == "one_cycle" else STEPS)[
        :STEPS
    ]  # it refuses a step too many
    np.testing.assert_allclose(ours, _theirs(torch, makers[name]), rtol=1e-9, atol=1e-12)


@pytest.mark.filterwarnings("ignore::UserWarning")  # SequentialLR's own use of what it has deprecated
def test_a_warm_up_is_that_of_pytorch() -> None:
    torch = pytest.importorskip("torch", reason="needs PyTorch, which CI installs")
    lr = torch.optim.lr_scheduler

    def make(o: Any) -> Any:
        rising = lr.LinearLR(o, start_factor=1 / 7, total_iters=6)
        return lr.SequentialLR(o, [rising, lr.CosineAnnealingLR(o, T_max=STEPS - 6)], milestones=[6])

    np.testing.assert_allclose(curve(warmed(cosine, 0.1)), _theirs(torch, make), rtol=1e-9, atol=1e-12)


LOSSES = st.lists(
    st.one_of(st.integers(1, 9).map(float), st.just(math.nan), st.floats(0.9, 1.1)), max_size=60
)


@given(LOSSES, st.integers(0, 5), st.sampled_from([0.1, 0.5]), st.integers(0, 3))
def test_plateaus_are_those_of_pytorch(losses: list[float], patience: int, factor: float, rest: int) -> None:
    torch = pytest.importorskip("torch", reason="needs PyTorch, which CI installs")
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimiser, patience=patience, factor=factor, cooldown=rest, eps=0.0
    )
    for epoch, loss in enumerate(losses):
        assert plateau(losses[:epoch], patience, factor, rest=rest) == optimiser.param_groups[0]["lr"]
        theirs.step(loss)
    assert plateau(losses, patience, factor, rest=rest) == optimiser.param_groups[0]["lr"]


@pytest.mark.parametrize(
    ("losses", "factor"),
    [
        ([], 1.0),
        ([1.0, 0.9, 0.8, 0.7], 1.0),
        ([1.0, 1.0, 1.0], 1.0),  # two that are no better: as many as is waited for
        ([1.0, 1.0, 1.0, 1.0], 0.5),
        ([1.0, 1.0, 1.0, 0.9, 1.0, 1.0], 1.0),  # a better one begins the count anew
        ([1.0] * 7, 0.25),
        ([1.0, 0.99999, 0.99998, 0.99997], 0.5),  # better by less than a share of 1e-4 is no better
        ([-1.0, -1.00001, -1.00002, -1.00003], 0.5),  # below zero too
        ([-1.0, -1.001, -1.002, -1.003], 1.0),
        ([1.0, math.nan, math.nan, math.nan], 0.5),
        ([math.inf, 3.0, 2.0, 1.0], 1.0),
    ],
)
def test_a_plateau_is_more_losses_in_a_row_without_a_better_one_than_patience(
    losses: list[float], factor: float
) -> None:
    assert plateau(losses, patience=2, factor=0.5) == factor


def test_nothing_is_counted_in_the_rest_after_a_plateau() -> None:
    assert plateau([1.0] * 9, patience=2, factor=0.5) == 0.25
    assert plateau([1.0] * 9, patience=2, factor=0.5, rest=3) == 0.5
    assert plateau([1.0] * 10, patience=2, factor=0.5, rest=3) == 0.25


@given(LOSSES)
def test_a_longer_curve_never_raises_the_rate_again(losses: list[float]) -> None:
    found = [plateau(losses[:n], patience=1) for n in range(len(losses) + 1)]
    assert found == sorted(found, reverse=True)
