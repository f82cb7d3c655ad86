"""What a version says of the newest of a market's bars: a number, or why there had better be none.

One function for bars that are stored and for bars that a request brings; it reads the database and writes nothing.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, bindparam, select

import store.bars
import store.breaks
import store.inputs
import store.loaded
import store.recalibrations
from model import backtest, breaks, features
from model.backtest import Standing
from model.bars import Bars, Market, Timeframe, as_micros, iso, timeframe
from model.breaks import Break, Breaks
from model.caution import doubt
from model.errors import BadArtifact
from model.features import FeatureRows, Input, Others
from model.labels import horizon_scale
from model.portfolio import Costs, policies
from model.portfolio.policies import Policy
from model.predictions import Abstention, Prediction, Reason, Signal
from model.predictor import LEVEL, Predictor
from model.recalibration import Recalibration
from model.scaler import distances
from store.lately import Lately
from store.loaded import Loaded, Versions
from store.markets import MarketRow
from store.recent import SPARE_BARS
from store.settings import Backtest, Settings, Signals
from store.tables import EPOCH, MICROSECOND, micros, predictions

# What an input that does not count makes of an answer.
INPUT_REASONS = {
    features.SHORT: Reason.TOO_FEW_BARS,
    features.STALE: Reason.STALE_BARS,
    features.JUMPED: Reason.GAP,
}


@dataclass(frozen=True)
class Terms:
    """When a Signal is too old, when there had better be none, and how one becomes a position."""

    stale_after_timeframes: float = 2.0
    signals: Signals = field(default_factory=Signals)
    policy: Policy = field(default_factory=Policy)
    costs: Costs = field(default_factory=lambda: Backtest().costs())


def terms(settings: Settings) -> Terms:
    """Those of the settings."""
    return Terms(
        settings.service.stale_after_timeframes,
        settings.signals,
        settings.portfolio.chosen(),
        settings.backtest.costs(),
    )


@dataclass(frozen=True)
class Said:
    """A fresh Signal. Of a prediction also the model that made it, the close and the row (F,) that it stands on, and how
    far calibration had moved. `beside`: the other markets whose bars it stands on."""

    signal: Signal
    model: Predictor | None = None
    close: float | None = None
    row: NDArray[np.float32] | None = None
    moved: Recalibration | None = None
    beside: tuple[Market, ...] = ()


@dataclass(frozen=True)
class _Stretch:
    """The rows of the newest bars, the last of which is the one that is asked for, what its inputs are made of, the break
    that it stands on, and all breaks."""

    seen: FeatureRows
    others: Others
    broken: Break | None
    found: Breaks


def of_stored(
    conn: Connection,
    row: MarketRow,
    tail: Bars,
    as_of: datetime,
    version: int | None,
    versions: Versions,
    terms: Terms,
    lately: Lately,
) -> Said:
    """What that version says of the market's stored bars up to the one that closed `as_of`, the newest HISTORY +
    SPARE_BARS of which are `tail`; `lately` is what was said before."""
    market, kept = row.market, timeframe(row.market.timeframe)
    loaded = _usable(conn, market, as_of, version, versions)
    if not isinstance(loaded, Loaded):
        return loaded
    assert version is not None
    model = loaded.model
    before = store.recalibrations.before(conn, row.id, version, model, lately)
    reach = features.reach(model.features, kept)
    if reach > features.HISTORY:
        tail = store.bars.read(conn, row.id, kept, closed_by=as_of, last=reach + SPARE_BARS)
    opened = before.until - kept.length // MICROSECOND
    behind = len(tail) - int(np.searchsorted(as_micros(tail["ts"]), opened, side="right"))
    if behind >= SPARE_BARS:
        most = store.recalibrations.MOST_BARS
        behind = min(store.bars.count_after(conn, row.id, EPOCH + opened * MICROSECOND, most), most)
        tail = store.bars.read(conn, row.id, kept, closed_by=as_of, last=behind + model.horizon + reach)
    rows = behind + model.horizon  # that stand on these bars, or are decided by them
    stretch = _stretch(conn, row.id, kept, model, tail, as_of, rows)

    def standing() -> Standing:
        seen = stretch.seen
        if model.features.inputs or rows > features.BLOCK:
            others = store.inputs.beside(conn, model.features, tail, kept)
            seen = features.rows(tail, kept, model.features, others, rows + features.HISTORY, model.jump_z)
        return store.recalibrations.caught_up(before, seen, stretch.found, rows, as_of)

    held = _held(conn, row.id, lately)
    return _say(conn, market, as_of, version, loaded, tail, stretch, standing, terms, held)


def of_bars(
    conn: Connection, row: MarketRow, bars: Bars, version: int | None, versions: Versions, terms: Terms
) -> Said:
    """What that version says of these bars of the market, sound and sorted, whatever is stored of it; nothing is held
    before. Calibration stands as it did at the newest bar before that the version answered for."""
    market, kept = row.market, timeframe(row.market.timeframe)
    as_of = kept.close_of(bars["ts"][-1])
    loaded = _usable(conn, market, as_of, version, versions)
    if not isinstance(loaded, Loaded):
        return loaded
    assert version is not None
    model = loaded.model
    before = store.recalibrations.in_ledger(conn, row.id, as_of, version, model) or backtest.fresh(model)
    stretch = _stretch(conn, None, kept, model, bars, as_of, 1)
    return _say(conn, market, as_of, version, loaded, bars, stretch, lambda: before, terms, 0.0)


def _usable(
    conn: Connection, market: Market, as_of: datetime, version: int | None, versions: Versions
) -> Loaded | Said:
    if version is None:
        detail = f"no version answers for {market} yet: barprop train {market}"
        return Said(Abstention(market, as_of, version, Reason.NO_MODEL, detail))
    try:
        return store.loaded.load(conn, market, version, versions)
    except BadArtifact as error:
        detail = f"version {version} cannot be used: {error}"
        return Said(Abstention(market, as_of, version, Reason.UNHEALTHY_MODEL, detail))


def _stretch(
    conn: Connection,
    market_id: int | None,
    kept: Timeframe,
    model: Predictor,
    tail: Bars,
    as_of: datetime,
    rows: int,
) -> _Stretch:
    """The newest rows of `tail`, at least `rows` of them where they take no inputs and fit a block; without a market's id
    these bars are all that there are."""
    others = store.inputs.newest(conn, model.features, as_of)
    if model.features.inputs or rows > features.BLOCK:
        seen = features.last_row(tail, kept, model.features, others, model.jump_z)
    else:
        seen = features.last_rows(tail, kept, model.features, rows)
    if market_id is None:
        found, ts = breaks.find(tail, kept, model.jump_z), tail["ts"]
    else:
        found, ts = store.breaks.beside(conn, market_id, kept, tail, rows, model.jump_z)
    return _Stretch(seen, others, found.under(ts), found)


def _held(conn: Connection, market_id: int, lately: Lately) -> float:
    """The position that the market's newest Signal before that bar asked for; an abstention asks for none."""
    earlier = lately.earlier
    if earlier or lately.whole:
        return earlier[0].get("position") or 0.0 if earlier else 0.0
    return conn.scalar(_HELD, {"market_id": market_id, "as_of": lately.as_of}) or 0.0


