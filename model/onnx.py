"""A predictor as an ONNX graph, for programs that answer without this one. It needs the package onnx, the extra `onnx`.

In:  features (N, F), raw, in the order of the metadata, and scale (N,), the volatility of one bar's log return.
Out: p_up (N,) and expected_return (N,), the log return over the horizon. Everything is float32.

Add a kind of part by adding a case to `_Graph.part`, an activation by adding a row to ACTIVATIONS.
"""

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from onnx import ModelProto, NodeProto, TensorProto, checker, helper, numpy_helper

from model.errors import BadInput
from model.network.activations import GELU_A, GELU_B, LEAK
from model.network.gates import Activate
from model.network.layers import Dense
from model.network.network import Residual
from model.network.normalisation import EPSILON, LayerNorm
from model.network.wires import Part
from model.predictor import LARGEST_LOGIT, LARGEST_RETURN, Predictor

OPSET, IR = 17, 8  # the oldest with LayerNormalization, so that many runtimes read it


class _Graph:
    """Nodes and constants as they come; a value is known by its name."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []

    def constant(self, value: ArrayLike, dtype: Any = np.float32) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.array(value, dtype), name))
        return name

    def node(self, kind: str, *inputs: str, out: str | None = None, **attributes: Any) -> str:
        name = out or f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def part(self, part: Part, x: str, width: int, parameters: NDArray[Any]) -> str:
        """What a part of a folded network makes of x (N, width)."""
        match part:
            case Dense():
                W = parameters.reshape(width + 1, part.units)
                return self.node("Gemm", x, self.constant(W[:-1]), self.constant(W[-1]))
            case LayerNorm():
                gamma, beta = np.split(parameters, 2)
                return self.node(
                    "LayerNormalization", x, self.constant(gamma), self.constant(beta), epsilon=EPSILON
                )
            case Activate():
                return ACTIVATIONS[part.name](self, x)
            case Residual():
                return self.node("Add", x, self.chain(part.parts, x, width, parameters))
        raise BadInput(f"a part {type(part).__name__} cannot be exported to ONNX")

    def chain(self, parts: tuple[Part, ...], x: str, width: int, parameters: NDArray[Any]) -> str:
        """What parts make of x one after another."""
        for part in parts:
            own, parameters = np.split(parameters, [part.parameters(width)])
            x = self.part(part, x, width, own)
            width = part.width(width)
        return x

    def column(self, x: str, number: int, limit: float) -> str:
        """One column of x (N, columns), kept within plus and minus `limit`."""
        column = self.node("Gather", x, self.constant(number, np.int64), axis=1)
        return self.node("Clip", column, self.constant(-limit), self.constant(limit))

    def interpolated(self, x: str, knots: NDArray[Any]) -> str:
        """x (N,) interpolated between knots (2, n) and constant outside: a ramp from 0 to 1 for each gap, times its rise."""
        at, p = knots
        widths, rises = (
            np.append(np.diff(at), 1),
            np.append(np.diff(p), 0),
        )  # a last one, as there may be one knot only
        rows = self.node("Unsqueeze", x, self.constant([1], np.int64))
        ramps = self.node("Div", self.node("Sub", rows, self.constant(at)), self.constant(widths))
        ramps = self.node("Clip", ramps, self.constant(0), self.constant(1))
        return self.node("Add", self.node("MatMul", ramps, self.constant(rises)), self.constant(p[0]))


def _silu(graph: _Graph, x: str) -> str:
    return graph.node("Mul", x, graph.node("Sigmoid", x))


def _gelu(graph: _Graph, x: str) -> str:
    """x (1 + tanh(A x + B x³)) / 2."""
    square = graph.node("Mul", x, x)
    inner = graph.node("Add", graph.node("Mul", square, graph.constant(GELU_B)), graph.constant(GELU_A))
    t = graph.node("Tanh", graph.node("Mul", inner, x))
    half = graph.node("Mul", x, graph.constant(0.5))
    return graph.node("Add", half, graph.node("Mul", half, t))


ACTIVATIONS: dict[str, Callable[[_Graph, str], str]] = {
    "relu": lambda graph, x: graph.node("Relu", x),
    "tanh": lambda graph, x: graph.node("Tanh", x),
    "sigmoid": lambda graph, x: graph.node("Sigmoid", x),
    "identity": lambda graph, x: graph.node("Identity", x),
    "leaky_relu": lambda graph, x: graph.node("LeakyRelu", x, alpha=LEAK),
    "elu": lambda graph, x: graph.node("Elu", x, alpha=1.0),
    "softplus": lambda graph, x: graph.node("Softplus", x),
    "silu": _silu,
    "gelu": _gelu,
}


def exported(predictor: Predictor, about: Mapping[str, str]) -> bytes:
    """The predictor as an ONNX model's bytes; the same predictor gives the same bytes. `about` joins its metadata.

    Raises BadInput for a kind of part that has no form in ONNX yet.
    """
    graph, network = _Graph(), predictor.network
    inputs = network.architecture.inputs
    said, *others = (
        graph.chain(network.architecture.parts, "features", inputs, own) for own in network.parameters
    )
    for other in others:
        said = graph.node("Add", said, other)
    logit = graph.column(said, 0, LARGEST_LOGIT)
    if predictor.knots is None:
        graph.node("Sigmoid", logit, out="p_up")
    else:
        graph.node("Identity", graph.interpolated(logit, predictor.knots), out="p_up")
    size = graph.node("Mul", "scale", graph.constant(math.sqrt(predictor.horizon)))
    graph.node("Mul", graph.column(said, 1, LARGEST_RETURN), size, out="expected_return")

    def value(name: str, *shape: str | int) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    model: ModelProto = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "barprop",
            [value("features", "N", inputs), value("scale", "N")],
            [value("p_up", "N"), value("expected_return", "N")],
            graph.constants,
        ),
        producer_name="barprop",
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR,
    )
    helper.set_model_props(
        model,
        {
            **about,
            "features": json.dumps(predictor.features.columns),
            "features_sha256": predictor.features.sha256,
            "horizon": str(predictor.horizon),
            "sha256": predictor.sha256,
        },
    )
    checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))
