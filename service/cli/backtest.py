"""`barprop backtest`: how it would have done, walking forward."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from model.errors import BadInput
from service.cli import opening, options, output, running
from service.cli.options import AsJson, Symbol, Timeframe

if TYPE_CHECKING:
    from store.database import Engine

# Those of all scores that a terminal shows; the others are in --json and in the report.
SCORES = (
    *("rows", "log_loss", "brier", "ece", "auc", "accuracy", "mcc", "ic", "rank_ic", "mae", "rmse", "r2"),
    *("coverage_90", "sharpness"),
)


def backtest(
    symbol: Symbol,
    timeframe: Timeframe,
    window: Annotated[
        int | None, typer.Option("--window", min=1, help="How many bars each training learns from.")
    ] = None,
    refit_every: Annotated[
        int | None, typer.Option("--refit-every", min=1, help="Bars between two trainings.")
    ] = None,
    first: Annotated[
        int | None,
        typer.Option("--first", min=1, help="How many rows the first training has; judged are those after."),
    ] = None,
    last: Annotated[
        int | None, typer.Option("--last", min=1, help="Judge only so many of the newest bars.")
    ] = None,
    expanding: Annotated[
        bool, typer.Option("--expanding", help="Learn from all bars up to then, not from a window.")
    ] = False,
    by_need: Annotated[
        bool, typer.Option("--by-need", help="Train only where the champion has gained nothing lately.")
    ] = False,
    warm: Annotated[
        bool, typer.Option("--warm", help="Go on from the champion's weights at each training.")
    ] = False,
    members: Annotated[
        int | None, typer.Option("--members", min=1, max=64, help="Networks whose mean answers.")
    ] = None,
    horizon: Annotated[
        int | None, typer.Option("--horizon", min=1, help="Bars ahead that are predicted.")
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option(
            "--policy",
            help="How a forecast becomes a position: cost_aware, sign, threshold, kelly, volatility.",
            show_default="portfolio.policy",
        ),
    ] = None,
    baseline: Annotated[
        list[str] | None,
        typer.Option(
            "--baseline",
            help="What it is compared with beside the base rate, as often as needed: no_change, logistic, lightgbm.",
            show_default="backtest.baselines",
        ),
    ] = None,
    report: Annotated[
        Path | None, typer.Option("--report", dir_okay=False, help="Write a page that needs no network here.")
    ] = None,
    parquet: Annotated[
        Path | None, typer.Option("--parquet", dir_okay=False, help="Write every prediction here.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where the same backtest was interrupted.")
    ] = False,
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
    barprop backtest ETHUSDT 1h --last 5000 --report eth.html

    Each bar is predicted by a network that had not seen it, by the same functions that serve. Scores stand beside
    the base rate, trading figures (after fees and slippage) beside buy and hold.
    """
    from model.baselines import BASELINES
    from model.portfolio.policies import RULES

    market = options.market(symbol, timeframe)
    for option, named, known in (
        ("--policy", [policy] if policy else [], RULES),
        ("--baseline", baseline or [], BASELINES),
    ):
        if unknown := [name for name in named if name not in known]:
            raise options.WrongUsage(f"{option} {unknown[0]} is none; there are {', '.join(known)}")
    if expanding and window is not None:
        raise options.WrongUsage("--expanding has no --window: leave one of them out")
    given = {
        **{"window": window, "refit_every": refit_every, "first": first, "last": last},
        **{"expanding": expanding, "by_need": by_need, "warm": warm, "resume": resume},
        **{"members": members, "horizon": horizon, "policy": policy, "baselines": baseline},
    }
    params = {name: value for name, value in given.items() if value}
    if report is not None and report == parquet:
        raise options.WrongUsage("--report and --parquet name the same file")
    for file in (report, parquet):
        if file is not None and not file.parent.is_dir():
            raise BadInput(f"there is no folder {file.parent} to write {file.name} into")
    with opening.database() as (settings, engine):
        opening.features(settings)
        try:
            result = running.run(engine, settings, "backtest", market, params, wait)
        except KeyboardInterrupt:
            output.note("what was done so far is kept: the same command with --resume goes on from there")
            raise
        if as_json:
            output.document(result)
        else:
            show(result)
        _write(engine, result, report, parquet)


