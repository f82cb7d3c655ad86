"""Laws of every optimiser: its papers' numbers, PyTorch's curves, and that it learns in place."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from model.network.losses import joint
from model.network.network import Architecture, backward, forward, initialise, over
from model.network.optimisers import OPTIMISERS

RATE, DECAY, STEPS = 0.01, 0.1, 100

# One parameter p under gradients g(p), as each paper writes it, for numbers one by one.
Paper = Callable[[float, Callable[[float], float]], Iterator[float]]


def _sgd(p: float, g: Callable[[float], float]) -> Iterator[float]:
    while True:
        p = p - RATE * g(p) - RATE * DECAY * p
        yield p


def _momentum(p: float, g: Callable[[float], float]) -> Iterator[float]:
    v = 0.0
    while True:
        v = 0.9 * v + g(p)
        p = p - RATE * v - RATE * DECAY * p
        yield p


def _adamw(p: float, g: Callable[[float], float]) -> Iterator[float]:
    m = v = t = 0.0
    while True:
        t += 1
        slope = g(p)
        m = 0.9 * m + (1 - 0.9) * slope
        v = 0.999 * v + (1 - 0.999) * slope**2
        m_hat, v_hat = m / (1 - 0.9**t), v / (1 - 0.999**t)
        p = p - RATE * (m_hat / (v_hat**0.5 + 1e-8) + DECAY * p)
        yield p


PAPERS: dict[str, Paper] = {"sgd": _sgd, "momentum": _momentum, "adamw": _adamw}


def buffers(name: str, params: np.ndarray) -> tuple[np.ndarray, ...]:
    return tuple(np.zeros_like(params) for _ in range(OPTIMISERS[name].moments))


@pytest.mark.parametrize("name", OPTIMISERS)
def test_steps_are_those_of_the_paper(name: str) -> None:
    assert name in PAPERS, f"write {name} as its paper has it, as an oracle for its row"
    starts, slopes = np.array([2.0, -1.0, 0.3, 0.0]), np.array([1.0, 10.0, 0.01, 0.0])
    params, moments = starts.copy(), buffers(name, starts)
    papers = [PAPERS[name](p, lambda p, s=s: s * p) for p, s in zip(starts, slopes, strict=True)]
    for step in range(1, STEPS + 1):
        OPTIMISERS[name].step(params, slopes * params, moments, step, RATE, DECAY)
        np.testing.assert_allclose(params, [next(paper) for paper in papers], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", OPTIMISERS)
def test_a_step_works_in_place_and_leaves_the_gradient_alone(name: str) -> None:
    flat = np.ones(10, np.float32)
    view, grads, moments = flat[2:5], np.full(10, 0.5, np.float32), buffers(name, flat)
    given = grads.copy()
    OPTIMISERS[name].step(flat, grads, moments, 1, RATE, 0.0)
    assert (view < 1).all()
    assert flat.dtype == np.float32
    np.testing.assert_array_equal(grads, given)


@pytest.mark.parametrize("name", OPTIMISERS)
def test_without_a_gradient_only_decay_moves_a_parameter(name: str) -> None:
    params = np.array([3.0, -2.0])
    OPTIMISERS[name].step(params, np.zeros(2), buffers(name, params), 1, RATE, 0.0)
    np.testing.assert_array_equal(params, [3.0, -2.0])
    OPTIMISERS[name].step(params, np.zeros(2), buffers(name, params), 1, RATE, DECAY)
    np.testing.assert_allclose(params, np.array([3.0, -2.0]) * (1 - RATE * DECAY))


@pytest.mark.parametrize("name", OPTIMISERS)
def test_the_bottom_of_a_bowl_is_found(name: str) -> None:
    bottom, steepness = np.array([1.0, -2.0, 0.5]), np.array([1.0, 5.0, 20.0])
    params = np.zeros(3)
    moments = buffers(name, params)
    for step in range(1, 2001):
        OPTIMISERS[name].step(params, steepness * (params - bottom), moments, step, RATE, 0.0)
    np.testing.assert_allclose(params, bottom, atol=1e-3)


def _torch_optimiser(torch: Any, name: str, params: Any) -> Any:
    makers: dict[str, Callable[[], Any]] = {
        "sgd": lambda: torch.optim.SGD(params, lr=RATE),
        "momentum": lambda: torch.optim.SGD(params, lr=RATE, momentum=0.9),
        "adamw": lambda: torch.optim.AdamW(params, lr=RATE, weight_decay=DECAY),
    }
    assert name in makers, f"name PyTorch's {name}, as an oracle for its row"
    return makers[name]()


@pytest.mark.parametrize("name", OPTIMISERS)
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_training_curves_coincide_with_those_of_pytorch(name: str, activation: str) -> None:
    torch = pytest.importorskip("torch", reason="needs PyTorch, which CI installs")
    rng = np.random.default_rng(0)
    x, target = rng.standard_normal((64, 5)), rng.standard_normal(64)
    up = (x[:, 0] * x[:, 1] > 0).astype(float)
    network = initialise(Architecture(5, (16, 8), activation), rng, np.float64)
    gradient = over(network.architecture, np.empty_like(network.parameters))
    moments = buffers(name, network.parameters)

    weights = [
        torch.tensor(part.copy(), requires_grad=True)
        for layer in network.layers
        for part in (layer.W, layer.b)
    ]
    theirs = _torch_optimiser(torch, name, weights)
    gate = getattr(torch, activation)

    for step in range(1, STEPS + 1):
        a = torch.tensor(x)
        for i in range(0, len(weights) - 2, 2):
            a = gate(a @ weights[i] + weights[i + 1])
        outputs = a @ weights[-2] + weights[-1]
        their_loss = torch.nn.functional.binary_cross_entropy_with_logits(
            outputs[:, 0], torch.tensor(up)
        ) + 0.3 * torch.nn.functional.huber_loss(outputs[:, 1], torch.tensor(target))
        theirs.zero_grad()
        their_loss.backward()
        if name != "adamw":  # PyTorch's other optimisers know no decoupled decay
            with torch.no_grad():
                for weight in weights:
                    weight.mul_(1 - RATE * DECAY)
        theirs.step()

        tape = forward(network, x)
        loss, d_out = joint(tape.outputs, up, target, 0.3)
        backward(network, tape, d_out, gradient)
        OPTIMISERS[name].step(network.parameters, gradient.parameters, moments, step, RATE, DECAY)
        assert loss == pytest.approx(their_loss.item(), abs=1e-6)
    theirs_flat = np.concatenate([weight.detach().numpy().ravel() for weight in weights])
    np.testing.assert_allclose(network.parameters, theirs_flat, atol=1e-6)
