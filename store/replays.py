"""Replay: the answers in the ledger, derived again from what was recorded when they were served, and compared."""

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np
from sqlalchemy import Connection, func, select

import store.libraries
import store.markets
import store.recalibrations
import store.versions
from model import backtest, predictor
from model.backtest import Standing
from model.bars import Market, iso, timeframe
from model.errors import BadArtifact, NotFound
from model.predictions import Reason
from store import database
from store.database import Engine
from store.derivations import Answered, Derived, Rules, derive
from store.markets import MarketRow
from store.settings import Signals
from store.tables import predictions
from store.versions import Promotion

# Where CPU or libraries are others than a version's manifest records, numbers are still this close: of themselves, or of
# 1 where they are smaller.
TOLERANCE = 1e-5
# The ledger is read so many rows at a time, and so many differences are told.
CHUNK_ROWS, TOLD = 10_000, 20


@dataclass(frozen=True)
class Difference:
    """One answer that the ledger has otherwise: `what` is the first thing that differs, causes before what follows."""

    as_of: datetime
    id: int
    what: str
    ledger: str | float | None
    replayed: str | float | None

    @property
    def told(self) -> str:
        """As one would say it."""
        where = f"as of {iso(self.as_of)} (id {self.id})"
        return f"{where} the ledger has {self.what} {self.ledger}, and replayed it is {self.replayed}"


@dataclass(frozen=True)
class Replay:
    """What became of a period's answers; `since` and `until` are closes, both included."""

    market: Market
    since: datetime
    until: datetime
    served: int
    equal: int  # to the bit
    within_tolerance: int
    differing: int
    different: tuple[Difference, ...]  # the first TOLD of them
    skipped: dict[str, int]  # by reason
    bits: bool  # whether all were held to the bit: each version was made where bits are those of this process

    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        rest = asdict(self)
        since, until = (iso(rest.pop(name)) for name in ("since", "until"))
        told = [{**asdict(each), "as_of": iso(each.as_of)} for each in self.different]
        return {"market": rest.pop("market"), "from": since, "to": until, **rest, "different": told}


@dataclass(frozen=True)
class _Version:
    """A version as it can be used now."""

    standing: Standing | None  # before the answers that are still to be replayed; None: it cannot answer
    refused: Reason  # why, if it cannot
    exact: bool  # whether it was made where bits are those of this process


def replay(
    engine: Engine,
    market: Market,
    since: datetime | None,
    until: datetime | None,
    stale_after_timeframes: float,
    doubts: Signals = Signals(),
    progress: Callable[[float], None] = lambda share: None,
) -> Replay:
    """Derives every answer for the bars that closed from `since` to `until` again, and compares it with the ledger.

    Without one of the two the period is as long as the ledger. Calibration goes on from what was derived, not from what
    the ledger has, so that an answer that differs makes no other differ. Raises NotFound for an unknown market, and
    for a period in which nothing was served.
    """
    with database.read(engine) as conn:
        row = store.markets.need(conn, market)
        first, last, served = _period(conn, row, since, until)
        rules = Rules(stale_after_timeframes, doubts.caution(timeframe(market.timeframe).length))
        champions = [each for each in store.versions.history(conn, row.id) if each.role == "champion"]
        versions: dict[int | None, _Version] = {}
        counted: Counter[str] = Counter()
        different: list[Difference] = []
        for chunk in _chunks(conn, row.id, first, last):
            outcomes = _outcomes(conn, row, chunk, champions, versions, rules)
            found = [each for each in outcomes if isinstance(each, Difference)]
            counted.update(each for each in outcomes if isinstance(each, str))
            counted["different"] += len(found)
            different += sorted(found, key=lambda each: (each.as_of, each.id))[: TOLD - len(different)]
            progress(counted.total() / served)
    return Replay(
        market=market,
        since=first,
        until=last,
        served=served,
        equal=counted["equal"],
        within_tolerance=counted["within_tolerance"],
        differing=counted["different"],
        different=tuple(different),
        skipped={Reason.PAUSED.value: paused} if (paused := counted[Reason.PAUSED]) else {},
        bits=all(made.exact for made in versions.values()),
    )


def _outcomes(
    conn: Connection,
    row: MarketRow,
    chunk: Sequence[Answered],
    champions: Sequence[Promotion],
    versions: dict[int | None, _Version],
    rules: Rules,
) -> list[Difference | str]:
    """How each of these answers compares with what is derived; a paused one is only counted, as pauses are not recorded.

    `versions` are those that came before, and are told how they stand now.
    """
    found: list[Difference | str] = []
    by_version: dict[int | None, list[Answered]] = {}
    for each in chunk:
        champion = _champion(champions, each)
        if each.reason == Reason.PAUSED:
            found.append(each.reason)
        elif each.version_id != champion:
            found.append(Difference(each.as_of, each.id, "version", each.version_id, champion))
        else:
            by_version.setdefault(champion, []).append(each)
    for version, answered in by_version.items():
        made = versions.get(version) or _version(conn, row.id, version, answered[0].as_of)
        derived, standing = derive(conn, row, answered, made.standing, made.refused, rules)
        versions[version] = replace(made, standing=standing)
        names = () if standing is None else standing.model.features.columns
        found += [
            compared(each, again, names, made.exact) for each, again in zip(answered, derived, strict=True)
        ]
    return found


