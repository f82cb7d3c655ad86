"""What a version says of rows it has not learned from, one after another, as it would have been asked live."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from model.caution import Caution, doubt
from model.dataset import Dataset
from model.errors import SeenRows
from model.predictions import Reason
from model.predictor import Forecast, Predictor
from model.recalibration import FRESH, Recalibration
from model.scaler import distances

Float64 = NDArray[np.float64]

REASONS: tuple[Reason | None, ...] = (None, *Reason)


@dataclass(frozen=True)
class Said:
    """What was said of n rows, each at its close, (n,) each."""

    base_rate: Float64
    p_up: Float64
    expected_return: Float64
    price: Float64
    low: Float64
    high: Float64


@dataclass(frozen=True)
class Standing:
    """A version that answers, and how far its calibration has moved by the outcomes known `until` (microseconds)."""

    model: Predictor
    moved: Recalibration
    until: int


def fresh(model: Predictor) -> Standing:
    """As it was made."""
    return Standing(model, FRESH, model.seen_until)


def forecasts(model: Predictor, data: Dataset) -> Said:
    """What the version says of every row by the calibration that it was made with. Raises SeenRows."""
    refuse_seen(model, data)
    scale = data.scale / np.sqrt(float(data.horizon))
    rows = zip(model.readings(data.X), scale.tolist(), data.close.tolist(), strict=True)
    return _said(model, [model.forecast(*row, FRESH) for row in rows])


def answers(
    standing: Standing, data: Dataset, rows: slice, caution: Caution
) -> tuple[Said, NDArray[np.uint8], Standing]:
    """What is said of these rows of `data`, the places in REASONS of why it had better not be, and the standing after.

    Before each answer, calibration moves by the outcomes that are known at that row's close, and by no others.
    Raises SeenRows.
    """
    model, moved = standing.model, standing.moved
    refuse_seen(model, data.part(rows))
    first = min(int(np.searchsorted(data.known_at, standing.until, side="right")), rows.start)
    readings = model.readings(data.X[first : rows.stop])
    far = distances(model.scaler, data.X[rows]).tolist()
    came = (data.log_return[first : rows.stop] / data.scale[first : rows.stop]).tolist()
    ups, known_at = (column[first : rows.stop].tolist() for column in (data.up > 0.5, data.known_at))
    one_bar = (data.scale[rows] / np.sqrt(float(data.horizon))).tolist()
    close, closed_at = data.close[rows].tolist(), data.closed_at[rows].tolist()
    said, refused, known = [], [], 0
    for i, now in enumerate(closed_at):
        while known_at[known] <= now:
            moved = model.after(moved, readings[known], ups[known], came[known])
            known += 1
        forecast = model.forecast(readings[rows.start - first + i], one_bar[i], close[i], moved)
        said.append(forecast)
        refused.append(REASONS.index(doubt(caution, model, now, far[i], forecast.p_up)))
    until = closed_at[-1] if closed_at else standing.until
    return _said(model, said), np.array(refused, np.uint8), Standing(model, moved, until)


def caught_up(standing: Standing, data: Dataset, until: int) -> Standing:
    """The standing once the outcomes of `data` that are known by then are, those that it knows already left out."""
    new = data.part((data.known_at > standing.until) & (data.known_at <= until))
    moved = standing.moved
    came = (new.log_return / new.scale).tolist()
    for reading, up, scaled in zip(
        standing.model.readings(new.X), (new.up > 0.5).tolist(), came, strict=True
    ):
        moved = standing.model.after(moved, reading, up, scaled)
    return Standing(standing.model, moved, until)


def refuse_seen(model: Predictor, data: Dataset) -> None:
    """Raises SeenRows where the version has learned from any of these rows' labels, or from later ones."""
    if len(data) and int(data.closed_at[0]) < model.fitted_until:
        raise SeenRows(
            f"this version has learned from labels up to {model.fitted_until}, and rows from {int(data.closed_at[0])} on "
            "are to be judged (microseconds since 1970): a score of what was learned from says nothing"
        )


def joined(parts: list[Said]) -> Said:
    """One after another."""
    parts = [*parts, _nothing()]
    return Said(*(np.concatenate([getattr(part, column.name) for part in parts]) for column in fields(Said)))


def _said(model: Predictor, forecasts: Sequence[Forecast]) -> Said:
    columns = np.array(forecasts, np.float64).reshape(-1, 5).T
    return Said(np.full(len(forecasts), model.base_rate), *columns)


def _nothing() -> Said:
    return Said(*np.empty((len(fields(Said)), 0)))
