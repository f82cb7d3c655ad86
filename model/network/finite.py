"""Where a network's numbers first stopped being finite."""

import numpy as np

from model.network.activations import Array
from model.network.gates import Activate
from model.network.network import LEARN, Network, Tape, leaves


def first_broken(network: Network, gradients: Array, tape: Tape, member: int) -> str | None:
    """Where, after a step's forward and backward pass, a member's numbers first were not finite: the name of a layer,
    "inputs", or None where every signal, parameter and gradient is finite (a loss may still have overflowed).

    In the order in which they came about. Forward, the first layer whose own parameters are not finite, or what it
    and its gate put out. Where the whole way forward is finite, backward: the last layer whose gradient is not.
    Within a residual connection signals can be seen at gates and at its end only.
    """
    odd = _first_forward(network, tape, member)
    if odd is not None:
        return odd
    for layer in reversed(network.architecture.layers):
        if not np.isfinite(gradients[member, layer.share]).all():
            return layer.name
    return None


def _first_forward(network: Network, tape: Tape, member: int) -> str | None:
    """The part of it that looks at the way forward."""
    gates, layers = iter(tape.gates), iter(network.architecture.layers)
    last = "inputs"

    def odd(signal: Array) -> bool:
        return not np.isfinite(signal).all()

    if odd(tape.inputs[member]):
        return last
    for part, bound in zip(network.architecture.parts, tape.parts, strict=True):
        for leaf in leaves((part,)):
            if isinstance(leaf, LEARN):
                layer = next(layers)
                last = layer.name
                if odd(network.parameters[member, layer.share]):
                    return last
            elif isinstance(leaf, Activate) and odd(next(gates).a[member]):
                return last
        if odd(bound.out.value[member]):
            return last
    return None
