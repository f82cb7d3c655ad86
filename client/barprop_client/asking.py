"""Requests as values, the same for both clients: what to send, and how to read the answer. Pure, but for random keys.

Every request may be sent again: what only reads is safe; a bar's first Signal stands, whoever asks again; to cancel
twice is to cancel once; and every other POST carries an `Idempotency-Key`, the same at each attempt.
"""

import math
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from barprop_client import reading
from barprop_client.reading import Page
from barprop_client.values import (
    Bar,
    Entry,
    Ingested,
    Job,
    Market,
    MarketState,
    Readiness,
    Refused,
    Signal,
    Version,
)

T = TypeVar("T")


@dataclass(frozen=True)
class Ask(Generic[T]):
    """One request. `answers` are statuses beside 2xx that bring an answer and no problem."""

    method: str
    path: str
    read: Callable[[Any], T]
    query: Mapping[str, str | int] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    answers: frozenset[int] = frozenset()


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _change(path: str, read: Callable[[Any], T], body: Mapping[str, Any]) -> Ask[T]:
    return Ask("POST", path, read, body=body, headers={"idempotency-key": uuid.uuid4().hex})


def _time(moment: datetime) -> str:
    if moment.tzinfo is None:
        raise ValueError(f"{moment} has no zone; say which, e.g. {moment!r}.replace(tzinfo=UTC)")
    return moment.isoformat()


def _bar(bar: Bar) -> dict[str, Any]:
    numbers = {name: float(getattr(bar, name)) for name in ("open", "high", "low", "close", "volume")}
    wrong = [name for name, value in numbers.items() if not math.isfinite(value)]
    if wrong:
        raise ValueError(f"the bar of {bar.ts} has no number as its {wrong[0]}: leave such a bar out")
    return {"ts": _time(bar.ts), **numbers}


def predict(
    symbol: str,
    timeframe: str,
    at: datetime | None = None,
    version: int | None = None,
    bars: Iterable[Bar] | None = None,
) -> Ask[Signal]:
    """A market's Signal: for now, of a moment, by a version, or by bars that are brought along."""
    body = _given(
        symbol=symbol,
        timeframe=timeframe,
        at=None if at is None else _time(at),
        version=version,
        bars=None if bars is None else [_bar(bar) for bar in bars],
    )
    return Ask("POST", "/v1/predict", reading.signal, body=body)


def predict_batch(markets: Iterable[Market | tuple[str, str]]) -> Ask[list[Signal | Refused]]:
    """The Signals of many markets, in their order."""
    named = [m if isinstance(m, Market) else Market(*m) for m in markets]
    body = {"markets": [{"symbol": m.symbol, "timeframe": m.timeframe} for m in named]}
    return Ask("POST", "/v1/predict/batch", reading.batch, body=body)


def signal(symbol: str, timeframe: str, etag: str | None) -> Ask[Signal | None]:
    """A market's Signal, or None where it is still the one of `etag`."""
    path = f"/v1/signals/{quote(symbol, safe='')}/{quote(timeframe, safe='')}"
    headers = {} if etag is None else {"if-none-match": etag}
    return Ask(
        "GET",
        path,
        lambda said: None if said is None else reading.signal(said),
        headers=headers,
        answers=frozenset({304}),
    )


def signals(symbol: str | None, timeframe: str | None, after: str | None) -> Ask[Entry]:
    """The stream of Signals, from the one after the ledger's id `after`."""
    resume = {} if after is None else {"last-event-id": after}
    headers = {"accept": "text/event-stream", "accept-encoding": "identity", **resume}
    return Ask(
        "GET",
        "/v1/signals",
        reading.entry,
        query=_given(symbol=symbol, timeframe=timeframe),
        headers=headers,
    )


def push_bars(symbol: str, timeframe: str, bars: Iterable[Bar]) -> Ask[Ingested]:
    """Keeps closed bars."""
    body = {"symbol": symbol, "timeframe": timeframe, "bars": [_bar(bar) for bar in bars]}
    return _change("/v1/bars", reading.ingested, body)


def bars(symbol: str, timeframe: str, cursor: int | str | None) -> Ask[Page[Bar]]:
    """A page of stored bars."""
    query = _given(symbol=symbol, timeframe=timeframe, cursor=cursor, limit=500)
    return Ask("GET", "/v1/bars", reading.page(reading.bar), query)


def markets() -> Ask[Page[MarketState]]:
    """Every market."""
    return Ask("GET", "/v1/markets", reading.page(reading.market_state))


def versions(symbol: str | None, timeframe: str | None, cursor: int | str | None) -> Ask[Page[Version]]:
    """A page of versions."""
    query = _given(symbol=symbol, timeframe=timeframe, cursor=cursor)
    return Ask("GET", "/v1/versions", reading.page(reading.version), query)


def predictions(symbol: str | None, timeframe: str | None, cursor: int | str | None) -> Ask[Page[Entry]]:
    """A page of the ledger."""
    query = _given(symbol=symbol, timeframe=timeframe, cursor=cursor, limit=500)
    return Ask("GET", "/v1/predictions", reading.page(reading.entry), query)


def work(path: str, symbol: str, timeframe: str, options: Mapping[str, Any]) -> Ask[Job]:
    """A job of the kind that `path` asks for; options that are None are left to the service's settings."""
    return _change(path, reading.job, _given(symbol=symbol, timeframe=timeframe, **options))


def backfill(symbol: str, timeframe: str, since: datetime, until: datetime | None) -> Ask[Job]:
    """A job that brings a market's past."""
    span = {"since": _time(since), "until": None if until is None else _time(until)}
    return work("/v1/backfills", symbol, timeframe, span)


def job(job_id: int) -> Ask[Job]:
    """A job as it is now."""
    return Ask("GET", f"/v1/jobs/{int(job_id)}", reading.job)


def cancel(job_id: int) -> Ask[Job]:
    """Cancels a job."""
    return Ask("DELETE", f"/v1/jobs/{int(job_id)}", reading.job)


def readiness() -> Ask[Readiness]:
    """Whether the service can answer: a 503 is an answer here."""
    return Ask("GET", "/readyz", reading.readiness, answers=frozenset({503}))
