"""The frozen predictor says what the trained network says, from any thread, and nothing of backprop comes with it."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from model import artifact, predictor, training
from model.errors import BadArtifact, BarpropError
from model.network.network import forward, over
from tests.model.test_training import DATA, SMALL

FIT = training.fit(DATA, SMALL)
MODEL = predictor.from_arrays(*training.contents(FIT))


def test_folding_changes_no_answer() -> None:
    """Against the unfolded network in float64: scaling, layers, temperature one after another."""
    wide = over(FIT.architecture, FIT.parameters.astype(np.float64))
    X = (DATA.X.astype(np.float64) - FIT.scaler.mean) / FIT.scaler.scale
    outputs = forward(wide, X).outputs
    p = 1 / (1 + np.exp(-outputs[:, 0] / FIT.temperature))
    for i in range(0, len(DATA), 97):
        said = MODEL.predict(DATA.X[i], DATA.scale[i], DATA.close[i])
        assert said.p_up == pytest.approx(p[i], abs=2e-5)
        assert said.expected_return == pytest.approx(
            outputs[i, 1] * DATA.scale[i], abs=2e-5 * DATA.scale[i] + 1e-9
        )
        assert said.price == pytest.approx(DATA.close[i] * np.exp(said.expected_return), rel=1e-12)
        assert said.low < said.price < said.high
        assert np.log(said.high / said.price) == pytest.approx(FIT.interval * DATA.scale[i], rel=1e-9)


def test_a_stored_version_answers_to_the_bit_like_the_fresh_one() -> None:
    stored = predictor.from_artifact(artifact.pack(*training.contents(FIT)))
    for i in range(0, len(DATA), 50):
        row = DATA.X[i], DATA.scale[i], DATA.close[i]
        assert stored.predict(*row) == MODEL.predict(*row)


def test_sixteen_threads_get_the_answers_of_one() -> None:
    rows = [(DATA.X[i], float(DATA.scale[i]), float(DATA.close[i])) for i in range(len(DATA))]
    alone = [MODEL.predict(*row) for row in rows]
    with ThreadPoolExecutor(16) as pool:
        for answers in pool.map(lambda _: [MODEL.predict(*row) for row in rows], range(16)):
            assert answers == alone


def test_a_probability_never_reaches_certainty() -> None:
    extreme = np.full(DATA.X.shape[1], 1e6, np.float32)
    said = MODEL.predict(extreme, 0.01, 100.0)
    assert 0 < said.p_up < 1


def test_a_feature_that_is_defined_otherwise_now_is_refused() -> None:
    arrays, manifest = training.contents(FIT)
    with pytest.raises(BadArtifact, match="train anew"):
        predictor.from_arrays(arrays, {**manifest, "features_sha256": "0" * 64})


def test_its_arrays_are_read_only() -> None:
    assert not any(a.flags.writeable for layer in MODEL.layers for a in (layer.W, layer.b))


def test_answering_imports_no_training_code() -> None:
    code = (
        "import sys, model.predictor; "
        "print([m for m in sys.modules if m in ('model.training', 'model.network.network', "
        "'model.network.losses', 'model.network.optimisers', 'model.network.gradcheck')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_longer_horizon_widens_the_interval_with_its_square_root() -> None:
    far = replace(MODEL, horizon=4)
    near, wide = (m.predict(DATA.X[0], 0.01, 100.0) for m in (MODEL, far))
    assert np.log(wide.high / wide.low) == pytest.approx(2 * np.log(near.high / near.low))


@pytest.mark.parametrize(
    "wrong", [{"sizes": [3, 2]}, {"sizes": None}, {"features": ["no_such_feature"]}, {"horizon": "x"}]
)
def test_arrays_that_do_not_fit_their_manifest_are_refused(wrong: dict[str, object]) -> None:
    arrays, manifest = training.contents(FIT)
    with pytest.raises(BarpropError):
        predictor.from_artifact(artifact.pack(arrays, {**manifest, **wrong}))
