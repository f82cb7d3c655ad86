"""`barprop versions`: what was trained, which version answers, and how to go back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from service.cli import opening, options, output
from service.cli.options import AnySymbol, AnyTimeframe, AsJson, Limit, Symbol, Timeframe
from service.cli.train import flat

if TYPE_CHECKING:
    from store.versions import Version

VersionId = Annotated[int, typer.Argument(help="See `barprop versions list`.", min=1, show_default=False)]

app = typer.Typer(name="versions", help="List versions; promote one, or go back to the one before.")


@app.command("list")
def list_versions(
    symbol: AnySymbol = None,
    timeframe: AnyTimeframe = None,
    limit: Limit = 20,
    as_json: AsJson = False,
) -> None:
    """List versions, newest first.

    \b
    barprop versions list
    barprop versions list ETHUSDT 1h --limit 5
    """
    market = options.any_market(symbol, timeframe)

    import store.database
    import store.markets
    import store.versions

    with opening.database() as (_, engine), store.database.read(engine) as conn:
        market_id = None if market is None else store.markets.need(conn, market).id
        rows = store.versions.page(conn, market_id, limit=limit + 1)
    shown = rows[:limit]
    if as_json:
        more = shown[-1].id if len(rows) > limit else None
        output.document({"items": [store.versions.document(row) for row in shown], "next": more})
        return
    output.table(
        ["id", "market", "created", "role", "weights", "reason"],
        [[v.id, v.market, f"{v.created_at:%Y-%m-%d %H:%M}", v.role, v.sha256[:12], v.reason] for v in shown],
        empty="no version yet; train one with `barprop train SYMBOL TIMEFRAME`",
    )


@app.command()
def show(version: VersionId, as_json: AsJson = False) -> None:
    """Show one version: its role, where it comes from, its scores.

    \b
    barprop versions show 7
    barprop versions show 7 --json      (with its whole manifest)
    """
    import store.database
    import store.versions

    with opening.database() as (_, engine), store.database.read(engine) as conn:
        found = store.versions.get(conn, version)
    _show(found, as_json)


@app.command()
def promote(version: VersionId, as_json: AsJson = False) -> None:
    """Make a version the champion by hand, from the next bar on.

    \b
    barprop versions promote 7
    """
    import store.clock
    import store.database
    import store.markets
    import store.versions

    with opening.database() as (_, engine):
        now = store.clock.now(engine)
        with store.database.write(engine) as conn:
            found = store.versions.get(conn, version)
            row = store.markets.need(conn, found.market)
            if store.versions.champion(conn, row.id) != version:
                store.versions.promote(conn, row, version, "promoted by hand", now)
            found = store.versions.get(conn, version)
    _show(found, as_json)


@app.command()
def rollback(symbol: Symbol, timeframe: Timeframe, as_json: AsJson = False) -> None:
    """Let the champion before this one serve again, from the next bar on.

    \b
    barprop versions rollback ETHUSDT 1h
    """
    market = options.market(symbol, timeframe)

    import store.clock
    import store.database
    import store.markets
    import store.versions

    with opening.database() as (_, engine):
        now = store.clock.now(engine)
        with store.database.write(engine) as conn:
            row = store.markets.need(conn, market)
            version = store.versions.rollback(conn, row.id, now, store.versions.takes_effect(conn, row, now))
            found = store.versions.get(conn, version)
    _show(found, as_json)


def _show(version: Version, as_json: bool) -> None:
    import store.versions

    content = store.versions.document(version)
    if as_json:
        output.document(content)
        return
    output.facts(
        {
            "version": version.id,
            "market": version.market,
            "role": version.role,
            "reason": version.reason,
            "effective from": content["effective_from"],
            "created": content["created_at"],
            "parent": version.parent,
            "weights": f"sha256 {version.sha256}",
        }
    )
    scores = version.manifest.get("scores")
    if isinstance(scores, dict):
        output.facts(dict(flat(scores)))
