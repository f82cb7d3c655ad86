"""A trained network frozen for serving: what is affine is folded into dense layers, and only the forward pass is left.

Nothing of backpropagation is imported here but the rules that stand beside the parts' functions. Live answers and
backtests use this same one-row forward pass, because a batch's differs from it in the last bits.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from model import artifact, recalibration
from model.artifact import Packed
from model.breaks import JUMP_Z
from model.errors import BadArtifact, BadInput
from model.features import FeatureSet, feature_set_from
from model.network import folding
from model.network.activations import Array
from model.network.gates import Activate
from model.network.layers import Dense
from model.network.network import Architecture, Network, architecture_from, bind, perceptron
from model.recalibration import FRESH, Recalibration
from model.scaler import Scaler

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
T = TypeVar("T")

LEVEL = 0.9  # of the price interval
LARGEST_LOGIT = 15.0  # 1 - p of 3e-7: nobody's evidence goes further
LARGEST_SIZE = (
    1.0  # of an expected move, as a log return: beyond, no price means anything, and none may overflow
)
LARGEST_HALF = 100.0  # of an interval, likewise
LARGEST_RETURN = 10.0  # in units of its expected size: further than any that was learned from

# Rows of a batch go in blocks, whose products are small enough, where the layers allow it, that OpenBLAS does not copy
# their operands into another order first: it does with more multiplications than this. Measured: a tenth of the time.
UNCOPIED = 100**3
FEWEST, MOST = 64, 512  # rows: fewer are lost in the calls' own cost, more leave the second-level cache
TWIN = "twin."  # before the names of a twin's arrays
FEW = 4  # rows that are sooner read one by one than in such a block
ROWS = 256  # that go together where each has the bits that it has alone


class Reading(NamedTuple):
    """What a network makes of one row: the version's calibrated logit of up, and the return in units of its expected size."""

    logit: float
    scaled_return: float


class Forecast(NamedTuple):
    """What is said of one row. A tuple, as making a dataclass takes longer than a layer's product."""

    p_up: float
    expected_return: float  # log return over the horizon
    price: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Predictor:
    """Frozen: standardisation, running statistics and temperature lie in the network's dense layers.

    Safe for threads: the arrays that a forward pass writes are one call's alone while it is at work.
    """

    features: FeatureSet
    horizon: int  # bars
    network: Network  # folded: raw features in, each member's share of the logit and scaled return out
    knots: Float64 | None  # (2, n): of an isotonic calibration, logits ascending and the probability at each
    interval: float  # half-width, in units of the return's expected size
    base_rate: float
    scaler: Scaler  # of the features that it learned from
    domain: float  # the largest distance of the rows that were learned from
    jump_z: float  # robust standard deviations beyond which a move is a break, as in its training
    sha256: str  # of the arrays that it was made of
    first_closed_at: int  # microseconds: nothing before it was learned from
    fitted_until: int  # microseconds: no label known later moved a weight
    seen_until: int  # microseconds: no label known later was used at all
    # passes that no call is using: taking from a list is one step for all threads
    _single: list["_Pass"] = field(default_factory=list, init=False, repr=False)
    _blocks: list["_Pass"] = field(default_factory=list, init=False, repr=False)

    def predict(self, x: Float32, scale: float, close: float) -> Forecast:
        """The forecast for one row of raw features x (F,), given the volatility of one bar's log return and its close,
        by the calibration that it was made with."""
        return self.forecast(self.read(x), scale, close, FRESH)

    def read(self, x: Float32) -> Reading:
        """What the network makes of one row of raw features x (F,)."""
        single = _taken(self._single) or _pass(self.network, 1)
        single.inputs[:, 0] = x
        for call in single.calls:
            call()
        logit, scaled_return = single.answers()[0].tolist()
        self._single.append(single)
        return self._within_limits(logit, scaled_return)

    def readings(self, X: Float32) -> list[Reading]:
        """What `read` makes of each row of X (n, F), to the bit."""
        if len(X) <= FEW:
            return [self.read(x) for x in X]
        said = np.zeros((len(X), 2), np.float32)
        # made anew each time: kept, they would be most of what a process with many versions holds
        passes = [_row_by_row(self.network.member(k)) for k in range(self.network.members)]
        for start in range(0, len(X), ROWS):
            rows, into = X[start : start + ROWS], said[start : start + ROWS]
            for each in passes:
                each.inputs[: len(rows), 0] = rows
                for call in each.calls:
                    call()
                into += each.outputs[: len(rows), 0]  # one after another, as a sum over members takes them
        return [self._within_limits(*row) for row in said.tolist()]

    def _within_limits(self, logit: float, scaled_return: float) -> Reading:
        logit = min(max(logit, -LARGEST_LOGIT), LARGEST_LOGIT)
        if self.knots is not None:
            p = float(np.interp(logit, *self.knots))
            logit = math.log(p) - math.log1p(-p)
        return Reading(logit, min(max(scaled_return, -LARGEST_RETURN), LARGEST_RETURN))

    def forecast(self, reading: Reading, scale: float, close: float, moved: Recalibration) -> Forecast:
        """What is said of a row, given the volatility of one bar's log return, its close, and how far calibration moved."""
        size = min(scale * math.sqrt(self.horizon), LARGEST_SIZE)
        expected, half = reading.scaled_return * size, min(self.width(moved) * size, LARGEST_HALF)
        return Forecast(
            p_up=1 / (1 + math.exp(-reading.logit * math.exp(-moved.log_temperature))),
            expected_return=expected,
            price=close * math.exp(expected),
            low=close * math.exp(expected - half),
            high=close * math.exp(expected + half),
        )

    def after(self, moved: Recalibration, reading: Reading, up: bool, scaled_return: float) -> Recalibration:
        """How far calibration has moved once it is known what came of a row: whether it rose, and its return in units of
        its expected size."""
        inside = abs(scaled_return - reading.scaled_return) <= self.width(moved)
        return recalibration.after(moved, reading.logit, up, inside, LEVEL)

    def width(self, moved: Recalibration) -> float:
        """The half-width of the interval, in units of the return's expected size."""
        return self.interval * math.exp(moved.log_width)

    def outputs(self, X: Float32) -> Float32:
        """For rows of raw features X (n, F) the calibrated logit of up and the return in units of its expected size,
        (n, 2). Quicker than `forecasts`, and different in the last bits."""
        logits, returns = out = np.empty((2, len(X)), np.float32)
        block = _taken(self._blocks) or _pass(self.network, _rows_at_once(self.network))
        size = block.inputs.shape[1]
        for start in range(0, len(X), size):
            rows = X[start : start + size]
            block.inputs[:, : len(rows)] = rows
            for call in block.calls:
                call()
            out[:, start : start + size] = block.answers()[: len(rows)].T
        self._blocks.append(block)
        np.clip(logits, -LARGEST_LOGIT, LARGEST_LOGIT, out=logits)
        np.clip(returns, -LARGEST_RETURN, LARGEST_RETURN, out=returns)
        if self.knots is not None:
            p = np.interp(logits, *self.knots)
            logits[:] = np.log(p) - np.log1p(-p)
        return out.T


