"""Gradient health: what a training shows about each of its layers in an epoch, and the verdict on the whole.

A layer's gradient is judged by its size relative to the layer's own weights, and beside the hidden layers after it,
through which it came: near an optimum every gradient is small together, which is no fault, whereas a gradient
that shrinks (or grows) by orders of magnitude on its way back is one, at whatever size.

An epoch is looked at in a few of its steps. All of these give a gradient, the middle one also everything else.
Letters as in model/network: K members, B rows of a batch, P parameters; m looks, and g, a gradient over one batch.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from model.errors import BadInput
from model.network.activations import Array
from model.network.gates import Activate
from model.network.layers import Conv1d, Dense
from model.network.network import LEARN, Architecture, Network, Tape, leaves
from model.network.wires import Gate

# From the worst to the best; a training is what the worst of its later layers is.
VERDICTS = ("non_finite", "exploding", "vanishing", "dead", "saturated", "healthy")

# Relative gradients (norm of the gradient / norm of the parameters) of a well initialised network keep their order
# of magnitude from one hidden layer to the next (Glorot & Bengio 2010, section 4.2). Measured on real bars, the
# smallest was 0.3 to 2.6 times the largest behind it for 2 to 20 layers of relu or tanh and 2 of sigmoid; three
# layers of sigmoid stood at 0.1, five below 0.01, ten at 1e-5. The output layer is no measure for the others: it
# starts at a tenth of the usual scale.
VANISHING_SHARE = 0.01
EXPLODING_SHARE = 100.0
# The slope of either loss is at most 1 and features are standardised, so a layer's gradient is short: at most 1.1
# in any healthy training measured. Pascanu, Mikolov & Bengio 2013, section 3.2, clip at up to ten times the usual.
EXPLODING_NORM = 30.0
# The rule of thumb is about 1e-3 (Karpathy, CS231n notes, "Neural networks part 3"), and up to 0.2 was measured in
# first steps from small weights. A step as long as the weights themselves does not improve but replace them.
EXPLODING_UPDATE_RATIO = 1.0
# Half a layer that passes nothing back leaves a network of half the size (Lu et al. 2019, "Dying ReLU and
# initialization"); fewer are the sparseness for which rectifiers are liked (Glorot, Bordes & Bengio 2011).
DEAD_FRACTION = 0.5
# Fewer rows than this say nothing: a unit that fires for one row in ten is silent in a batch of 16 one time in five.
DEAD_ROWS = 32
# Glorot & Bengio 2010, figures 2 and 3, show layers beyond this hardly learning.
SATURATED_FRACTION = 0.5
# A training is judged by this many of its last epochs: what it went through before is over.
LATER_EPOCHS = 3
# Steps of an epoch that are looked at, spread evenly. The noise scale is an estimate from so many gradients.
LOOKS = 8
RARELY = 16  # no more than one step in so many, but two where there are two


# Squared lengths that float32 holds, with room for the squares of single entries; beyond, one is taken anew.
SAFE_SQUARES = 1e-24, 1e30


@dataclass(frozen=True)
class GradientHealth:
    """One layer in one epoch.

    Of the epoch's middle step, before any clipping: `gradient_norm` is the Euclidean norm over weights and biases,
    `largest` the largest of their absolute values, `update_ratio` the norm of the step taken over the norm of the
    parameters. `dead_fraction` is the share of units whose gate is shut for every row of the batch (activations whose
    flat side means dead: ReLU); `saturated_fraction` the share of rows times units at the ends of the gate's range
    (tanh, sigmoid). Layers without a gate have 0 of both. `non_finite` counts entries of gradient, step and parameters.

    Of all steps looked at: `cosine` is that of the angle between the sum of their gradients and the previous epoch's:
    near 1 the loss still falls the same way, around 0 what is left is noise, below it steps jump to and fro.
    `noise_scale`, in rows, is the batch at which the gradient's noise is as large as the gradient: smaller batches
    mostly average noise away, much larger ones gain little.

    A figure is None where it is not a finite number, or not known: there is no cosine in a first epoch, no noise scale
    from one look or where noise hides the gradient, and no ratio for a step that was not taken.
    """

    layer: int
    name: str
    gradient_norm: float | None
    update_ratio: float | None
    dead_fraction: float
    saturated_fraction: float
    non_finite: int
    verdict: str
    largest: float | None = None
    cosine: float | None = None
    noise_scale: float | None = None


def worst(members: Sequence[Sequence[GradientHealth]]) -> tuple[GradientHealth, ...]:
    """Of several members' layers in one epoch, for each layer that of the member which is worst off there."""
    return tuple(
        min(layers, key=lambda layer: VERDICTS.index(layer.verdict)) for layers in zip(*members, strict=True)
    )


Among = tuple[float | None, float | None]  # cosine and noise scale


