"""Runs the migrations on the connection that `store.database` hands over, inside its transaction.

A new revision: change store/tables.py, then `alembic revision --autogenerate -m "…"` (alembic reads its place from
pyproject.toml), and clean what it wrote; the database is then the one of the settings.
"""

from alembic import context
from sqlalchemy import Connection

import store.database
import store.settings
from store.tables import metadata


def run(connection: Connection) -> None:
    """Runs what the command at hand asks for; the transaction is the caller's."""
    # SQLite cannot alter most of a table in place: batches copy it
    batch = connection.dialect.name == "sqlite"
    context.configure(connection=connection, target_metadata=metadata, render_as_batch=batch)
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    with store.database.write(store.database.connect(store.settings.load().database.url)) as own:
        run(own)
