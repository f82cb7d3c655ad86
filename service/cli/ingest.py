"""`barprop ingest`: a file of bars, or an exchange's, into the store."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from model.errors import BadInput
from service.cli import opening, options, output
from service.cli.options import AsJson, WrongUsage

if TYPE_CHECKING:
    from model.bars import Market


def ingest(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="[FILE] SYMBOL TIMEFRAME",
            help="A file (Parquet, Feather, CSV or JSON) unless there is --exchange, and the market.",
            show_default=False,
        ),
    ],
    tz: Annotated[
        str, typer.Option("--tz", help="The zone of times that name none, e.g. Europe/Berlin.")
    ] = "UTC",
    stamp: Annotated[
        Literal["open", "close"],
        typer.Option("--stamp", help="Whether a row's time is its bar's open or close."),
    ] = "open",
    columns: Annotated[
        list[str] | None,
        typer.Option("--columns", help="An unusual column's meaning, e.g. close=last. May be repeated."),
    ] = None,
    exchange: Annotated[
        str | None, typer.Option("--exchange", help="Bring bars of this exchange.", show_default=False)
    ] = None,
    exchange_symbol: Annotated[
        str | None,
        typer.Option(
            "--exchange-symbol", help="The exchange's own symbol, e.g. BTC/USDT.", show_default=False
        ),
    ] = None,
    since: Annotated[
        str | None, typer.Option("--since", help="Bars that open from then on.", show_default=False)
    ] = None,
    until: Annotated[
        str | None,
        typer.Option("--until", help="Bars that have closed by then.", show_default="now"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Put a file of bars into the store, or an exchange's bars. Doing it twice is doing it once.

    \b
    barprop ingest ETHUSDT_1h.parquet ETHUSDT 1h
    barprop ingest export.csv EURUSD 1h --tz Europe/Berlin --stamp close
    barprop ingest odd.csv GOLD 1d --columns ts=Day --columns close=Settle
    barprop ingest BTCUSDT 1h --exchange binance --exchange-symbol BTC/USDT --since 2024-01-01

    Rows that break the rules (not closed yet, high below low, a price that is not positive) are counted and left
    out. A file without one good row is refused, and nothing of it is stored. Of an exchange's bars those that are
    missing are asked for, page by page: what was interrupted goes on when it is started again. It needs ccxt:
    pip install '.[exchanges]'
    """
    if exchange is None:
        if (given := [exchange_symbol, since, until]) != [None] * len(given):
            raise WrongUsage("--exchange-symbol, --since and --until go with --exchange")
        if len(names) != 3:
            raise WrongUsage(
                f"a file and a market are three arguments, FILE SYMBOL TIMEFRAME, not {len(names)}"
            )
        market = options.market(*names[1:])
        report = _of_file(Path(names[0]), market, tz, stamp, _names(columns or []))
    else:
        if (tz, stamp, columns or []) != ("UTC", "open", []):
            raise WrongUsage("--tz, --stamp and --columns are of files, and do not go with --exchange")
        if len(names) != 2:
            raise WrongUsage(
                f"with --exchange a market alone is given, SYMBOL TIMEFRAME, not {len(names)} arguments"
            )
        if exchange_symbol is None or since is None:
            raise WrongUsage(
                "--exchange needs --exchange-symbol, e.g. BTC/USDT, and --since, e.g. 2024-01-01"
            )
        market = options.market(*names)
        start, end = options.moment(since), None if until is None else options.moment(until)
        report = _of_exchange(market, exchange, exchange_symbol, start, end)
    if as_json:
        output.document(report)
    else:
        _show(market, report)


def _of_file(
    file: Path, market: Market, tz: str, stamp: Literal["open", "close"], columns: dict[str, str]
) -> dict[str, Any]:
    import store.clock
    from jobs.ingest import ingest_file

    with opening.database() as (_, engine):
        now = store.clock.now(engine)
        report = ingest_file(
            engine,
            file,
            market,
            now,
            tz=tz,
            stamp=stamp,
            columns=columns,
            noted=lambda conn, counts: options.noted(conn, "bars.push", str(market), counts),
        )
        return report.document()


def _of_exchange(
    market: Market, exchange: str, symbol: str, since: datetime, until: datetime | None
) -> dict[str, Any]:
    import jobs.fetch
    import store.clock

    with opening.database() as (settings, engine):
        try:
            connected = jobs.fetch.connect(settings, exchange, lambda: store.clock.now(engine))
        except BadInput as error:
            raise WrongUsage(str(error)) from error
        with output.progress(f"{market} from {exchange}") as watch:
            return jobs.fetch.backfill(engine, market, connected, symbol, since, until, watch)


def _show(market: Market, report: dict[str, Any]) -> None:
    output.line(
        f"{market}: {report['added']} bars added, {report['repeated']} repeated, {report['corrected']} corrected, "
        f"{report['gaps']} gaps"
    )
    if report["first"] is not None:
        output.line(f"from {report['first']} to {report['last']}")
    for refused in report["rejected"]:
        output.line(
            f"rejected {refused['rows']} rows: {refused['reason']}, first at {refused['first'] or 'no time'}"
        )


def _names(pairs: list[str]) -> dict[str, str]:
    """`close=last` pairs as a mapping from our name to the file's; `volume=` leaves a column out."""
    names = {}
    for pair in pairs:
        ours, equals, theirs = pair.partition("=")
        if not (ours and equals):
            raise WrongUsage(f"--columns takes NAME=COLUMN such as close=last, not {pair!r}")
        names[ours] = theirs
    return names
