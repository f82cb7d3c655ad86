"""The network: parts over one flat parameter buffer for each of K members, and their way there and back."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import accumulate
from typing import Any

import numpy as np

from model.errors import BadInput
from model.network.activations import ACTIVATIONS, Array
from model.network.gates import Activate, Dropout
from model.network.layers import Conv1d, Dense
from model.network.normalisation import BatchNorm, LayerNorm
from model.network.wires import Bound, Gate, Part, Rngs, Share, Wire, wire

# What people call the parts that learn, each kind counted by itself; the last dense layer is the output.
NAMES: dict[type[Any], str] = {Dense: "hidden", Conv1d: "conv", LayerNorm: "norm", BatchNorm: "norm"}
LEARN = tuple(NAMES)
NORMALISATIONS: dict[str, type[LayerNorm] | type[BatchNorm]] = {"layer": LayerNorm, "batch": BatchNorm}


def _cuts(parts: Sequence[Part], inputs: int) -> tuple[list[int], list[slice], list[slice]]:
    """What each part reads in a chain that begins with `inputs`, and its share of the parameters and statistics; the
    first list has one entry more, the width at the chain's end."""
    widths = [inputs]
    for part in parts:
        widths.append(part.width(widths[-1]))
    read = widths[:-1]

    def shares(sizes: list[int]) -> list[slice]:
        ends = list(accumulate(sizes))
        return [slice(end - size, end) for size, end in zip(sizes, ends, strict=True)]

    return (
        widths,
        shares([part.parameters(width) for part, width in zip(parts, read, strict=True)]),
        shares([part.statistics(width) for part, width in zip(parts, read, strict=True)]),
    )


def _end(shares: list[slice]) -> int:
    return shares[-1].stop if shares else 0


def _chain(parts: Sequence[Part], x: Wire, share: Share) -> tuple[Bound, ...]:
    """The parts bound one after another."""
    _, parameters, statistics = _cuts(parts, x.width)
    bound: list[Bound] = []
    for part, own, kept in zip(parts, parameters, statistics, strict=True):
        bound.append(part.bind(bound[-1].out if bound else x, share.cut(own, kept)))
    return tuple(bound)


@dataclass(frozen=True)
class Residual:
    """x + parts(x): the gradient has a way around the parts (He et al. 2016). They must keep the width of their input."""

    parts: tuple[Part, ...]

    def width(self, inputs: int) -> int:
        """As wide as its input. Raises BadInput where its parts are not."""
        out = _cuts(self.parts, inputs)[0][-1]
        if not self.parts or out != inputs:
            raise BadInput(
                f"a residual connection adds its input of width {inputs} to an output of width {out}"
            )
        return inputs

    def parameters(self, inputs: int) -> int:
        """Those of its parts."""
        return _end(_cuts(self.parts, inputs)[1])

    def statistics(self, inputs: int) -> int:
        """Those of its parts."""
        return _end(_cuts(self.parts, inputs)[2])

    def fill(self, parameters: Array, statistics: Array, inputs: int, rng: np.random.Generator) -> None:
        """Fills its parts."""
        _fill(self.parts, parameters, statistics, inputs, rng)

    def bind(self, x: Wire, share: Share) -> Bound:
        """Its parts read a copy, since what is in place there must not touch what goes around them."""
        members, rows, _ = x.value.shape
        inside = wire(members, rows, x.width, x.value.dtype, share.gradients is not None)
        bound = _chain(self.parts, inside, share)
        through = bound[-1].out
        out = wire(members, rows, x.width, x.value.dtype, share.gradients is not None)
        constant = out.value[..., -1]

        def forward() -> None:
            np.copyto(inside.value, x.value)
            for part in bound:
                part.forward()
            np.add(x.value, through.value, out=out.value)
            constant.fill(1)

        def backward() -> None:
            assert out.gradient is not None
            assert through.gradient is not None
            np.copyto(through.gradient, out.gradient)
            for part in reversed(bound):
                part.backward()
            if x.gradient is not None and inside.gradient is not None:
                np.add(out.gradient, inside.gradient, out=x.gradient)

        return Bound(out, forward, backward, tuple(gate for part in bound for gate in part.gates))


def _fill(
    parts: Sequence[Part], parameters: Array, statistics: Array, inputs: int, rng: np.random.Generator
) -> None:
    widths, own, kept = _cuts(parts, inputs)
    for part, width, learned, noted in zip(parts, widths[:-1], own, kept, strict=True):
        part.fill(parameters[learned], statistics[noted], width, rng)


PARTS: dict[str, type[Any]] = {
    kind.__name__: kind for kind in (Dense, Conv1d, Activate, Dropout, LayerNorm, BatchNorm, Residual)
}


def leaves(parts: Sequence[Part]) -> Iterator[Part]:
    """The parts in the order of the forward pass, those within residual connections in their place."""
    for part in parts:
        if isinstance(part, Residual):
            yield from leaves(part.parts)
        else:
            yield part


@dataclass(frozen=True)
class Layer:
    """A part that learns: its name, and its share of the flat parameters of a member."""

    name: str
    share: slice
    part: Part


