"""How far a version's calibration has moved by a bar: on from where it stood in the ledger, by what came since."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, select

from model import backtest, dataset
from model.backtest import Standing
from model.breaks import Breaks
from model.features import FeatureRows
from model.predictor import Predictor
from model.recalibration import Recalibration
from store.lately import Lately
from store.tables import micros, predictions

# A version that nobody asked for longer than this is moved by so many newest bars alone.
MOST_BARS = 5_000


def caught_up(before: Standing, seen: FeatureRows, found: Breaks, rows: int, as_of: datetime) -> Standing:
    """How a version stands at the close of the bar that closed `as_of`, to the bit as in a backtest, whoever asked for
    which bars before: on from `before`, by the newest `rows` of those `seen`, whose bars have the breaks `found`."""
    model = before.model
    data = dataset.build(seen, model.features, model.horizon)
    data = dataset.unbroken(data, seen, found)
    if len(seen) > rows:  # the first rows of what was cut have not their own bits
        data = data.part(data.closed_at >= seen.closed_at[-rows])
    return backtest.caught_up(before, data, micros(as_of))


def in_ledger(
    conn: Connection, market_id: int, as_of: datetime, version: int, model: Predictor
) -> Standing | None:
    """How that version stood at the newest bar before `as_of` that it answered for; None where the ledger has none."""
    asked = {"market_id": market_id, "version": version, "as_of": as_of}
    row = conn.execute(_NEWEST, asked).one_or_none()
    return None if row is None else _standing(model, row._mapping)


def before(conn: Connection, market_id: int, version: int, model: Predictor, lately: Lately) -> Standing:
    """How that version stood before it answers for the bar that `lately` leads up to."""
    for row in lately.earlier:
        if row["version_id"] == version and row.get("log_temperature") is not None:
            return _standing(model, row)
    found = None if lately.whole else in_ledger(conn, market_id, lately.as_of, version, model)
    return found or backtest.fresh(model)


def _standing(model: Predictor, row: Mapping[Any, Any]) -> Standing:
    moved = Recalibration(row["log_temperature"], row["certainty"], row["log_width"])
    return Standing(model, moved, micros(row["as_of"]))


_NEWEST = (
    select(*(predictions.c[name] for name in ("as_of", "log_temperature", "certainty", "log_width")))
    .where(
        predictions.c.market_id == bindparam("market_id"),
        predictions.c.version_id == bindparam("version"),
        predictions.c.as_of < bindparam("as_of"),
        predictions.c.log_temperature.is_not(None),
    )
    .order_by(predictions.c.as_of.desc())
    .limit(1)
)
