"""`barprop train`: a training now, in this process."""

from typing import Annotated, Any

import typer

from service.cli import opening, options, output, running
from service.cli.options import AsJson, Symbol, Timeframe


def train(
    symbol: Symbol,
    timeframe: Timeframe,
    window: Annotated[
        int | None, typer.Option("--window", min=1, help="How many of the newest bars it learns from.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, help="Of the first weights and the order of bars.")
    ] = None,
    warm: Annotated[bool, typer.Option("--warm", help="Start from the champion's weights.")] = False,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait while a worker trains that market, or refuse.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Train a network on a market's newest bars.

    \b
    barprop train ETHUSDT 1h
    barprop train ETHUSDT 1h --window 5000 --seed 1

    Equal bars, settings and seed give equal weights. The candidate is judged against the champion on bars that
    neither has seen: it is promoted, kept as challenger, or rejected, and the reason is printed.
    """
    market = options.market(symbol, timeframe)
    params: dict[str, Any] = {"warm": warm}
    if window is not None:
        params["window"] = window
    if seed is not None:
        params["seed"] = seed
    with opening.database() as (settings, engine):
        opening.features(settings)
        result = running.run(engine, settings, "retrain", market, params, wait)
    if as_json:
        output.document(result)
        return
    output.line(f"{market}: version {result['version']} {result['outcome']}: {result['reason']}")
    output.line(f"gradient health: {result['gradient_health']['verdict']}")
    output.line(f"weights: sha256 {result['sha256']}")
    output.facts(dict(flat(result["scores"])))


def flat(scores: dict[str, Any], prefix: str = "") -> list[tuple[str, object]]:
    """Nested scores as names and figures."""
    rows: list[tuple[str, object]] = []
    for name, value in scores.items():
        if isinstance(value, dict):
            rows += flat(value, f"{prefix}{name} ")
        else:
            rows.append((f"{prefix}{name}", output.number(value) if isinstance(value, float) else value))
    return rows
