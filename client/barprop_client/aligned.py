"""Signals beside a strategy's own bars, so that no bar sees a Signal of its own future.

A strategy decides at a bar's close. It may then see a Signal that stands on bars closed by that moment, was served by
that moment, and comes from a version that had learned nothing later.
"""

import math
import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from barprop_client.client import Client
from barprop_client.values import Abstention, Signal

_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
# A live bot has a Signal so soon after the close that its order is still one of that close.
PROMPT = timedelta(minutes=1)


@dataclass(frozen=True)
class Known:
    """A Signal, and the moment from which on it counts."""

    signal: Signal
    since: datetime


def length(timeframe: str) -> timedelta:
    """How long a bar lasts: `15m`, `4h`, `1d`, `1w`. Raises ValueError."""
    match = re.fullmatch(r"([1-9]\d{0,3})([mhdw])", timeframe)
    if match is None:
        raise ValueError(f"{timeframe!r} is no timeframe; one is like 15m, 4h, 1d")
    return int(match[1]) * _UNITS[match[2]]


def from_ledger(client: Client, symbol: str, timeframe: str, since: datetime) -> list[Known]:
    """The Signals that were served since then. One served promptly counts from its bar's close on, any other from when it was served."""
    found = []
    for entry in client.predictions(symbol, timeframe):
        if entry.served_at < since:
            break
        as_of = entry.signal.as_of
        if as_of is not None:
            found.append(Known(entry.signal, as_of if entry.served_at - as_of <= PROMPT else entry.served_at))
    return found


def from_version(
    client: Client, symbol: str, timeframe: str, closes: Iterable[datetime], version: int | None = None
) -> list[Known]:
    """What a version (today's champion, unless named) says of each of these moments, one request each.

    Left out is what it says of moments that it has already learned from: a backtest of those would show nothing.
    """
    learned = {each.id: each.seen_until for each in client.versions(symbol, timeframe)}
    found = []
    for close in closes:
        signal = client.predict(symbol, timeframe, at=close, version=version)
        until = None if signal.version is None else learned.get(signal.version)
        if signal.as_of is not None and (until is None or until <= signal.as_of) and not signal.in_sample:
            found.append(Known(signal, signal.as_of))
    return found


def newest(known: Iterable[Known], closes: Sequence[datetime]) -> list[Signal | None]:
    """For each moment the newest Signal that counts then, while its market has had no later bar; else None."""
    in_order = sorted(known, key=lambda each: each.since)
    best: list[Known] = []  # of those up to here the one that stands on the latest bar
    for each in in_order:
        best.append(each if not best or _as_of(each) >= _as_of(best[-1]) else best[-1])
    starts = [each.since for each in in_order]
    found: list[Signal | None] = []
    for close in closes:
        at = bisect_right(starts, close)
        signal = best[at - 1].signal if at else None
        lasts = signal is not None and close < _as_of(best[at - 1]) + length(signal.market.timeframe)
        found.append(signal if lasts else None)
    return found


def _as_of(known: Known) -> datetime:
    assert known.signal.as_of is not None, "a Signal without a bar cannot be placed among bars"
    return known.signal.as_of


def position(signal: Signal | None, round_trip_bps: float = 0.0) -> float:
    """What to hold, from -1 (short) to 1 (long): NaN where there is no Signal, 0 for an abstention.

    It is the target of the market's policy, or the likelier side where the service names none; and 0 where a round
    trip of `round_trip_bps` basis points costs more than that position pays.
    """
    if signal is None:
        return math.nan
    if isinstance(signal, Abstention):
        return 0.0
    if signal.pays_up_to_bps is not None and signal.pays_up_to_bps < round_trip_bps:
        return 0.0
    return math.copysign(1.0, signal.p_up - 0.5) if signal.position is None else signal.position
