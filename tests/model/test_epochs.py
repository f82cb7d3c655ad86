"""Laws of the training loop: its curves beside autograd's and PyTorch's, its memory, weights, paces and broken members."""

import gc
import math
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import count, pairwise
from typing import Any, ClassVar

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import grad
from hypothesis import given
from hypothesis import strategies as st

from model.config import TrainConfig
from model.epochs import Epoch, Examples, batches_of, epochs, examples, pooled
from model.network import network
from model.network.losses import BinaryCrossEntropy, Huber
from model.network.network import Architecture, Network, perceptron
from model.network.objective import Head
from model.network.optimisers import OPTIMISERS

ROWS, INPUTS, BATCH = 320, 5, 16
SHAPES = (INPUTS, 7, 4, 2)
HEADS = (Head(BinaryCrossEntropy(), 1.0, "up"), Head(Huber(), 0.2, "return"))
# five epochs of twenty batches: the hundred steps in which curves must coincide
HUNDRED = TrainConfig(
    epochs=5,
    batch=BATCH,
    schedule="constant",
    learning_rate=3e-3,
    weight_decay=0.1,
    clip_norm=1e9,
    return_weight=0.2,
)
SMOOTH = perceptron(INPUTS, SHAPES[1:-1], 2, activation="tanh")
DRAW = np.random.default_rng(7)
X = DRAW.standard_normal((ROWS, INPUTS))
UP = (X[:, 0] + 0.5 * DRAW.standard_normal(ROWS) > 0).astype(float)
RETURN = X @ DRAW.standard_normal(INPUTS) + DRAW.standard_normal(ROWS)

# What may be set beside the optimiser, and the settings that do it. The norms of these gradients are about 0.1 to 1.
PLANS: dict[str, dict[str, Any]] = {
    "plain": {},
    "clipped": {"clip_norm": 0.05},
    "cut": {"clip_value": 0.02, "warm_up": 0.2},
    "cosine": {"schedule": "cosine"},
    "everything": {"schedule": "cosine", "warm_up": 0.2, "clip_value": 0.02, "clip_norm": 0.05},
}


def started(
    architecture: Architecture = SMOOTH, members: int = 1, dtype: Any = np.float64, seed: int = 0
) -> Network:
    rngs = [np.random.default_rng(seed + k) for k in range(members)]
    return network.initialise(architecture, rngs, dtype)


def rngs(members: int = 1, seed: int = 5) -> list[np.random.Generator]:
    return [np.random.default_rng(seed + k) for k in range(members)]


def walked(
    start: Network, given: Examples, config: TrainConfig, heads: Sequence[Head] = HEADS, **more: Any
) -> list[Epoch]:
    return list(epochs(start, given, heads, config, more.pop("rngs", rngs(start.members)), **more))


GIVEN = examples(X, (UP, RETURN))


def shuffled(config: TrainConfig, seed: int = 5) -> list[np.ndarray]:
    """The rows of each step, drawn once more: every epoch shuffles the order that the one before it left."""
    rng, order, steps = np.random.default_rng(seed), np.arange(ROWS), []
    for _ in range(config.epochs):
        rng.shuffle(order)
        steps += [order[i : i + BATCH].copy() for i in range(0, ROWS, BATCH)]
    return steps


def factor(config: TrainConfig, step: int, steps: int) -> float:
    """Schedules once more: a linear climb, and a constant or half a cosine over the rest."""
    climb = round(config.warm_up * steps)
    if step < climb:
        return (step + 1) / (climb + 1)
    if config.schedule == "constant":
        return 1.0
    return (1 + math.cos(math.pi * (step - climb) / (steps - climb))) / 2


# --- everybody's oracle: autograd, with steps as the papers have them


def slow_loss(flat: Any, x: np.ndarray, up: np.ndarray, target: np.ndarray) -> Any:
    """The joint loss of a tanh perceptron whose flat parameters are W and b of each layer in turn."""
    a, at = x, 0
    for layer, (i, o) in enumerate(pairwise(SHAPES)):
        W, b = flat[at : at + i * o].reshape(i, o), flat[at + i * o : at + i * o + o]
        a, at = a @ W + b, at + i * o + o
        a = a if layer == len(SHAPES) - 2 else anp.tanh(a)
    error = anp.abs(a[:, 1] - target)
    huber = anp.where(error < 1, 0.5 * error**2, error - 0.5)
    return anp.mean(anp.logaddexp(0, a[:, 0]) - up * a[:, 0]) + 0.2 * anp.mean(huber)


