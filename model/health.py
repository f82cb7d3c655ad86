"""Gradient health: what one step of a training shows about each of its layers, and the verdict on the whole.

A layer's gradient is judged by its size relative to the layer's own weights, and beside the hidden layers after it,
through which it came: near an optimum every gradient is small together, which is no fault, whereas a gradient
that shrinks (or grows) by orders of magnitude on its way back is one, at whatever size.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from model.errors import BadInput
from model.network.activations import ACTIVATIONS, Array
from model.network.network import Network, Tape, over

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


@dataclass(frozen=True)
class GradientHealth:
    """One layer at one step.

    `gradient_norm` is the Euclidean norm over weights and biases, `update_ratio` the norm of the step taken over
    the norm of the parameters; both are None where they are not finite numbers. `dead_fraction` is the share of
    units whose gate is shut for every row of the batch (activations whose flat side means dead: ReLU);
    `saturated_fraction` the share of rows times units at the ends of the gate's range (tanh, sigmoid). Layers
    without a gate have 0 of both. `non_finite` counts entries of gradient, step and parameters.
    """

    layer: int
    name: str
    gradient_norm: float | None
    update_ratio: float | None
    dead_fraction: float
    saturated_fraction: float
    non_finite: int
    verdict: str


def measure(network: Network, tape: Tape, gradient: Network, update: Array) -> tuple[GradientHealth, ...]:
    """The health of every layer, first to last, at one step of a training.

    `tape` is the forward pass and `gradient` the backward pass of the step's batch, `update` (P,) what the
    optimiser added to the flat parameters; `network` may be taken before or after that step.
    """
    activation = ACTIVATIONS[network.architecture.activation]
    steps = over(network.architecture, update).layers
    rows: list[GradientHealth] = []
    after: float | None = None  # the largest relative gradient of the hidden layers after this one
    shut = ""  # the verdict of the nearest of them that is dead or saturated
    for i in reversed(range(len(network.layers))):
        weights, d, step = (
            np.concatenate((layer.W.ravel(), layer.b))
            for layer in (network.layers[i], gradient.layers[i], steps[i])
        )
        dead = saturated = 0.0
        if i < len(tape.z):
            flat = activation.flat(tape.z[i], tape.a[i])
            if activation.flat_means == "dead":
                dead = float(flat.all(axis=0).mean())
            else:
                saturated = float(flat.mean())
        norm, size = _norm(d), _norm(weights)
        relative = _ratio(norm, size)
        non_finite = sum(int(np.count_nonzero(~np.isfinite(part))) for part in (d, step, weights))
        update_ratio = _ratio(_norm(step), size)
        judged_dead = dead if len(tape.outputs) >= DEAD_ROWS else 0.0
        beside = _ratio(relative, after)
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
        name = network.architecture.layer_names[i]
        rows.append(GradientHealth(i, name, norm, update_ratio, dead, saturated, non_finite, verdict))
        if relative is not None and i < len(tape.z):
            after = max(relative, after or 0.0)
    return tuple(reversed(rows))


def _norm(values: Array) -> float | None:
    """The Euclidean norm, in float64 so that squares of large float32 numbers stay finite."""
    with np.errstate(over="ignore", invalid="ignore"):
        norm = float(np.linalg.norm(values.astype(np.float64)))
    return norm if np.isfinite(norm) else None


def _ratio(part: float | None, whole: float | None) -> float | None:
    """part / whole; None where either is unknown, or the whole is nothing."""
    return None if part is None or not whole else part / whole


def verdict_of(epochs: Sequence[Sequence[GradientHealth]]) -> str:
    """The verdict on a training: the worst of any layer in its last LATER_EPOCHS epochs.

    What the first epochs went through is not held against it. Raises BadInput where there is no epoch.
    """
    if not epochs:
        raise BadInput("a training without an epoch has no gradient health")
    return min((row.verdict for epoch in epochs[-LATER_EPOCHS:] for row in epoch), key=VERDICTS.index)


def document(health: GradientHealth) -> dict[str, Any]:
    """One layer's row, as the design's gradient-health document has it."""
    return asdict(health)
