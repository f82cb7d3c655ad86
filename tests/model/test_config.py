"""A config refuses what cannot be, each with what would be right, and survives its document."""

import json
from dataclasses import fields
from typing import Any

import pytest

from model.config import CALIBRATIONS, PLATEAU, TrainConfig, config_from
from model.errors import BadInput
from model.features import DEFAULT, Input
from model.network.activations import ACTIVATIONS
from model.network.initialisers import INITIALISERS
from model.network.optimisers import OPTIMISERS
from model.network.schedules import SCHEDULES

NAN, INF = float("nan"), float("inf")

# Every setting: what is wrong for it, and what the refusal has to say of what would be right.
WRONG: dict[str, tuple[list[Any], str]] = {
    "horizon": ([0, -1, 1.5, NAN], "at least 1"),
    "window": ([0, -5, 900.5], "at least 1"),
    "dead_zone": ([-0.1, NAN, INF], "0 or more"),
    "jump_z": ([0, -1.0, NAN, INF], "above 0"),
    "half_life": ([0, -1, 0.5, NAN], "at least 1"),
    "uniqueness": (["yes", 1], "True or False"),
    "features": ([("no such feature",), (), (DEFAULT.names[0],) * 2], "feature"),
    "inputs": ([(Input("BTCUSDT", "60m"), Input("BTCUSDT", "1h"))], "more than once"),
    "hidden": ([(0,), (16, -1), (8.5,)], "at least"),
    "activation": (["rely", ""], ", ".join(ACTIVATIONS)),
    "initialiser": (["glorot"], ", ".join(INITIALISERS)),
    "normalisation": (["group", ""], "layer, batch"),
    "residual": (["yes", 2], "True or False"),
    "dropout": ([-0.1, 1.0, 1.5, NAN], "from 0 to below 1"),
    "optimiser": (["adamm", ""], ", ".join(OPTIMISERS)),
    "learning_rate": ([0.0, -1e-3, NAN, INF], "above 0"),
    "schedule": (["linear"], ", ".join((*SCHEDULES, PLATEAU))),
    "warm_up": ([-0.1, 1.0, NAN], "from 0 to below 1"),
    "weight_decay": ([-0.1, NAN, INF], "0 or more"),
    "clip_value": ([0.0, -1.0, NAN], "above 0"),
    "clip_norm": ([0.0, -1.0, NAN], "above 0"),
    "batch": ([0, 2.5], "at least 1"),
    "epochs": ([0, 2.5], "at least 1"),
    "patience": ([0, 2.5], "at least 1"),
    "return_weight": ([-0.1, NAN, INF], "0 or more"),
    "stop_fraction": ([0.0, 0.5, 0.9, -0.1, NAN], "between 0 and 0.5"),
    "held_fraction": ([0.0, 0.5, 0.9, -0.1, NAN], "between 0 and 0.5"),
    "relearn": (["yes", 1], "True or False"),
    "calibration": (["platt", ""], ", ".join(CALIBRATIONS)),
    "members": ([0, -1, 1.5], "at least 1"),
    "seed": ([-1, 1.5], "at least 0"),
    "blas_threads": ([0, 1.5], "at least 1"),
}

# Those that a version's manifest of the first release does not have, and what they meant there.
YOUNGER: dict[str, Any] = {
    "normalisation": None,
    "residual": False,
    "schedule": "cosine",
    "warm_up": 0.0,
    "clip_value": None,
    "dead_zone": 0.0,
    "members": 1,
    "relearn": False,
    "jump_z": 60.0,
    "half_life": None,
    "uniqueness": False,
    "inputs": (),
    "calibration": "temperature",
}

OTHER = TrainConfig(
    horizon=3,
    window=5_000,
    dead_zone=0.25,
    jump_z=30.0,
    half_life=700,
    uniqueness=True,
    features=DEFAULT.names[:7],
    inputs=(Input("BTCUSDT", "1h"), Input(None, "4h", ("z_24",))),
    hidden=(8, 8),
    activation="gelu",
    initialiser="orthogonal",
    normalisation="batch",
    residual=True,
    dropout=0.1,
    optimiser="lion",
    learning_rate=1e-4,
    schedule=PLATEAU,
    warm_up=0.1,
    weight_decay=0.0,
    clip_value=0.5,
    clip_norm=1e6,
    batch=32,
    epochs=5,
    patience=2,
    return_weight=0.0,
    stop_fraction=0.2,
    held_fraction=0.1,
    calibration="isotonic",
    members=5,
    relearn=not TrainConfig().relearn,
    seed=7,
    blas_threads=2,
)


