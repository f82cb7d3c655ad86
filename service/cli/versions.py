"""`barprop versions`: what was trained, which version answers, how to go back, and how to take one elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from model import extras
from model.errors import BadInput
from service.cli import opening, options, output
from service.cli.options import AnySymbol, AnyTimeframe, AsJson, Limit, Symbol, Timeframe, WrongUsage
from service.cli.train import flat

if TYPE_CHECKING:
    from store.versions import Version

VersionId = Annotated[int, typer.Argument(help="See `barprop versions list`.", min=1, show_default=False)]

app = typer.Typer(
    name="versions", help="List versions; promote one, go back to the one before, or export one."
)


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
                options.noted(conn, "version.promote", f"version {version}", {"market": str(row.market)})
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
            options.noted(conn, "version.rollback", str(market), {"version": version})
            found = store.versions.get(conn, version)
    _show(found, as_json)


@app.command()
def export(
    version: VersionId,
    file: Annotated[
        Path, typer.Option("--output", "-o", help="The file to write.", dir_okay=False, show_default=False)
    ],
    form: Annotated[Literal["onnx"], typer.Option("--format", help="The form of the file.")] = "onnx",
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a version to a file that other programs answer from.

    \b
    barprop versions export 7 --output model.onnx
    barprop versions export 7 --format onnx --output model.onnx --force

    The graph reads raw features (N, F) and scale (N,), the volatility of one bar's log return, and gives p_up and
    expected_return; its metadata names the features. It needs the package onnx: pip install '.[onnx]' in Barprop's folder
    """
    try:
        import model.onnx
    except ModuleNotFoundError as error:
        raise WrongUsage(str(extras.missing(error.name, "onnx"))) from error
    target = _target(file, force)

    import model.predictor
    import store.database
    import store.versions

    with opening.database() as (settings, engine), store.database.read(engine) as conn:
        opening.features(settings)
        found = store.versions.get(conn, version)
        predictor = model.predictor.from_artifact(store.versions.packed(conn, version))
    about = {
        "version": str(version),
        "symbol": found.market.symbol,
        "timeframe": found.market.timeframe,
    }
    content = model.onnx.exported(predictor, about)
    try:
        _write(target, content)
    except OSError as error:  # it names a file of ours that the user never saw
        raise BadInput(f"{file}: {error.strerror}") from error
    if as_json:
        output.document({"version": version, "format": form, "file": str(file), "bytes": len(content)})
        return
    output.line(f"version {version} of {found.market} is in {file}: {len(content)} bytes")


def _target(file: Path, force: bool) -> Path:
    """Where a file is written that the user calls so: a link is followed, as a shell's redirection does. Raises BadInput
    where it may not be written."""
    try:
        target = file.resolve()
        there = target.exists()
    except (OSError, RuntimeError) as error:  # of a link to itself; a name may be too long
        reason = error.strerror if isinstance(error, OSError) else "a link that leads to itself"
        raise BadInput(f"{file}: {reason}") from error
    if there and not target.is_file():
        raise BadInput(f"{file} is there already and no regular file: name another")
    if there and not force:
        raise BadInput(f"{file} is there already; --force writes over it")
    if not target.parent.is_dir():
        missing = f"{target.parent}, where {file} leads," if file.is_symlink() else file.parent
        raise BadInput(f"there is no folder {missing} to write {target.name} into")
    if target.is_symlink():
        raise BadInput(f"{file}: a link that leads to itself")
    return target


def _write(file: Path, content: bytes) -> None:
    """Writes a file whole or not at all."""
    import os

    beside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with beside.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        beside.replace(file)
    finally:
        beside.unlink(missing_ok=True)


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