@dataclass(frozen=True)
class Architecture:
    """What kind of network: everything about it but its numbers. Raises BadInput where its parts do not fit together."""

    inputs: int
    parts: tuple[Part, ...]

    def __post_init__(self) -> None:
        if self.inputs < 1 or not self.parts:
            raise BadInput(
                f"a network needs at least one input and one part, not {self.inputs} and {len(self.parts)}"
            )
        _cuts(self.parts, self.inputs)

    @property
    def outputs(self) -> int:
        """How many numbers come out."""
        return _cuts(self.parts, self.inputs)[0][-1]

    @property
    def parameters(self) -> int:
        """How long a member's flat parameter buffer is."""
        return _end(_cuts(self.parts, self.inputs)[1])

    @property
    def statistics(self) -> int:
        """How many numbers a member keeps besides, which no gradient moves."""
        return _end(_cuts(self.parts, self.inputs)[2])

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The parts that learn, first to last, those within residual connections too."""
        found = list(_layers(self.parts, self.inputs, 0))
        last = max((i for i, layer in enumerate(found) if isinstance(layer.part, Dense)), default=-1)
        counts: dict[str, int] = {}
        named = []
        for i, layer in enumerate(found):
            kind = next(name for part, name in NAMES.items() if isinstance(layer.part, part))
            counts[kind] = counts.get(kind, 0) + 1
            named.append(Layer("output" if i == last else f"{kind} {counts[kind]}", layer.share, layer.part))
        return tuple(named)

    def document(self) -> dict[str, Any]:
        """As a manifest has it."""
        return {"inputs": self.inputs, "parts": [_part_document(part) for part in self.parts]}


def _layers(parts: Sequence[Part], inputs: int, start: int) -> Iterator[Layer]:
    widths, own, _ = _cuts(parts, inputs)
    for part, width, share in zip(parts, widths[:-1], own, strict=True):
        if isinstance(part, Residual):
            yield from _layers(part.parts, width, start + share.start)
        elif share.stop > share.start:
            yield Layer("", slice(start + share.start, start + share.stop), part)


def alike(one: Architecture, other: Architecture) -> bool:
    """Whether equal numbers make them answer alike: they may differ in dropout, and in how weights are drawn at first."""
    return one.inputs == other.inputs and _bare(one.parts) == _bare(other.parts)


def _bare(parts: Sequence[Part]) -> tuple[Part, ...]:
    """The parts without what makes no difference to an answer."""
    bare: list[Part] = []
    for part in parts:
        if isinstance(part, Residual):
            bare.append(Residual(_bare(part.parts)))
        elif isinstance(part, Dense):
            bare.append(Dense(part.units))
        elif isinstance(part, Conv1d):
            bare.append(Conv1d(part.bars, part.channels, part.kernel))
        elif not isinstance(part, Dropout):
            bare.append(part)
    return tuple(bare)


def _part_document(part: Part) -> dict[str, Any]:
    given = {field.name: getattr(part, field.name) for field in fields(part)}  # type: ignore[arg-type]
    if isinstance(part, Residual):
        given["parts"] = [_part_document(inner) for inner in part.parts]
    return {"part": type(part).__name__, **given}


def architecture_from(document: dict[str, Any]) -> Architecture:
    """The architecture that a manifest holds. Raises BadInput where it is none."""
    try:
        return Architecture(
            _typed("inputs", document["inputs"], int), tuple(_part_from(part) for part in document["parts"])
        )
    except KeyError as error:
        raise BadInput(f"the architecture cannot be read: it lacks {error}") from None
    except (TypeError, ValueError) as error:
        raise BadInput(f"the architecture cannot be read: {error}") from None


def _part_from(document: dict[str, Any]) -> Part:
    given = dict(document)
    name = given.pop("part")
    if name not in PARTS:
        raise BadInput(f"unknown part {name!r} of a network; one of {', '.join(PARTS)}")
    kind = PARTS[name]
    if kind is Residual:
        given["parts"] = tuple(_part_from(inner) for inner in given["parts"])
    for field in fields(kind):
        if field.name in given:
            _typed(f"{field.name} of {name}", given[field.name], field.type)
    part: Part = kind(**given)
    return part


def _typed(name: str, value: Any, wanted: Any) -> Any:
    """The value, where JSON may have it so: a number may be written as an integer, and true is none."""
    allowed = {int: (int,), float: (int, float), str: (str,)}.get(wanted)
    if allowed is not None and type(value) not in allowed:
        raise BadInput(f"{name} is {value!r}, but has to be of type {wanted.__name__}")
    if type(value) is float and not math.isfinite(value):
        raise BadInput(f"{name} is {value}, but has to be finite")
    return value


def perceptron(
    inputs: int,
    hidden: Sequence[int],
    outputs: int,
    *,
    activation: str = "relu",
    initialiser: str = "he",
    dropout: float = 0.0,
    normalisation: str | None = None,
    residual: bool = False,
) -> Architecture:
    """A multi-layer perceptron: for each hidden width a dense layer, its normalisation, activation and dropout, and a
    dense output. With `residual` every hidden layer that keeps the width of its input gets a way around it."""
    if activation not in ACTIVATIONS:
        raise BadInput(f"unknown activation {activation!r}; one of {', '.join(ACTIVATIONS)}")
    if normalisation is not None and normalisation not in NORMALISATIONS:
        raise BadInput(f"unknown normalisation {normalisation!r}; one of {', '.join(NORMALISATIONS)}")
    if not 0 <= dropout < 1:
        raise BadInput(f"dropout is a fraction from 0 to below 1, not {dropout}")
    gain = ACTIVATIONS[activation].gain
    parts: list[Part] = []
    width = inputs
    for units in hidden:
        block: list[Part] = [Dense(units, initialiser, gain)]
        if normalisation is not None:
            block.append(NORMALISATIONS[normalisation]())
        block.append(Activate(activation))
        if dropout > 0:
            block.append(Dropout(dropout))
        parts += [Residual(tuple(block))] if residual and units == width else block
        width = units
    # the outputs start small, so that the first loss is that of knowing nothing
    return Architecture(inputs, (*parts, Dense(outputs, initialiser, 1.0, scale=0.1)))


@dataclass(frozen=True)
class Network:
    """An architecture and the numbers of its K members: parameters (K, P) and statistics (K, S)."""

    architecture: Architecture
    parameters: Array
    statistics: Array

    @property
    def members(self) -> int:
        """How many networks of this one shape."""
        return len(self.parameters)

    def member(self, k: int) -> "Network":
        """One of them, as views: a network of one member."""
        return Network(self.architecture, self.parameters[k : k + 1], self.statistics[k : k + 1])

    def copy(self) -> "Network":
        """The same numbers in buffers of its own."""
        return Network(self.architecture, self.parameters.copy(), self.statistics.copy())

    def astype(self, dtype: Any) -> "Network":
        """A copy in another precision."""
        return Network(self.architecture, self.parameters.astype(dtype), self.statistics.astype(dtype))


def stacked(networks: Sequence[Network]) -> Network:
    """Networks of one architecture as the members of one, with numbers of its own."""
    return Network(
        networks[0].architecture,
        np.concatenate([each.parameters for each in networks]),
        np.concatenate([each.statistics for each in networks]),
    )


def initialise(architecture: Architecture, rngs: Rngs, dtype: Any = np.float32) -> Network:
    """Random weights for as many members as there are `rngs`; each draws from its own."""
    parameters = np.zeros((len(rngs), architecture.parameters), dtype)
    statistics = np.zeros((len(rngs), architecture.statistics), dtype)
    for own, kept, rng in zip(parameters, statistics, rngs, strict=True):
        _fill(architecture.parts, own, kept, architecture.inputs, rng)
    return Network(architecture, parameters, statistics)


@dataclass(frozen=True)
class Tape:
    """A network bound to buffers for B rows: what forward writes, and what backward (and health) needs of it.

    Fill `inputs` (K, B, I + 1), whose last column is 1 and stays so, and call `forward`; `outputs` (K, B, O) are views
    that the next call writes over. Fill `d_outputs`, the loss's gradient by them, and call `backward`: the gradients
    by all parameters stand in the buffer that the tape was bound to.
    """

    inputs: Array
    outputs: Array
    d_outputs: Array | None
    parts: tuple[Bound, ...]

    def forward(self) -> None:
        """From the inputs to the outputs."""
        for part in self.parts:
            part.forward()

    def backward(self) -> None:
        """The chain rule from the last part to the first: each makes its own parameters' gradients and hands the
        gradient by its input back (Rumelhart, Hinton & Williams 1986)."""
        for part in reversed(self.parts):
            part.backward()

    @property
    def gates(self) -> tuple[Gate, ...]:
        """The activations, first to last."""
        return tuple(gate for part in self.parts for gate in part.gates)


def bind(network: Network, rows: int, gradients: Array | None = None, rngs: Rngs | None = None) -> Tape:
    """A tape for batches of `rows` rows on the network's own buffers: a step on its parameters moves the tape's.

    For training give `gradients` (K, P) and `rngs`, one for each member; without, it answers: dropout is not there and
    batch statistics are the running ones.
    """
    if (gradients is None) != (rngs is None):
        raise BadInput("a training pass needs both gradients and rngs, an answering one neither")
    architecture = network.architecture
    # not spare: it is the caller's, who may ask again without filling it again
    x = Wire(
        np.ones((network.members, rows, architecture.inputs + 1), network.parameters.dtype), None, spare=False
    )
    parts = _chain(architecture.parts, x, Share(network.parameters, gradients, network.statistics, rngs))
    out = parts[-1].out
    d_outputs = None if out.gradient is None else out.gradient[..., :-1]
    return Tape(x.value, out.value[..., :-1], d_outputs, parts)


def forward(network: Network, x: Array) -> Array:
    """The outputs (K, n, O) for rows x (n, I), the same for every member: the answering pass."""
    tape = bind(network, len(x))
    tape.inputs[..., :-1] = x
    tape.forward()
    return tape.outputs
