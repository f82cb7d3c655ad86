"""The ledger: every Signal that was served, once, and what came of it.

A bar's first Signal stands, whoever asks again. It is committed before it is given away.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import polars as pl
from sqlalchemy import Connection, Row, Select, bindparam, select
from sqlalchemy.dialects import postgresql, sqlite

import store.bars
import store.forecasts
import store.lately
import store.markets
import store.recent
import store.versions
from model import bars, features
from model import predictions as signals
from model.bars import Bars, Market, Timeframe, iso, timeframe
from model.errors import BadBars, BadInput, NotFound
from model.predictions import Abstention, Prediction, Reason, Signal
from model.predictor import Predictor
from store import database, tables
from store.database import BUSY_TIMEOUT_SECONDS, Engine
from store.forecasts import Said, Terms
from store.lately import Lately
from store.loaded import Versions
from store.markets import MarketRow, Marks
from store.recent import Recent
from store.tables import micros, predictions

TERMS = Terms()
# A Signal is made so often; the last one is kept whatever the ledger has learned meanwhile.
TRIES = (*[False] * 19, True)


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
class Made:
    """A market's Signal for its newest bar, and until when it is good: as long as these marks stand, its own and those of
    markets whose bars it stands on beside, and not later than `stale_from`, where that is told."""

    answer: Answer | None  # that the ledger has already
    row: dict[str, Any]  # of the ledger, to be kept otherwise
    market_id: int
    signal: Signal
    marks: Marks
    stale_from: datetime | None
    lately: Lately | None = None  # what the ledger had said before


def answer(engine: Engine, market: Market, now: datetime, versions: Versions, terms: Terms = TERMS) -> Answer:
    """The market's Signal for its newest bar, from the ledger where that bar was answered, else made and put there.

    `versions` keeps what was loaded. Raises NotFound for a market that has no bars.
    """
    for anyway in TRIES:
        made = make(engine, market, now, versions, terms)
        answer = made.answer or keep(engine, made, anyway=anyway)
        if answer is not None:
            return answer
    raise AssertionError("the last try keeps it anyway")


def make(
    engine: Engine,
    market: Market,
    now: datetime,
    versions: Versions,
    terms: Terms = TERMS,
    recent: Recent | None = None,
    waiting: Mapping[str, Any] | None = None,
) -> Made:
    """As `answer`, and writes nothing yet. `recent` keeps the newest bars; `waiting` is the market's newest row that the
    ledger has yet to get."""
    kept = timeframe(market.timeframe)
    with database.read(engine) as conn:
        row = store.markets.need(conn, market)
        tail = _newest(conn, row, kept, {} if recent is None else recent)
        opens = tail["ts"][-features.HISTORY :]
        as_of = kept.close_of(opens[-1])
        stale_from = bars.stale_from(opens, kept, terms.stale_after_timeframes)
        until: datetime | None = stale_from
        first = None
        lately = store.lately.read(conn, row.id, as_of, waiting)
        if row.paused:
            said, until = Said(Abstention(market, as_of, None, Reason.PAUSED, "this market was paused")), None
        elif now > stale_from:
            champion = store.versions.champion(conn, row.id, as_of)
            said, until = Said(stale(market, as_of, champion, stale_from)), None
        elif lately.prediction is None:
            version = store.versions.champion(conn, row.id, as_of)
            said = store.forecasts.of_stored(conn, row, tail, as_of, version, versions, terms, lately)
        else:
            first = _entry(lately.prediction)
            said = Said(first.signal)  # which stands, whatever comes
        marks = {row.market: row.changes, **_marks(conn, said.beside)}
    found = None if first is None else Answer(first.id, first.signal, first.served_at)
    values = {} if found else ledger_row(row.id, said, now)
    return Made(found, values, row.id, said.signal, marks, until, lately)


def _marks(conn: Connection, beside: Sequence[Market]) -> Marks:
    found = [(market, store.markets.find(conn, market)) for market in beside]
    return {market: None if row is None else row.changes for market, row in found}


def _newest(conn: Connection, row: MarketRow, kept: Timeframe, recent: Recent) -> Bars:
    """The market's newest bars, store.recent.LAST where there are as many."""
    tail = store.recent.at(recent, row.market, row.changes)
    if tail is None:
        tail = store.bars.read(conn, row.id, kept, last=store.recent.LAST)
        if tail.is_empty():
            raise NotFound(f"no bars of {row.market} yet: ingest some first")
        store.recent.keep(recent, row.market, row.changes, tail)
    return tail


