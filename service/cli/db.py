"""`barprop db`: the database's schema."""

import typer

from service.cli import opening, output
from service.cli.options import AsJson

app = typer.Typer(name="db", help="Look after the database.")


@app.command()
def upgrade(as_json: AsJson = False) -> None:
    """Bring the database's schema to this program's. Doing it twice is doing it once.

    \b
    barprop db upgrade
    BARPROP_DATABASE__URL=postgresql://barprop@localhost/barprop barprop db upgrade
    """
    import store.database

    settings = opening.settings()
    engine = store.database.connect(settings.database.url)
    try:
        was_ready = store.database.at_head(engine)
        store.database.upgrade(engine)
    finally:
        engine.dispose()
    address = store.database.shown(settings.database.url)
    if as_json:
        output.document({"database": address, "upgraded": not was_ready})
    else:
        output.line(
            f"{address} {'was at the newest schema already' if was_ready else 'is at the newest schema now'}"
        )
