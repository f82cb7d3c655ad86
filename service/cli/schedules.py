"""`barprop schedules`: when work happens by itself."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from model.errors import BadInput
from service.cli import opening, options, output
from service.cli.options import AsJson, WrongUsage

if TYPE_CHECKING:
    from store.schedules import Schedule

app = typer.Typer(name="schedules", help="Show and change when work happens by itself.")


@app.command("list")
def list_schedules(as_json: AsJson = False) -> None:
    """List what happens by itself, and when.

    \b
    barprop schedules list
    """
    import store.database
    import store.schedules

    with opening.database() as (_, engine), store.database.read(engine) as conn:
        items = [_document(row) for row in store.schedules.all(conn)]
    if as_json:
        output.document({"items": items, "next": None})
        return
    output.table(
        ["kind", "trigger", "params", "enabled"],
        [
            [i["kind"], i["trigger"], " ".join(f"{k}={v}" for k, v in i["params"].items()), i["enabled"]]
            for i in items
        ],
    )


@app.command("set")
def set_schedule(
    kind: Annotated[
        str, typer.Argument(help="score, ingest, fetch, retrain or backtest.", show_default=False)
    ],
    trigger: Annotated[
        str | None,
        typer.Option("--trigger", help="'every 30s', or five cron fields in UTC.", show_default=False),
    ] = None,
    param: Annotated[
        list[str] | None, typer.Option("--param", help="e.g. min_new_bars=100. May be repeated.")
    ] = None,
    enabled: Annotated[
        bool | None, typer.Option("--enable/--disable", help="Switch it on or off.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Change when work happens by itself. A worker follows within 5 seconds.

    \b
    barprop schedules set retrain --trigger "every 60s" --param min_new_bars=250
    barprop schedules set backtest --trigger "0 3 * * *"
    barprop schedules set backtest --disable

    What is not given stays as it is. Cron fields: minute, hour, day, month, weekday (0 and 7 are Sunday).
    """
    import store.database
    import store.schedules
    from jobs import schedule

    changed = _params(param or [])
    try:
        schedule.check(kind, changed)
        if trigger is not None:
            schedule.trigger(trigger)
    except BadInput as error:
        raise WrongUsage(str(error)) from error
    with opening.database() as (_, engine), store.database.write(engine) as conn:
        before = {row.kind: row for row in store.schedules.all(conn)}.get(kind)
        when = trigger or (before.trigger if before else None)
        if when is None:
            raise WrongUsage(f"{kind} has no schedule yet: give --trigger")
        params = {**(before.params if before else {}), **changed}
        on = enabled if enabled is not None else (before.enabled if before else True)
        now = store.schedules.set(conn, kind, when, params, on, datetime.now(UTC))
        options.noted(conn, "schedule.set", kind, {"trigger": when, "params": params, "enabled": on})
    if as_json:
        output.document(_document(now))
    else:
        output.line(f"{kind}: {when}{'' if on else ' (off)'}, {params or 'no parameters'}")


def _params(pairs: list[str]) -> dict[str, Any]:
    """`min_new_bars=100` pairs; a value that is JSON is read as such."""
    params: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not (name and equals and text):
            raise WrongUsage(f"--param takes NAME=VALUE such as min_new_bars=100, not {pair!r}")
        try:
            params[name] = json.loads(text)
        except ValueError:
            params[name] = text
    return params


def _document(row: Schedule) -> dict[str, Any]:
    return {"kind": row.kind, "trigger": row.trigger, "params": row.params, "enabled": row.enabled}