def _write(engine: Engine, result: dict[str, Any], report: Path | None, parquet: Path | None) -> None:
    """The files that were asked for."""
    if report is None and parquet is None:
        return
    import io

    import polars as pl

    import store.backtests
    import store.database
    from service.dashboard.report import html

    with store.database.read(engine) as conn:
        predictions = store.backtests.predictions(conn, result["id"])
    try:
        if parquet is not None:
            parquet.write_bytes(predictions)
        if report is not None:
            report.write_text(html(result, pl.read_parquet(io.BytesIO(predictions))), encoding="utf-8")
    except OSError as error:
        raise BadInput(
            f"{error.filename} cannot be written: {error.strerror}; the backtest is kept as number {result['id']}"
        ) from error


def show(result: dict[str, Any]) -> None:
    """A backtest's document for a person."""
    market = f"{result['market']['symbol']} {result['market']['timeframe']}"
    output.line(result["verdict"]["text"])
    output.line(
        f"{market}: {result['rows']} bars judged, {result['first_judged']} to {result['last_judged']}; "
        f"bars were read from {result['first_read']} on"
    )
    if left_out := result["breaks"]["rows_left_out"]:
        output.line(
            f"{left_out} bars left out: {result['breaks']['gaps']} gaps and {result['breaks']['jumps']} jumps in the "
            f"bars (barprop markets breaks {market})"
        )
    if doubts := result["abstained"]["reasons"]:
        told = ", ".join(f"{reason} {rows}" for reason, rows in doubts.items())
        output.line(f"live, these would have been abstentions: {told}")
        answered = result["abstained"]["scores"]
        if answered is not None:
            output.line(
                f"of the other {answered['rows']} bars the log loss is {answered['log_loss']:.5f}, where it is "
                f"{result['scores']['model']['log_loss']:.5f} of all"
            )
    _table("scores", result["scores"], SCORES)
    for name, found in result["paired"].items():
        if found["p"] is not None:
            output.line(
                f"log loss {abs(found['gain']):.5f} {'below' if found['gain'] >= 0 else 'above'} that of "
                f"{name.replace('_', ' ')}, z = {found['z']:.1f}, p = {found['p']:.3g}"
            )
    trading = result["trading"]
    _table("trading", {name: trading[name] for name in ("strategy", "buy_and_hold")})
    costs, breaks_even = trading["costs"], trading["break_even_bps"]
    output.line(trading["text"])
    if trading["strategy"]["trades"]:
        output.line(
            f"after {costs['each_way_bps']:g} bps each way; it breaks even "
            + ("at no cost at all" if breaks_even is None else f"at {breaks_even:.1f} bps")
        )
    worth = result["significance"]
    if worth["deflated_sharpe"] is not None:
        tried = worth["trials"]
        counted = (
            f", and of {worth['deflated_sharpe']:.2f} once the {tried} ways that were tried here are counted"
        )
        output.line(
            f"its Sharpe ratio is above 0 with a probability of {worth['probabilistic_sharpe']:.2f}"
            + (counted if tried > 1 else "; no other way was tried here")
        )


def _table(what: str, columns: dict[str, dict[str, Any]], names: tuple[str, ...] | None = None) -> None:
    """A column for each, a row for each figure."""
    names = names or tuple(dict.fromkeys(name for column in columns.values() for name in column))
    rows = [[name, *(_figure(column.get(name)) for column in columns.values())] for name in names]
    output.table([what, *(name.replace("_", " ") for name in columns)], rows)


def _figure(value: object) -> object:
    return output.number(value) if isinstance(value, float) else value
