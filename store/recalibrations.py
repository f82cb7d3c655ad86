"""How far a version's calibration has moved by a bar: on from where it stood in the ledger, by what came since."""

from datetime import datetime

from sqlalchemy import Connection, select

import store.bars
import store.inputs
from model import backtest, breaks, dataset, features
from model.backtest import Standing
from model.bars import Bars, Timeframe
from model.breaks import AFTER_GAP, AFTER_JUMP, LOOKBACK
from model.predictor import Predictor
from model.recalibration import Recalibration
from store.tables import EPOCH, MICROSECOND, micros, predictions

# A version that nobody asked for longer than this is moved by so many newest bars alone.
MOST_BARS = 5_000


def standing(
    conn: Connection, market_id: int, kept: Timeframe, as_of: datetime, version: int, model: Predictor
) -> Standing:
    """How that version stands at the close of the bar that closed `as_of`, to the bit as in a backtest, whoever asked
    for which bars before."""
    before = in_ledger(conn, market_id, as_of, version, model) or backtest.fresh(model)
    opened = EPOCH + before.until * MICROSECOND - kept.length
    behind = min(store.bars.count_after(conn, market_id, opened, MOST_BARS), MOST_BARS)
    rows = behind + model.horizon  # that stand on these bars, or are decided by them
    tail = store.bars.read(
        conn, market_id, kept, closed_by=as_of, last=rows + features.reach(model.features, kept)
    )
    if model.features.inputs or rows > features.BLOCK:
        others = store.inputs.beside(conn, model.features, tail, kept)
        seen = features.rows(tail, kept, model.features, others, rows + features.HISTORY, model.jump_z)
    else:
        seen = features.last_rows(tail, kept, model.features, rows)
    data = dataset.build(seen, model.features, model.horizon)
    data = dataset.unbroken(data, seen, _breaks(conn, market_id, kept, tail, rows, model.jump_z))
    if len(seen) > rows:  # the first rows of what was cut have not their own bits
        data = data.part(data.closed_at >= seen.closed_at[-rows])
    return backtest.caught_up(before, data, micros(as_of))


def in_ledger(
    conn: Connection, market_id: int, as_of: datetime, version: int, model: Predictor
) -> Standing | None:
    """How that version stood at the newest bar before `as_of` that it answered for; None where the ledger has none."""
    columns = (predictions.c[name] for name in ("as_of", "log_temperature", "certainty", "log_width"))
    row = conn.execute(
        select(*columns)
        .where(
            predictions.c.market_id == market_id,
            predictions.c.version_id == version,
            predictions.c.as_of < as_of,
            predictions.c.log_temperature.is_not(None),
        )
        .order_by(predictions.c.as_of.desc())
        .limit(1)
    ).one_or_none()
    if row is None:
        return None
    return Standing(
        model, Recalibration(row.log_temperature, row.certainty, row.log_width), micros(row.as_of)
    )


def _breaks(
    conn: Connection, market_id: int, kept: Timeframe, tail: Bars, rows: int, jump_z: float
) -> breaks.Breaks:
    found = breaks.find(tail, kept, jump_z)
    # the more history is known, the fewer steps are unusual, so that most markets need no more of it
    if not found.broken[-(rows + max(AFTER_JUMP, AFTER_GAP)) :].any():
        return found
    newest = kept.close_of(tail["ts"][-1])
    longer = store.bars.read(conn, market_id, kept, closed_by=newest, last=LOOKBACK + len(tail))
    return breaks.find(longer, kept, jump_z)
