"""`barprop predict`: a market's Signal, through the database and into the ledger like the route's."""

from typing import Annotated, Any

import typer

from service.cli import opening, options, output
from service.cli.options import AsJson, Symbol, Timeframe


def predict(
    symbol: Symbol,
    timeframe: Timeframe,
    at: Annotated[
        str | None,
        typer.Option(
            "--at", help="Answer from the bars closed by this time (ISO 8601, UTC).", show_default=False
        ),
    ] = None,
    version: Annotated[
        int | None,
        typer.Option(
            "--version", min=1, help="Ask this version instead of the champion.", show_default=False
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Ask a market how likely up is, and how far.

    \b
    barprop predict ETHUSDT 1h
    barprop predict ETHUSDT 1h --at 2024-07-01T00:00:00Z
    barprop predict ETHUSDT 1h --at 2024-07-01 --version 3

    The answer is a prediction, or an abstention with its reason; both are answers (exit 0). With --at or
    --version it is not written to the ledger.
    """
    market = options.market(symbol, timeframe)
    moment = None if at is None else options.moment(at)

    import model.predictions
    import store.clock
    import store.forecasts
    import store.predictions

    with opening.database() as (settings, engine):
        opening.features(settings)
        now, terms = store.clock.now(engine), store.forecasts.terms(settings)
        if moment is None and version is None:
            answer = store.predictions.answer(engine, market, now, {}, terms)
            content = model.predictions.document(answer.signal)
        else:
            signal, in_sample = store.predictions.answer_at(engine, market, moment, now, {}, version, terms)
            content = {**model.predictions.document(signal), "in_sample": in_sample}
    if as_json:
        output.document(content)
    else:
        show(content)


def show(content: dict[str, Any]) -> None:
    """A Signal's document for a person."""
    market = f"{content['market']['symbol']} {content['market']['timeframe']}"
    output.line(f"{market} as of {content['as_of'] or 'no bar yet'}, version {content['version'] or 'none'}")
    if content["kind"] == "abstention":
        output.line(f"no number: {content['reason']}, {content['detail']}")
        return
    low, high = content["interval"]
    skill = {
        True: "shown so far",
        False: "not shown: no better than the base rate beyond chance",
        None: "not known yet",
    }
    output.facts(
        {
            f"up in {content['horizon']} bar(s)": output.percent(content["p_up"]),
            "expected return": f"{100 * content['expected_return']:+.3f} %",
            "price": f"{content['price']:.6g}, {content['level']:.0%} between {low:.6g} and {high:.6g}",
            "position": _held(content["position"], content["pays_up_to_bps"]),
            "skill": skill[content["skill"]],
        }
    )
    if content.get("in_sample"):
        output.line("this version learned from that bar's outcome: its answer shows no skill")


def _held(position: float | None, pays_up_to_bps: float | None) -> str:
    """What the market's policy asks to hold."""
    if position is None:
        return "not kept then"
    if not position or pays_up_to_bps is None:
        return "none"
    side = "long" if position > 0 else "short"
    return f"{side} {abs(position):.0%} of the capital; pays where a round trip costs less than {pays_up_to_bps:.1f} bps"
