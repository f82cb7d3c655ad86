"""The network on a task that everybody knows: handwritten digits, read as well as scikit-learn's perceptron reads them."""

import warnings

import numpy as np
import pytest

from model.config import TrainConfig
from model.epochs import epochs, examples
from model.network import network
from model.network.losses import CategoricalCrossEntropy
from model.network.network import perceptron
from model.network.objective import Head

CLASSES, HIDDEN, SPLITS = 10, 64, 6
CONFIG = TrainConfig(
    optimiser="adamw",
    learning_rate=1e-2,
    schedule="cosine",
    weight_decay=0.1,
    batch=64,
    epochs=40,
    clip_norm=float("inf"),
)


def test_digits_are_read_as_well_as_by_scikit_learns_perceptron() -> None:
    sets = pytest.importorskip("sklearn.datasets", reason="needs scikit-learn, which CI installs")
    from sklearn.neural_network import MLPClassifier

    x, digit = sets.load_digits(return_X_y=True)
    x = ((x - 8) / 8).astype(np.float32)
    heads = (Head(CategoricalCrossEntropy(CLASSES), 1.0, "digit"),)
    architecture = perceptron(x.shape[1], (HIDDEN,), CLASSES)
    ours, theirs = [], []
    for seed in range(SPLITS):
        order = np.random.default_rng(seed).permutation(len(x))
        learn, held = order[:1_347], order[1_347:]
        start = network.initialise(architecture, (np.random.default_rng(seed),))
        rngs = (np.random.default_rng(seed),)
        *_, last = epochs(start, examples(x[learn], (digit[learn],)), heads, CONFIG, rngs)
        read = network.forward(last.networks, x[held])[0].argmax(axis=1)
        ours.append(float((read == digit[held]).mean()))
        peer = MLPClassifier((HIDDEN,), batch_size=CONFIG.batch, max_iter=CONFIG.epochs, random_state=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it might go on
            theirs.append(float(peer.fit(x[learn], digit[learn]).score(x[held], digit[held])))
    assert np.mean(ours) >= 0.97
    assert np.mean(ours) >= np.mean(theirs) - 0.005
