"""Networks written anew from their papers, twice: for autograd and for PyTorch. Of the code under test they read only what a
part is called and which numbers it was given.

B rows, I inputs and O outputs of one network. Each takes a part, a reader of its flat parameters, one of its statistics, the
signal (B, width), and the generator of its masks (None: an answering pass), and gives the signal behind the part.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import autograd.numpy as anp
import numpy as np
from autograd import grad
from hypothesis import strategies as st

from model.network.activations import ACTIVATIONS
from model.network.gates import Activate, Dropout
from model.network.layers import Conv1d, Dense
from model.network.network import Architecture, Network, Residual, bind, initialise, perceptron
from model.network.normalisation import BatchNorm, LayerNorm
from tests.model.network.test_activations import AS_IN_THE_PAPERS, TORCH

Oracle = Callable[[Any, "Reader", "Reader", Any, np.random.Generator | None], Any]


class Reader:
    """Flat numbers, taken in order."""

    def __init__(self, flat: Any) -> None:
        self.flat, self.at = flat, 0

    def take(self, *shape: int) -> Any:
        start, self.at = self.at, self.at + math.prod(shape)
        return self.flat[start : self.at].reshape(shape)


def mask(rate: float, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Dropout's mask drawn again; a row's constant has its draw too."""
    rows, width = shape
    return (rng.random((rows, width + 1))[:, :width] < 1 - rate) / (1 - rate)


def _dense(part: Dense, own: Reader, kept: Reader, x: Any, rng: Any) -> Any:
    W, b = own.take(x.shape[1], part.units), own.take(part.units)
    return anp.dot(x, W) + b


def _conv(part: Conv1d, own: Reader, kept: Reader, x: Any, rng: Any) -> Any:
    """y[t] = b + the sum over back of W[kernel - 1 - back] x[t - back], where there is a bar t - back."""
    bars = [anp.reshape(x, (len(x), part.bars, -1))[:, t] for t in range(part.bars)]
    W, b = own.take(part.kernel, bars[0].shape[1], part.channels), own.take(part.channels)
    y = []
    for t in range(part.bars):
        terms = [
            anp.dot(bars[t - back], W[part.kernel - 1 - back]) for back in range(part.kernel) if t >= back
        ]
        y.append(sum(terms) + b)
    return anp.concatenate(y, axis=1)


def _activate(part: Activate, own: Reader, kept: Reader, x: Any, rng: Any) -> Any:
    return AS_IN_THE_PAPERS[part.name](x)


def _dropout(part: Dropout, own: Reader, kept: Reader, x: Any, rng: np.random.Generator | None) -> Any:
    return x if rng is None or part.rate == 0 else x * mask(part.rate, x.shape, rng)


def _layer_norm(part: LayerNorm, own: Reader, kept: Reader, x: Any, rng: Any) -> Any:
    gamma, beta = own.take(x.shape[1]), own.take(x.shape[1])
    centred = x - anp.mean(x, axis=1, keepdims=True)
    return gamma * centred / anp.sqrt(anp.mean(centred**2, axis=1, keepdims=True) + 1e-5) + beta


def _batch_norm(part: BatchNorm, own: Reader, kept: Reader, x: Any, rng: Any) -> Any:
    gamma, beta = own.take(x.shape[1]), own.take(x.shape[1])
    mean, var = kept.take(x.shape[1]), kept.take(x.shape[1])
    if rng is not None:
        mean = anp.mean(x, axis=0)
        var = anp.mean((x - mean) ** 2, axis=0)
    return gamma * (x - mean) / anp.sqrt(var + 1e-5) + beta


def _residual(part: Residual, own: Reader, kept: Reader, x: Any, rng: Any) -> Any:
    return x + _through(AUTOGRAD, part.parts, own, kept, x, rng)


AUTOGRAD: dict[type, Oracle] = {
    Dense: _dense,
    Conv1d: _conv,
    Activate: _activate,
    Dropout: _dropout,
    LayerNorm: _layer_norm,
    BatchNorm: _batch_norm,
    Residual: _residual,
}


def _through(
    oracles: dict[type, Oracle], parts: Sequence[Any], own: Reader, kept: Reader, x: Any, rng: Any
) -> Any:
    for part in parts:
        x = oracles[type(part)](part, own, kept, x, rng)
    return x