def stale(market: Market, as_of: datetime, version: int | None, stale_from: datetime) -> Abstention:
    """What is answered once the newest bar is too old."""
    detail = f"the newest bar closed at {iso(as_of)} and the next was due before {iso(stale_from)}"
    return Abstention(market, as_of, version, Reason.STALE_BARS, detail)


def answer_at(
    engine: Engine,
    market: Market,
    at: datetime | None,
    now: datetime,
    versions: Versions,
    version: int | None,
    terms: Terms = TERMS,
) -> tuple[Signal, bool]:
    """What a version (today's champion, unless named) says of the bars that had closed by `at` (now, unless named).

    The second of the pair says whether the version had learned from that bar's outcome. Nothing is written to the
    ledger. Raises NotFound for an unknown market or version, BadInput for a moment that is yet to come.
    """
    at = _past(at, now)
    with database.read(engine) as conn:
        row = store.markets.need(conn, market)
        version = _named(conn, row, version)
        kept = timeframe(market.timeframe)
        tail = store.bars.read(conn, row.id, kept, closed_by=at, last=store.recent.LAST)
        if tail.is_empty():
            return Abstention(
                market, None, version, Reason.TOO_FEW_BARS, f"no bar had closed by {iso(at)}"
            ), False
        as_of = kept.close_of(tail["ts"][-1])
        if at > bars.stale_from(tail["ts"][-features.HISTORY :], kept, terms.stale_after_timeframes):
            return _stale_by(market, at, as_of, version), False
        lately = store.lately.read(conn, row.id, as_of)
        said = store.forecasts.of_stored(conn, row, tail, as_of, version, versions, terms, lately)
        return said.signal, _learned(conn, row, tail["ts"][-1], said.model)


def answer_bars(
    engine: Engine,
    market: Market,
    frame: pl.DataFrame,
    at: datetime | None,
    now: datetime,
    versions: Versions,
    version: int | None,
    terms: Terms = TERMS,
) -> tuple[Signal, bool]:
    """As `answer_at`, of the bars of `frame` (BAR_SCHEMA, any order) instead of those that are stored, which must be sound.

    Raises BadBars where one of them is not; those that had not closed by `at` count as not there.
    """
    at = _past(at, now)
    kept = timeframe(market.timeframe)
    sound, rejected = bars.check(frame, kept, at)
    broken = [each for each in rejected if each.reason not in ("future", "unclosed")]
    if broken:
        raise BadBars(
            ", ".join(f"{each.rows} {each.reason}" for each in broken) + ": nothing is said of such bars"
        )
    with database.read(engine) as conn:
        row = store.markets.need(conn, market)
        version = _named(conn, row, version)
        if sound.is_empty():
            return Abstention(
                market, None, version, Reason.TOO_FEW_BARS, f"no bar had closed by {iso(at)}"
            ), False
        as_of = kept.close_of(sound["ts"][-1])
        if at > bars.stale_from(sound["ts"], kept, terms.stale_after_timeframes):
            return _stale_by(market, at, as_of, version), False
        said = store.forecasts.of_bars(conn, row, sound, version, versions, terms)
    if said.model is None:
        return said.signal, False
    known_at = as_of + said.model.horizon * kept.length
    return said.signal, said.model.first_closed_at <= micros(as_of) and micros(
        known_at
    ) <= said.model.seen_until


def _past(at: datetime | None, now: datetime) -> datetime:
    if at is not None and at > now:
        raise BadInput(f"{iso(at)} lies in the future; now is {iso(now)}")
    return at or now


def _named(conn: Connection, row: MarketRow, version: int | None) -> int | None:
    """That version where it is one of the market's; today's champion where none is named."""
    if version is None:
        return store.versions.champion(conn, row.id)
    if store.versions.get(conn, version).market != row.market:
        raise NotFound(f"no version {version} of {row.market}")
    return version


def _stale_by(market: Market, at: datetime, as_of: datetime, version: int | None) -> Abstention:
    detail = f"the newest bar by {iso(at)} closed at {iso(as_of)}"
    return Abstention(market, as_of, version, Reason.STALE_BARS, detail)


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


