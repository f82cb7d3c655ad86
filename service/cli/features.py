"""`barprop features`: what a network sees of a bar, and the proof that none of it comes from the future."""

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
    found = model.features.check(bars, length, tuple(FEATURES.values()), seed=seed, cuts=cuts)
    looking = sorted({one.feature for one in found})
    if as_json:
        output.document(
            {
                "market": {"symbol": market.symbol, "timeframe": market.timeframe},
                "bars": len(bars),
                "features": len(FEATURES),
                "cuts": cuts,
                "look_ahead": looking,
            }
        )
    elif looking:
        output.line(f"{len(looking)} of {len(FEATURES)} features look ahead: {', '.join(looking)}")
    else:
        output.line(
            f"none of {len(FEATURES)} features looks ahead: {cuts} cuts of {len(bars)} bars of {market}"
        )
    if looking:
        raise typer.Exit(1)
