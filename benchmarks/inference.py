"""Answers of a frozen network beside onnxruntime and PyTorch: `python -m benchmarks.inference [--quick] [--json]`.

The network is M of the training benchmark, 64-128-64-2, ReLU. Every side has the same weights, takes a NumPy array and
gives back a NumPy array or numbers, in one process with one thread; before anything is timed their answers are compared.
The sides take turns, and figures are medians over all calls. Ours answers one row with a whole forecast (probability,
return, price and interval), the others with two numbers.
"""

import importlib.util
import math
import multiprocessing
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import report
from benchmarks.report import Row
from benchmarks.sides.turns import pinned
from benchmarks.training import M
from model.breaks import JUMP_Z
from model.features import DEFAULT
from model.network import folding
from model.network.network import Network, perceptron
from model.predictor import Forecast, Predictor
from model.scaler import Scaler

Float32 = NDArray[np.float32]
Weights = list[tuple[Float32, Float32]]  # W (I, O) and b (O,) of each layer
Answer = Callable[[], Any]  # the rows' logits and returns (B, 2), or one row's Forecast

ALIKE = 1e-5
MANY = 1_000
ROUNDS, QUICK_ROUNDS = 20, 6
CALLS = {1: 2_000, MANY: 100}  # of a side's turn


def weights() -> Weights:
    """Such that outputs are about 1 in size."""
    rng = np.random.default_rng(0)
    return [
        (
            (rng.normal(size=(inputs, outputs)) * np.sqrt(2 / inputs)).astype(np.float32),
            (0.1 * rng.normal(size=outputs)).astype(np.float32),
        )
        for inputs, outputs in pairwise(M.sizes)
    ]


def onnxruntime(layers: Weights, x: Float32) -> Answer:
    """A graph of Gemm and Relu."""
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    nodes, held, name = [], [], "x"
    for i, (W, b) in enumerate(layers):
        held += [numpy_helper.from_array(W, f"W{i}"), numpy_helper.from_array(b, f"b{i}")]
        out = f"z{i}" if i < len(layers) - 1 else "outputs"
        nodes.append(helper.make_node("Gemm", [name, f"W{i}", f"b{i}"], [out]))
        name = out
        if i < len(layers) - 1:
            name = f"a{i}"
            nodes.append(helper.make_node("Relu", [out], [name]))
    graph = helper.make_graph(
        nodes,
        "perceptron",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", M.inputs])],
        [helper.make_tensor_value_info("outputs", TensorProto.FLOAT, ["rows", 2])],
        held,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return lambda: session.run(None, {"x": x})[0]


def pytorch(layers: Weights, x: Float32, modules: bool) -> Answer:
    """In inference mode, from its modules as most write it, or of plain functions, which is quicker."""
    import torch
    from torch.nn import functional as F  # noqa: N812  its own docs' name

    torch.set_num_threads(1)
    held = [(torch.from_numpy(W.T.copy()), torch.from_numpy(b)) for W, b in layers]
    parts: list[Any] = []
    for W, b in held:
        linear = torch.nn.Linear(*W.T.shape)
        linear.load_state_dict({"weight": W, "bias": b})
        parts += [linear, torch.nn.ReLU()]
    network = torch.nn.Sequential(*parts[:-1]).eval()

    def by_modules() -> Any:
        with torch.inference_mode():
            return network(torch.from_numpy(x)).numpy()

    def by_functions() -> Any:
        with torch.inference_mode():
            a = torch.from_numpy(x)
            for W, b in held[:-1]:
                a = F.relu(F.linear(a, W, b))
            return F.linear(a, *held[-1]).numpy()

    return by_modules if modules else by_functions


def ours(layers: Weights, x: Float32) -> Answer:
    """The product's predictor: a forecast of one row, the outputs of many."""
    network = Network(
        perceptron(M.inputs, M.hidden, 2),
        np.concatenate([np.vstack((W, b)).ravel() for W, b in layers])[None],
        np.empty((1, 0), np.float32),
    )
    as_it_is = [folding.elementwise(np.ones(width), np.zeros(width)) for width in (M.inputs, 2)]
    predictor = Predictor(
        features=DEFAULT,
        horizon=1,
        network=folding.fold(network, *as_it_is),
        knots=None,
        interval=1.0,
        base_rate=0.5,
        scaler=Scaler(np.zeros(M.inputs, np.float32), np.ones(M.inputs, np.float32)),
        domain=math.inf,
        jump_z=JUMP_Z,
        sha256="",
        first_closed_at=0,
        fitted_until=0,
        seen_until=0,
    )
    if len(x) == 1:
        return partial(predictor.predict, x[0], 1.0, 1.0)
    return partial(predictor.outputs, x)


OURS = "ours"
PEERS: dict[str, tuple[Callable[[Weights, Float32], Answer], tuple[str, ...]]] = {
    "onnxruntime": (onnxruntime, ("onnx", "onnxruntime")),
    "PyTorch functions": (partial(pytorch, modules=False), ("torch",)),
    "PyTorch modules": (partial(pytorch, modules=True), ("torch",)),
}


def measure(rows: int, rounds: int) -> dict[str, float]:
    """The median microseconds of a call by side. Raises ValueError where a side answers otherwise."""
    layers = weights()
    x = np.random.default_rng(1).normal(size=(rows, M.inputs)).astype(np.float32)
    sides = {OURS: ours(layers, x)}
    for name, (make, libraries) in PEERS.items():
        if all(map(importlib.util.find_spec, libraries)):
            sides[name] = make(layers, x)
    exact = x.astype(np.float64)
    for W, b in layers[:-1]:
        exact = np.maximum(exact @ W + b, 0)
    exact = exact @ layers[-1][0] + layers[-1][1]
    for name, answer in sides.items():
        error = float(np.abs(_numbers(answer()) - exact).max())
        if not error <= ALIKE:
            raise ValueError(f"{name} answers {rows} rows with an error of {error}")
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, answer in sides.items():
            times[name] += [_microseconds(answer) for _ in range(CALLS[rows])]
    return {name: statistics.median(found) for name, found in times.items()}


def _numbers(answer: Any) -> NDArray[Any]:
    if isinstance(answer, Forecast):
        p = answer.p_up
        return np.array([[math.log(p / (1 - p)), answer.expected_return]])
    return np.asarray(answer)


def _microseconds(answer: Answer) -> float:
    start = time.perf_counter()
    answer()
    return (time.perf_counter() - start) * 1e6


def main() -> None:
    """Measures one row and a thousand."""
    asked = report.arguments("Answers of a frozen network beside onnxruntime and PyTorch.")
    found: list[Row] = []
    for rows in (1, MANY):
        with pinned(1), ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
            took = process.submit(measure, rows, QUICK_ROUNDS if asked.quick else ROUNDS).result()
        case = "M, one row" if rows == 1 else f"M, {rows:,} rows"
        peers = [name for name in took if name != OURS]
        found += [Row(case, 1, took[OURS], "us", name, took[name]) for name in peers]
        if not peers:
            found.append(Row(case, 1, took[OURS], "us"))
    report.show("inference", found, asked.json)


if __name__ == "__main__":
    main()
