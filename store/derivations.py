"""Derivations: what has to stand in the ledger, from what was recorded when each answer was served.

Answers of one version that saw the same bars are rows of one block, which has the bits that each of them has alone; a
bar that came late, or was corrected, between two answers parts them. Letters: n answers, r rows of a block, F features.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from sqlalchemy import Connection, Row, func, select

import store.bars
import store.inputs
import store.markets
import store.recalibrations
from model import breaks, dataset, features
from model.backtest import Standing
from model.bars import Bars, Timeframe, stale_from, timeframe
from model.breaks import LOOKBACK
from model.caution import Caution, doubt
from model.dataset import Dataset
from model.features import HISTORY, FeatureRows
from model.predictions import Reason
from model.predictor import LEVEL, Predictor, Reading
from model.recalibration import FRESH, Recalibration
from model.scaler import distances
from store.forecasts import INPUT_REASONS
from store.markets import MarketRow
from store.tables import EPOCH, MICROSECOND, bars, micros

Answered = Row[Any]  # of the ledger
Int64 = NDArray[np.int64]


@dataclass(frozen=True)
class Rules:
    """What decides an answer besides bars, version and time."""

    stale_after_timeframes: float
    caution: Caution


@dataclass(frozen=True)
class Derived:
    """What has to stand in the ledger: why there is no number, or the columns of a prediction."""

    reason: Reason | None
    columns: dict[str, Any] = field(
        default_factory=dict
    )  # in an order in which causes come before what follows


class Moved(NamedTuple):
    """A calibration, and how many of a block's outcomes it has come past."""

    by: Recalibration
    past: int


@dataclass(frozen=True)
class Block:
    """The bars that some answers of one version stand on, as they were recorded, and what the version makes of them."""

    model: Predictor
    rows: FeatureRows  # (r,) of the newest of these bars
    clean: NDArray[np.bool_]  # (r,) whether each stands on unbroken bars
    readings: list[Reading]  # (r,)
    outcomes: Dataset  # that calibration learns from
    places: list[int]  # of their rows among the r

    def oldest(self, i: int) -> int:
        """From which close on (microseconds) an answer's calibration learns from outcomes, if it has not before."""
        return int(self.rows.closed_at[max(0, i + 1 - store.recalibrations.MOST_BARS - self.model.horizon)])

    def caught_up(self, moved: Moved, i: int) -> Moved:
        """Once the outcomes that are known at row i's close are."""
        (by, past), of = moved, self.outcomes
        now, oldest = self.rows.closed_at[i], self.oldest(i)
        while past < len(of) and of.known_at[past] <= now:
            if of.closed_at[past] >= oldest:
                came = float(of.log_return[past] / of.scale[past])
                by = self.model.after(by, self.readings[self.places[past]], bool(of.up[past] > 0.5), came)
            past += 1
        return Moved(by, past)


def derive(
    conn: Connection,
    row: MarketRow,
    answered: Sequence[Answered],
    standing: Standing | None,
    refused: Reason,
    rules: Rules,
) -> tuple[list[Derived | None], Standing | None]:
    """What has to stand in the ledger where `answered` do (n, ascending by `as_of`), and the standing after them.

    `standing` is that of their version before the first of them; without one none could answer, and `refused` says
    why. None stands for a bar that was not recorded by then.
    """
    kept = timeframe(row.market.timeframe)
    found: list[Derived | None] = []
    for seen_by, alike in same_bars(conn, row, answered, None if standing is None else standing.model):
        wanted, reach = _extent(conn, row.id, kept, alike, standing)
        history = store.bars.read(
            conn, row.id, kept, closed_by=alike[-1].as_of, last=wanted + reach, recorded_by=seen_by
        )
        places = {close: place for place, close in enumerate(_closes(history, kept).tolist())}
        block, stored = None, Moved(FRESH, 0)
        if standing is not None and len(history):
            block = _block(conn, row, kept, history, wanted, seen_by, standing.model)
            known = int(np.searchsorted(block.outcomes.known_at, standing.until, side="right"))
            stored = Moved(standing.moved, known)
        moved = stored
        for each in alike:
            place = places.get(micros(each.as_of))
            if place is None:
                found.append(None)
            elif _late(history["ts"][: place + 1], kept, each, rules.stale_after_timeframes):
                found.append(Derived(Reason.STALE_BARS))
            elif block is None:
                found.append(Derived(refused))
            elif (reason := _unready(block, i := place - len(history) + len(block.rows))) is not None:
                found.append(Derived(reason))
            else:
                # outcomes that an answer in between has learned from may be too old for this one
                too_old = (block.outcomes.closed_at[stored.past : stored.past + 1] < block.oldest(i)).any()
                moved = block.caught_up(stored if too_old else moved, i)
                found.append(_answer(block, i, each, moved.by, rules.caution))
                if each.log_temperature is not None:
                    stored = moved
                    standing = Standing(block.model, moved.by, micros(each.as_of))
    return found, standing


