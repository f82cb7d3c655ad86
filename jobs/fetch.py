"""Bars of exchanges into the store: those that are new of every market with a source, or a market's past.

Each page is committed before the next is asked for, so a kill loses one page at most, and whoever starts again goes
on where bars are missing. Taking a bar twice is taking it once.
"""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

import polars as pl

import model.bars
import store.bars
import store.database
import store.jobs
import store.markets
from jobs.sources import exchanges
from jobs.sources.exchanges import Exchange
from model.bars import Market, Rejection, iso
from model.errors import BadBars, BadInput, BarpropError
from store.bars import IngestReport
from store.database import Connection, Engine
from store.jobs import Job, Keep
from store.settings import Settings, Source

# So many of the newest bars are asked for again, in case the exchange has corrected them.
OVERLAP_BARS = 5
# Stretches of missing bars that are this near to each other are asked for as one.
NEAR_BARS = 500
# A market of which nothing came yet is not asked for again for so long.
PAUSE = timedelta(minutes=1)

Span = tuple[datetime, datetime | None]  # from an open time to a close; None is now


def connect(settings: Settings, name: str, clock: Callable[[], datetime]) -> Exchange:
    """That exchange with its options as set. Raises BadInput as `exchanges.connect` does."""
    return exchanges.connect(
        name,
        settings.sources.exchanges.get(name, {}),
        clock=clock,
        sleep=time.sleep,
        random=random.random,
        attempts=settings.sources.attempts,
    )


def backfill(
    engine: Engine,
    market: Market,
    exchange: Exchange,
    symbol: str,
    since: datetime,
    until: datetime | None = None,
    progress: Callable[[float], None] = lambda done: None,
) -> dict[str, Any]:
    """Brings what is missing of a market from `since` on; gives the ingest document of all pages together.

    `symbol` is the exchange's own. Raises as `exchanges.pages` does, and BadBars; what had come by then is kept.
    """
    with store.database.read(engine) as conn:
        row = store.markets.find(conn, market)
        kept = 0 if row is None else store.bars.count(conn, row.id)
        opens = _opens(conn, market, kept)
    return _bring(engine, market, exchange, symbol, missing(opens, since, until, market.timeframe), progress)


def past(
    engine: Engine,
    job: Job,
    settings: Settings,
    clock: Callable[[], datetime],
    progress: Callable[[float], None],
) -> Keep:
    """Brings what is missing of the job's market, from its `since` to its `until` or now: the ingest document.

    Raises as `backfill` does, and BadInput for a market without a source.
    """
    assert job.market is not None
    source = next((source for source in settings.sources.markets if source.market == job.market), None)
    if source is None:
        raise BadInput(f"{job.market} has no source in the settings of this worker (sources.markets)")
    exchange = connect(settings, source.exchange, clock)
    since, until = (job.params.get(name) for name in ("since", "until"))
    report = backfill(
        engine,
        job.market,
        exchange,
        source.exchange_symbol,
        datetime.fromisoformat(str(since)),
        None if until is None else datetime.fromisoformat(until),
        progress,
    )
    return lambda conn: report


def run(
    engine: Engine,
    job: Job,
    settings: Settings,
    clock: Callable[[], datetime],
    progress: Callable[[float], None],
) -> Keep:
    """Brings what is new of each market with a source: {"markets": [ingest documents], "failed"}.

    A market that cannot be brought is named among the failed and keeps none of the others from being brought;
    where none can be, the first one's error is raised.
    """
    with store.database.read(engine) as conn:
        sources = [source for source in settings.sources.markets if _due(conn, source, clock())]
    connected: dict[str, Exchange] = {}
    reports, failed, errors = [], [], []
    for done, source in enumerate(sources):
        try:
            if source.exchange not in connected:
                connected[source.exchange] = connect(settings, source.exchange, clock)
            reports.append(_new(engine, source, connected[source.exchange]))
        except BarpropError as error:
            errors.append(error)
            failed.append({"market": asdict(source.market), "error": str(error)})
        progress((done + 1) / len(sources))
    if errors and not reports:
        raise errors[0]
    return lambda conn: {"markets": reports, "failed": failed}


def waiting(engine: Engine, settings: Settings, clock: datetime, now: datetime) -> bool:
    """Whether a source should have a new bar by `clock` and was not asked for it just now, by the machine's `now`.

    The longer a bar is overdue the more seldom it is asked for, but once in its timeframe at the least.
    """
    with store.database.read(engine) as conn:
        due = [source for source in settings.sources.markets if _due(conn, source, clock)]
        last = store.jobs.last(conn, None, "fetch")
        if last is None or not due:
            return bool(due)
        tried = _tried(last)
        return any(
            source.market not in tried or now >= last.requested_at + _pause(conn, source, clock)
            for source in due
        )


