"""Laws of every optimiser: its papers' numbers, PyTorch's curves, that it works in place and member by member."""

import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.network.optimisers import BLOCK, OPTIMISERS, SETTLE_EVERY, clip_norm, clip_value, norms
from model.network.schedules import cosine

RATE, DECAY, STEPS = 0.01, 0.1, 100

# Parameters p under gradients g(p), as each paper writes it, slowly and for whatever p are, step by step.
Slope = Callable[[Any], Any]
Paper = Callable[[Any, Slope], Iterator[Any]]


def _sgd(p: Any, g: Slope) -> Iterator[Any]:
    while True:
        p = p - RATE * g(p) - RATE * DECAY * p
        yield p


def _momentum(p: Any, g: Slope) -> Iterator[Any]:
    v = 0.0
    while True:
        v = 0.9 * v + g(p)
        p = p - RATE * v - RATE * DECAY * p
        yield p


def _nesterov(p: Any, g: Slope) -> Iterator[Any]:
    """Sutskever et al. 2013, whose velocity is -RATE v and whose parameters lag behind ours by 0.9 of it."""
    velocity = 0.0
    while True:
        behind = p - 0.9 * velocity
        velocity = 0.9 * velocity - RATE * g(behind + 0.9 * velocity)
        p = behind + velocity + 0.9 * velocity - RATE * DECAY * p
        yield p


def _adagrad(p: Any, g: Slope) -> Iterator[Any]:
    total = 0.0
    while True:
        slope = g(p)
        total = total + slope**2
        p = p - RATE * slope / (total**0.5 + 1e-10) - RATE * DECAY * p
        yield p


def _rmsprop(p: Any, g: Slope) -> Iterator[Any]:
    v = 0.0
    while True:
        slope = g(p)
        v = 0.99 * v + (1 - 0.99) * slope**2
        p = p - RATE * slope / (v**0.5 + 1e-8) - RATE * DECAY * p
        yield p


def _adam(p: Any, g: Slope) -> Iterator[Any]:
    m = v = t = 0.0
    while True:
        t += 1
        slope = g(p) + DECAY * p
        m = 0.9 * m + (1 - 0.9) * slope
        v = 0.999 * v + (1 - 0.999) * slope**2
        m_hat, v_hat = m / (1 - 0.9**t), v / (1 - 0.999**t)
        p = p - RATE * m_hat / (v_hat**0.5 + 1e-8)
        yield p


def _adamw(p: Any, g: Slope) -> Iterator[Any]:
    m = v = t = 0.0
    while True:
        t += 1
        slope = g(p)
        m = 0.9 * m + (1 - 0.9) * slope
        v = 0.999 * v + (1 - 0.999) * slope**2
        m_hat, v_hat = m / (1 - 0.9**t), v / (1 - 0.999**t)
        p = p - RATE * (m_hat / (v_hat**0.5 + 1e-8) + DECAY * p)
        yield p


def _lion(p: Any, g: Slope) -> Iterator[Any]:
    m = 0.0
    while True:
        slope = g(p)
        update = np.sign(0.9 * m + (1 - 0.9) * slope)
        p = p - RATE * (update + DECAY * p)
        m = 0.99 * m + (1 - 0.99) * slope
        yield p


PAPERS: dict[str, Paper] = {
    "sgd": _sgd,
    "momentum": _momentum,
    "nesterov": _nesterov,
    "adagrad": _adagrad,
    "rmsprop": _rmsprop,
    "adam": _adam,
    "adamw": _adamw,
    "lion": _lion,
}


class Walk:
    """An optimiser with the buffers that it needs for parameters (K, P), which it moves in place."""

    def __init__(self, name: str, params: np.ndarray, rate: np.ndarray | float = RATE) -> None:
        self.optimiser, self.params, self.number = OPTIMISERS[name], params, 0
        self.moments = tuple(np.zeros_like(params) for _ in range(self.optimiser.moments))
        self.scratch = np.full_like(params, np.nan)  # nothing may be read from it
        self.rate = np.zeros((len(params), 1), params.dtype) + np.asarray(rate, params.dtype)

    def step(self, grads: np.ndarray, decay: float = DECAY) -> None:
        self.number += 1
        self.optimiser.step(self.params, grads, self.moments, self.scratch, self.number, self.rate, decay)


