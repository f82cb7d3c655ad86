"""The frozen predictor says what the network says, from any thread, and nothing of training comes with it."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from model import artifact, predictor
from model.errors import BadArtifact, BarpropError
from model.network import network
from model.network.gates import Activate
from model.network.layers import Dense
from model.network.network import Network, Residual, perceptron
from model.network.normalisation import LayerNorm
from model.recalibration import FRESH
from tests.model import versions
from tests.model.versions import ARCHITECTURES, KNOTS, contents, trained

X = versions.rows()
CONTENTS = contents(trained(perceptron(24, (16, 8), 2, normalisation="batch")))
MODEL = predictor.from_arrays(*CONTENTS)


def sigmoid(z: NDArray[Any]) -> NDArray[Any]:
    return 1 / (1 + np.exp(-z))


def unfolded(net: Network, arrays: dict[str, NDArray[Any]]) -> tuple[NDArray[Any], NDArray[Any]]:
    """p_up and the scaled return of rows X in float64: scaling, network, calibration, one after another."""
    raw = X.astype(np.float64)
    outputs = network.forward(net.astype(np.float64), (raw - arrays["mean"]) / arrays["scale"])[0]
    logit = np.clip(outputs[:, 0] / arrays["calibration"][0], -15, 15)
    p = np.interp(logit, *arrays["knots"].astype(np.float64)) if "knots" in arrays else sigmoid(logit)
    return p, np.clip(outputs[:, 1], -10, 10)


@pytest.mark.parametrize("knots", [None, KNOTS], ids=["temperature", "isotonic"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_folding_changes_no_answer(name: str, knots: NDArray[Any] | None) -> None:
    net = trained(ARCHITECTURES[name])
    arrays, manifest = contents(net, knots, horizon=4)
    model = predictor.from_arrays(arrays, manifest)
    p, scaled = unfolded(net, arrays)
    said = [model.predict(x, 0.01, 50.0) for x in X]
    np.testing.assert_allclose([s.p_up for s in said], p, atol=2e-5)
    np.testing.assert_allclose([s.expected_return / 0.02 for s in said], scaled, atol=2e-4, rtol=2e-5)
    outputs = model.outputs(X)
    assert outputs.dtype == np.float32
    np.testing.assert_allclose(sigmoid(outputs[:, 0].astype(np.float64)), p, atol=2e-5)
    np.testing.assert_allclose(outputs[:, 1], scaled, atol=2e-4, rtol=2e-5)


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_rows_together_say_what_each_says_alone(name: str, members: int) -> None:
    """To the bit, and of an ensemble the mean of its members' outputs."""
    each = [trained(ARCHITECTURES[name], seed) for seed in range(members)]
    model = predictor.from_arrays(*contents(network.stacked(each)))
    scale, close = np.linspace(0.001, 0.2, len(X)), np.linspace(9.0, 11.0, len(X))
    said = [model.predict(*row) for row in zip(X, scale.tolist(), close.tolist(), strict=True)]
    rows = zip(model.readings(X), scale.tolist(), close.tolist(), strict=True)
    assert [model.forecast(*row, FRESH) for row in rows] == said
    assert model.readings(X[:7]) == [model.read(x) for x in X[:7]]
    alone = [predictor.from_arrays(*contents(net)).outputs(X) for net in each]
    modest = np.abs(alone).max(axis=(0, 2)) < 10  # limits are those of the mean
    np.testing.assert_allclose(model.outputs(X)[modest], np.mean(alone, axis=0)[modest], atol=2e-4, rtol=2e-4)


def test_only_what_is_not_affine_is_left_between_dense_layers() -> None:
    def kinds(name: str) -> list[type]:
        model = predictor.from_arrays(*contents(trained(ARCHITECTURES[name])))
        assert model.network.architecture.statistics == 0
        return [type(part) for part in model.network.architecture.parts]

    assert kinds("relu-batch") == [Dense, Activate, Dense, Activate, Dense, Activate, Dense]
    assert kinds("convolution") == [Dense, Activate, Dense, LayerNorm, Activate, Dense]
    assert kinds("identity-batch-residual") == kinds("one affine step") == kinds("linear") == [Dense]
    assert kinds("around nothing") == [Dense, Activate, Dense]
    assert kinds("gates first") == [Dense, LayerNorm, Residual, Dense]


@pytest.mark.parametrize("rows", [0, 1, 511, 512, 513, 1_100])
def test_a_batch_may_have_any_number_of_rows(rows: int) -> None:
    many = versions.rows(1_100)
    outputs = MODEL.outputs(many[:rows])
    assert outputs.shape == (rows, 2)
    np.testing.assert_array_equal(outputs, MODEL.outputs(many)[:rows])


