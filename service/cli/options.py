"""The arguments and options that several commands share, and how their text is understood."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from model.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Mapping

    from model.bars import Market
    from store.audit import Action
    from store.database import Connection


def _kept() -> list[Market]:
    """The markets that are kept, for a shell that completes; none where they cannot be had, since it shows no errors."""
    try:
        import store.database
        import store.markets
        import store.settings

        engine = store.database.connect(store.settings.load().database.url)
        with store.database.read(engine) as conn:
            return [row.market for row in store.markets.all(conn)]
    except Exception:
        return []


def _symbols(incomplete: str) -> list[str]:
    return sorted({market.symbol for market in _kept() if market.symbol.startswith(incomplete)})


def _timeframes(ctx: typer.Context, incomplete: str) -> list[str]:
    of = ctx.params.get("symbol")
    kept = (market for market in _kept() if of is None or market.symbol == of)
    return sorted({market.timeframe for market in kept if market.timeframe.startswith(incomplete)})


Symbol = Annotated[
    str,
    typer.Argument(help="The market's symbol, e.g. ETHUSDT.", show_default=False, autocompletion=_symbols),
]
Timeframe = Annotated[
    str,
    typer.Argument(
        help="The length of its bars, e.g. 1m, 4h, 1d.", show_default=False, autocompletion=_timeframes
    ),
]
AnySymbol = Annotated[
    str | None,
    typer.Argument(help="Only this market's.", show_default=False, autocompletion=_symbols),
]
AnyTimeframe = Annotated[
    str | None,
    typer.Argument(help="The length of its bars.", show_default=False, autocompletion=_timeframes),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
Limit = Annotated[int, typer.Option("--limit", min=1, max=10_000, help="How many rows at most.")]


class WrongUsage(typer.TyperException):
    """A command line that cannot be meant: exit code 2."""

    exit_code = 2


def market(symbol: str, timeframe: str) -> Market:
    """The market that two arguments name; a wrong spelling is wrong usage."""
    import model.bars

    try:
        return model.bars.market(symbol, timeframe)
    except BadInput as error:
        raise WrongUsage(str(error)) from error


def any_market(symbol: str | None, timeframe: str | None) -> Market | None:
    """The market that two arguments name, or None where neither is given."""
    if symbol is None:
        return None
    if timeframe is None:
        raise WrongUsage(f"a market is two arguments: {symbol} and the length of its bars, e.g. 1h")
    return market(symbol, timeframe)


_DURATION = re.compile(r"(\d{1,6})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def duration(text: str) -> timedelta:
    """The length of time that a text such as `90s`, `15m`, `24h` or `7d` names."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise WrongUsage(f"{text!r} is not a length of time; write it as 90s, 15m, 24h or 7d")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def noted(conn: Connection, action: Action, target: str, detail: Mapping[str, Any]) -> None:
    """Writes a change that a command makes into the audit log, in the change's own transaction."""
    import store.audit

    store.audit.note(conn, store.audit.COMMAND_LINE, action, target, detail, datetime.now(UTC))


def moment(text: str) -> datetime:
    """The instant that an ISO 8601 text names; one without a zone is UTC."""
    import model.bars

    try:
        return model.bars.utc(datetime.fromisoformat(text))
    except ValueError as error:
        raise WrongUsage(f"{text!r} is not a time; write it as 2024-07-01T00:00:00Z or 2024-07-01") from error