@dataclass(frozen=True)
class _Place:
    """What is asked of a layer again and again."""

    name: str
    share: slice
    weighs: bool  # dense or convolutional; else a normalisation
    hidden: bool  # of those that weigh, all but the output


@dataclass(frozen=True)
class _Plan:
    """An architecture as the watch reads it: its layers, and for each gate the layer that it follows, by its place
    (-1: none), with that layer's number of units."""

    layers: tuple[_Place, ...]
    starts: NDArray[np.intp]  # of the layers' shares, each of which ends where the next begins
    owners: tuple[tuple[int, int], ...]


def _plan(architecture: Architecture) -> _Plan:
    places: list[_Place] = []
    owners: list[tuple[int, int]] = []
    owner = (-1, 1)
    layers = iter(architecture.layers)
    for part in leaves(architecture.parts):
        if isinstance(part, Activate):
            owners.append(owner)
        elif isinstance(part, LEARN):
            layer = next(layers)
            if isinstance(part, Dense):
                owner = len(places), part.units
            elif isinstance(part, Conv1d):
                owner = len(places), part.channels
            weighs = isinstance(part, (Dense, Conv1d))
            places.append(_Place(layer.name, layer.share, weighs, weighs and layer.name != "output"))
    starts = np.array([place.share.start for place in places], np.intp)
    return _Plan(tuple(places), starts, tuple(owners))


