"""`barprop replay`: proves that what was served follows from what was recorded, to the bit."""

from typing import Annotated, Any

import typer

from model.errors import BarpropError
from service.cli import opening, options, output
from service.cli.options import AsJson, Symbol, Timeframe, WrongUsage


class Differs(BarpropError):
    """The ledger has something else than what was derived again."""


def replay(
    symbol: Symbol,
    timeframe: Timeframe,
    since: Annotated[
        str | None,
        typer.Option(
            "--from", help="The first close that was answered for.", show_default="the ledger's first"
        ),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option("--to", help="The last close that was answered for.", show_default="the ledger's last"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Derive a period's answers again, and prove them equal to the ledger.

    \b
    barprop replay ETHUSDT 1h
    barprop replay ETHUSDT 1h --from 2024-07-01 --to 2024-08-01

    Each answer is derived from the bars as they were recorded when it was served, by the version that was champion
    then, and compared to the bit; or to within 1e-5 where that version was made with other libraries or on another
    kind of CPU. Exit code 1 where something differs.
    """
    market = options.market(symbol, timeframe)
    first, last = (None if text is None else options.moment(text) for text in (since, until))
    if first is not None and last is not None and first > last:
        raise WrongUsage(f"--from {since} is later than --to {until}")

    import store.replays

    with opening.database() as (settings, engine):
        opening.features(settings)
        with output.progress("replaying") as watch:
            found = store.replays.replay(
                engine, market, first, last, settings.service.stale_after_timeframes, settings.signals, watch
            )
    if as_json:
        output.document(found.document())
    else:
        show(found.document())
    if found.different:
        raise Differs(f"{found.differing} of {found.served} answers differ; {found.different[0].told}")


def show(content: dict[str, Any]) -> None:
    """A replay's document for a person."""
    market = " ".join(content["market"].values())
    output.line(f"{market}: {content['served']} answers served for {content['from']} to {content['to']}")
    skipped = {f"skipped, {reason}": rows for reason, rows in content["skipped"].items()}
    within = {} if content["bits"] else {"equal within 1e-5": content["within_tolerance"]}
    output.facts(
        {"equal to the bit": content["equal"], **within, "different": content["differing"], **skipped}
    )
    if not content["bits"]:
        output.line(
            "some versions were made with other libraries or on another kind of CPU: their bits may differ"
        )
    if content["different"]:
        columns = ("as_of", "id", "what", "ledger", "replayed")
        output.table(columns, [[each[name] for name in columns] for each in content["different"]])