def _period(
    conn: Connection, row: MarketRow, since: datetime | None, until: datetime | None
) -> tuple[datetime, datetime, int]:
    """The first and the last close of the period, and how many answers the ledger has of it."""
    closes = (func.min(predictions.c.as_of), func.max(predictions.c.as_of))
    oldest, newest = conn.execute(select(*closes).where(predictions.c.market_id == row.id)).one()
    if oldest is None:
        raise NotFound(f"nothing was served for {row.market} yet: barprop predict {row.market}")
    first, last = since or oldest, until or newest
    within = (predictions.c.market_id == row.id, predictions.c.as_of.between(first, last))
    served = conn.scalar(select(func.count()).select_from(predictions).where(*within))
    if not served:
        raise NotFound(
            f"nothing was served for {row.market} from {iso(first)} to {iso(last)}; "
            f"its ledger goes from {iso(oldest)} to {iso(newest)}"
        )
    return first, last, served


def _chunks(
    conn: Connection, market_id: int, first: datetime, last: datetime
) -> Iterator[Sequence[Answered]]:
    """The period's answers, in order of their bars, and of a bar's in order of serving."""
    after = (first, 0)
    while True:
        as_of, ident = predictions.c.as_of, predictions.c.id
        later = (as_of > after[0]) | ((as_of == after[0]) & (ident > after[1]))
        chunk = conn.execute(
            select(predictions)
            .where(predictions.c.market_id == market_id, as_of >= after[0], as_of <= last, later)
            .order_by(as_of, ident)
            .limit(CHUNK_ROWS)
        ).all()
        if not chunk:
            return
        yield chunk
        after = (chunk[-1].as_of, chunk[-1].id)


def _champion(champions: Sequence[Promotion], each: Answered) -> int | None:
    """The version that had to answer, by the promotions that were decided by then."""
    for promotion in reversed(champions):
        # a market's first champion may be named at the very time at which it had none
        decided = promotion.decided_at < each.served_at or (
            promotion.decided_at == each.served_at and each.version_id is not None
        )
        if promotion.effective_from <= each.as_of and decided:
            return promotion.version
    return None


def _version(conn: Connection, market_id: int, version: int | None, as_of: datetime) -> _Version:
    """That version, as it stood before it answered for that bar."""
    if version is None:
        return _Version(None, Reason.NO_MODEL, exact=True)
    packed = store.versions.packed(conn, version)
    try:
        model = predictor.from_artifact(packed)
    except BadArtifact:
        return _Version(None, Reason.UNHEALTHY_MODEL, exact=True)
    before = store.recalibrations.in_ledger(conn, market_id, as_of, version, model)
    exact = store.libraries.alike(json.loads(packed.manifest), store.libraries.here())
    return _Version(before or backtest.fresh(model), Reason.UNHEALTHY_MODEL, exact)


def compared(each: Answered, again: Derived | None, names: Sequence[str], exact: bool) -> Difference | str:
    """How an answer in the ledger compares with what was derived: equal, within_tolerance, or what differs first."""

    def differs(what: str, *values: Any) -> Difference:
        return Difference(each.as_of, each.id, what, *map(_told, values))

    if again is None:
        return differs("bar", iso(each.as_of), None)
    if each.reason != again.reason:
        return differs("reason", each.reason, again.reason)
    outcome = "equal"
    for what, ledger, replayed in _unequal(each, again, names):
        if exact or not _near(ledger, replayed):
            return differs(what, ledger, replayed)
        outcome = "within_tolerance"
    return outcome


def _unequal(each: Answered, again: Derived, names: Sequence[str]) -> Iterator[tuple[str, Any, Any]]:
    """What differs: its name, in the ledger, derived."""
    for name, replayed in again.columns.items():
        ledger = each._mapping[name]
        if name != "features":
            if ledger != replayed:
                yield name, ledger, replayed
        elif len(ledger) != replayed.nbytes:
            yield name, f"{len(ledger)} bytes", f"{replayed.nbytes} bytes"
        else:
            served = np.frombuffer(ledger, np.float32)
            for place in np.flatnonzero(served.view(np.uint32) != replayed.view(np.uint32)).tolist():
                yield f"feature {names[place]}", float(served[place]), float(replayed[place])


def _near(ledger: Any, replayed: Any) -> bool:
    """Whether these are numbers, and close enough for other libraries or another CPU."""
    numbers = isinstance(ledger, float) and isinstance(replayed, float)
    return numbers and math.isclose(ledger, replayed, rel_tol=TOLERANCE, abs_tol=TOLERANCE)


def _told(value: Any) -> str | int | float | None:
    """As JSON can have it."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