def same_bars(
    conn: Connection, row: MarketRow, answered: Sequence[Answered], model: Predictor | None
) -> Iterator[tuple[datetime, Sequence[Answered]]]:
    """The answers in stretches that saw the same bars of the market and of its inputs, and by when those were recorded."""
    kept = timeframe(row.market.timeframe)
    first_recorded = _first_recorded(conn, row.id, kept, answered[0].as_of, answered[-1].as_of)
    # clocks may differ by a little: what an answer stands on was recorded
    views = np.array([max(micros(each.served_at), first_recorded.get(each.as_of, 0)) for each in answered])
    as_of = np.array([micros(each.as_of) for each in answered])
    parted = views[1:] < views[:-1]
    others = (
        () if model is None else {each.market for each in model.features.inputs if each.market is not None}
    )
    for market in (row, *(store.markets.find(conn, other) for other in others)):
        if market is not None:
            parted |= _parted(conn, market, views, as_of)
    bounds = [0, *(np.flatnonzero(parted) + 1).tolist(), len(answered)]
    for start, end in pairwise(bounds):
        yield EPOCH + int(views[end - 1]) * MICROSECOND, answered[start:end]


def _parted(conn: Connection, row: MarketRow, views: Int64, as_of: Int64) -> NDArray[np.bool_]:
    """Whether between each answer and the next a bar was recorded that had closed by the former's, (n - 1,)."""
    kept = timeframe(row.market.timeframe)
    recorded = conn.execute(
        select(bars.c.recorded_at, func.min(bars.c.ts))
        .where(
            bars.c.market_id == row.id,
            bars.c.recorded_at > int(views.min()),
            bars.c.recorded_at <= int(views.max()),
            bars.c.ts < int(as_of[-1]),
        )
        .group_by(bars.c.recorded_at)
        .order_by(bars.c.recorded_at)
    ).all()
    moments = np.array([moment for moment, _ in recorded], np.int64)
    closes = np.array([micros(kept.close_of(EPOCH + ts * MICROSECOND)) for _, ts in recorded], np.int64)
    after = np.searchsorted(moments, views, side="right")
    return np.array(
        [
            (closes[start:end] <= then).any()
            for (start, end), then in zip(pairwise(after), as_of, strict=False)
        ],
        bool,
    )


def _first_recorded(
    conn: Connection, market_id: int, kept: Timeframe, first: datetime, last: datetime
) -> dict[datetime, int]:
    """When each bar that closed from `first` to `last` was first recorded (microseconds), by its close."""
    found = conn.execute(
        select(bars.c.ts, bars.c.recorded_at).where(
            bars.c.market_id == market_id,
            bars.c.revision == 0,
            bars.c.ts >= micros(first - 2 * kept.length),
            bars.c.ts < micros(last),
        )
    )
    return {kept.close_of(EPOCH + ts * MICROSECOND): recorded_at for ts, recorded_at in found}


