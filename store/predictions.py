"""The ledger: every Signal that was served, once, and what came of it.

A bar's first Signal stands, whoever asks again. It is committed before it is given away.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from sqlalchemy import Connection, Row, Select, select, update
from sqlalchemy.exc import IntegrityError

import store.bars
import store.markets
import store.versions
from model import bars, features, predictor, scores, significance
from model import predictions as signals
from model.bars import Market, iso, timeframe
from model.errors import BadArtifact, NotFound
from model.predictions import Abstention, Prediction, Reason, Signal
from model.predictor import Predictor
from model.significance import Gain
from model.training import LEVEL
from store import database, tables
from store.database import Engine
from store.markets import MarketRow
from store.tables import micros, predictions

# Live evidence of skill: at most so many of a version's newest scored answers.
LIVE_ROWS = 5_000
# Outcomes are looked up for so many answers of a market at a time.
SCORED_AT_ONCE = 2_000


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
class LiveScore:
    """How a version's scored answers did beside the base rate, over the same rows; None while there are none."""

    rows: int
    log_loss: float | None
    base_log_loss: float | None
    accuracy: float | None


@dataclass(frozen=True)
class _Said:
    """A fresh Signal with what the ledger keeps beside it."""

    signal: Signal
    close: float | None = None
    base_rate: float | None = None
    row: NDArray[np.float32] | None = None


def answer(
    engine: Engine,
    market: Market,
    now: datetime,
    predictors: dict[int, Predictor],
    stale_after_timeframes: float,
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
            said = _say(conn, row, as_of, version, predictors)
    return _keep(engine, row.id, said, now)


def answer_at(
    engine: Engine,
    market: Market,
    at: datetime,
    predictors: dict[int, Predictor],
    version: int | None,
    stale_after_timeframes: float,
) -> tuple[Signal, bool]:
    """What a version (today's champion, unless named) says of the bars that had closed by `at`, and whether it had
    seen that bar's outcome. Not written to the ledger. Raises NotFound for an unknown market or version."""
    with database.read(engine) as conn:
        row = store.markets.need(conn, market)
        kept = timeframe(market.timeframe)
        tail = store.bars.read(conn, row.id, kept, closed_by=at, last=features.HISTORY)
        if tail.is_empty():
            return Abstention(
                market, None, version, Reason.TOO_FEW_BARS, f"no bar had closed by {iso(at)}"
            ), False
        if version is None:
            version = store.versions.champion(conn, row.id)
        elif store.versions.get(conn, version).market != market:
            raise NotFound(f"no version {version} of {market}")
        as_of = kept.close_of(tail["ts"][-1])
        if at > bars.stale_from(tail["ts"], kept, stale_after_timeframes):
            detail = f"the newest bar by {iso(at)} closed at {iso(as_of)}"
            return Abstention(market, as_of, version, Reason.STALE_BARS, detail), False
        signal = _say(conn, row, as_of, version, predictors).signal
    in_sample = isinstance(signal, Prediction) and predictors[signal.version].seen_until > micros(as_of)
    return signal, in_sample


def _say(
    conn: Connection, row: MarketRow, as_of: datetime, version: int | None, predictors: dict[int, Predictor]
) -> _Said:
    """What that version says of the bars up to `as_of`."""
    market = row.market

    def abstain(reason: Reason, detail: str) -> _Said:
        return _Said(Abstention(market, as_of, version, reason, detail))

    if version is None:
        return abstain(Reason.NO_MODEL, f"no version answers for {market} yet: barprop train {market}")
    try:
        model = predictors.get(version) or predictor.from_artifact(store.versions.packed(conn, version))
    except BadArtifact as error:
        return abstain(Reason.UNHEALTHY_MODEL, f"version {version} cannot be used: {error}")
    predictors[version] = model
    kept = timeframe(market.timeframe)
    tail = store.bars.read(conn, row.id, kept, closed_by=as_of, last=features.HISTORY)
    newest = features.last_row(tail, kept, model.features)
    if len(newest.ts) == 0:
        needed = features.WARMUP + 1
        return abstain(Reason.TOO_FEW_BARS, f"{len(tail)} bars are stored, {needed} are needed")
    x, close = newest.X[0], float(newest.close[0])
    said = model.predict(x, float(newest.scale[0]), close)
    signal = Prediction(
        market=market,
        as_of=as_of,
        version=version,
        horizon=model.horizon,
        p_up=said.p_up,
        expected_return=said.expected_return,
        price=said.price,
        interval=(said.low, said.high),
        level=LEVEL,
        skill=evidence(conn, version).skill,
        weights=model.sha256[:12],
    )
    return _Said(signal, close, model.base_rate, x)


def evidence(conn: Connection, version: int) -> Gain:
    """By how much that version beat the base rate on bars it had not learned from: the held-back ones, and live."""
    held = store.versions.get(conn, version).manifest["held"]
    live = conn.execute(
        select(predictions.c.base_log_loss, predictions.c.log_loss, predictions.c.horizon)
        .where(predictions.c.version_id == version, predictions.c.scored_at.is_not(None))
        .order_by(predictions.c.as_of.desc())
        .limit(LIVE_ROWS)
    ).all()
    before = Gain(held["rows"], held["gain"], held["gain_error"])
    if not live:
        return before
    base, own, horizons = zip(*reversed(live), strict=True)
    return significance.pooled(before, significance.gain(np.array(base), np.array(own), max(horizons)))


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
        name = f"prediction:{version}"
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
            "base_rate": said.base_rate,
            "close": said.close,
            "features": said.row.tobytes(),
        }
    else:
        name = f"{signal.reason}:{version}"
        values = common | {"kind": "abstention", "reason": signal.reason.value, "detail": signal.detail}
    assert signal.as_of is not None

    def there(conn: Connection) -> Entry | None:
        if isinstance(signal, Prediction):
            return _first_prediction(conn, market_id, common["as_of"])
        same = _select().where(
            predictions.c.market_id == market_id,
            predictions.c.as_of == common["as_of"],
            predictions.c.answer == name,
        )
        return _one(conn, same)

    try:
        with database.write(engine) as conn:
            kept = there(conn)
            if kept is None:
                key = conn.execute(predictions.insert().values(answer=name, **values)).inserted_primary_key
                assert key is not None
                return Answer(int(key[0]), signal, now)
    except IntegrityError:  # another process answered in the same instant
        with database.read(engine) as conn:
            kept = there(conn)
        assert kept is not None
    return Answer(kept.id, kept.signal, kept.served_at)