def ledger_row(market_id: int, said: Said, now: datetime) -> dict[str, Any]:
    """The Signal as a row of the ledger."""
    signal = said.signal
    common: dict[str, Any] = {
        "market_id": market_id,
        "as_of": signal.as_of,
        "version_id": signal.version,
        "served_at": now,
    }
    if isinstance(signal, Abstention):
        version = "-" if signal.version is None else str(signal.version)
        return common | {
            "answer": f"{signal.reason}:{version}",
            "kind": "abstention",
            "reason": signal.reason.value,
            "detail": signal.detail,
        }
    assert said.row is not None
    assert said.model is not None
    assert said.moved is not None
    return common | {
        "answer": "prediction",
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
        "position": signal.position,
        "pays_up_to_bps": signal.pays_up_to_bps,
        "base_rate": said.model.base_rate,
        "close": said.close,
        "features": said.row.tobytes(),
        **asdict(said.moved),
    }


def keep(
    engine: Engine, made: Made, patience_seconds: float = BUSY_TIMEOUT_SECONDS, *, anyway: bool = False
) -> Answer | None:
    """Puts a fresh Signal into the ledger, unless this bar has been answered meanwhile: then that answer stands. Raises
    Unreachable where another writer takes longer than `patience_seconds`.

    None where the ledger has learned meanwhile what the Signal does not know of, and `anyway` is not told: what came of
    the bar before, whose position it goes on from, or of a later one, which has gone on without it. Then it is made anew.
    """
    lately = None if anyway else made.lately
    ident = keep_row(engine, made.row, patience_seconds, lately)
    if ident is not None:
        return Answer(ident, made.signal, made.row["served_at"])
    same = (predictions.c[name] == made.row[name] for name in ("market_id", "as_of", "answer"))
    with database.read(engine) as conn:
        kept = _one(conn, _select().where(*same))
    assert kept is not None or lately is not None
    return None if kept is None else Answer(kept.id, kept.signal, kept.served_at)


def keep_row(
    engine: Engine,
    row: Mapping[str, Any],
    patience_seconds: float = BUSY_TIMEOUT_SECONDS,
    lately: Lately | None = None,
) -> int | None:
    """The id of that row in the ledger, where it is put now; None where it has that answer already, or more of that bar,
    the one before and later ones than `lately`.

    Ids become visible in their order, so that whoever follows the ledger by them misses none.
    """
    statement, given = _KEEP[engine.dialect.name], row
    if lately is not None:
        seen = {"seen": lately.newest_id, "since": lately.since}
        statement, given = _KEEP_NEXT[engine.dialect.name], _NOTHING | dict(row) | seen
    with database.write(engine, patience_seconds, lock=database.LEDGER_LOCK) as conn:
        ident: int | None = conn.scalar(statement, given)
    return ident


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


def after(conn: Connection, after_id: int, limit: int, market_id: int | None = None) -> list[Entry]:
    """Up to `limit` rows of the ledger that came after that one, oldest first, of one market or all."""
    statement = _select().where(predictions.c.id > after_id).order_by(predictions.c.id).limit(limit)
    if market_id is not None:
        statement = statement.where(predictions.c.market_id == market_id)
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


# Made once, as making them takes longer than carrying them out.
_INSERTS: dict[str, postgresql.Insert | sqlite.Insert] = {
    "postgresql": postgresql.insert(predictions),
    "sqlite": sqlite.insert(predictions),
}
_KEEP = {
    name: insert.on_conflict_do_nothing().returning(predictions.c.id) for name, insert in _INSERTS.items()
}
_OUTCOME = ("up", "return", "log_loss", "base_log_loss", "scored_at")
_NOTHING: dict[str, Any] = {c.name: None for c in predictions.c if c.name not in ("id", *_OUTCOME)}
_GIVEN = {name: bindparam(name, type_=predictions.c[name].type) for name in _NOTHING}
_MORE = select(predictions.c.id).where(
    predictions.c.market_id == _GIVEN["market_id"],
    predictions.c.as_of >= bindparam("since", type_=predictions.c.as_of.type),
    predictions.c.id > bindparam("seen", type_=predictions.c.id.type),
)
_KEEP_NEXT = {
    name: insert.from_select(list(_GIVEN), select(*_GIVEN.values()).where(~_MORE.exists()))
    .on_conflict_do_nothing()
    .returning(predictions.c.id)
    for name, insert in _INSERTS.items()
}


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
            position=row.position,
            pays_up_to_bps=row.pays_up_to_bps,
        )
    else:
        signal = Abstention(market, row.as_of, row.version_id, Reason(row.reason), row.detail)
    outcome = None
    if row.scored_at is not None:
        outcome = Outcome(row.up, values["return"], row.log_loss, row.scored_at)
    return Entry(row.id, signal, row.served_at, row.close, outcome)
