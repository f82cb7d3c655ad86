"""Layers that weigh their inputs, dense and convolutional, each with its local derivative rule."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from model.errors import BadInput
from model.network.activations import Array
from model.network.initialisers import INITIALISERS
from model.network.wires import Bound, Share, Wire, no_way_back, wire


@dataclass(frozen=True)
class Dense:
    """z = x W + b. A member's parameters are W (I, O) and under it, as one more row, b (O,).

    Initial weights are `scale` times what the initialiser draws for a gate of this `gain`; biases start at zero.
    """

    units: int
    initialiser: str = "he"
    gain: float = 1.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.units < 1:
            raise BadInput(f"a layer needs at least one unit, not {self.units}")
        if self.initialiser not in INITIALISERS:
            raise BadInput(f"unknown initialiser {self.initialiser!r}; one of {', '.join(INITIALISERS)}")

    def width(self, inputs: int) -> int:
        """As many as it has units."""
        return self.units

    def parameters(self, inputs: int) -> int:
        """Weights and biases."""
        return (inputs + 1) * self.units

    def statistics(self, inputs: int) -> int:
        """None."""
        return 0

    def fill(self, parameters: Array, statistics: Array, inputs: int, rng: np.random.Generator) -> None:
        """Drawn weights, zero biases."""
        W = parameters.reshape(inputs + 1, self.units)
        W[:-1] = self.scale * INITIALISERS[self.initialiser](rng, inputs, self.units, self.gain)
        W[-1] = 0

    def bind(self, x: Wire, share: Share) -> Bound:
        """One product forward; dW = x^T d_z, biases included, and d_x = d_z W^T backward."""
        members, rows, columns = x.value.shape
        out = wire(members, rows, self.units, x.value.dtype, share.gradients is not None)
        W = share.parameters.reshape(members, columns, self.units)
        forward = _product(x.value, W, out.value[..., :-1])
        return Bound(out, forward, _product_backward(x.value, W, x.gradient, out, share))


def _product(a: Array, b: Array, out: Array) -> Callable[[], None]:
    """A call that writes a b into `out`, member by member; one member's are given as matrices, which is quicker."""
    if len(out) == 1:
        a, b, out = a[0], b[0], out[0]
    return partial(np.matmul, a, b, out)


def _product_backward(x: Array, W: Array, d_x: Array | None, out: Wire, share: Share) -> Callable[[], None]:
    """The two products on the way back through z = x W, with x (K, B, I + 1), W (K, I + 1, O) and out's d_z (K, B, O)."""
    if out.gradient is None or share.gradients is None:
        return no_way_back
    d_z = out.gradient[..., :-1]
    by_weights = _product(x.swapaxes(1, 2), d_z, share.gradients.reshape(W.shape))
    if d_x is None:
        return by_weights
    by_inputs = _product(d_z, W.swapaxes(1, 2), d_x)

    def backward() -> None:
        by_weights()
        by_inputs()

    return backward


@dataclass(frozen=True)
class Conv1d:
    """A causal convolution over a window of bars: of each row's `bars` x channels inputs, oldest bar first, the
    output at a bar sees that bar and the `kernel` - 1 before it; what lies before the window counts as zero.

    A member's parameters are W (kernel * input channels, channels), oldest bar of the kernel first, and under it b.
    """

    bars: int
    channels: int
    kernel: int
    initialiser: str = "he"
    gain: float = 1.0

    def __post_init__(self) -> None:
        if min(self.bars, self.channels, self.kernel) < 1:
            raise BadInput(f"bars, channels and kernel must each be at least 1: {self}")
        if self.initialiser not in INITIALISERS:
            raise BadInput(f"unknown initialiser {self.initialiser!r}; one of {', '.join(INITIALISERS)}")

    def width(self, inputs: int) -> int:
        """Bars times channels."""
        if inputs % self.bars:
            raise BadInput(f"{inputs} inputs are not a whole number of channels for each of {self.bars} bars")
        return self.bars * self.channels

    def _taps(self, inputs: int) -> int:
        return self.kernel * (inputs // self.bars)

    def parameters(self, inputs: int) -> int:
        """Weights and biases."""
        return (self._taps(inputs) + 1) * self.channels

    def statistics(self, inputs: int) -> int:
        """None."""
        return 0

    def fill(self, parameters: Array, statistics: Array, inputs: int, rng: np.random.Generator) -> None:
        """Drawn weights, zero biases; what a unit reads are its taps."""
        taps = self._taps(inputs)
        W = parameters.reshape(taps + 1, self.channels)
        W[:-1] = INITIALISERS[self.initialiser](rng, taps, self.channels, self.gain)
        W[-1] = 0

    def bind(self, x: Wire, share: Share) -> Bound:
        """The windows of all bars become the rows of one product (im2col); the way back adds them up again."""
        members, rows, _ = x.value.shape
        bars, channels, taps = self.bars, x.width // self.bars, self._taps(x.width)
        dtype, training = x.value.dtype, share.gradients is not None
        out = wire(members, rows, bars * self.channels, dtype, training)
        # the product's own wires: a row for each bar of each row
        windows = wire(members, rows * bars, taps, dtype, training)
        products = wire(members, rows * bars, self.channels, dtype, training)
        W = share.parameters.reshape(members, taps + 1, self.channels)

        def by_bar(array: Array, width: int) -> Array:
            return array[..., :-1].reshape(members, rows, bars, width, copy=False)

        x_bars = by_bar(x.value, channels)
        seen = windows.value.reshape(members, rows, bars, taps + 1)
        seen[..., :-1] = 0  # before the window there is nothing, and it stays so
        # for each bar of the kernel: which bars see it, which bar each of them sees, and where among the taps it lies
        reaches = []
        for tap in range(self.kernel):
            back = self.kernel - 1 - tap
            if back < bars:
                reaches.append(
                    (slice(back, None), slice(0, bars - back), slice(tap * channels, (tap + 1) * channels))
                )
        z, out_bars = products.value[..., :-1], by_bar(out.value, self.channels)
        z_bars = z.reshape(members, rows, bars, self.channels)

        def forward() -> None:
            for bar, sees, at in reaches:
                np.copyto(seen[:, :, bar, at], x_bars[:, :, sees])
            np.matmul(windows.value, W, out=z)
            np.copyto(out_bars, z_bars)

        if out.gradient is None or products.gradient is None or windows.gradient is None:
            return Bound(out, forward, no_way_back)
        d_out = by_bar(out.gradient, self.channels)
        d_z = by_bar(products.gradient, self.channels)
        d_seen = windows.gradient.reshape(members, rows, bars, taps + 1)
        d_x = None if x.gradient is None else by_bar(x.gradient, channels)
        handed = None if d_x is None else windows.gradient
        # contiguous, as NumPy copies what it adds to where rows have gaps
        d_bars = np.empty((members, rows, bars, channels), dtype)
        product = _product_backward(windows.value, W, handed, products, share)

        def backward() -> None:
            np.copyto(d_z, d_out)
            product()
            if d_x is not None:
                d_bars.fill(0)
                for bar, sees, at in reaches:
                    np.add(d_bars[:, :, sees], d_seen[:, :, bar, at], out=d_bars[:, :, sees])
                np.copyto(d_x, d_bars)

        return Bound(out, forward, backward)
