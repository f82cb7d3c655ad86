"""`barprop ingest`: a file of bars into the store."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from service.cli import opening, options, output
from service.cli.options import AsJson, Symbol, Timeframe, WrongUsage


def ingest(
    file: Annotated[Path, typer.Argument(help="Parquet, Feather, CSV or JSON.", show_default=False)],
    symbol: Symbol,
    timeframe: Timeframe,
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
    as_json: AsJson = False,
) -> None:
    """Put a file of bars into the store. Doing it twice is doing it once.

    \b
    barprop ingest ETHUSDT_1h.parquet ETHUSDT 1h
    barprop ingest export.csv EURUSD 1h --tz Europe/Berlin --stamp close
    barprop ingest odd.csv GOLD 1d --columns ts=Day --columns close=Settle

    Rows that break the rules (not closed yet, high below low, a price that is not positive) are counted and left
    out. A file without one good row is refused, and nothing of it is stored.
    """
    names = _names(columns or [])
    market = options.market(symbol, timeframe)

    import store.clock
    from jobs.ingest import ingest_file

    with opening.database() as (_, engine):
        now = store.clock.now(engine)
        report = ingest_file(engine, file, market, now, tz=tz, stamp=stamp, columns=names).document()
    if as_json:
        output.document(report)
        return
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
