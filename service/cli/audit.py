"""`barprop audit`: who changed what."""

import json
from typing import Annotated

import typer

from service.cli import opening, output
from service.cli.options import AsJson, Limit


def audit(
    limit: Limit = 20,
    cursor: Annotated[
        int | None,
        typer.Option("--cursor", min=1, max=2**31 - 1, help="`next` of the page before.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List who changed what, newest first: keys, promotions, pauses, schedules, jobs asked for, bars pushed.

    \b
    barprop audit
    barprop audit --limit 100 --json

    Who it was is a key's prefix (see `barprop keys list`), `loopback` for a request without a key, or `command line`.
    """
    import store.audit
    import store.database

    with opening.database() as (_, engine), store.database.read(engine) as conn:
        rows = store.audit.page(conn, cursor, limit + 1)
    shown = rows[:limit]
    if as_json:
        more = shown[-1].id if len(rows) > limit else None
        output.document({"items": [store.audit.document(row) for row in shown], "next": more})
        return
    output.table(
        ["at", "who", "what", "of", "detail"],
        [
            [f"{row.at:%Y-%m-%d %H:%M:%S}", row.actor, row.action, row.target, json.dumps(row.detail)]
            for row in shown
        ],
        empty="nothing was changed yet",
    )
