"""The exported graph answers like the predictor, in a runtime that knows nothing of it."""

import json
import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from model import dataset, features, onnx, predictor
from model.bars import timeframe
from model.network import network
from model.predictor import Predictor
from model.scaler import fit_scaler
from tests import real_bars
from tests.model import versions
from tests.model.versions import ARCHITECTURES, KNOTS, contents, trained

runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is the oracle of exports")

ABOUT = {"version": "7", "symbol": "ETHUSDT", "timeframe": "1h"}


def session(content: bytes) -> Any:
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def compare(model: Predictor, X: NDArray[np.float32], scale: NDArray[np.float32]) -> None:
    p_up, expected = session(onnx.exported(model, ABOUT)).run(None, {"features": X, "scale": scale})
    assert p_up.shape == expected.shape == (len(X),)
    assert p_up.dtype == expected.dtype == np.float32
    said = [model.predict(x, s, 1.0) for x, s in zip(X, scale.tolist(), strict=True)]
    np.testing.assert_allclose(p_up, [s.p_up for s in said], atol=1e-5)
    np.testing.assert_allclose(expected, [s.expected_return for s in said], atol=1e-5)


@pytest.mark.parametrize("knots", [None, KNOTS, KNOTS[:, :1]], ids=["temperature", "isotonic", "one knot"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_onnxruntime_answers_alike(name: str, knots: NDArray[Any] | None) -> None:
    model = predictor.from_arrays(*contents(trained(ARCHITECTURES[name]), knots, horizon=3))
    X = versions.rows()
    compare(model, X, np.random.default_rng(0).uniform(0.001, 0.05, len(X)).astype(np.float32))


def test_onnxruntime_answers_like_an_ensemble() -> None:
    each = [trained(ARCHITECTURES["gelu-layer-residual"], seed) for seed in range(3)]
    model = predictor.from_arrays(*contents(network.stacked(each), KNOTS))
    X = versions.rows()
    compare(model, X, np.full(len(X), 0.01, np.float32))


@pytest.mark.parametrize("name", ["relu-None", "gelu-layer-residual", "convolution"])
def test_onnxruntime_answers_alike_on_real_rows(name: str) -> None:
    seen = features.rows(real_bars.bars("ETHUSDT_1h").tail(3_000), timeframe("1h"), versions.FEATURES)
    data = dataset.build(seen, versions.FEATURES, 1)
    scaler = fit_scaler(data.X)
    arrays, manifest = contents(trained(ARCHITECTURES[name]))
    model = predictor.from_arrays({**arrays, "mean": scaler.mean, "scale": scaler.scale}, manifest)
    compare(model, data.X, data.scale.astype(np.float32))


def test_it_is_clamped_like_a_prediction() -> None:
    model = predictor.from_arrays(*contents(trained(ARCHITECTURES["linear"])))
    X = versions.rows(64) * np.float32(1e6)
    p_up, expected = session(onnx.exported(model, ABOUT)).run(
        None, {"features": X, "scale": np.full(64, 0.01, np.float32)}
    )
    assert 0 < p_up.min() < 1e-6
    assert p_up.max() < 1
    assert np.abs(expected).max() == pytest.approx(10 * 0.01)


def test_it_says_what_it_is() -> None:
    model = predictor.from_arrays(*contents(trained(ARCHITECTURES["relu-None"]), horizon=3))
    given = session(onnx.exported(model, ABOUT))
    said = given.get_modelmeta().custom_metadata_map
    assert json.loads(said.pop("features")) == list(versions.FEATURES.names)
    assert said == {
        **ABOUT,
        "features_sha256": versions.FEATURES.sha256,
        "horizon": "3",
        "sha256": model.sha256,
    }
    assert [(i.name, i.shape, i.type) for i in given.get_inputs()] == [
        ("features", ["N", 24], "tensor(float)"),
        ("scale", ["N"], "tensor(float)"),
    ]
    assert [(o.name, o.shape) for o in given.get_outputs()] == [("p_up", ["N"]), ("expected_return", ["N"])]


def test_the_same_predictor_gives_the_same_bytes() -> None:
    first, again = (
        onnx.exported(predictor.from_arrays(*contents(trained(ARCHITECTURES["elu-layer"]), KNOTS)), ABOUT)
        for _ in range(2)
    )
    assert first == again


def test_every_activation_has_a_form() -> None:
    from model.network.activations import ACTIVATIONS

    assert onnx.ACTIVATIONS.keys() == ACTIVATIONS.keys()


def test_the_return_is_that_over_the_horizon() -> None:
    arrays, manifest = contents(trained(ARCHITECTURES["linear"]))
    x, scale = versions.rows(1), np.array([0.01], np.float32)
    near, far = (
        session(onnx.exported(predictor.from_arrays(arrays, {**manifest, "horizon": horizon}), ABOUT)).run(
            ["expected_return"], {"features": x, "scale": scale}
        )[0][0]
        for horizon in (1, 9)
    )
    assert far == pytest.approx(math.sqrt(9) * near, rel=1e-6)