@pytest.mark.parametrize("name", OPTIMISERS)
def test_steps_are_those_of_the_paper(name: str) -> None:
    assert name in PAPERS, f"write {name} as its paper has it, as an oracle for its row"
    starts = np.array([[2.0, -1.0, 0.3, 0.0, 1e-3], [0.1, 7.0, -1e-9, 3.0, -2.0]])
    slopes = np.array([[1.0, 10.0, 0.01, 0.0, 3.0], [5.0, 0.3, 1.0, 1e-8, 2.0]])
    walk = Walk(name, starts.copy())
    paper = PAPERS[name](starts, lambda p: slopes * p)
    for _ in range(STEPS):
        walk.step(slopes * walk.params)
        np.testing.assert_allclose(walk.params, next(paper), rtol=1e-11, atol=1e-15)


@pytest.mark.parametrize("name", OPTIMISERS)
def test_each_member_walks_at_its_own_rate(name: str) -> None:
    starts, slopes = np.array([[2.0, -1.0], [2.0, -1.0]]), np.array([1.0, 3.0])
    walk = Walk(name, starts.copy(), rate=np.array([[RATE], [0.0]]))
    paper = PAPERS[name](starts[0], lambda p: slopes * p)
    for _ in range(10):
        walk.step(slopes * walk.params)
        np.testing.assert_allclose(walk.params[0], next(paper), rtol=1e-12)
        np.testing.assert_array_equal(walk.params[1], starts[1])


@pytest.mark.parametrize("name", OPTIMISERS)
def test_a_step_works_in_place(name: str) -> None:
    flat = np.ones((2, 10), np.float32)
    view = flat[:, 2:5]
    Walk(name, flat).step(np.full((2, 10), 0.5, np.float32), 0.0)
    assert (view < 1).all()
    assert flat.dtype == np.float32


