"""`barprop tune`: looks for better settings, and says whether they are better on bars that no choice saw."""

from typing import Annotated, Any

import typer

from service.cli import opening, options, output, running
from service.cli.options import AsJson, Symbol, Timeframe, WrongUsage


def tune(
    symbol: Symbol,
    timeframe: Timeframe,
    trials: Annotated[
        int | None,
        typer.Option(
            "--trials", min=2, help="How many ways are tried, the present one first.", show_default="30"
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only",
            help="Search this alone, given as often as needed: learning_rate, width, depth, dropout, window, horizon.",
            show_default="all of them",
        ),
    ] = None,
    judge: Annotated[
        float | None,
        typer.Option(
            "--judge", min=0.05, max=0.9, help="Share of the newest bars that judge.", show_default="0.3"
        ),
    ] = None,
    timeout: Annotated[
        float | None, typer.Option("--timeout", min=0, help="Begin no trial after so many seconds.")
    ] = None,
    last: Annotated[
        int | None, typer.Option("--last", min=1, help="Use only so many of the newest bars.")
    ] = None,
    refit_every: Annotated[
        int | None, typer.Option("--refit-every", min=1, help="Bars between two trainings.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, help="Of what is tried.", show_default="0")
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait while a worker tunes that market, or refuse.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Search for better settings of a market's trainings.

    \b
    barprop tune ETHUSDT 1h
    barprop tune ETHUSDT 1h --trials 50 --timeout 3600
    barprop tune ETHUSDT 1h --only learning_rate --only window

    Every trial is walked forward over the older bars. The best one is then compared with the present settings on the
    newest bars, which no choice saw. No setting is changed: what to paste is printed. Each trial counts against later
    claims. Ctrl-C ends the search, and what was found until then is judged. Needs pip install '.[tune]'.
    """
    from model.tuning import SPACE

    market = options.market(symbol, timeframe)
    if unknown := [name for name in only or () if name not in SPACE]:
        raise WrongUsage(f"--only {unknown[0]} cannot be searched; what can is {', '.join(SPACE)}")
    given = {
        **{"trials": trials, "only": only, "judge": judge, "timeout": timeout},
        **{"last": last, "refit_every": refit_every, "seed": seed},
    }
    params = {name: value for name, value in given.items() if value is not None}
    with opening.database() as (settings, engine):
        opening.features(settings)
        result = running.run(engine, settings, "tune", market, params, wait)
    if as_json:
        output.document(result)
        return
    show(result)


def show(result: dict[str, Any]) -> None:
    """A search's document for a person: the verdict first."""
    outer, inner, chosen = result["outer"], result["inner"], result["chosen"]
    market = f"{result['market']['symbol']} {result['market']['timeframe']}"
    output.line(f"{market}: {outer['verdict']['text']}")
    names = result["searched"]
    output.table(
        ["trial", *names, "gain a bar", "z", "log loss", "seconds", "failed"],
        [
            [
                trial["number"],
                *(f"{trial['params'][name]:g}" for name in names),
                output.number(trial["gain_bar"], 5),
                output.number(trial["z"], 2),
                output.number(trial["log_loss"], 5),
                output.number(trial["seconds"], 1),
                trial["failed"],
            ]
            for trial in result["trials"]
        ],
    )
    if result["stopped"] is not None:
        output.line(f"the search was ended early: {result['stopped']}")
    for what, where in (("chosen on", inner), ("judged on", outer)):
        if where["rows"]:
            output.line(f"{what} {where['rows']} bars, {where['first_judged']} to {where['last_judged']}")
    found = result["overfitting"]
    output.facts(
        {
            "by gain, the best of one half is below the median in the other": output.percent(
                found["probability_by_gain"]
            ),
            "by net returns, the same": output.percent(found["probability"]),
            "ways that were tried in this market so far": result["trials_counted"],
        }
    )
    if chosen["settings"]:
        output.line(f"the settings of trial {chosen['number']}, the best on the older bars:")
        output.line(chosen["settings"].rstrip())