@pytest.mark.parametrize("hidden", [(8,), (128, 64), (300, 200)])
def test_blocks_of_rows_change_no_answer(hidden: tuple[int, ...]) -> None:
    """Small layers, those of blocks small enough for uncopied products, and those of blocks that are not."""
    model = predictor.from_arrays(*contents(trained(perceptron(24, hidden, 2))))
    many = versions.rows(1_100)
    p = [model.predict(x, 0.01, 9.0).p_up for x in many]
    np.testing.assert_allclose(sigmoid(model.outputs(many)[:, 0].astype(np.float64)), p, atol=2e-5)


def test_the_price_and_its_interval_follow_from_the_expected_return() -> None:
    said = MODEL.predict(X[0], 0.01, 100.0)
    assert said.price == pytest.approx(100 * np.exp(said.expected_return), rel=1e-12)
    assert np.log(said.high / said.price) == pytest.approx(1.7 * 0.01, rel=1e-9)
    assert np.log(said.price / said.low) == pytest.approx(1.7 * 0.01, rel=1e-9)


def test_a_longer_horizon_widens_the_interval_with_its_square_root() -> None:
    far = replace(MODEL, horizon=4)
    near, wide = (m.predict(X[0], 0.01, 100.0) for m in (MODEL, far))
    assert np.log(wide.high / wide.low) == pytest.approx(2 * np.log(near.high / near.low))


def test_a_probability_never_reaches_certainty() -> None:
    for extreme in (np.full(24, 1e6, np.float32), np.full(24, -1e6, np.float32)):
        said = MODEL.predict(extreme, 0.01, 100.0)
        assert 0 < said.p_up < 1
        assert abs(said.expected_return) <= 10 * 0.01


@pytest.mark.parametrize("scale", [1e3, 1e300, float("inf")])
def test_a_market_that_moves_beyond_all_measure_still_has_a_price(scale: float) -> None:
    for interval in (MODEL.interval, 1e6):
        said = replace(MODEL, interval=interval).predict(X[0], scale, 100.0)
        assert 0 < said.low < said.price < said.high < float("inf")


def test_a_stored_version_answers_to_the_bit_like_the_fresh_one() -> None:
    stored = predictor.from_artifact(artifact.pack(*CONTENTS))
    assert stored.sha256 == MODEL.sha256 == artifact.digest(CONTENTS[0])
    assert [stored.predict(x, 0.01, 9.0) for x in X] == [MODEL.predict(x, 0.01, 9.0) for x in X]


@pytest.mark.parametrize("name", ["relu-layer-residual", "gelu-None", "convolution", "gates first"])
def test_sixteen_threads_get_the_answers_of_one(name: str) -> None:
    model = predictor.from_arrays(*contents(trained(ARCHITECTURES[name])))
    alone, batch = [model.predict(x, 0.01, 9.0) for x in X], model.outputs(X)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # so that they meet in the middle of a forward pass
    try:
        with ThreadPoolExecutor(16) as pool:
            for answers, outputs in pool.map(
                lambda _: ([model.predict(x, 0.01, 9.0) for x in X], model.outputs(X)), range(32)
            ):
                assert answers == alone
                np.testing.assert_array_equal(outputs, batch)
    finally:
        sys.setswitchinterval(interval)


def test_a_row_of_the_wrong_width_is_refused_and_breaks_nothing() -> None:
    with pytest.raises(ValueError, match="broadcast"):
        MODEL.predict(X[0, :-1], 0.01, 9.0)
    assert MODEL.predict(X[0], 0.01, 9.0) == MODEL.predict(X[0], 0.01, 9.0)


def test_its_arrays_are_read_only() -> None:
    model = predictor.from_arrays(*contents(trained(ARCHITECTURES["relu-None"]), KNOTS))
    assert model.knots is not None
    assert not model.network.parameters.flags.writeable
    assert not model.knots.flags.writeable