def cut_and_clipped(g: np.ndarray, config: TrainConfig) -> np.ndarray:
    if config.clip_value is not None:
        g = np.clip(g, -config.clip_value, config.clip_value)
    norm = float(np.sqrt((g**2).sum()))
    return g * min(1.0, config.clip_norm / norm)


def slow_twin(
    flat: np.ndarray, config: TrainConfig, rules: Callable[..., np.ndarray]
) -> tuple[np.ndarray, list[float]]:
    """Parameters after all steps, and each epoch's mean loss."""
    losses, steps, memory = [], shuffled(config), {}
    for step, rows in enumerate(steps):
        batch = X[rows], UP[rows], RETURN[rows]
        losses.append(float(slow_loss(flat, *batch)))
        g = cut_and_clipped(grad(slow_loss)(flat, *batch), config)
        rate = config.learning_rate * factor(config, step, len(steps))
        flat = rules(flat, g, rate, config.weight_decay, step + 1, memory)
    return flat, [float(np.mean(losses[i : i + ROWS // BATCH])) for i in range(0, len(losses), ROWS // BATCH)]


def by_sgd(p: Any, g: Any, rate: float, decay: float, t: int, memory: dict[str, Any]) -> Any:
    return p - rate * g - rate * decay * p


def by_nesterov(p: Any, g: Any, rate: float, decay: float, t: int, memory: dict[str, Any]) -> Any:
    memory["v"] = 0.9 * memory.get("v", 0) + g
    return p - rate * (g + 0.9 * memory["v"]) - rate * decay * p


def by_adamw(p: Any, g: Any, rate: float, decay: float, t: int, memory: dict[str, Any]) -> Any:
    memory["m"] = 0.9 * memory.get("m", 0) + 0.1 * g
    memory["v"] = 0.999 * memory.get("v", 0) + 0.001 * g**2
    m, v = memory["m"] / (1 - 0.9**t), memory["v"] / (1 - 0.999**t)
    return p - rate * m / (v**0.5 + 1e-8) - rate * decay * p


SLOW = {"sgd": by_sgd, "nesterov": by_nesterov, "adamw": by_adamw}


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("optimiser", SLOW)
def test_a_training_curve_is_that_of_a_slow_twin(optimiser: str, plan: str) -> None:
    config = replace(HUNDRED, optimiser=optimiser, **PLANS[plan])
    start = started()
    flat, losses = slow_twin(start.parameters[0], config, SLOW[optimiser])
    walk = walked(start, GIVEN, config)
    np.testing.assert_allclose([epoch.train_loss[0] for epoch in walk], losses, atol=1e-10)
    np.testing.assert_allclose(walk[-1].networks.parameters[0], flat, atol=1e-10)


# --- PyTorch


def torch_optimiser(torch: Any, name: str, parameters: Any, config: TrainConfig) -> tuple[Any, bool]:
    """PyTorch's own optimiser, and whether decay is decoupled but not known to it, so that the caller has to decay."""
    rate, decay = config.learning_rate, config.weight_decay
    optim = torch.optim
    if name == "lion":
        return _lion(torch)(parameters, rate), True
    return {
        "sgd": lambda: (optim.SGD(parameters, rate), True),
        "momentum": lambda: (optim.SGD(parameters, rate, momentum=0.9), True),
        "nesterov": lambda: (optim.SGD(parameters, rate, momentum=0.9, nesterov=True), True),
        "adagrad": lambda: (optim.Adagrad(parameters, rate), True),
        "rmsprop": lambda: (optim.RMSprop(parameters, rate), True),
        "adam": lambda: (optim.Adam(parameters, rate, weight_decay=decay), False),
        "adamw": lambda: (optim.AdamW(parameters, rate, weight_decay=decay), False),
    }[name]()


def _lion(torch: Any) -> Any:
    """Chen et al. 2023, algorithm 2, which PyTorch has not."""

    class Lion(torch.optim.Optimizer):  # type: ignore[misc, name-defined]
        def __init__(self, parameters: Any, rate: float) -> None:
            super().__init__(parameters, {"lr": rate})

        @torch.no_grad()
        def step(self) -> None:  # type: ignore[override]
            for group in self.param_groups:
                for p in group["params"]:
                    m = self.state[p].setdefault("m", torch.zeros_like(p))
                    p -= group["lr"] * torch.sign(0.9 * m + 0.1 * p.grad)
                    m.mul_(0.99).add_(p.grad, alpha=0.01)

    return Lion


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_a_training_curve_coincides_with_pytorchs(optimiser: str, plan: str) -> None:
    torch = pytest.importorskip("torch", reason="needs PyTorch, which CI installs")
    config = replace(HUNDRED, optimiser=optimiser, **PLANS[plan])
    torch.set_num_threads(1)
    start = started()
    linear = [torch.nn.Linear(i, o, dtype=torch.float64) for i, o in pairwise(SHAPES)]
    model = torch.nn.Sequential(linear[0], torch.nn.Tanh(), linear[1], torch.nn.Tanh(), linear[2])

    def flat() -> np.ndarray:
        parts = [part for layer in linear for part in (layer.weight.T.ravel(), layer.bias)]
        return np.asarray(torch.cat(parts).detach().numpy())

    at = 0
    with torch.no_grad():
        for layer in linear:
            for parameter in (layer.weight.T, layer.bias):
                values = start.parameters[0, at : at + parameter.numel()].reshape(parameter.shape)
                parameter.copy_(torch.from_numpy(values))
                at += parameter.numel()
    np.testing.assert_array_equal(flat(), start.parameters[0])
    parameters = list(model.parameters())
    stepper, decays_by_hand = torch_optimiser(torch, optimiser, parameters, config)
    steps, losses = shuffled(config), []
    x, up, target = (torch.from_numpy(array) for array in (X, UP, RETURN))
    for step, rows in enumerate(steps):
        z = model(x[rows])
        loss = torch.nn.functional.binary_cross_entropy_with_logits(z[:, 0], up[rows])
        loss = loss + 0.2 * torch.nn.functional.huber_loss(z[:, 1], target[rows])
        stepper.zero_grad()
        loss.backward()
        if config.clip_value is not None:
            torch.nn.utils.clip_grad_value_(parameters, config.clip_value)
        # clip_grad_norm_ adds 1e-6 to the norm, which shows in the fifth digit of norms as small as these
        norm = torch.nn.utils.get_total_norm([parameter.grad for parameter in parameters])
        for parameter in parameters:
            parameter.grad *= torch.clamp(config.clip_norm / norm, max=1.0)
        rate = config.learning_rate * factor(config, step, len(steps))
        for group in stepper.param_groups:
            group["lr"] = rate
        if decays_by_hand:
            with torch.no_grad():
                for parameter in parameters:
                    parameter *= 1 - rate * config.weight_decay
        stepper.step()
        losses.append(loss.item())
    walk = walked(start, GIVEN, config)
    means = np.reshape(losses, (config.epochs, -1)).mean(axis=1)
    assert len(losses) == 100
    np.testing.assert_allclose([epoch.train_loss[0] for epoch in walk], means, atol=1e-6)
    np.testing.assert_allclose(walk[-1].networks.parameters[0], flat(), atol=1e-6)


@pytest.mark.parametrize("plan", PLANS)
def test_a_plan_is_one_that_makes_a_difference(plan: str) -> None:
    """Or else coinciding under it would show nothing."""
    if plan != "plain":
        one, other = (walked(started(), GIVEN, replace(HUNDRED, **PLANS[p])) for p in ("plain", plan))
        apart = np.abs(one[-1].networks.parameters - other[-1].networks.parameters).max()
        assert apart > 1e-3


# --- memory


class Enough(Exception):
    """What was to be seen has been seen."""


@dataclass(frozen=True)
class Metered:
    """Cross-entropy that reads the memory's meter at some of its steps: at the first of them what is held, at the others
    the highest peak since then. It ends the training at the last."""

    steps: tuple[int, ...]
    seen: list[int] = field(default_factory=list)
    outputs: ClassVar[int] = 1

    def bind(self, *arrays: Any) -> Callable[[], None]:
        inner, calls = BinaryCrossEntropy().bind(*arrays), count(1)

        def call() -> None:
            step = next(calls)
            if step == self.steps[0]:
                gc.collect()
                tracemalloc.reset_peak()
                self.seen.append(tracemalloc.get_traced_memory()[0])
            elif step in self.steps:
                self.seen.append(tracemalloc.get_traced_memory()[1])
            if step == self.steps[-1]:
                raise Enough
            inner()

        return call


MEASURED: dict[str, dict[str, Any]] = {
    **{name: {"optimiser": name} for name in OPTIMISERS},
    "dropout": {"dropout": 0.3},
    "layer": {"normalisation": "layer"},
    "batch": {"normalisation": "batch"},
    "residual": {"residual": True, "activation": "gelu"},
    "cut": {"clip_value": 1e-3, "clip_norm": 1e-3},
    "weighed": {"half_life": 1_000},
    "members": {"members": 3, "dropout": 0.2},
    "one cycle": {"schedule": "one_cycle", "warm_up": 0.1},
}


@pytest.mark.parametrize("what", MEASURED)
def test_a_step_allocates_no_array(what: str) -> None:
    """From step 10 to step 1,000 of one epoch the peak is flat, and above what is held by less than half of a layer's
    smallest signal; under a normalisation, by no more than the buffers that NumPy has for what does not lie at one
    stride. The steps at which health looks are among them, and the middle one, from which it makes an epoch's figures.
    """
    settings = dict(MEASURED[what])
    members = settings.pop("members", 1)
    batches, batch, inputs = 1_600, 128, 64
    config = replace(HUNDRED, epochs=1, batch=batch, clip_norm=1.0, hidden=(64, 64), dropout=0.0)
    config = replace(config, **settings)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batches * batch, inputs), np.float32)
    up = (x[:, 0] > 0).astype(np.float32)
    weight = rng.uniform(0.5, 1.5, len(x)) if config.half_life else None
    one = examples(x, (up, up), weight)
    meter = Metered((10, 20, 1_000))
    heads = (Head(meter, 1.0, "up"), Head(Huber(), 0.2, "return"))
    start = started(config.architecture(inputs), members, np.float32)
    tracemalloc.start()
    try:
        with pytest.raises(Enough):
            walked(start, pooled([one] * members), config, heads)
    finally:
        tracemalloc.stop()
    held, early, late = meter.seen
    buffers = 0 if config.normalisation is None else 3 * np.getbufsize() * 4
    noise = batch * (inputs + 1) * 4 / 2  # Python's own objects come and go
    assert late - early < noise
    assert late - held < noise + buffers


# --- rows and batches


@given(rows=st.integers(1, 5_000), batch=st.integers(1, 10_000))
def test_batches_are_of_one_size_near_that_asked_for_and_leave_out_next_to_nothing(
    rows: int, batch: int
) -> None:
    batches, size = batches_of(rows, batch)
    assert batches >= 1
    assert 1 <= size <= rows
    assert rows - batches < batches * size <= rows, "fewer rows than there are batches sit out"
    if batch >= rows:
        assert (batches, size) == (1, rows)
    assert 2 / 3 * batch - 1 <= size <= 3 / 2 * batch or batches == 1


@given(sizes=st.lists(st.integers(1, 6), min_size=1, max_size=4), data=st.data())
def test_pooled_members_see_their_own_rows_and_what_is_shared_is_there_once(
    sizes: list[int], data: st.DataObject
) -> None:
    alone, at = [], 0
    for n in sizes:
        numbers = np.arange(at, at + n, dtype=float)
        alone.append(examples(numbers[:, None], (numbers, -numbers), numbers + 0.5))
        at += n
    picked = data.draw(st.lists(st.sampled_from(alone), min_size=1, max_size=6))
    pool = pooled(picked)
    assert len(pool.x) == sum(len(one.x) for one in {id(one): one for one in picked}.values())
    for own, one in zip(pool.rows, picked, strict=True):
        np.testing.assert_array_equal(pool.x[own], one.x)
        np.testing.assert_array_equal(pool.targets[0][own], one.targets[0])
        np.testing.assert_array_equal(pool.targets[1][own], one.targets[1])
        np.testing.assert_array_equal(pool.weight[own], one.weight)


def test_members_that_share_their_inputs_alone_keep_their_own_targets_and_weights() -> None:
    one = examples(X, (UP, RETURN))
    other = replace(one, targets=(1 - UP, RETURN), weight=DRAW.uniform(0.5, 1.5, ROWS))
    pool = pooled([one, other])
    for own, member in zip(pool.rows, (one, other), strict=True):
        np.testing.assert_array_equal(pool.x[own], member.x)
        np.testing.assert_array_equal(pool.targets[0][own], member.targets[0])
        np.testing.assert_array_equal(pool.weight[own], member.weight)


@dataclass(frozen=True)
class Seen:
    """Squared, so to speak, that notes the targets of each step."""

    targets: list[np.ndarray]
    outputs: ClassVar[int] = 1

    def bind(self, outputs: Any, target: Any, weight: Any, losses: Any, d_outputs: Any) -> Callable[[], None]:
        def call() -> None:
            self.targets.append(target.copy())
            losses.fill(0)
            d_outputs.fill(0)

        return call


def test_each_epoch_visits_every_row_once_in_another_order() -> None:
    seen = Seen([])
    names = np.arange(ROWS, dtype=float)
    walked(
        started(perceptron(INPUTS, (3,), 1)), examples(X, (names,)), replace(HUNDRED, epochs=2), (Head(seen),)
    )
    first, second = np.array(seen.targets).reshape(2, ROWS)
    assert sorted(first) == sorted(second) == list(names)
    assert (first != second).any()
    assert (first != names).any()


def test_rows_that_sit_out_are_others_each_time() -> None:
    seen = Seen([])
    names = np.arange(19, dtype=float)
    given = examples(X[:19], (names,))
    walked(started(perceptron(INPUTS, (3,), 1)), given, replace(HUNDRED, epochs=20, batch=4), (Head(seen),))
    batches, size = batches_of(19, 4)
    assert batches * size == 15
    epoch_rows = np.array(seen.targets).reshape(20, 15)
    assert all(len(set(rows)) == 15 for rows in epoch_rows)
    assert set(epoch_rows.ravel()) == set(names)


# --- weights

WHOLE = replace(HUNDRED, batch=ROWS * 10, epochs=30, learning_rate=0.02)  # an epoch is one step


def test_a_row_that_counts_twice_is_a_row_that_is_there_twice() -> None:
    """Full batches, so that nothing is left to chance: every gradient, and the path that follows, is the same."""
    times = DRAW.integers(0, 4, ROWS)
    repeated = np.repeat(np.arange(ROWS), times)
    weight = times / times.mean()
    as_weights = walked(started(), examples(X, (UP, RETURN), weight), WHOLE)
    as_rows = walked(started(), examples(X[repeated], (UP[repeated], RETURN[repeated])), WHOLE)
    for one, other in zip(as_weights, as_rows, strict=True):
        np.testing.assert_allclose(one.train_loss, other.train_loss, rtol=1e-11)
        np.testing.assert_allclose(one.networks.parameters, other.networks.parameters, atol=1e-10)
    apart = np.abs(as_rows[-1].networks.parameters - walked(started(), GIVEN, WHOLE)[-1].networks.parameters)
    assert apart.max() > 1e-2, "here weights were to matter"


def test_over_all_batches_the_weighted_losses_are_those_of_repeated_rows() -> None:
    """At a rate of next to nothing an epoch's mean loss is that of the start over all rows, each as often as it counts."""
    times = DRAW.integers(0, 4, ROWS)
    still = replace(HUNDRED, epochs=1, learning_rate=1e-15)
    start = started()
    (epoch,) = walked(start, examples(X, (UP, RETURN), times / times.mean()), still)
    repeated = np.repeat(np.arange(ROWS), times)
    expected = slow_loss(start.parameters[0], X[repeated], UP[repeated], RETURN[repeated])
    assert epoch.train_loss[0] == pytest.approx(float(expected), rel=1e-10)


def test_weights_of_one_change_no_bit_beside_a_member_that_has_others() -> None:
    """A member without weights of its own goes the way of weighted ones where it is beside one."""
    weighted = examples(X.copy(), (UP, RETURN), DRAW.uniform(0.5, 1.5, ROWS))
    both = walked(started(members=2), pooled([GIVEN, weighted]), HUNDRED)
    alone = walked(started(), GIVEN, HUNDRED)
    for together, single in zip(both, alone, strict=True):
        assert together.train_loss[0] == single.train_loss[0]
        assert (together.networks.parameters[0] == single.networks.parameters[0]).all()


# --- paces and schedules


def test_a_pace_is_a_factor_of_the_members_learning_rate() -> None:
    """Asked before each epoch, by member: one at half the pace goes as with half the rate, the other as ever."""
    paces = {0: [1.0, 0.5, 0.25], 1: [1.0, 1.0, 1.0]}
    asked: list[int] = []

    def pace(member: int) -> float:
        asked.append(member)
        return paces[member][asked.count(member) - 1]

    config = replace(HUNDRED, epochs=3)
    walk = walked(started(members=2), pooled([GIVEN, GIVEN]), config, pace=pace)
    assert asked == [0, 1] * 3
    flat, steps, memory = started().parameters[0], shuffled(config), {}  # type: ignore[var-annotated]
    for step, rows in enumerate(steps):
        g = grad(slow_loss)(flat, X[rows], UP[rows], RETURN[rows])
        rate = config.learning_rate * paces[0][step * 3 // len(steps)]
        flat = by_adamw(flat, g, rate, config.weight_decay, step + 1, memory)
    np.testing.assert_allclose(walk[-1].networks.parameters[0], flat, atol=1e-10)
    steady = walked(started(members=2), pooled([GIVEN, GIVEN]), config)
    assert (walk[-1].networks.parameters[1] == steady[-1].networks.parameters[1]).all()


def test_a_warm_up_climbs_to_the_rate_in_equal_steps() -> None:
    config = replace(WHOLE, epochs=10, optimiser="sgd", weight_decay=0.0, warm_up=0.4, learning_rate=1e-6)
    walk = [started(), *(epoch.networks for epoch in walked(started(), GIVEN, config))]
    # so slowly that the gradient stays what it is: the lengths of steps are those of the rates
    moved = [np.abs(b.parameters - a.parameters).max() for a, b in pairwise(walk)]
    np.testing.assert_allclose(np.divide(moved, moved[-1]), [0.2, 0.4, 0.6, 0.8, 1, 1, 1, 1, 1, 1], rtol=1e-4)


# --- what an epoch leaves, and members that break


def test_an_epochs_networks_are_copies_and_the_start_is_left_alone() -> None:
    batch_norm = perceptron(INPUTS, (6,), 2, normalisation="batch")
    start = started(batch_norm)
    before = start.copy()
    walk = epochs(start, GIVEN, HEADS, HUNDRED, rngs())
    kept = [(epoch.networks, epoch.networks.copy()) for epoch in walk]
    for network_then, copy in kept:
        assert (network_then.parameters == copy.parameters).all()
        assert (network_then.statistics == copy.statistics).all()
    assert (kept[0][1].statistics != kept[1][1].statistics).all()
    assert (start.parameters == before.parameters).all()
    assert (start.statistics == before.statistics).all()


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_a_member_that_breaks_is_not_moved_again_and_the_others_do_not_notice(optimiser: str) -> None:
    config = replace(HUNDRED, optimiser=optimiser)
    poisoned = X.copy()
    poisoned[100, 2] = np.nan
    given = pooled([GIVEN, examples(poisoned, (UP, RETURN)), GIVEN])
    walk = walked(started(members=3), given, config)
    assert [epoch.number for epoch in walk] == [1, 2, 3, 4, 5]
    for member in (0, 2):
        alone = walked(started(seed=member), GIVEN, config, rngs=rngs(seed=5 + member))
        for together, single in zip(walk, alone, strict=True):
            assert together.broke[member] is None
            assert together.train_loss[member] == single.train_loss[0]
            assert together.health[member] == single.health[0]
            assert (together.networks.parameters[member] == single.networks.parameters[0]).all()
    first = walk[0].networks.parameters[1]
    for epoch in walk:
        assert "epoch 1, first in the inputs" in (epoch.broke[1] or "")
        assert np.isfinite(epoch.networks.parameters[1]).all()
        assert (epoch.networks.parameters[1] == first).all(), "no step was taken after it broke"


def test_after_the_last_member_broke_there_is_no_further_epoch() -> None:
    X_nan = X.copy()
    X_nan[100, 2] = np.nan
    walk = walked(started(), examples(X_nan, (UP, RETURN)), HUNDRED)
    assert len(walk) == 1
    assert walk[0].broke[0] is not None
    assert np.isfinite(walk[0].networks.parameters).all()
    assert {row.verdict for row in walk[0].health[0]} & {"non_finite"}


def test_the_step_before_which_a_loss_is_not_finite_is_not_taken() -> None:
    """With one batch an epoch: the weights left are those at which the gradient was no longer a number."""
    X_nan = X.copy()
    X_nan[0, 0] = np.nan
    start = started()
    (epoch,) = walked(start, examples(X_nan, (UP, RETURN)), WHOLE)
    assert (epoch.networks.parameters == start.parameters).all()


def test_equal_seeds_give_equal_bits_and_others_do_not() -> None:
    dropping = perceptron(INPUTS, (6,), 2, dropout=0.3)
    one, same, other = (
        walked(started(dropping), GIVEN, HUNDRED, rngs=rngs(seed=seed))[-1].networks.parameters
        for seed in (1, 1, 2)
    )
    assert (one == same).all()
    assert (one != other).any()
