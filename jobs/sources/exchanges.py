"""Bars of exchanges through ccxt (REST): closed bars alone, page after page, from a given time on.

ccxt comes with the extra `exchanges` and is loaded when an exchange is connected. Clock, sleep and random are given,
so that a test needs neither time nor luck. What a page brought is the caller's to keep before the next one is asked.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import polars as pl

from model import extras
from model.bars import BAR_SCHEMA, PRICES, Timeframe, iso
from model.errors import BadInput, Unreachable

log = logging.getLogger(__name__)

T = TypeVar("T")

MOST_BARS = 1_000  # of a page, where the exchange has no smaller one
LONGEST_BACK_OFF_SECONDS = 60.0
# An exchange that bars us for longer than this is not waited for.
LONGEST_RETRY_AFTER_SECONDS = 300.0
# A clock that is off by more than this is told.
CLOCK_TOLERANCE = timedelta(seconds=5)
# Statuses from 400 to 499 that pass; the others stay, however often they are asked for.
PASSING = (408, 418, 425, 429)
# What ccxt stumbles over in an answer that is not what the exchange's interface says.
GARBAGE = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError)
LONGEST_MESSAGE = 200

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)


@dataclass(frozen=True)
class Exchange:
    """An exchange that can be asked; `api` is ccxt's object, which is untyped."""

    name: str
    api: Any
    clock: Callable[[], datetime]
    sleep: Callable[[float], None]  # seconds
    random: Callable[[], float]  # from 0 to 1
    attempts: int  # at one request


@dataclass(frozen=True)
class Page:
    """Bars that one request brought: BAR_SCHEMA, not checked, all closed by the exchange's clock."""

    bars: pl.DataFrame
    now: datetime  # this machine's time, or the exchange's where that is ahead: no bar closes after it
    done: float  # how much of the whole span is behind, 0 to 1


def connect(
    name: str,
    options: Mapping[str, Any],
    *,
    clock: Callable[[], datetime],
    sleep: Callable[[float], None],
    random: Callable[[], float],
    attempts: int,
) -> Exchange:
    """An exchange by ccxt's name for it; `options` go to ccxt as they are. Asks nothing yet.

    Raises BadInput where there is no such exchange, it has no bars, or ccxt is not installed.
    """
    try:
        import ccxt
    except ModuleNotFoundError as error:
        raise extras.missing(error.name, "exchanges") from error
    if name not in ccxt.exchanges:
        raise BadInput(f"ccxt knows no exchange {name!r}: its names are such as binance, bybit, kraken")
    # proxies are taken from the environment, as elsewhere; the last answer tells garbage from an answer
    api = getattr(ccxt, name)({"requests_trust_env": True, "enableLastJsonResponse": True, **options})
    if api.has["fetchOHLCV"] is not True:  # "emulated" ones are put together from the newest trades
        raise BadInput(f"{name} has no bars to give")
    api.throttle = _throttle(api, clock, sleep)
    api.parse_ohlcv = _strict(api.parse_ohlcv)
    return Exchange(name, api, clock, sleep, random, attempts)


def _throttle(
    api: Any, clock: Callable[[], datetime], sleep: Callable[[float], None]
) -> Callable[[float | None], None]:
    """ccxt's own pause before a request, which follows from the exchange's limits, with clock and sleep as given."""
    asked_at = EPOCH

    def pause(cost: float | None = None) -> None:
        nonlocal asked_at
        least = api.rateLimit / 1_000 * (1 if cost is None else cost)
        if (rest := least - (clock() - asked_at).total_seconds()) > 0:
            sleep(min(rest, least))  # a clock that was set back must not make the pause longer
        asked_at = clock()

    return pause


def _strict(parse: Callable[..., list[Any]]) -> Callable[..., list[Any]]:
    """ccxt's reading of one row; a row without a time raises ValueError, where ccxt would leave it out in silence."""

    def read(*row: Any) -> list[Any]:
        bar = parse(*row)
        if bar[0] is None:
            raise ValueError("a bar without a time")
        return bar

    return read


def pages(
    exchange: Exchange, symbol: str, timeframe: Timeframe, since: datetime, until: datetime | None = None
) -> Iterator[Page]:
    """The bars that open from `since` on and have closed by `until`, or by now; `symbol` is the exchange's own.

    The end is a time: a page that is short or empty is followed by the next all the same. Raises BadInput for a
    symbol or timeframe that the exchange has not, Unreachable where it does not answer, or not sensibly.
    """
    limit = _limit(exchange, symbol, timeframe)
    ahead = _ahead(exchange)
    at = since
    while True:
        # taken before the request: what had closed by then is finished in the answer
        asked_at = exchange.clock() + ahead
        end = asked_at if until is None else min(until, asked_at)
        if timeframe.close_of(at) > end:
            return
        start = (at - EPOCH) // MILLISECOND
        rows = _ask(exchange, lambda start=start: _rows(exchange.api, symbol, timeframe.name, start, limit))  # type: ignore[misc]
        bars = rows.filter(pl.col("ts") >= at, timeframe.closes(pl.col("ts")) <= end)
        if bars.is_empty():  # a stretch without bars, or the end
            at += limit * timeframe.length
            continue
        bars = bars.sort("ts")
        first: datetime = bars["ts"][0]
        if first - at > limit * timeframe.length:
            said = (exchange.name, symbol, timeframe.name, iso(at), iso(first))
            log.warning("%s has no bars of %s %s from %s to %s", *said)
        at = timeframe.close_of(bars["ts"][-1])
        yield Page(bars, max(exchange.clock(), asked_at), min((at - since) / (end - since), 1.0))


