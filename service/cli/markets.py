"""`barprop markets`: which markets there are, which of them rest, and where their bars break off."""

import math
from dataclasses import asdict
from typing import Any

import typer

from service.cli import opening, options, output
from service.cli.options import AsJson, Symbol, Timeframe

app = typer.Typer(name="markets", help="List markets; pause and resume them; list gaps and jumps.")


@app.command("list")
def list_markets(as_json: AsJson = False) -> None:
    """List every market with its bars and its champion.

    \b
    barprop markets list
    """
    import store.database
    import store.markets
    from service import overview

    with opening.database() as (_, engine), store.database.read(engine) as conn:
        items = [overview.document(conn, row) for row in store.markets.all(conn)]
    if as_json:
        output.document({"items": items, "next": None})
        return
    output.table(
        ["symbol", "timeframe", "bars", "last close", "champion", "paused"],
        [
            [*item["market"].values(), item["bars"], item["last_close"], item["champion"], item["paused"]]
            for item in items
        ],
        empty="no market yet; put bars in with `barprop ingest FILE SYMBOL TIMEFRAME`",
    )


@app.command()
def pause(symbol: Symbol, timeframe: Timeframe, as_json: AsJson = False) -> None:
    """Let a market rest: it gets no scheduled work, and its Signals abstain with `paused`.

    \b
    barprop markets pause ETHUSDT 1h
    """
    _set_paused(symbol, timeframe, True, as_json)


@app.command()
def resume(symbol: Symbol, timeframe: Timeframe, as_json: AsJson = False) -> None:
    """Take a market up again.

    \b
    barprop markets resume ETHUSDT 1h
    """
    _set_paused(symbol, timeframe, False, as_json)


@app.command()
def breaks(symbol: Symbol, timeframe: Timeframe, as_json: AsJson = False) -> None:
    """List a market's gaps and jumps, newest first.

    \b
    barprop markets breaks ETHUSDT 1h

    Rows that stand on one are not learned from and not judged, and the market abstains with `gap`. They are found in
    the bars each time; a corrected bar is a jump no more.
    """
    import store.breaks
    import store.database
    import store.markets

    market = options.market(symbol, timeframe)
    with opening.database() as (settings, engine), store.database.read(engine) as conn:
        row = store.markets.need(conn, market)
        found = store.breaks.document(conn, row, settings.training.jump_z)
    if as_json:
        output.document(found)
        return
    output.table(
        ["kind", "first bar after it", "size"],
        [[item["kind"], item["ts"], _size(item)] for item in found["items"]],
        empty=f"{market}: no gap and no jump",
    )


@app.command()
def skill(as_json: AsJson = False) -> None:
    """Say in which markets there is skill, given how many were looked at.

    \b
    barprop markets skill

    Of each market's newest backtest: the gain over the base rate, and how often one as large comes by chance: in that
    market alone (p), in any of so many (Holm), and as a share of the markets that are called skilled (Benjamini and
    Hochberg's false discovery rate).
    """
    import store.backtests
    import store.database

    with opening.database() as (_, engine), store.database.read(engine) as conn:
        items = store.backtests.verdicts(conn)
    if as_json:
        output.document({"items": items, "next": None})
        return
    output.table(
        ["symbol", "timeframe", "backtest", "bars", "gain", "z", "p", "holm", "false discovery"],
        [
            [*item["market"].values(), item["backtest"], item["rows"], *map(_figure, list(item.values())[3:])]
            for item in items
        ],
        empty="no backtest yet: barprop backtest SYMBOL TIMEFRAME",
    )


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _size(item: dict[str, Any]) -> str:
    if item["kind"] == "gap":
        return f"{item['size']:.0f} missing"
    return f"{math.expm1(item['size']):+.1%}"


def _set_paused(symbol: str, timeframe: str, paused: bool, as_json: bool) -> None:
    import store.database
    import store.markets

    market = options.market(symbol, timeframe)
    with opening.database() as (_, engine), store.database.write(engine) as conn:
        row = store.markets.need(conn, market)
        store.markets.set_paused(conn, row.id, paused)
        if row.paused != paused:
            options.noted(conn, "market.pause" if paused else "market.resume", str(market), {})
    if as_json:
        output.document({"market": asdict(market), "paused": paused})
    else:
        output.line(f"{market} is {'paused' if paused else 'at work again'}")