def score(engine: Engine, now: datetime) -> int:
    """Gives every prediction whose outcome is known by now that outcome, once; says how many those were."""
    with database.read(engine) as conn:
        rows = store.markets.all(conn)
    return sum(_score_market(engine, row, now) for row in rows)


def _score_market(engine: Engine, row: MarketRow, now: datetime) -> int:
    kept = timeframe(row.market.timeframe)
    waiting = (
        select(*(predictions.c[name] for name in ("id", "as_of", "horizon", "close", "p_up", "base_rate")))
        .where(
            predictions.c.market_id == row.id,
            predictions.c.scored_at.is_(None),
            predictions.c.kind == "prediction",
        )
        .order_by(predictions.c.as_of)
        .limit(SCORED_AT_ONCE)
    )
    with database.read(engine) as conn:
        said = conn.execute(waiting).all()
        if not said:
            return 0
        since = store.bars.read(conn, row.id, kept, closed_by=now, closed_from=said[0].as_of)
    closed_at = since.select(kept.closes(pl.col("ts"))).to_series()
    place = {close: row for row, close in enumerate(closed_at)}
    closes = since["close"].to_list()
    outcomes = []
    for answered in said:
        i = place.get(answered.as_of)
        if i is None or i + answered.horizon >= len(closes):
            continue
        log_return = float(np.log(closes[i + answered.horizon] / answered.close))
        up = np.array([float(log_return > 0)])
        losses = [float(scores.log_losses(np.array([p]), up)[0]) for p in (answered.p_up, answered.base_rate)]
        outcomes.append((answered.id, log_return, *losses))
    if not outcomes:
        return 0
    with database.write(engine) as conn:
        for ident, log_return, own, base in outcomes:
            conn.execute(
                update(predictions)
                .where(predictions.c.id == ident, predictions.c.scored_at.is_(None))
                .values(
                    {
                        "up": log_return > 0,
                        "return": log_return,
                        "log_loss": own,
                        "base_log_loss": base,
                        "scored_at": now,
                    }
                )
            )
    return len(outcomes)


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


def live(conn: Connection, version_id: int) -> LiveScore:
    """How that version's scored answers did."""
    rows = conn.execute(
        select(*(predictions.c[name] for name in ("p_up", "up", "log_loss", "base_log_loss"))).where(
            predictions.c.version_id == version_id, predictions.c.scored_at.is_not(None)
        )
    ).all()
    if not rows:
        return LiveScore(0, None, None, None)
    p, up, own, base = (np.array(column, dtype=np.float64) for column in zip(*rows, strict=True))
    return LiveScore(
        len(rows), float(own.mean()), float(base.mean()), float(np.mean((p > 0.5) == (up > 0.5)))
    )


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