def _limit(exchange: Exchange, symbol: str, timeframe: Timeframe) -> int:
    """How many bars a page may have. Raises BadInput where there are none of that symbol and timeframe."""
    api = exchange.api
    if not api.markets:  # once for all pages
        _ask(exchange, lambda: _markets(api))
    if timeframe.name not in api.timeframes:
        raise BadInput(f"{exchange.name} has no bars of {timeframe.name}: {', '.join(api.timeframes)}")
    if symbol not in api.markets and symbol not in api.markets_by_id:
        letters = _letters(symbol)
        near = next((name for name in api.markets if _letters(name) == letters), None)
        raise BadInput(f"{exchange.name} has no symbol {symbol!r}" + (f"; try {near!r}" if near else ""))
    limit = api.feature_value(symbol, "fetchOHLCV", "limit")
    return min(int(limit or MOST_BARS), MOST_BARS)


def _letters(symbol: str) -> str:
    return "".join(filter(str.isalnum, symbol)).upper()


def _ahead(exchange: Exchange) -> timedelta:
    """How far the exchange's clock is ahead of ours, at the least; 0 where it does not tell its time.

    Its time is that of some moment before the answer came, so a bar that has closed by it has closed for certain.
    """
    if not exchange.api.has["fetchTime"]:
        return timedelta(0)
    told = _ask(exchange, lambda: int(exchange.api.fetch_time()))
    ahead = EPOCH + told * MILLISECOND - exchange.clock()
    if abs(ahead) > CLOCK_TOLERANCE:
        side = "behind" if ahead > timedelta(0) else "ahead of"
        log.warning(
            "this machine's clock is %.0f s %s that of %s, by which bars are judged as closed",
            abs(ahead).total_seconds(),
            side,
            exchange.name,
        )
    return ahead


def _markets(api: Any) -> None:
    if not api.load_markets():
        raise ValueError("no markets")


def _rows(api: Any, symbol: str, timeframe: str, since: int, limit: int) -> pl.DataFrame:
    """One page as the exchange has it; `since` in milliseconds."""
    rows = api.fetch_ohlcv(symbol, timeframe, since, limit)
    columns = [[int(row[0]) for row in rows], *([row[at] for row in rows] for at in range(1, 6))]
    frame = pl.DataFrame(dict(zip(("ts", *PRICES, "volume"), columns, strict=True)), strict=False)
    return frame.with_columns(pl.col("ts").cast(pl.Int64) * 1_000).cast(BAR_SCHEMA)


def _ask(exchange: Exchange, request: Callable[[], T]) -> T:
    """What a request brings, tried again while that may help: later each time, with jitter, not before Retry-After.

    Raises BadInput where the exchange refuses what is asked for, Unreachable where it does not come to an answer.
    """
    import ccxt

    api, name = exchange.api, exchange.name
    for attempt in range(1, exchange.attempts + 1):
        # they would be those of another request
        api.last_response_headers = api.last_json_response = None
        try:
            found = request()
            if api.last_json_response in (None, {}):
                raise ValueError("no JSON, or nothing in it")
            return found
        except ccxt.OperationFailed as error:
            fault, status = _told(error), _status(error)
            if status is not None and 400 <= status < 500 and status not in PASSING:
                raise Unreachable(f"{name} refuses to answer: {fault}") from error
        except ccxt.BaseError as error:
            # requests' own errors are OSErrors: no exchange said anything then
            kind = Unreachable if isinstance(error.__cause__, OSError) else BadInput
            raise kind(f"{name}: {_told(error)}") from error
        except GARBAGE as error:
            fault = f"its answer is not what its interface promises ({_told(error)})"
        if attempt == exchange.attempts:
            break
        wait = _wait(exchange, attempt, _retry_after(api.last_response_headers))
        log.warning("%s: %s; trying again in %.1f s", name, fault, wait)
        exchange.sleep(wait)
    raise Unreachable(f"{name} does not answer after {exchange.attempts} attempts: {fault}")


def _wait(exchange: Exchange, attempt: int, retry_after: float) -> float:
    """Seconds until the next attempt. Raises Unreachable where the exchange wants to be left alone for long."""
    if retry_after > LONGEST_RETRY_AFTER_SECONDS:
        raise Unreachable(f"{exchange.name} wants no more requests for {retry_after:.0f} s: try again then")
    back_off = min(2.0 ** (attempt - 1), LONGEST_BACK_OFF_SECONDS)
    return max(back_off / 2, retry_after) + back_off / 2 * exchange.random()


def _retry_after(headers: Mapping[str, str] | None) -> float:
    """The seconds that an answer asks to wait for: a number, or a date beside the answer's own; 0 where it does not."""
    text = (headers or {}).get("Retry-After", "")
    try:
        return max(float(text), 0.0)
    except ValueError:
        pass
    try:
        sent = parsedate_to_datetime((headers or {}).get("Date", ""))
        return max((parsedate_to_datetime(text) - sent).total_seconds(), 0.0)
    except (TypeError, ValueError):
        return 0.0


def _status(error: BaseException) -> int | None:
    """The HTTP status behind one of ccxt's errors, if there is one."""
    answer = getattr(error.__context__, "response", None)
    status = getattr(answer, "status_code", None)
    return status if isinstance(status, int) else None


def _told(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:LONGEST_MESSAGE]
