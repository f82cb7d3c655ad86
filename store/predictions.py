"""The ledger: every Signal that was served, once, and what came of it.

A bar's first Signal stands, whoever asks again. It is committed before it is given away.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Row, Select, select
from sqlalchemy.exc import IntegrityError

import store.bars
import store.breaks
import store.inputs
import store.markets
import store.outcomes
import store.recalibrations
import store.versions
from model import bars, features, predictor
from model import predictions as signals
from model.bars import Market, iso, timeframe
from model.caution import doubt
from model.errors import BadArtifact, BadInput, NotFound
from model.predictions import Abstention, Prediction, Reason, Signal
from model.predictor import LEVEL, Predictor
from model.recalibration import Recalibration
from model.scaler import distances
from store import database, tables
from store.database import Engine
from store.markets import MarketRow
from store.settings import Signals
from store.tables import EPOCH, MICROSECOND, micros, predictions

# A process keeps so many loaded versions; each is some ten thousand numbers.
PREDICTORS_KEPT = 1_000

DOUBTS = Signals()

# What an input that does not count makes of an answer.
INPUT_REASONS = {
    features.SHORT: Reason.TOO_FEW_BARS,
    features.STALE: Reason.STALE_BARS,
    features.JUMPED: Reason.GAP,
}


@dataclass(frozen=True)
class Outcome:
    """What came true `horizon` bars after the bar that a prediction stands on."""

    up: bool
    log_return: float
    log_loss: float
    scored_at: datetime


@dataclass(frozen=True)
class Entry:
    """One row of the ledger; `outcome` is None until it is known."""

    id: int
    signal: Signal
    served_at: datetime
    close: float | None  # that the prediction stands on
    outcome: Outcome | None


@dataclass(frozen=True)
class Answer:
    """A Signal as it was first served, and its place in the ledger."""

    id: int
    signal: Signal
    served_at: datetime


@dataclass(frozen=True)
class _Said:
    """A fresh Signal; of a prediction also the model that made it, the close and the row (F,) that it stands on, and how
    far calibration had moved."""

    signal: Signal
    model: Predictor | None = None
    close: float | None = None
    row: NDArray[np.float32] | None = None
    moved: Recalibration | None = None


def answer(
    engine: Engine,
    market: Market,
    now: datetime,
    predictors: dict[int, Predictor],
    stale_after_timeframes: float,
    doubts: Signals = DOUBTS,
) -> Answer:
    """The market's Signal for its newest bar, from the ledger where that bar was answered, else made and put there.

    `predictors` keeps what was loaded, by version: a version never changes, so a loaded one is never stale.
    Raises NotFound for a market that has no bars.
    """
    with database.read(engine) as conn:
        row = store.markets.need(conn, market)
        opens = store.bars.open_times(conn, row.id, features.HISTORY)
        if opens.is_empty():
            raise NotFound(f"no bars of {market} yet: ingest some first")
        kept = timeframe(market.timeframe)
        as_of = kept.close_of(opens[-1])
        stale_from = bars.stale_from(opens, kept, stale_after_timeframes)
        if row.paused:
            said = _Said(Abstention(market, as_of, None, Reason.PAUSED, "this market was paused"))
        elif now > stale_from:
            detail = f"the newest bar closed at {iso(as_of)} and the next was due before {iso(stale_from)}"
            champion = store.versions.champion(conn, row.id, as_of)
            said = _Said(Abstention(market, as_of, champion, Reason.STALE_BARS, detail))
        else:
            first = _first_prediction(conn, row.id, as_of)
            if first is not None:
                return Answer(first.id, first.signal, first.served_at)
            version = store.versions.champion(conn, row.id, as_of)
            said = _say(conn, row, as_of, version, predictors, doubts)
    return _keep(engine, row.id, said, now)


def answer_at(
    engine: Engine,
    market: Market,
    at: datetime | None,
    now: datetime,
    predictors: dict[int, Predictor],
    version: int | None,
    stale_after_timeframes: float,
    doubts: Signals = DOUBTS,
) -> tuple[Signal, bool]:
    """What a version (today's champion, unless named) says of the bars that had closed by `at` (now, unless named).

    The second of the pair says whether the version had learned from that bar's outcome. Nothing is written to the
    ledger. Raises NotFound for an unknown market or version, BadInput for a moment that is yet to come.
    """
    if at is not None and at > now:
        raise BadInput(f"{iso(at)} lies in the future; now is {iso(now)}")
    at = at or now
    with database.read(engine) as conn:
        row = store.markets.need(conn, market)
        if version is None:
            version = store.versions.champion(conn, row.id)
        elif store.versions.get(conn, version).market != market:
            raise NotFound(f"no version {version} of {market}")
        kept = timeframe(market.timeframe)
        tail = store.bars.read(conn, row.id, kept, closed_by=at, last=features.HISTORY)
        if tail.is_empty():
            return Abstention(
                market, None, version, Reason.TOO_FEW_BARS, f"no bar had closed by {iso(at)}"
            ), False
        as_of = kept.close_of(tail["ts"][-1])
        if at > bars.stale_from(tail["ts"], kept, stale_after_timeframes):
            detail = f"the newest bar by {iso(at)} closed at {iso(as_of)}"
            return Abstention(market, as_of, version, Reason.STALE_BARS, detail), False
        said = _say(conn, row, as_of, version, predictors, doubts)
        return said.signal, _learned(conn, row, tail["ts"][-1], said.model)


def _learned(conn: Connection, row: MarketRow, opened: datetime, model: Predictor | None) -> bool:
    """Whether the model learned from the outcome of the bar that opened then; not where it is yet to come."""
    if model is None:
        return False
    outcome = store.bars.opened_after(conn, row.id, opened, model.horizon)
    if outcome is None:
        return False
    kept = timeframe(row.market.timeframe)
    closed_at, known_at = micros(kept.close_of(opened)), micros(kept.close_of(outcome))
    return model.first_closed_at <= closed_at and known_at <= model.seen_until


def _say(
    conn: Connection,
    row: MarketRow,
    as_of: datetime,
    version: int | None,
    predictors: dict[int, Predictor],
    doubts: Signals,
) -> _Said:
    """What that version says of the bars up to `as_of`."""
    market = row.market

    def abstain(reason: Reason, detail: str) -> _Said:
        return _Said(Abstention(market, as_of, version, reason, detail))

    if version is None:
        return abstain(Reason.NO_MODEL, f"no version answers for {market} yet: barprop train {market}")
    try:
        model = predictors.get(version) or _load(conn, version, predictors)
    except BadArtifact as error:
        return abstain(Reason.UNHEALTHY_MODEL, f"version {version} cannot be used: {error}")
    kept = timeframe(market.timeframe)
    reach = features.reach(model.features, kept)
    tail = store.bars.read(conn, row.id, kept, closed_by=as_of, last=reach)
    others = store.inputs.newest(conn, model.features, as_of)
    newest = features.last_row(tail, kept, model.features, others, model.jump_z)
    if len(newest.ts) == 0:
        needed = features.WARMUP + 1
        return abstain(Reason.TOO_FEW_BARS, f"{len(tail)} bars are stored, {needed} are needed")
    for each, stands in zip(model.features.inputs, newest.inputs[0].tolist(), strict=True):
        if stands == features.GIVEN:
            continue
        if stands == features.SHORT:
            detail = (
                f"the input {each} has fewer than {features.WARMUP + 1} bars that had closed by {iso(as_of)}"
            )
        elif stands == features.STALE:
            assert each.market is not None
            closed = timeframe(each.timeframe).close_of(others[each.market]["ts"][-1])
            detail = f"the newest bar of the input {each} closed at {iso(closed)}"
        else:
            detail = f"the input {each} stands on a jump of its price"
        return abstain(INPUT_REASONS[stands], detail)
    broken = store.breaks.under(conn, row.id, kept, tail, model.jump_z)
    if broken is not None:
        return abstain(Reason.GAP, broken.told)
    x, close = newest.X[0], float(newest.close[0])
    scale = float(newest.scale[0])
    # a feature is finite by law, but was proven on some markets only
    for name, number in (*zip(model.features.columns, x.tolist(), strict=True), ("volatility", scale)):
        if not math.isfinite(number):
            return abstain(Reason.OUT_OF_DOMAIN, f"{name} is {number}: no answer can stand on that")
    moved = store.recalibrations.standing(conn, row.id, kept, as_of, version, model).moved
    forecast = model.forecast(model.read(x), scale, close, moved)
    far = float(distances(model.scaler, newest.X)[0])
    reason = doubt(doubts.caution(kept.length), model, micros(as_of), far, forecast.p_up)
    if reason is not None:
        return abstain(reason, _detail(reason, model, far, forecast.p_up))
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
        skill=store.outcomes.evidence(conn, version).skill,
        weights=model.sha256[:12],
    )
    return _Said(signal, model, close, x, moved)


def _detail(reason: Reason, model: Predictor, distance: float, p_up: float) -> str:
    """Why it had better not answer, in words."""
    if reason is Reason.STALE_MODEL:
        return (
            f"this version has seen nothing since {iso(EPOCH + model.seen_until * MICROSECOND)}: train anew"
        )
    if reason is Reason.OUT_OF_DOMAIN:
        return f"this bar lies {distance:.1f} from what was learned from, where the farthest row lay {model.domain:.1f}"
    return f"the probability is {p_up:.3f}, nearer to even than is asked for"


def _load(conn: Connection, version: int, predictors: dict[int, Predictor]) -> Predictor:
    """That version's predictor, kept for the next time; the one that was loaded first makes room when there are many."""
    model = predictor.from_artifact(store.versions.packed(conn, version))
    if len(predictors) >= PREDICTORS_KEPT:
        oldest, *_ = list(predictors)
        predictors.pop(oldest, None)
    predictors[version] = model
    return model


def _keep(engine: Engine, market_id: int, said: _Said, now: datetime) -> Answer:
    """Writes the Signal into the ledger, unless this bar has been answered meanwhile: then that answer stands."""
    signal = said.signal
    version = "-" if signal.version is None else str(signal.version)
    common: dict[str, Any] = {
        "market_id": market_id,
        "as_of": signal.as_of,
        "version_id": signal.version,
        "served_at": now,
    }
    if isinstance(signal, Prediction):
        assert said.row is not None
        assert said.model is not None
        assert said.moved is not None
        name = "prediction"
        values = common | {
            "kind": "prediction",
            "horizon": signal.horizon,
            "p_up": signal.p_up,
            "expected_return": signal.expected_return,
            "price": signal.price,
            "low": signal.interval[0],
            "high": signal.interval[1],
            "level": signal.level,
            "skill": signal.skill,
            "weights": signal.weights,
            "base_rate": said.model.base_rate,
            "close": said.close,
            "features": said.row.tobytes(),
            **asdict(said.moved),
        }
    else:
        name = f"{signal.reason}:{version}"
        values = common | {"kind": "abstention", "reason": signal.reason.value, "detail": signal.detail}
    assert signal.as_of is not None

    same = _select().where(
        predictions.c.market_id == market_id,
        predictions.c.as_of == signal.as_of,
        predictions.c.answer == name,
    )
    try:
        with database.write(engine) as conn:
            kept = _one(conn, same)
            if kept is None:
                key = conn.execute(predictions.insert().values(answer=name, **values)).inserted_primary_key
                assert key is not None
                return Answer(int(key[0]), signal, now)
    except IntegrityError:  # another process answered in the same instant
        with database.read(engine) as conn:
            kept = _one(conn, same)
        assert kept is not None
    return Answer(kept.id, kept.signal, kept.served_at)


def page(
    conn: Connection, market_id: int | None = None, before_id: int | None = None, limit: int = 100
) -> list[Entry]:
    """Up to `limit` rows of the ledger, newest first, of one market or all; `before_id` continues after a page."""
    statement = _select().order_by(predictions.c.id.desc()).limit(limit)
    if market_id is not None:
        statement = statement.where(predictions.c.market_id == market_id)
    if before_id is not None:
        statement = statement.where(predictions.c.id < before_id)
    return [_entry(row) for row in conn.execute(statement)]


def recent(conn: Connection, market_id: int, limit: int) -> Sequence[Entry]:
    """The market's newest rows, oldest of them first."""
    return page(conn, market_id, limit=limit)[::-1]


def entry_document(entry: Entry) -> dict[str, Any]:
    """A row of the ledger as JSON has it."""
    outcome = entry.outcome
    return {
        **signals.document(entry.signal),
        "id": entry.id,
        "served_at": iso(entry.served_at),
        "outcome": None
        if outcome is None
        else {
            "up": outcome.up,
            "return": outcome.log_return,
            "log_loss": outcome.log_loss,
            "scored_at": iso(outcome.scored_at),
        },
    }


def _select() -> Select[Any]:
    market = (tables.markets.c.symbol, tables.markets.c.timeframe)
    return select(predictions, *market).join(tables.markets, tables.markets.c.id == predictions.c.market_id)


def _first_prediction(conn: Connection, market_id: int, as_of: datetime) -> Entry | None:
    of_this_bar = (predictions.c.market_id == market_id, predictions.c.as_of == as_of)
    return _one(conn, _select().where(*of_this_bar, predictions.c.kind == "prediction"))


def _one(conn: Connection, statement: Select[Any]) -> Entry | None:
    row = conn.execute(statement.order_by(predictions.c.id).limit(1)).one_or_none()
    return None if row is None else _entry(row)


def _entry(row: Row[Any]) -> Entry:
    values = row._mapping
    market = Market(row.symbol, row.timeframe)
    signal: Signal
    if row.kind == "prediction":
        signal = Prediction(
            market=market,
            as_of=row.as_of,
            version=row.version_id,
            horizon=row.horizon,
            p_up=row.p_up,
            expected_return=row.expected_return,
            price=row.price,
            interval=(row.low, row.high),
            level=row.level,
            skill=row.skill,
            weights=row.weights,
        )
    else:
        signal = Abstention(market, row.as_of, row.version_id, Reason(row.reason), row.detail)
    outcome = None
    if row.scored_at is not None:
        outcome = Outcome(row.up, values["return"], row.log_loss, row.scored_at)
    return Entry(row.id, signal, row.served_at, row.close, outcome)