class Watch:
    """Looks at a training while it runs, without changing anything of it. Lives and dies with the loop's buffers.

    In each epoch: `begin`; then, at every step that it `wants`, `before` once the gradients stand and `after` once the
    parameters have moved; at last `rows`. A member's rows are bit for bit those that it would have alone. Numbers that
    are not finite give NumPy's warnings, which the loop has turned off for its own.
    """

    def __init__(self, network: Network, tape: Tape, gradients: Array) -> None:
        self._network, self._gates, self._gradients = network, tape.gates, gradients
        self._plan = _plan(network.architecture)
        self._batch = int(tape.inputs.shape[1])  # rows
        shape = len(self._plan.layers), network.members
        self._square = np.empty(shape, gradients.dtype)  # |g|² of the look at hand
        shares = [gradients[:, layer.share] for layer in self._plan.layers]
        self._shares = list(zip(shares, self._square, strict=True))
        self._squares = np.zeros(shape)  # Σ|g|² of the looks so far
        # Σg of this epoch and of the one before; the middle step's parameters, and the step
        self._sums, self._moved = np.zeros((2, 2, *gradients.shape), gradients.dtype)
        self._sums_by_layer = [self._sums[..., layer.share] for layer in self._plan.layers]
        self._moved_by_layer = [self._moved[..., layer.share] for layer in self._plan.layers]
        self._now = 0  # which of the two sums is this epoch's
        self._previous: list[list[float]] = np.zeros(shape).tolist()  # |Σg|² of the epoch before
        self._steps = 0
        self._wanted: frozenset[int] = frozenset()
        self._middle = 0
        self._taken = 0
        self._shut = np.empty(max((gate.a[0].size for gate in tape.gates), default=0), bool)
        self._gradient: _Gradient | None = None
        self._update: _Update | None = None
        self._broke: dict[int, tuple[GradientHealth, ...]] = {}

    def begin(self, steps: int) -> None:
        """A new epoch of so many steps, at least one."""
        if steps != self._steps:
            looks = min(LOOKS, steps, max(2, steps // RARELY))
            self._wanted = frozenset((2 * look + 1) * steps // (2 * looks) for look in range(looks))
            self._middle = looks // 2
            self._steps = steps
        self._taken = 0
        self._squares.fill(0)
        self._gradient = self._update = None

    def wants(self, step: int) -> bool:
        """Whether it looks at this step of the epoch, counted from 0."""
        return step in self._wanted

    def before(self) -> None:
        """After backward, before anything is done to the gradients or the parameters."""
        total = self._sums[self._now]
        if self._taken == 0:
            np.copyto(total, self._gradients)
        else:
            np.add(total, self._gradients, out=total)
        for share, square in self._shares:
            np.vecdot(share, share, out=square)
        np.add(self._squares, self._square, out=self._squares)
        if self._taken == self._middle:
            parameters, spare = self._moved
            np.copyto(parameters, self._network.parameters)
            np.abs(self._gradients, out=spare)
            self._gradient = _gradient(spare, self._gates, self._plan, self._shut, self._square.tolist())

    def after(self) -> None:
        """After the optimiser has moved the parameters."""
        if self._taken == self._middle:
            parameters, step = self._moved
            np.subtract(self._network.parameters, parameters, out=step)
            squares = [np.vecdot(both, both).tolist() for both in self._moved_by_layer]
            self._update = _Update(
                _lengths(parameters, self._plan, [of_parameters for of_parameters, _ in squares]),
                _lengths(step, self._plan, [of_step for _, of_step in squares]),
            )
        self._taken += 1

    def broke(self, member: int) -> None:
        """A loss or gradient of this member was not finite: it is looked at now, while all of it still stands, and
        its rows say from now on what was seen. No step was taken, so none is measured."""
        own = slice(member, member + 1)
        plan = self._plan
        gates = [Gate(gate.activation, gate.z[own], gate.a[own]) for gate in self._gates]
        seen = _gradient(np.abs(self._gradients[own]), gates, plan, self._shut)
        update = _Update(_lengths(self._network.parameters[own], plan), None)
        unknown: list[Among] = [(None, None)] * len(plan.layers)
        self._broke[member] = _judged(plan, self._batch, seen, update, 0, unknown)

    def rows(self) -> tuple[tuple[GradientHealth, ...], ...]:
        """At the end of an epoch: for each member, each layer first to last. An epoch that was cut off before its
        middle step was done has rows of members that broke, and none of others."""
        members = range(self._network.members)
        if self._gradient is None or self._update is None:
            return tuple(self._broke.get(member, ()) for member in members)
        among = self._among_looks()
        return tuple(
            self._broke.get(member)
            or _judged(self._plan, self._batch, self._gradient, self._update, member, among[member])
            for member in members
        )

    def _among_looks(self) -> list[list[Among]]:
        """Cosine and noise scale, by member and layer; this epoch's sums become the previous ones."""
        found: list[list[Among]] = [[] for _ in range(self._network.members)]
        previous, self._previous = self._previous, []
        looks, batch = self._taken, self._batch
        with np.errstate(over="ignore", invalid="ignore"):
            products = [np.vecdot(both, both[self._now]).tolist() for both in self._sums_by_layer]
        for both, singles, before in zip(products, self._squares.tolist(), previous, strict=True):
            squares = both[self._now]
            self._previous.append(squares)
            for figures, single, square, across, other in zip(
                found, singles, squares, both[1 - self._now], before, strict=True
            ):
                figures.append((_cosine(across, square, other), _noise_scale(single, square, looks, batch)))
        self._now = 1 - self._now
        return found


def _cosine(across: float, square: float, other_square: float) -> float | None:
    """Of the angle between two vectors, given their product and their squared lengths."""
    lengths = math.sqrt(square) * math.sqrt(other_square)
    return max(-1.0, min(1.0, across / lengths)) if 0 < lengths < math.inf else None


def _noise_scale(squares: float, square_of_sum: float, looks: int, rows: int) -> float | None:
    """tr(Σ) / |G|², in rows, from Σ|g|² and |Σg|² over m looks, each at a batch of so many rows.

    McCandlish et al. 2018, appendix A.1, with batches of B and mB rows. Unbiased are |G|² = (mB |Σg/m|² - B Σ|g|²/m) /
    (mB - B) = (|Σg|² - Σ|g|²) / (m (m - 1)), and tr(Σ) = (Σ|g|²/m - |Σg/m|²) / (1/B - 1/mB) = B (m Σ|g|² - |Σg|²) /
    (m (m - 1)). Their quotient is not, as is usual for one; it takes the parameters to stand still between the looks.
    """
    signal, noise = square_of_sum - squares, looks * squares - square_of_sum
    return rows * max(noise, 0.0) / signal if 0 < signal < math.inf and looks > 1 else None


class _Lengths(NamedTuple):
    """Euclidean norms by layer and member, and how many entries are not finite, where any are."""

    norms: list[list[float]]
    non_finite: dict[tuple[int, int], int]


class _Gradient(NamedTuple):
    """What a step shows before it is taken: `largest` by member and layer; for each layer with a gate what its flat
    units are called, and their share by member."""

    lengths: _Lengths
    largest: list[list[float]]
    flat: dict[int, tuple[str, list[float]]]


class _Update(NamedTuple):
    """What the optimiser did, from which parameters; no step where none was taken."""

    parameters: _Lengths
    step: _Lengths | None


def _lengths(vectors: Array, plan: _Plan, squares: list[list[float]] | None = None) -> _Lengths:
    """Of `vectors` (K, P); the squares where they are known already, by layer and member."""
    if squares is None:
        shares = [vectors[:, layer.share] for layer in plan.layers]
        squares = [np.vecdot(share, share).tolist() for share in shares]
    norms, non_finite = [], {}
    low, high = SAFE_SQUARES
    for i, of_layer in enumerate(squares):
        norms.append([math.sqrt(square) for square in of_layer])
        for member, square in enumerate(of_layer):
            if not low < square < high:
                vector = vectors[member, plan.layers[i].share].astype(np.float64)
                norms[i][member] = float(np.linalg.norm(vector))
                non_finite[i, member] = int(np.count_nonzero(~np.isfinite(vector)))
    return _Lengths(norms, non_finite)


def _gradient(
    absolute: Array,
    gates: Sequence[Gate],
    plan: _Plan,
    spare: NDArray[np.bool_],
    squares: list[list[float]] | None = None,
) -> _Gradient:
    """From the gradients' absolute values (K, P), and the gates of the same step; `spare` holds a member's largest."""
    shares: dict[int, tuple[str, list[float]]] = {}
    for gate, (place, units) in zip(gates, plan.owners, strict=True):
        if place >= 0:
            shares[place] = gate.activation.flat_means, _flat(gate, units, spare)
    largest = np.maximum.reduceat(absolute, plan.starts, axis=1).tolist()
    return _Gradient(_lengths(absolute, plan, squares), largest, shares)


def _flat(gate: Gate, units: int, spare: NDArray[np.bool_]) -> list[float]:
    """For each member the share of units that are dead, or of rows and units that are saturated."""
    seen, (low, high) = gate.activation.watched(gate.z, gate.a), gate.activation.flat
    if (
        seen.shape[2] != units
    ):  # a unit of a convolution stands at every bar: it is dead where it is shut at all of them
        seen = seen.reshape(len(seen), -1, units)
    if gate.activation.flat_means == "dead":
        return [np.count_nonzero(most <= low) / units for most in np.maximum.reduce(seen, axis=1)]
    ends = ((np.less_equal, low), (np.greater_equal, high))
    own = spare[: seen[0].size].reshape(seen.shape[1:])
    return [
        sum(np.count_nonzero(compare(member, bound, out=own)) for compare, bound in ends) / own.size
        for member in seen
    ]


def _judged(
    plan: _Plan, batch: int, seen: _Gradient, update: _Update, member: int, among: Sequence[Among]
) -> tuple[GradientHealth, ...]:
    """A member's layers, first to last, each with its verdict."""
    rows: list[GradientHealth] = []
    after: float | None = None  # the largest relative gradient of the hidden layers after this one
    shut = ""  # the verdict of the nearest of them that is dead or saturated
    for i in reversed(range(len(plan.layers))):
        layer = plan.layers[i]
        norm, size = _finite(seen.lengths.norms[i][member]), _finite(update.parameters.norms[i][member])
        means, shares = seen.flat.get(i, ("", None))
        share = 0.0 if shares is None else shares[member]
        dead, saturated = (share, 0.0) if means == "dead" else (0.0, share)
        at = i, member
        non_finite = seen.lengths.non_finite.get(at, 0) + update.parameters.non_finite.get(at, 0)
        relative, update_ratio = _ratio(norm, size), None
        if update.step is not None:
            update_ratio = _ratio(_finite(update.step.norms[i][member]), size)
            non_finite += update.step.non_finite.get(at, 0)
        # scales and shifts of a normalisation are not beside others: they have no size that they were drawn at
        beside = _ratio(relative, after) if layer.weighs else None
        judged_dead = dead if batch >= DEAD_ROWS else 0.0
        if non_finite:
            verdict = "non_finite"
        elif (
            norm is None
            or norm > EXPLODING_NORM
            or (update_ratio or 0.0) > EXPLODING_UPDATE_RATIO
            or (beside or 0.0) > EXPLODING_SHARE
        ):
            verdict = "exploding"
        elif judged_dead > DEAD_FRACTION:
            verdict = shut = "dead"
        elif saturated > SATURATED_FRACTION:
            verdict = shut = "saturated"
        elif relative == 0 or (beside is not None and beside < VANISHING_SHARE):
            # named for its cause: nothing comes back through gates that are shut
            verdict = shut or "vanishing"
        else:
            verdict = "healthy"
        largest, name = _finite(seen.largest[member][i]), layer.name
        figures = norm, update_ratio, dead, saturated, non_finite, verdict, largest, *among[i]
        rows.append(GradientHealth(i, name, *figures))
        if relative is not None and layer.hidden:
            after = max(relative, after or 0.0)
    return tuple(reversed(rows))


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


def _ratio(part: float | None, whole: float | None) -> float | None:
    """part / whole; None where either is unknown, or the whole is nothing."""
    return None if part is None or not whole else part / whole


def verdict_of(epochs: Sequence[Sequence[GradientHealth]]) -> str:
    """The verdict on a training: the worst of any layer in its last LATER_EPOCHS epochs.

    What the first epochs went through is not held against it. Raises BadInput where there is no epoch.
    """
    later = [epoch for epoch in epochs if epoch][-LATER_EPOCHS:]
    if not later:
        raise BadInput("a training without an epoch has no gradient health")
    return min((row.verdict for epoch in later for row in epoch), key=VERDICTS.index)


def document(health: GradientHealth) -> dict[str, Any]:
    """One layer's row, as the design's gradient-health document has it."""
    return asdict(health)