@pytest.mark.parametrize("name", OPTIMISERS)
@pytest.mark.parametrize("shape", [(1, 20_000), (4, 5_000), (3, BLOCK // 2 - 7), (1, 2 * BLOCK + 5)])
def test_a_step_allocates_no_array(name: str, shape: tuple[int, int]) -> None:
    walk = Walk(name, np.ones(shape, np.float32))
    grads, lengths = np.ones(shape, np.float32), np.empty(len(walk.params), np.float32)

    def step() -> None:
        norms(grads, lengths)
        clip_norm(grads, 1.0, lengths)
        clip_value(grads, 1.0)
        walk.step(grads)

    walk.number = SETTLE_EVERY - 2
    step()
    tracemalloc.start()
    try:
        step()  # that in which the moments settle
        step()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4096  # bytes: views, and the few numbers that each member has


@pytest.mark.parametrize("name", OPTIMISERS)
@pytest.mark.parametrize(
    ("shape", "steps"), [((5, 301), 130), ((3, BLOCK // 2 - 7), 3), ((2, BLOCK + 100), 3)]
)
def test_a_member_moves_alike_bit_for_bit_in_any_company(
    name: str, shape: tuple[int, int], steps: int
) -> None:
    rng = np.random.default_rng(0)
    starts = rng.standard_normal(shape).astype(np.float32)
    slopes = rng.exponential(size=shape).astype(np.float32)
    rates = rng.exponential(RATE, (shape[0], 1)).astype(np.float32)

    def walked(part: tuple[slice, slice]) -> np.ndarray:
        walk = Walk(name, starts[part].copy(), rates[part[0]])
        for _ in range(steps):
            walk.step(slopes[part] * walk.params)
        return walk.params

    together = walked(np.s_[:, :])
    half = shape[1] // 2
    for k in range(shape[0]):
        for part in (np.s_[k : k + 1, :half], np.s_[k : k + 1, half:]):
            np.testing.assert_array_equal(together[part], walked(part))


@pytest.mark.parametrize("name", OPTIMISERS)
def test_without_a_gradient_only_decay_moves_a_parameter(name: str) -> None:
    walk = Walk(name, np.array([[3.0, -2.0]]))
    walk.step(np.zeros((1, 2)), 0.0)
    np.testing.assert_array_equal(walk.params, [[3.0, -2.0]])
    walk.step(np.zeros((1, 2)))
    if (
        name == "adam"
    ):  # a penalty in the gradient, scaled as any gradient is: the larger parameter shrinks no faster
        moved = walk.params - [[3.0, -2.0]]
        assert moved[0, 0] == pytest.approx(-moved[0, 1])
        assert moved[0, 0] < 0
    else:
        np.testing.assert_allclose(walk.params, np.array([[3.0, -2.0]]) * (1 - RATE * DECAY))


@pytest.mark.parametrize("name", OPTIMISERS)
def test_moments_without_a_gradient_never_become_denormal_for_long(name: str) -> None:
    walk = Walk(name, np.ones((1, 3), np.float32))
    least = np.finfo(np.float32).tiny
    for moment in walk.moments:
        moment[...] = [[least, 1.5 * least, 1.0]]
    for _ in range(SETTLE_EVERY):
        walk.step(np.zeros((1, 3), np.float32), 0.0)
    for moment in walk.moments:
        assert ((moment == 0) | (np.abs(moment) >= least)).all()
        assert moment[0, 2] > 1e-4


@pytest.mark.parametrize("name", OPTIMISERS)
def test_the_bottom_of_a_bowl_is_found(name: str) -> None:
    bottom, steepness = np.array([[1.0, -2.0, 0.5]]), np.array([1.0, 5.0, 10.0])
    walk = Walk(name, np.zeros((1, 3)))
    for step in range(2000):
        walk.rate[...] = 0.1 * cosine(step, 2000)
        walk.step(steepness * (walk.params - bottom), 0.0)
    np.testing.assert_allclose(walk.params, bottom, atol=1e-3)


NOT_IN_PYTORCH = {"lion"}


def _torch_optimiser(torch: Any, name: str, params: Any) -> Any:
    makers: dict[str, Callable[[], Any]] = {
        "sgd": lambda: torch.optim.SGD(params, lr=RATE),
        "momentum": lambda: torch.optim.SGD(params, lr=RATE, momentum=0.9),
        "nesterov": lambda: torch.optim.SGD(params, lr=RATE, momentum=0.9, nesterov=True),
        "adagrad": lambda: torch.optim.Adagrad(params, lr=RATE),
        "rmsprop": lambda: torch.optim.RMSprop(params, lr=RATE),
        "adam": lambda: torch.optim.Adam(params, lr=RATE, weight_decay=DECAY),
        "adamw": lambda: torch.optim.AdamW(params, lr=RATE, weight_decay=DECAY),
    }
    assert name in makers, f"name PyTorch's {name}, as an oracle for its row"
    return makers[name]()


@pytest.mark.parametrize("name", [name for name in OPTIMISERS if name not in NOT_IN_PYTORCH])
@pytest.mark.parametrize("gate", ["relu", "tanh"])
def test_training_curves_coincide_with_those_of_pytorch(name: str, gate: str) -> None:
    """From the same start, on a network of 5, 8 and 1 units of which PyTorch takes the gradients."""
    torch = pytest.importorskip("torch", reason="needs PyTorch, which CI installs")
    rng = np.random.default_rng(0)
    x = torch.tensor(rng.standard_normal((64, 5)))
    up = (x[:, 0] * x[:, 1] > 0).double()

    def losses_of(params: Any) -> Any:
        """Of each member, from its parameters (K, 57)."""
        W, b, w, c = (
            params[:, :40].reshape(-1, 5, 8),
            params[:, None, 40:48],
            params[:, 48:56, None],
            params[:, 56:],
        )
        outputs = (getattr(torch, gate)(x @ W + b) @ w)[..., 0] + c
        return torch.nn.functional.binary_cross_entropy_with_logits(
            outputs, up.expand(outputs.shape), reduction="none"
        ).mean(1)

    walk = Walk(name, 0.5 * rng.standard_normal((2, 57)))
    theirs = torch.tensor(walk.params.copy(), requires_grad=True)
    optimiser = _torch_optimiser(torch, name, [theirs])
    curves = []
    for _ in range(STEPS):
        ours = torch.tensor(walk.params.copy(), requires_grad=True)
        losses, their_losses = losses_of(ours), losses_of(theirs)
        curves.append((losses.tolist(), their_losses.tolist()))
        (grads,) = torch.autograd.grad(losses.sum(), ours)
        (theirs.grad,) = torch.autograd.grad(their_losses.sum(), theirs)
        if name not in ("adam", "adamw"):  # PyTorch's other optimisers know no decoupled decay
            with torch.no_grad():
                theirs.mul_(1 - RATE * DECAY)
        optimiser.step()
        walk.step(grads.numpy())
    found, expected = np.array(curves).swapaxes(0, 1)
    np.testing.assert_allclose(found, expected, atol=1e-10)
    np.testing.assert_allclose(walk.params, theirs.detach().numpy(), atol=1e-10)
    assert (found[-1] < found[0]).all()


@st.composite
def gradients(draw: st.DrawFn) -> np.ndarray:
    shape = draw(st.tuples(st.integers(1, 4), st.integers(1, 40)))
    # powers of two apart, so that some members are far beyond a limit of about 1 and others far below
    scales = 2.0 ** draw(hnp.arrays(np.int64, (shape[0], 1), elements=st.integers(-20, 20)))
    grads = draw(hnp.arrays(np.float64, shape, elements=st.floats(-1, 1, width=32)))
    return (scales * grads).astype(draw(st.sampled_from([np.float32, np.float64])))


LIMITS = st.floats(2**-10, 2**10)


def _norms(grads: np.ndarray) -> np.ndarray:
    found = np.empty(len(grads), grads.dtype)
    norms(grads, found)
    return found


@given(gradients())
def test_norms_are_each_members_own(grads: np.ndarray) -> None:
    found = _norms(grads)
    np.testing.assert_allclose(found, np.linalg.norm(grads.astype(np.float64), axis=1), rtol=1e-5, atol=1e-15)
    for k in range(len(grads)):
        np.testing.assert_array_equal(_norms(grads[k : k + 1].copy()), found[k : k + 1])


@pytest.mark.parametrize("width", [7, 4258, 131_970])
def test_a_norm_is_the_same_bit_for_bit_in_any_company(width: int) -> None:
    grads = np.random.default_rng(0).standard_normal((5, width)).astype(np.float32)
    found = _norms(grads)
    for k in range(5):
        np.testing.assert_array_equal(_norms(grads[k : k + 1].copy()), found[k : k + 1])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_norm_tells_whose_gradient_is_not_finite(bad: float) -> None:
    grads = np.ones((3, 5), np.float32)
    grads[1, 2] = bad
    with np.errstate(invalid="ignore"):
        assert np.isfinite(_norms(grads)).tolist() == [True, False, True]


@given(gradients(), LIMITS)
def test_clipping_by_norm_shortens_what_is_beyond_the_limit_and_only_that(
    grads: np.ndarray, limit: float
) -> None:
    before, lengths = grads.copy(), _norms(grads)
    clip_norm(grads, limit, lengths)
    beyond = lengths > limit
    np.testing.assert_array_equal(grads[~beyond], before[~beyond])
    np.testing.assert_allclose(_norms(grads)[beyond], limit, rtol=1e-5)
    # and turns nothing: each is the old one times one number
    np.testing.assert_allclose(
        grads[beyond], before[beyond] * (limit / lengths[beyond, None]), rtol=1e-5, atol=1e-30
    )


@given(gradients(), LIMITS)
def test_clipping_by_value_changes_no_number_within_the_limit(grads: np.ndarray, limit: float) -> None:
    before, bound = grads.copy(), grads.dtype.type(limit)
    clip_value(grads, limit)
    within = np.abs(before) <= bound
    np.testing.assert_array_equal(grads[within], before[within])
    np.testing.assert_array_equal(grads[~within], np.sign(before[~within]) * bound)


def test_no_limit_clips_nothing_and_hides_nothing() -> None:
    grads = np.array([[3e8, -1.0], [np.nan, 2.0]], np.float32)
    before = grads.copy()
    clip_norm(grads, np.inf, np.array([3e8, np.nan], np.float32))
    np.testing.assert_array_equal(grads, before)
    clip_value(grads, np.inf)
    np.testing.assert_array_equal(grads, before)
    clip_norm(grads, 1.0, np.array([3e8, np.nan], np.float32))
    clip_value(grads, 1.0)
    assert np.isnan(grads[1, 0])
