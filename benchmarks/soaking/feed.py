"""Markets whose bars end now: a random walk that goes on by the machine's clock."""

from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl

from model.bars import BAR_SCHEMA, Bars, Market, iso, timeframe

STORED = 1_100  # bars before it begins
NEVER = datetime(1970, 1, 1, tzinfo=UTC)
STEP = 0.001  # standard deviation of a bar's log return


class Feed:
    """One market's bars, each told once."""

    def __init__(self, market: Market, seed: int) -> None:
        self.market = market
        self._length = timeframe(market.timeframe).length
        self._rng = np.random.default_rng(seed)
        self._close = 100.0
        self._next = self._newest_close() - STORED * self._length

    def closed(self) -> Bars:
        """The bars that have closed since it was asked last."""
        count = (self._newest_close() - self._next) // self._length
        first, self._next = self._next, self._next + count * self._length
        return self._walk(first, count)

    def wait_seconds(self) -> float:
        """How long it is until the next bar has closed."""
        return max((self._next + self._length - datetime.now(UTC)).total_seconds(), 0.0)

    def _newest_close(self) -> datetime:
        now = datetime.now(UTC)
        return now - (now - NEVER) % self._length

    def _walk(self, first: datetime, count: int) -> Bars:
        closes = self._close * np.exp(np.cumsum(self._rng.normal(0, STEP, count)))
        opens = np.concatenate(([self._close], closes))[:count]
        self._close = float(closes[-1]) if count else self._close
        wick = np.exp(np.abs(self._rng.normal(0, STEP / 2, count)))
        columns = {
            "ts": [first + place * self._length for place in range(count)],
            "open": opens,
            "high": np.maximum(opens, closes) * wick,
            "low": np.minimum(opens, closes) / wick,
            "close": closes,
            "volume": self._rng.uniform(1, 2, count),
        }
        return pl.DataFrame(columns, schema=BAR_SCHEMA)


def body(market: Market, bars: Bars | None = None) -> dict[str, Any]:
    """A request about a market, with bars where they are given."""
    named: dict[str, Any] = {"symbol": market.symbol, "timeframe": market.timeframe}
    if bars is None:
        return named
    return {**named, "bars": [{**bar, "ts": iso(bar["ts"])} for bar in bars.iter_rows(named=True)]}