@dataclass(frozen=True)
class _Pass:
    """A forward pass of some rows through K members: fill `inputs` (K, rows, F), make the calls, take the answers."""

    inputs: Float32
    calls: tuple[Callable[[], object], ...]
    outputs: Float32  # (K, rows, 2)

    def answers(self) -> Float32:
        """The sum of the members' outputs, (rows, 2)."""
        if len(self.outputs) == 1:  # nearly always so, and quicker
            first: Float32 = self.outputs[0]
            return first
        total: Float32 = self.outputs.sum(axis=0)
        return total


def _pass(network: Network, rows: int) -> _Pass:
    """What a tape does, with the two parts that nearly all of the time goes into in their quickest form."""
    tape = bind(network, rows)
    x, parameters, alone = tape.inputs, network.parameters, network.members * rows == 1
    calls: list[Callable[[], object]] = []
    for part, bound in zip(network.architecture.parts, tape.parts, strict=True):
        width, out = x.shape[2] - 1, bound.out.value
        own, parameters = np.split(parameters, [part.parameters(width)], axis=1)
        if isinstance(part, Dense):
            W = own.reshape(-1, width + 1, part.units)
            if alone:  # of a vector's product np.dot takes half the time of np.matmul
                calls.append(partial(np.dot, x[0, 0], W[0], out[0, 0, :-1]))
            else:
                calls.append(partial(np.matmul, x, W, out[..., :-1]))
        elif part == Activate("relu"):
            # NumPy compares two arrays in vectors, but an array and a number one by one
            calls.append(partial(np.maximum, x, np.zeros_like(x), out=out))
        else:
            calls.append(bound.forward)
        x = out
    return _Pass(tape.inputs[..., :-1], tuple(calls), tape.outputs)


def _row_by_row(member: Network) -> _Pass:
    """A pass of ROWS rows whose products are those of single rows, and hence to the bit what `predict` says.

    Each row is a member of its own to it, and all of them have the same weights.
    """
    each = (
        np.broadcast_to(array, (ROWS, array.shape[1])) for array in (member.parameters, member.statistics)
    )
    return _pass(Network(member.architecture, *each), 1)


def _rows_at_once(network: Network) -> int:
    """How many rows of a batch to take together."""
    largest: int = max(layer.share.stop - layer.share.start for layer in network.architecture.layers)
    uncopied = UNCOPIED // largest // 16 * 16  # whole vectors of float32
    return min(max(uncopied, FEWEST), MOST)


def _taken(idle: list[T]) -> T | None:
    """One of these, off the list; None where another thread took the last."""
    try:
        return idle.pop()
    except IndexError:
        return None


class Learned(NamedTuple):
    """What a version keeps of its training: what it looks at, the network, and how features are scaled."""

    features: FeatureSet
    network: Network
    mean: Float64
    scale: Float64


