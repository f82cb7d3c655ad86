"""The newest bars of markets in memory, so that of those that come in one by one none is read twice.

What is kept of a market is good as long as its mark is the one that it was kept under.
"""

from dataclasses import dataclass
from datetime import timedelta

from model.bars import Bars, Market
from model.features import HISTORY

# Bars beyond those that one row needs: nearly always a version answered for one of the last few.
SPARE_BARS = 8
LAST = HISTORY + SPARE_BARS  # bars of each market
# A process keeps those of so many markets; each is 40 KiB.
MOST = 2_000


@dataclass(frozen=True)
class Newest:
    """A market's newest LAST bars, or all where it has fewer, as they were at that mark."""

    changes: int
    bars: Bars


Recent = dict[Market, Newest]


def at(recent: Recent, market: Market, changes: int) -> Bars | None:
    """The market's newest bars where they are known as they are at that mark."""
    kept = recent.get(market)
    return kept.bars if kept is not None and kept.changes == changes else None


def mark_before(recent: Recent, market: Market, bars: Bars, length: timedelta) -> int | None:
    """The mark at which these bars (sorted, of that length) come after all that the market has; None where no such mark
    is known."""
    kept = recent.get(market)
    return kept.changes if kept is not None and bars["ts"][0] - kept.bars["ts"][-1] >= length else None


def keep(recent: Recent, market: Market, changes: int, bars: Bars) -> None:
    """Keeps the newest LAST of these bars for the next time; the market that was kept first makes room."""
    if market not in recent and len(recent) >= MOST:
        oldest, *_ = list(recent)
        recent.pop(oldest, None)
    recent[market] = Newest(changes, bars.tail(LAST))


def grew(recent: Recent, market: Market, changes: int, bars: Bars) -> None:
    """Notes that one change, to that mark, added these bars (sorted) and did nothing else."""
    before = at(recent, market, changes - 1)
    if before is not None and before["ts"][-1] < bars["ts"][0]:
        keep(recent, market, changes, before.vstack(bars.tail(LAST)).rechunk())