def test_every_setting_has_wrong_values() -> None:
    assert WRONG.keys() == {field.name for field in fields(TrainConfig)}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, (values, _) in WRONG.items() for value in values]
)
def test_a_wrong_value_is_refused_with_what_would_be_right(name: str, value: Any) -> None:
    with pytest.raises(BadInput) as refused:
        TrainConfig(**{name: value})
    assert WRONG[name][1] in str(refused.value)
    assert "\n" not in str(refused.value)


MAY_BE_NONE = ("half_life", "clip_value")
NUMBERS = [
    field.name
    for field in fields(TrainConfig)
    if field.name not in MAY_BE_NONE
    and isinstance(field.default, int | float)
    and not isinstance(field.default, bool)
]


@pytest.mark.parametrize("value", ["1", True, None, [1], 1j], ids=repr)
@pytest.mark.parametrize("name", [*NUMBERS, *MAY_BE_NONE])
def test_what_is_no_number_is_refused(name: str, value: Any) -> None:
    if value is None and name not in NUMBERS:
        return
    with pytest.raises(BadInput, match=name):
        TrainConfig(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hidden", [16, 8]),
        ("hidden", "16"),
        ("hidden", 16),
        ("features", list(DEFAULT.names)),
        ("inputs", []),
    ],
)
def test_what_is_no_tuple_is_refused(name: str, value: Any) -> None:
    """A list could be changed afterwards; what was read from JSON comes through config_from."""
    with pytest.raises(BadInput, match=f"{name} must be"):
        TrainConfig(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("activation", name) for name in ACTIVATIONS),
        *(("initialiser", name) for name in INITIALISERS),
        *(("optimiser", name) for name in OPTIMISERS),
        *(("schedule", name) for name in (*SCHEDULES, PLATEAU)),
        *(("calibration", name) for name in CALIBRATIONS),
        *(("normalisation", name) for name in (None, "layer", "batch")),
        ("hidden", ()),
        ("clip_norm", INF),
        ("dropout", 0),
        ("weight_decay", 0),
        ("seed", 0),
    ],
)
def test_every_row_of_a_table_and_every_bound_may_be_asked_for(name: str, value: Any) -> None:
    config = TrainConfig(**{name: value})
    assert config.architecture(5).outputs == 2


@pytest.mark.parametrize("config", [TrainConfig(), OTHER], ids=["defaults", "all others"])
def test_a_config_survives_its_document_as_json(config: TrainConfig) -> None:
    assert config_from(json.loads(json.dumps(config.document()))) == config


def test_all_others_are_others() -> None:
    """Or else a setting could be lost on that way."""
    for field in fields(TrainConfig):
        assert getattr(OTHER, field.name) != getattr(TrainConfig(), field.name), field.name


def test_a_document_without_the_younger_settings_means_what_it_meant() -> None:
    older = {name: value for name, value in TrainConfig(epochs=3).document().items() if name not in YOUNGER}
    read = config_from(older)
    assert read == TrainConfig(epochs=3, **YOUNGER)


def test_a_setting_that_is_unknown_is_refused_by_name() -> None:
    with pytest.raises(BadInput, match="warm_upp"):
        config_from({**TrainConfig().document(), "warm_upp": 0.1})


def test_a_document_without_the_settings_that_always_were_is_refused_by_name() -> None:
    document = TrainConfig().document()
    del document["hidden"]
    with pytest.raises(BadInput, match="hidden"):
        config_from(document)


@pytest.mark.parametrize("wrong", [5, "relu", None])
def test_a_document_with_a_list_that_is_none_is_refused(wrong: Any) -> None:
    with pytest.raises(BadInput, match="hidden"):
        config_from({**TrainConfig().document(), "hidden": wrong})