def of_torch(torch: Any) -> dict[type, Oracle]:
    """The same by PyTorch's own functions, which move the running statistics (a tensor) themselves."""
    of = torch.nn.functional

    def dense(part: Dense, own: Reader, kept: Reader, x: Any, rng: Any) -> Any:
        W, b = own.take(x.shape[1], part.units), own.take(part.units)
        return of.linear(x, W.T, b)

    def conv(part: Conv1d, own: Reader, kept: Reader, x: Any, rng: Any) -> Any:
        channels = x.shape[1] // part.bars
        W, b = own.take(part.kernel, channels, part.channels), own.take(part.channels)
        bars = x.reshape(len(x), part.bars, channels).transpose(1, 2)
        y = of.conv1d(of.pad(bars, (part.kernel - 1, 0)), W.permute(2, 1, 0), b)
        return y.transpose(1, 2).reshape(len(x), part.bars * part.channels)

    def activate(part: Activate, own: Reader, kept: Reader, x: Any, rng: Any) -> Any:
        return x if part.name == "identity" else getattr(of, part.name)(x, **TORCH.get(part.name, {}))

    def dropout(part: Dropout, own: Reader, kept: Reader, x: Any, rng: Any) -> Any:
        return x if rng is None or part.rate == 0 else x * torch.tensor(mask(part.rate, tuple(x.shape), rng))

    def layer_norm(part: LayerNorm, own: Reader, kept: Reader, x: Any, rng: Any) -> Any:
        width = x.shape[1]
        return of.layer_norm(x, (width,), own.take(width), own.take(width))

    def batch_norm(part: BatchNorm, own: Reader, kept: Reader, x: Any, rng: Any) -> Any:
        width = x.shape[1]
        gamma, beta, mean, var = own.take(width), own.take(width), kept.take(width), kept.take(width)
        return of.batch_norm(x, mean, var, gamma, beta, training=rng is not None)

    def residual(part: Residual, own: Reader, kept: Reader, x: Any, rng: Any) -> Any:
        return x + _through(oracles, part.parts, own, kept, x, rng)

    oracles: dict[type, Oracle] = {
        Dense: dense,
        Conv1d: conv,
        Activate: activate,
        Dropout: dropout,
        LayerNorm: layer_norm,
        BatchNorm: batch_norm,
        Residual: residual,
    }
    return oracles


class Case(NamedTuple):
    """K networks in float64, a batch for each, and the slope of some loss by their outputs; seeds of their masks."""

    network: Network
    x: np.ndarray  # (K, B, I)
    d_outputs: np.ndarray  # (K, B, O)
    seeds: tuple[int, ...]


class Pass(NamedTuple):
    """What a pass there and back left behind."""

    outputs: np.ndarray  # (K, B, O)
    gradients: np.ndarray  # (K, P)
    statistics: np.ndarray  # (K, S)


def case(architecture: Architecture, rows: int, seed: int, members: int = 1, dtype: Any = np.float64) -> Case:
    """Random numbers wherever there are any, biases, scales, shifts and running statistics too."""
    rng = np.random.default_rng(seed)
    network = initialise(architecture, [rng] * members, dtype)
    # not so large that an oracle's exp overflows behind several layers
    network.parameters[...] = 0.5 * rng.standard_normal(network.parameters.shape)
    network.statistics[...] += rng.uniform(0.1, 2, network.statistics.shape)
    shape = (members, rows)
    x = rng.standard_normal((*shape, architecture.inputs)).astype(dtype)
    slopes = rng.standard_normal((*shape, architecture.outputs)).astype(dtype)
    return Case(network, x, slopes, tuple(int(seed) for seed in rng.integers(2**32, size=members)))


def generators(c: Case) -> list[np.random.Generator]:
    return [np.random.default_rng(seed) for seed in c.seeds]


def member(c: Case, k: int) -> Case:
    """One of them by itself, in buffers of its own."""
    alone = c.network.member(k).copy()
    return Case(alone, c.x[k : k + 1], c.d_outputs[k : k + 1], c.seeds[k : k + 1])


