"""`barprop features`: what a network sees of a bar, and the proof that none of it comes from the future."""

from dataclasses import asdict
from typing import Annotated, Any

import typer

from service.cli import opening, options, output, sample
from service.cli.options import AnySymbol, AnyTimeframe, AsJson

app = typer.Typer(name="features", help="List the features; check that none looks ahead.")

LAST = 3_000  # bars that a check uses: enough for several blocks, little enough to be quick


@app.command("list")
def list_features(as_json: AsJson = False) -> None:
    """List every feature: its group, the bars of history it needs, and what it is.

    \b
    barprop features list
    """
    opening.features(opening.settings())
    items = _items()
    if as_json:
        output.document({"items": items, "next": None})
        return
    output.table(
        ["name", "group", "needs", "about"], [[i["name"], i["group"], i["needs"], i["about"]] for i in items]
    )


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="The feature's name.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Show one feature: what it is, who uses it, and its expression.

    \b
    barprop features show rsi_14
    """
    settings = opening.settings()
    opening.features(settings)

    import store.features
    from model.errors import NotFound
    from model.features import FEATURES, FeatureSet

    item: dict[str, Any] | None = next((item for item in _items() if item["name"] == name), None)
    if item is None:
        raise NotFound(f"no feature {name!r}: `barprop features list` shows those there are")
    content = {
        **item,
        "trained_on": name in store.features.chosen(settings),
        "sha256": FeatureSet((name,)).sha256,
        "expression": str(FEATURES[name].expr),
    }
    if as_json:
        output.document(content)
    else:
        output.facts(content)


@app.command()
def check(
    symbol: AnySymbol = None,
    timeframe: AnyTimeframe = None,
    cuts: Annotated[int, typer.Option("--cuts", min=1, max=1000, help="At how many places to cut.")] = 20,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the places.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Prove that no feature looks ahead: cut the future off, corrupt it, and compare the past to the bit.

    \b
    barprop features check                  (on bars that ship with the program)
    barprop features check ETHUSDT 1h --cuts 100

    The features of the file that the setting features.file names are checked with the others, proven or not.
    """
    market = options.any_market(symbol, timeframe)
    opening.features(opening.settings(), prove=False)

    import model.bars
    import model.features
    from model.bars import iso
    from model.features import FEATURES

    if market is None:
        name = sample.SYMBOLS[0]
        market, bars = model.bars.market(name, sample.TIMEFRAME), sample.bars(name).tail(LAST)
    else:
        import store.bars
        import store.database
        import store.markets

        with opening.database() as (_, engine), store.database.read(engine) as conn:
            row = store.markets.need(conn, market)
            length = model.bars.timeframe(market.timeframe)
            bars = store.bars.read(conn, row.id, length, last=LAST)
    length = model.bars.timeframe(market.timeframe)
    every = tuple(FEATURES.values())
    ahead = model.features.check(bars, length, every, seed=seed, cuts=cuts)
    unmet = model.features.unmet_needs(bars, length, every, seed=seed, cuts=cuts)
    # of each feature the first of what was found is enough to go and look
    looking = {one.feature: one for one in reversed(ahead)}
    lacking = {one.feature: one for one in reversed(unmet)}
    if as_json:
        output.document(
            {
                "market": asdict(market),
                "bars": len(bars),
                "features": len(every),
                "cuts": cuts,
                "look_ahead": [
                    {
                        "feature": one.feature,
                        "column": one.column,
                        "first_moved": iso(one.first_moved),
                        "cut": iso(one.cut),
                    }
                    for one in looking.values()
                ],
                "unmet_needs": [
                    {"feature": one.feature, "needs": one.needs, "bar": iso(one.ts)}
                    for one in lacking.values()
                ],
            }
        )
    else:
        for line in [one.line() for one in looking.values()] + [one.line() for one in lacking.values()]:
            output.line(line)
        if not looking and not lacking:
            output.line(
                f"none of {len(every)} features looks ahead, or at more bars than it states: "
                f"{cuts} cuts of {len(bars)} bars of {market}"
            )
    if looking or lacking:
        raise typer.Exit(1)


def _items() -> list[dict[str, Any]]:
    """Every feature as a list has it."""
    from model.features import DEFAULT, FEATURES, user

    used, own = set(DEFAULT.names), {feature.name for feature in user.registered()}
    return [
        {
            "name": f.name,
            "group": f.group,
            "needs": f.needs,
            "about": f.about,
            "default": f.name in used,
            "own": f.name in own,
        }
        for f in FEATURES.values()
    ]