def test_answering_imports_no_training_code() -> None:
    code = (
        "import json, sys, model.predictor; "
        "print(json.dumps([m for m in sys.modules if m.partition('.')[0] in ('model', 'threadpoolctl', 'onnx')]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    parts = ("activations", "folding", "gates", "initialisers", "layers", "network", "normalisation", "wires")
    assert set(json.loads(done.stdout)) - {m for m in sys.modules if m.startswith("model.features.")} == {
        *("model", "model.artifact", "model.bars", "model.errors", "model.features", "model.predictor"),
        *("model.breaks", "model.recalibration", "model.resample", "model.scaler"),
        *("model.network", *(f"model.network.{part}" for part in parts)),
    }


def test_a_version_from_before_architectures_were_kept_still_answers() -> None:
    """Its parameters are those of plain dense layers, W and then b of each; written out here by hand."""
    rng = np.random.default_rng(5)
    layers = [(rng.normal(size=(i, o)), rng.normal(size=o)) for i, o in ((24, 6), (6, 4), (4, 2))]
    flat = np.concatenate([array.ravel() for layer in layers for array in layer]).astype(np.float32)
    (arrays, manifest) = contents(trained(ARCHITECTURES["linear"]))
    arrays = {"parameters": flat, **{name: arrays[name] for name in ("mean", "scale", "calibration")}}
    del manifest["architecture"]
    manifest |= {"sizes": [24, 6, 4, 2], "activation": "tanh", "config": {"dropout": 0.3}}
    model = predictor.from_artifact(artifact.pack(arrays, manifest))
    a = (X.astype(np.float64) - arrays["mean"]) / arrays["scale"]
    for W, b in layers[:-1]:
        a = np.tanh(a @ W + b)
    logit = (a @ layers[-1][0] + layers[-1][1])[:, 0] / 0.8
    np.testing.assert_allclose([model.predict(x, 1.0, 1.0).p_up for x in X], sigmoid(logit), atol=2e-5)
    assert model.sha256 == artifact.digest(arrays)


def test_a_feature_that_is_defined_otherwise_now_is_refused() -> None:
    arrays, manifest = CONTENTS
    with pytest.raises(BadArtifact, match="train anew"):
        predictor.from_arrays(arrays, {**manifest, "features_sha256": "0" * 64})


@pytest.mark.parametrize(
    "wrong",
    [
        {"architecture": perceptron(23, (16, 8), 2).document()},
        {"architecture": perceptron(24, (16, 8), 3, normalisation="batch").document()},
        {"architecture": perceptron(24, (16, 9), 2, normalisation="batch").document()},
        {"architecture": perceptron(24, (16, 8), 2).document()},
        {"architecture": {"inputs": 24, "parts": [{"part": "Transformer"}]}},
        {"architecture": {"inputs": 24, "parts": [{"part": "Dense", "units": 2, "depth": 3}]}},
        {"architecture": {"inputs": 24, "parts": []}},
        {"architecture": None},
        {"features": ["no_such_feature"]},
        {"horizon": "x"},
        {"horizon": 0},
        {"horizon": -3},
    ],
)
def test_arrays_that_do_not_fit_their_manifest_are_refused(wrong: dict[str, object]) -> None:
    arrays, manifest = CONTENTS
    with pytest.raises(BarpropError) as refused:
        predictor.from_artifact(artifact.pack(arrays, {**manifest, **wrong}))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("parameters", CONTENTS[0]["parameters"][:-1]),
        ("parameters", CONTENTS[0]["parameters"][:, None]),
        (
            "parameters",
            np.stack([CONTENTS[0]["parameters"]] * 2),
        ),  # of two members, but the statistics of one
        ("parameters", CONTENTS[0]["parameters"][None][:0]),
        ("statistics", CONTENTS[0]["statistics"][:-1]),
        ("mean", CONTENTS[0]["mean"][:-1]),
        ("scale", np.float32(1)[None]),
        ("calibration", np.ones(2)),
        ("knots", np.array([KNOTS[0, ::-1], KNOTS[1]])),
        ("knots", np.array([KNOTS[0], KNOTS[1, ::-1]])),
        ("knots", KNOTS[:, [0, 0]]),
        ("knots", KNOTS * [[1], [2]]),
        ("knots", KNOTS * [[1], [0]]),
        ("knots", KNOTS[0]),
        ("knots", KNOTS[:, :0]),
    ],
)
def test_arrays_of_a_wrong_shape_or_order_are_refused(name: str, value: NDArray[Any]) -> None:
    arrays, manifest = CONTENTS
    with pytest.raises(BadArtifact):
        predictor.from_artifact(artifact.pack({**arrays, name: value}, manifest))


@pytest.mark.parametrize(
    ("name", "at", "value"),
    [("scale", 3, 0.0), ("calibration", 0, 0.0), ("statistics", 16, -1.0), ("parameters", 0, 3e38)],
)
def test_what_is_not_finite_once_folded_is_refused(name: str, at: int, value: float) -> None:
    """Each is finite as stored: a scale of zero, no temperature, a negative variance, weights near float32's end."""
    arrays, manifest = CONTENTS
    sick = arrays[name].copy()
    sick[at] = value
    scale = arrays["scale"] / 10
    with pytest.raises(BadArtifact, match="not finite once"):
        predictor.from_artifact(artifact.pack({**arrays, "scale": scale, name: sick}, manifest))