def passed(c: Case) -> Pass:
    """There and back by the code under test; the case's own network stays as it is."""
    network = c.network.copy()
    gradients = np.full_like(network.parameters, np.nan)
    tape = bind(network, c.x.shape[1], gradients, generators(c))
    tape.inputs[..., :-1] = c.x
    tape.forward()
    if tape.d_outputs is not None:  # where nothing is learned, no gradient is asked for
        tape.d_outputs[...] = c.d_outputs
    tape.backward()
    return Pass(tape.outputs, gradients, network.statistics)


def by_autograd(c: Case, k: int, parameters: Any = None, training: bool = True) -> Any:
    """The outputs (B, O) of member k as its papers have them."""
    architecture = c.network.architecture
    own = Reader(c.network.parameters[k] if parameters is None else parameters)
    rng = generators(c)[k] if training else None
    outputs = _through(AUTOGRAD, architecture.parts, own, Reader(c.network.statistics[k]), c.x[k], rng)
    assert own.at == own.flat.shape[0] == architecture.parameters
    return outputs


def relative(a: np.ndarray, b: np.ndarray) -> float:
    """The largest difference, in units of the largest entry."""
    return float(
        np.abs(a - b).max(initial=0) / max(np.abs(a).max(initial=0), np.abs(b).max(initial=0), 1e-12)
    )


def agrees_with_autograd(c: Case) -> None:
    """Outputs and gradients of every member, to 1e-10."""
    ours = passed(c)
    for k in range(c.network.members):
        assert relative(ours.outputs[k], by_autograd(c, k)) < 1e-10
        if not c.network.architecture.parameters:
            continue

        def loss(parameters: Any, k: int = k) -> Any:
            return anp.sum(by_autograd(c, k, parameters) * c.d_outputs[k])

        assert relative(ours.gradients[k], grad(loss)(c.network.parameters[k])) < 1e-10


def agrees_with_torch(c: Case, torch: Any) -> None:
    """Outputs, gradients and running statistics of every member, to 1e-10."""
    ours, oracles = passed(c), of_torch(torch)
    for k, rng in enumerate(generators(c)):
        parameters = torch.tensor(c.network.parameters[k], requires_grad=True)
        statistics = torch.tensor(c.network.statistics[k])
        x = torch.tensor(c.x[k])
        outputs = _through(
            oracles, c.network.architecture.parts, Reader(parameters), Reader(statistics), x, rng
        )
        assert relative(ours.outputs[k], outputs.detach().numpy()) < 1e-10
        if c.network.architecture.parameters:
            (outputs * torch.tensor(c.d_outputs[k])).sum().backward()
            assert relative(ours.gradients[k], parameters.grad.numpy()) < 1e-10
        assert relative(ours.statistics[k], statistics.numpy()) < 1e-10


def agrees_with_differences(c: Case, step: float = 1e-5, limit: float = 1e-7) -> None:
    """Gradients of every member beside central differences along every coordinate."""
    ours = passed(c)
    numerical = np.empty_like(c.network.parameters)
    for k in range(c.network.members):
        parameters = c.network.parameters[k]
        for i, at in enumerate(parameters.tolist()):
            sides = []
            for moved in (at + step, at - step):
                parameters[i] = moved
                sides.append(passed(member(c, k)).outputs[0])
            parameters[i] = at
            numerical[k, i] = np.sum((sides[0] - sides[1]) * c.d_outputs[k]) / (2 * step)
    assert relative(ours.gradients, numerical) < limit


@st.composite
def perceptrons(
    draw: st.DrawFn,
    outputs: st.SearchStrategy[int] = st.integers(1, 3),
    least: int = 1,
    dropout: tuple[float, ...] = (0.0, 0.3, 0.7),
    normalisation: tuple[str | None, ...] = (None, "layer", "batch"),
) -> Architecture:
    """Any shape: no hidden layer, one unit, and layers of equal width, around which there may be a way."""
    width = st.integers(least, 6)
    widths = st.lists(width, max_size=3)
    alike = st.tuples(width, st.integers(1, 4)).map(lambda drawn: [drawn[0]] * drawn[1])
    return perceptron(
        draw(st.integers(1, 5)),
        draw(widths | alike),
        draw(outputs),
        activation=draw(st.sampled_from(list(ACTIVATIONS))),
        dropout=draw(st.sampled_from(dropout)),
        normalisation=draw(st.sampled_from(normalisation)),
        residual=draw(st.booleans()),
    )
