"""`barprop features`: what a network sees of a bar, and the proof that none of it comes from the future."""

from dataclasses import asdict
from typing import Annotated

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
    from model.features import DEFAULT, FEATURES

    used = set(DEFAULT.names)
    items = [
        {"name": f.name, "group": f.group, "needs": f.needs, "about": f.about, "default": f.name in used}
        for f in FEATURES.values()
    ]
    if as_json:
        output.document({"items": items, "next": None})
        return
    output.table(
        ["name", "group", "needs", "about"], [[i["name"], i["group"], i["needs"], i["about"]] for i in items]
    )


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
    """
    market = options.any_market(symbol, timeframe)

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
                    {"feature": one.feature, "first_moved": iso(one.first_moved), "cut": iso(one.cut)}
                    for one in looking.values()
                ],
                "unmet_needs": [
                    {"feature": one.feature, "needs": one.needs, "bar": iso(one.ts)}
                    for one in lacking.values()
                ],
            }
        )
    else:
        for one in looking.values():
            moved, cut = iso(one.first_moved), iso(one.cut)
            output.line(f"{one.feature} looks ahead: its value at {moved} depends on bars from {cut} on")
        for other in lacking.values():
            output.line(
                f"{other.feature} needs more than the {other.needs} bars it states: seen at {iso(other.ts)}"
            )
        if not looking and not lacking:
            output.line(
                f"none of {len(every)} features looks ahead, or at more bars than it states: "
                f"{cuts} cuts of {len(bars)} bars of {market}"
            )
    if looking or lacking:
        raise typer.Exit(1)
