"""How far a version's calibration has moved by a bar: on from where it stood in the ledger, by what came since."""

from datetime import datetime

from sqlalchemy import Connection, bindparam, select

from model import backtest, dataset
from model.backtest import Standing
from model.breaks import Breaks
from model.features import FeatureRows
from model.predictor import Predictor
from model.recalibration import Recalibration
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
    if row is None:
        return None
    return Standing(
        model, Recalibration(row.log_temperature, row.certainty, row.log_width), micros(row.as_of)
    )


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
