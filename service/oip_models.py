"""What the Open Inference Protocol's models take and give. Add a kind of model by adding a row to KINDS.

A market's own model takes rows of features and gives what the version's network makes of each, to the bit what live
answers stand on. Its `bars` model takes bars and gives the Signal of the newest, as `POST /v1/predict` does. Neither
writes to the ledger.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import polars as pl

import store.predictions
from model.bars import BAR_SCHEMA, TS, Market, iso
from model.caution import Caution, doubt
from model.errors import BadInput
from model.predictions import Abstention
from model.predictor import Predictor
from model.recalibration import FRESH
from model.scaler import distances
from service.answers import Answers
from service.tensors import Numbers, Tensor, Values
from store.database import Engine

YEAR_10000 = 253_402_300_800_000_000  # microseconds


@dataclass(frozen=True)
class Asked:
    """A market's version that is asked, where it finds what it needs, and the time."""

    engine: Engine
    market: Market
    version: int
    predictor: Predictor
    answers: Answers
    now: datetime


@dataclass(frozen=True)
class Said:
    """The outputs, and what goes with them as parameters of the response."""

    values: Mapping[str, Values]
    parameters: Mapping[str, str | bool]


@dataclass(frozen=True)
class Kind:
    """One kind of model: its inputs by version, its outputs, and how the ones become the others."""

    inputs: Callable[[Predictor], tuple[Tensor, ...]]
    outputs: tuple[Tensor, ...]
    say: Callable[[Asked, Mapping[str, Numbers]], Said]


def _rows(predictor: Predictor) -> tuple[Tensor, ...]:
    columns = predictor.features.columns
    return (Tensor("features", "FP32", (-1, len(columns)), {"columns": ",".join(columns)}),)


def _of_rows(asked: Asked, given: Mapping[str, Numbers]) -> Said:
    """What the network makes of each row. With a row goes neither a price nor a time, so that nothing is said in units of
    prices, nor whether the version is too old for it."""
    X, predictor = given["features"].astype(np.float32, copy=False), asked.predictor
    with np.errstate(
        all="ignore"
    ):  # a row may be anything; what does not come out as a number is refused as an output
        readings = predictor.readings(X)
        far = distances(predictor.scaler, X).tolist()
    p_up = np.array([predictor.forecast(reading, 1.0, 1.0, FRESH).p_up for reading in readings])
    scaled = np.array([reading.scaled_return for reading in readings])
    caution = Caution(asked.answers.terms.signals.min_confidence)
    reasons = [
        doubt(caution, predictor, 0, distance, p) for distance, p in zip(far, p_up.tolist(), strict=True)
    ]
    abstention = ["" if reason is None else reason.value for reason in reasons]
    return Said({"p_up": p_up, "scaled_return": scaled, "abstention": abstention}, {})


def _bars(predictor: Predictor) -> tuple[Tensor, ...]:
    about: dict[str, str | int] = {
        "columns": ",".join(BAR_SCHEMA),
        "ts": "a bar's open time, in microseconds since 1970, UTC",
    }
    return (Tensor("bars", "FP64", (-1, len(BAR_SCHEMA)), about),)


def _of_bars(asked: Asked, given: Mapping[str, Numbers]) -> Said:
    """The Signal of the newest bar. An abstention has no numbers, so that its outputs of numbers are empty."""
    frame = _frame(given["bars"])
    answers = asked.answers
    signal, in_sample = store.predictions.answer_bars(
        asked.engine, asked.market, frame, None, asked.now, answers.versions, asked.version, answers.terms
    )
    about: dict[str, str | bool] = {"in_sample": in_sample}
    if signal.as_of is not None:
        about["as_of"] = iso(signal.as_of)
    if isinstance(signal, Abstention):
        values: dict[str, Values] = {tensor.name: np.empty(0) for tensor in KINDS["bars"].outputs}
        return Said(values | {"abstention": [signal.reason.value]}, about | {"detail": signal.detail})
    low, high = signal.interval
    numbers = {
        "p_up": signal.p_up,
        "expected_return": signal.expected_return,
        "price": signal.price,
        "low": low,
        "high": high,
    }
    values = {name: np.array([number]) for name, number in numbers.items()}
    return Said(values | {"abstention": [""]}, about)


def _frame(rows: Numbers) -> pl.DataFrame:
    ts = rows[:, 0]
    if not ((ts == np.floor(ts)) & (ts >= 0) & (ts < YEAR_10000)).all():
        raise BadInput("the first column of 'bars' must be open times in whole microseconds since 1970")
    named = dict(zip(BAR_SCHEMA, rows.T, strict=True))
    times = pl.Series(ts.astype(np.int64)).cast(TS)
    return pl.DataFrame({**named, "ts": times}, schema=BAR_SCHEMA)


def _tensors(*names: str) -> tuple[Tensor, ...]:
    """Outputs of numbers, and the reasons why there had better be none."""
    return (*(Tensor(name, "FP64", (-1,)) for name in names), Tensor("abstention", "BYTES", (-1,)))


# By what stands behind a second colon in the model's name.
KINDS = {
    "": Kind(_rows, _tensors("p_up", "scaled_return"), _of_rows),
    "bars": Kind(_bars, _tensors("p_up", "expected_return", "price", "low", "high"), _of_bars),
}
