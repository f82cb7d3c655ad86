"""`barprop keys`: who may ask the service beyond this machine."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from service.cli import opening, options, output
from service.cli.options import AsJson, WrongUsage

KeyName = Annotated[
    str, typer.Argument(help="Its prefix or its id, see `barprop keys list`.", show_default=False)
]

app = typer.Typer(name="keys", help="Make, list, rotate and revoke API keys.")


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Whose key it is, e.g. my-bot.", show_default=False)],
    scope: Annotated[
        list[str] | None,
        typer.Option(
            "--scope",
            help="read, predict, ingest, train or admin. May be repeated.",
            show_default="read predict",
        ),
    ] = None,
    expires_days: Annotated[
        int | None, typer.Option("--expires-days", min=1, help="Days until it ends.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a key. Its secret is shown this once and kept nowhere.

    \b
    barprop keys create my-bot
    barprop keys create feed --scope ingest --expires-days 90
    """
    import store.database
    import store.keys

    for unknown in set(scope or ()) - set(store.keys.SCOPES):
        raise WrongUsage(f"unknown scope {unknown!r}: {', '.join(store.keys.SCOPES)}")
    now = datetime.now(UTC)
    ends = None if expires_days is None else now + timedelta(days=expires_days)
    with opening.database() as (_, engine), store.database.write(engine) as conn:
        key, secret = store.keys.create(conn, name, tuple(scope or ("read", "predict")), now, ends)
        options.noted(conn, "key.create", *store.keys.noted(key))
    if as_json:
        output.document({**store.keys.document(key), "key": secret})
    else:
        output.line(secret)
        output.note(
            f"this key of {name} is not shown again; send it as `Authorization: Bearer bp_{key.prefix}_…`"
        )


@app.command("list")
def list_keys(as_json: AsJson = False) -> None:
    """List the keys, without their secrets.

    \b
    barprop keys list
    """
    import store.database
    import store.keys

    with opening.database() as (_, engine), store.database.read(engine) as conn:
        items = [store.keys.document(key) for key in store.keys.all(conn)]
    if as_json:
        output.document({"items": items, "next": None})
        return
    output.table(
        ["id", "name", "prefix", "scopes", "created", "expires", "last used", "revoked"],
        [
            [item["id"], item["name"], item["prefix"], " ".join(item["scopes"])]
            + [item[at] for at in ("created_at", "expires_at", "last_used_at", "revoked_at")]
            for item in items
        ],
        empty="no key yet; make one with `barprop keys create NAME`",
    )


@app.command()
def rotate(
    key: KeyName,
    grace: Annotated[
        str, typer.Option("--grace", help="How long the old one goes on: 15m, 24h, 7d; 0s ends it now.")
    ] = "24h",
    as_json: AsJson = False,
) -> None:
    """Make a key of the same name, scopes and end in the place of another, which goes on for a while.

    \b
    barprop keys rotate 3
    barprop keys rotate 3 --grace 7d

    The new secret is shown this once. Give it to whoever uses the old one before that ends.
    """
    length = options.duration(grace)

    import store.database
    import store.keys

    with opening.database() as (_, engine), store.database.write(engine) as conn:
        made, secret, old = store.keys.rotate(conn, key, datetime.now(UTC), length)
        target, detail = store.keys.noted(old)
        options.noted(conn, "key.rotate", target, {**detail, "new": made.prefix})
    documents = store.keys.document(made), store.keys.document(old)
    if as_json:
        output.document({**documents[0], "key": secret, "replaces": documents[1]})
    else:
        output.line(secret)
        output.note(
            f"this key of {made.name} is not shown again; the old one, {old.prefix}, ends at {documents[1]['expires_at']}"
        )


@app.command()
def revoke(key: KeyName, as_json: AsJson = False) -> None:
    """End a key at once; a service obeys within two seconds.

    \b
    barprop keys revoke 3
    """
    import store.database
    import store.keys

    now = datetime.now(UTC)
    with opening.database() as (_, engine), store.database.write(engine) as conn:
        revoked = store.keys.revoke(conn, key, now)
        if revoked.revoked_at == now:
            options.noted(conn, "key.revoke", *store.keys.noted(revoked))
    if as_json:
        output.document(store.keys.document(revoked))
    else:
        output.line(f"key {revoked.prefix} of {revoked.name} is revoked")