def _new(engine: Engine, source: Source, exchange: Exchange) -> dict[str, Any]:
    """What has come since the newest bar that is kept; from the source's `since` on where there is none."""
    market = source.market
    with store.database.read(engine) as conn:
        opens = _opens(conn, market, OVERLAP_BARS)
    since = source.since if opens.is_empty() else max(source.since, opens[0])
    spans = missing(opens, since, None, market.timeframe)
    return _bring(engine, market, exchange, source.exchange_symbol, spans, lambda done: None)


def missing(opens: pl.Series, since: datetime, until: datetime | None, timeframe: str) -> list[Span]:
    """The stretches from `since` on without bars, where bars of those open times (sorted) are kept.

    The last one reaches OVERLAP_BARS back from the newest bar, so that corrections are seen.
    """
    kept = model.bars.timeframe(timeframe)
    opens = opens.filter(opens >= since)
    if until is not None:
        opens = opens.filter(opens < until)
    if opens.is_empty():
        return [(since, until)]
    steps = pl.DataFrame({"after": opens, "before": opens.shift(-1)})
    holes = steps.filter(pl.col("before") - pl.col("after") > 1.5 * kept.length)
    found: list[Span] = [(kept.close_of(after), before) for after, before in holes.iter_rows()]
    if opens[0] - since >= kept.length:
        found.insert(0, (since, opens[0]))
    found.append((opens[-min(OVERLAP_BARS, len(opens))], until))
    return _joined(found, NEAR_BARS * kept.length)


def _joined(spans: Sequence[Span], near: timedelta) -> list[Span]:
    """Of spans by their start, those that lie near to each other as one."""
    joined = [spans[0]]
    for start, end in spans[1:]:
        before_start, before_end = joined[-1]
        if before_end is None or start - before_end < near:
            joined[-1] = (before_start, end)
        else:
            joined.append((start, end))
    return joined


def _bring(
    engine: Engine,
    market: Market,
    exchange: Exchange,
    symbol: str,
    spans: Sequence[Span],
    progress: Callable[[float], None],
) -> dict[str, Any]:
    timeframe = model.bars.timeframe(market.timeframe)
    reports: list[IngestReport] = []
    between = 0  # gaps from one page to the next
    for at, (since, until) in enumerate(spans):
        last: datetime | None = None
        for page in exchanges.pages(exchange, symbol, timeframe, since, until):
            try:
                report = store.bars.add(engine, market, page.bars, page.now)
            except BadBars as error:
                raise BadBars(f"{exchange.name} {symbol}: {error}") from error
            between += last is not None and report.first - last > 1.5 * timeframe.length
            last = report.last
            reports.append(report)
            progress((at + page.done) / len(spans))
    return _summed(market, reports, between)


def _summed(market: Market, reports: Sequence[IngestReport], between: int) -> dict[str, Any]:
    """One ingest document for all pages; first and last are null where there was no bar at all."""
    rejected: dict[str, list[Rejection]] = {}
    for found in (found for report in reports for found in report.rejected):
        rejected.setdefault(found.reason, []).append(found)
    return {
        "market": asdict(market),
        "added": sum(report.added for report in reports),
        "repeated": sum(report.repeated for report in reports),
        "corrected": sum(report.corrected for report in reports),
        "rejected": [_together(rejected[reason]) for reason in sorted(rejected)],
        "gaps": sum(report.gaps for report in reports) + between,
        "first": iso(min(report.first for report in reports)) if reports else None,
        "last": iso(max(report.last for report in reports)) if reports else None,
    }


def _together(same: Sequence[Rejection]) -> dict[str, Any]:
    """Rejections for one reason as one."""
    first = min((found.first for found in same if found.first is not None), default=None)
    rows = sum(found.rows for found in same)
    return {"reason": same[0].reason, "rows": rows, "first": first and iso(first)}


def _opens(conn: Connection, market: Market, last: int) -> pl.Series:
    """The open times of the newest bars that are kept; empty for a market that never had one."""
    row = store.markets.find(conn, market)
    if row is None or last == 0:
        return pl.Series(dtype=model.bars.TS)
    return store.bars.open_times(conn, row.id, last)


def _due(conn: Connection, source: Source, now: datetime) -> bool:
    """Whether a bar after the newest has closed; never of a market that is paused."""
    row = store.markets.find(conn, source.market)
    if row is None:
        return True
    next_close = _next_close(conn, source)
    return not row.paused and (next_close is None or next_close <= now)


def _pause(conn: Connection, source: Source, now: datetime) -> timedelta:
    length = model.bars.timeframe(source.market.timeframe).length
    next_close = _next_close(conn, source)
    return min(length, PAUSE if next_close is None else (now - next_close) / 10)


def _next_close(conn: Connection, source: Source) -> datetime | None:
    """When the bar after the newest one closes; None where there is no bar."""
    timeframe = model.bars.timeframe(source.market.timeframe)
    newest = _opens(conn, source.market, 1)
    return None if newest.is_empty() else timeframe.close_of(timeframe.close_of(newest[0]))


def _tried(job: Job) -> list[Market]:
    """The markets that a fetch brought or failed to bring."""
    result = job.result or {}
    return [Market(**found["market"]) for found in [*result.get("markets", []), *result.get("failed", [])]]