_HELD = (
    select(predictions.c.position)
    .where(predictions.c.market_id == bindparam("market_id"), predictions.c.as_of < bindparam("as_of"))
    .order_by(predictions.c.as_of.desc(), (predictions.c.answer == "prediction").desc())
    .limit(1)
)


def _say(
    conn: Connection,
    market: Market,
    as_of: datetime,
    version: int,
    loaded: Loaded,
    tail: Bars,
    stretch: _Stretch,
    standing: Callable[[], Standing],
    terms: Terms,
    held: float,
) -> Said:
    model, kept, seen = loaded.model, timeframe(market.timeframe), stretch.seen
    beside = tuple(each.market for each in model.features.inputs if each.market is not None)

    def abstain(reason: Reason, detail: str) -> Said:
        return Said(Abstention(market, as_of, version, reason, detail), beside=beside)

    if len(seen.ts) == 0:
        return abstain(Reason.TOO_FEW_BARS, f"there are {len(tail)} bars, {features.WARMUP + 1} are needed")
    for each, stands in zip(model.features.inputs, seen.inputs[-1].tolist(), strict=True):
        if stands != features.GIVEN:
            return abstain(INPUT_REASONS[stands], _of_input(each, stands, stretch.others, as_of))
    if stretch.broken is not None:
        return abstain(Reason.GAP, stretch.broken.told)
    x, close, scale = seen.X[-1], float(seen.close[-1]), float(seen.scale[-1])
    # a feature is finite by law, but was proven on some markets only
    for name, number in (*zip(model.features.columns, x.tolist(), strict=True), ("volatility", scale)):
        if not math.isfinite(number):
            return abstain(Reason.OUT_OF_DOMAIN, f"{name} is {number}: no answer can stand on that")
    moved = standing().moved
    forecast = model.forecast(model.read(x), scale, close, moved)
    far = float(distances(model.scaler, seen.X[-1:])[0])
    reason = doubt(terms.signals.caution(kept.length), model, micros(as_of), far, forecast.p_up)
    if reason is not None:
        return abstain(reason, _detail(reason, model, far, forecast.p_up))
    size = float(horizon_scale(seen.scale[-1:], model.horizon)[0])
    position = policies.target(terms.policy, terms.costs, held, forecast.p_up, forecast.expected_return, size)
    signal = Prediction(
        market=market,
        as_of=as_of,
        version=version,
        horizon=model.horizon,
        p_up=forecast.p_up,
        expected_return=forecast.expected_return,
        price=forecast.price,
        interval=(forecast.low, forecast.high),
        level=LEVEL,
        skill=loaded.skill(conn, version),
        weights=model.sha256[:12],
        position=position,
        pays_up_to_bps=policies.pays_up_to(position, forecast.expected_return),
    )
    return Said(signal, model, close, x, moved, beside)


def _of_input(each: Input, stands: int, others: Others, as_of: datetime) -> str:
    """Why an input does not count, in words."""
    if stands == features.SHORT:
        return f"the input {each} has fewer than {features.WARMUP + 1} bars that had closed by {iso(as_of)}"
    if stands == features.STALE:
        assert each.market is not None
        closed = timeframe(each.timeframe).close_of(others[each.market]["ts"][-1])
        return f"the newest bar of the input {each} closed at {iso(closed)}"
    return f"the input {each} stands on a jump of its price"


def _detail(reason: Reason, model: Predictor, distance: float, p_up: float) -> str:
    """Why it had better not answer, in words."""
    if reason is Reason.STALE_MODEL:
        return (
            f"this version has seen nothing since {iso(EPOCH + model.seen_until * MICROSECOND)}: train anew"
        )
    if reason is Reason.OUT_OF_DOMAIN:
        return f"this bar lies {distance:.1f} from what was learned from, where the farthest row lay {model.domain:.1f}"
    return f"the probability is {p_up:.3f}, nearer to even than is asked for"