def _extent(
    conn: Connection, market_id: int, kept: Timeframe, answered: Sequence[Answered], standing: Standing | None
) -> tuple[int, int]:
    """At most how many of the newest bars have rows that are needed, and how many bars before them."""

    def opened(after: datetime, before: datetime) -> int:
        between = (bars.c.ts > micros(after), bars.c.ts < micros(before))
        one_of_each = select(func.count()).where(
            bars.c.market_id == market_id, bars.c.revision == 0, *between
        )
        return conn.scalar(one_of_each) or 0

    first, last = answered[0].as_of, answered[-1].as_of
    asked = opened(first - 2 * kept.length, last)
    if standing is None:
        return asked, HISTORY
    behind = opened(EPOCH + standing.until * MICROSECOND - 2 * kept.length, first)
    rows = asked + min(behind, store.recalibrations.MOST_BARS) + standing.model.horizon
    return rows, features.reach(standing.model.features, kept)


def _block(
    conn: Connection,
    row: MarketRow,
    kept: Timeframe,
    history: Bars,
    wanted: int,
    seen_by: datetime,
    model: Predictor,
) -> Block:
    """Of the newest `wanted` bars of this history, which has as many more before as they need."""
    others = store.inputs.stretch(conn, model.features, history, kept, seen_by)
    rows = features.rows(history, kept, model.features, others, wanted + HISTORY, model.jump_z)
    found = breaks.find(history, kept, model.jump_z)
    if found.broken.any():  # the more history is known, the fewer steps are unusual
        last = kept.close_of(history["ts"][-1])
        longer = store.bars.read(
            conn, row.id, kept, closed_by=last, last=LOOKBACK + len(history), recorded_by=seen_by
        )
        found = breaks.find(longer, kept, model.jump_z)
    data = dataset.unbroken(dataset.build(rows, model.features, model.horizon), rows, found)
    if len(rows) > wanted:  # the first rows of what was cut have not their own bits
        data = data.part(data.closed_at >= rows.closed_at[-wanted])
    return Block(
        model=model,
        rows=rows,
        clean=found.clean[len(found.clean) - len(rows) :],
        readings=model.readings(rows.X),
        outcomes=data,
        places=np.searchsorted(rows.closed_at, data.closed_at).tolist(),
    )


def _closes(history: Bars, kept: Timeframe) -> Int64:
    closes: Int64 = history.select(kept.closes(pl.col("ts")).dt.epoch("us")).to_series().to_numpy()
    return closes


def _late(opens: pl.Series, kept: Timeframe, each: Answered, after_timeframes: float) -> bool:
    """Whether the newest of these bars was too old to answer from when that was served."""
    if (
        each.served_at <= each.as_of + after_timeframes * kept.length
    ):  # the earliest that can be, and quick to tell
        return False
    late: bool = each.served_at > stale_from(opens.tail(HISTORY), kept, after_timeframes)
    return late


def _unready(block: Block, i: int) -> Reason | None:
    """Why row i has nothing that a version could read; None where it has."""
    if i < 0:
        return Reason.TOO_FEW_BARS
    rows = block.rows
    for stands in rows.inputs[i].tolist():
        if stands in INPUT_REASONS:
            return INPUT_REASONS[stands]
    if not block.clean[i]:
        return Reason.GAP
    if not (np.isfinite(rows.X[i]).all() and np.isfinite(rows.scale[i])):
        return Reason.OUT_OF_DOMAIN
    return None


def _answer(block: Block, i: int, each: Answered, moved: Recalibration, caution: Caution) -> Derived:
    """What the version says of row i, where calibration has moved so far."""
    model, rows = block.model, block.rows
    kept_none = each.kind == "prediction" and each.log_temperature is None  # served before calibration moved
    close = float(rows.close[i])
    forecast = model.forecast(block.readings[i], float(rows.scale[i]), close, FRESH if kept_none else moved)
    far = float(distances(model.scaler, rows.X[i : i + 1])[0])
    reason = doubt(caution, model, int(rows.closed_at[i]), far, forecast.p_up)
    if reason is not None:
        return Derived(reason)
    state = asdict(moved)
    columns = {
        "horizon": model.horizon,
        "weights": model.sha256[:12],
        "base_rate": model.base_rate,
        "close": close,
        "features": rows.X[i],
        **(dict.fromkeys(state) if kept_none else state),
        **forecast._asdict(),
        "level": LEVEL,
    }
    return Derived(None, columns)
