"""`barprop backtest`: how it would have done, walking forward."""

from typing import Annotated, Any

import typer

from service.cli import opening, options, output, running
from service.cli.options import AsJson, Symbol, Timeframe


def backtest(
    symbol: Symbol,
    timeframe: Timeframe,
    window: Annotated[
        int | None, typer.Option("--window", min=1, help="How many bars each training learns from.")
    ] = None,
    refit_every: Annotated[
        int | None, typer.Option("--refit-every", min=1, help="Bars between two trainings.")
    ] = None,
    last: Annotated[
        int | None, typer.Option("--last", min=1, help="Judge only so many of the newest bars.")
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait while a worker backtests that market, or refuse.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Judge a market's past as it would have been lived.

    Train, predict the next bars, train again.

    \b
    barprop backtest ETHUSDT 1h
    barprop backtest ETHUSDT 1h --window 10000 --refit-every 1000
    barprop backtest ETHUSDT 1h --last 5000

    Each bar is predicted by a network that had not seen it, by the same functions that serve. Scores stand beside
    the base rate, trading figures (after fees and slippage) beside buy and hold.
    """
    market = options.market(symbol, timeframe)
    given = {"window": window, "refit_every": refit_every, "last": last}
    params = {name: value for name, value in given.items() if value is not None}
    with opening.database() as (settings, engine):
        opening.features(settings)
        result = running.run(engine, settings, "backtest", market, params, wait)
    if as_json:
        output.document(result)
        return
    show(result)


def show(result: dict[str, Any]) -> None:
    """A backtest's document for a person."""
    market = f"{result['market']['symbol']} {result['market']['timeframe']}"
    output.line(
        f"{market}: {result['rows']} bars judged, {result['first_judged']} to {result['last_judged']}"
    )
    if left_out := result["breaks"]["rows_left_out"]:
        output.line(
            f"{left_out} bars left out: {result['breaks']['gaps']} gaps and {result['breaks']['jumps']} jumps in the "
            f"bars (barprop markets breaks {market})"
        )
    trading = dict(result["trading"])
    costs = trading.pop("costs", None)
    for what, columns in (("scores", result["scores"]), ("trading", trading)):
        names = list(dict.fromkeys(name for column in columns.values() for name in column))
        rows = [[name, *(_figure(column.get(name)) for column in columns.values())] for name in names]
        output.table([what, *(name.replace("_", " ") for name in columns)], rows)
    if costs is not None:
        output.line(
            f"after fees of {costs['fee_bps']:g} and slippage of {costs['slippage_bps']:g} bps, each way"
        )
    output.line(result["verdict"]["text"])


def _figure(value: object) -> object:
    return output.number(value) if isinstance(value, float) else value