def learned(arrays: dict[str, Array], manifest: dict[str, Any]) -> Learned:
    """The network that a version's arrays and manifest describe, as it was trained. Raises BadArtifact where they do not
    fit together, and where its features are not all there any more or have another definition."""
    try:
        features = feature_set_from(manifest)
    except BadInput as error:
        raise BadArtifact(f"this version's features are not all there any more: {error}") from error
    except (KeyError, TypeError) as error:
        raise _no_network(error) from error
    if features.sha256 != manifest.get("features_sha256"):
        raise BadArtifact(
            "this version's features have another definition now, so its weights no longer fit: train anew"
        )
    try:
        network = Network(
            _architecture(manifest),
            # versions of one member once had no axis for it, and some no statistics
            np.atleast_2d(arrays["parameters"]),
            np.atleast_2d(arrays.get("statistics", np.empty((len(np.atleast_2d(arrays["parameters"])), 0)))),
        )
        mean, scale = arrays["mean"].astype(np.float64), arrays["scale"].astype(np.float64)
        _check(network, len(features.columns), mean, scale)
    except BadArtifact:
        raise
    except (BadInput, KeyError, TypeError, ValueError, IndexError) as error:
        raise _no_network(error) from error
    return Learned(features, network, mean, scale)


def _no_network(error: Exception) -> BadArtifact:
    return BadArtifact(f"these arrays and their manifest do not make a network: {error!r}")


def from_arrays(arrays: dict[str, Array], manifest: dict[str, Any]) -> Predictor:
    """The predictor that a version's arrays and manifest describe. Raises BadArtifact where they do not fit together."""
    features, network, mean, scale = learned(arrays, manifest)
    if manifest["horizon"] < 1:
        raise BadArtifact(f"its manifest says that it looks {manifest['horizon']} bars ahead")
    temperature, interval, base_rate, *domain = arrays["calibration"].tolist()
    with np.errstate(all="ignore"):  # folding refuses what is not finite
        scaling = folding.elementwise(1 / scale, -mean / scale)
        cooling = folding.elementwise(1 / (network.members * np.array([temperature, 1.0])), np.zeros(2))
    return Predictor(
        features=features,
        horizon=int(manifest["horizon"]),
        network=folding.fold(network, scaling, cooling),
        knots=_knots(arrays["knots"]) if "knots" in arrays else None,
        interval=interval,
        base_rate=base_rate,
        scaler=Scaler(arrays["mean"], arrays["scale"]),
        domain=domain[0] if domain else math.inf,  # versions once did not know theirs
        jump_z=float(manifest.get("config", {}).get("jump_z", JUMP_Z)),
        sha256=artifact.digest(arrays),
        first_closed_at=int(manifest["first_closed_at"]),
        fitted_until=int(manifest["fitted_until"]),
        seen_until=int(manifest["seen_until"]),
    )


def judged(arrays: dict[str, Array], manifest: dict[str, Any]) -> Predictor:
    """What can be judged of a version on rows that it has not learned from: where it has learned from all rows, its twin
    that held the newest back, else itself. Raises BadArtifact as `from_arrays` does."""
    twin = manifest.get("twin")
    if twin is None:
        return from_arrays(arrays, manifest)
    own = {key.removeprefix(TWIN): array for key, array in arrays.items() if key.startswith(TWIN)}
    return from_arrays({**arrays, **own}, {**manifest, **twin})


def from_artifact(packed: Packed) -> Predictor:
    """The predictor of a stored version. Raises BadArtifact where it is damaged or cannot be used any more."""
    arrays, manifest = artifact.unpack(packed)
    try:
        return from_arrays(arrays, manifest)
    except BadArtifact:
        raise
    except (BadInput, KeyError, TypeError, ValueError, IndexError) as error:
        raise _no_network(error) from error


def _architecture(manifest: dict[str, Any]) -> Architecture:
    if "architecture" in manifest:
        return architecture_from(manifest["architecture"])
    # a version from before there were other networks than plain perceptrons; their parameters lie the same way
    inputs, *hidden, outputs = manifest["sizes"]
    return perceptron(inputs, hidden, outputs, activation=manifest["activation"])


def _check(network: Network, features: int, mean: Float64, scale: Float64) -> None:
    """Raises BadArtifact unless these are as many numbers as the architecture says."""
    architecture, members = network.architecture, max(network.members, 1)
    for name, found, wanted in (
        ("inputs", architecture.inputs, features),
        ("outputs", architecture.outputs, 2),
        ("parameters", network.parameters.shape, (members, architecture.parameters)),
        ("statistics", network.statistics.shape, (members, architecture.statistics)),
        ("means", mean.shape, (features,)),
        ("scales", scale.shape, (features,)),
    ):
        if found != wanted:
            raise BadArtifact(
                f"these arrays and their manifest do not make a network: {found} {name}, not {wanted}"
            )


def _knots(array: Array) -> Float64:
    """The knots of an isotonic calibration. Raises BadArtifact unless logits rise, and probabilities do not fall."""
    knots = array.astype(np.float64)
    logits, p = knots
    if not (len(p) and (np.diff(logits) > 0).all() and (np.diff(p) >= 0).all() and 0 < p[0] <= p[-1] < 1):
        raise BadArtifact("the knots of its calibration do not rise from above 0 to below 1")
    knots.flags.writeable = False
    return knots
