"""What a command opens before its work: the settings, the log on stderr, the database at its newest schema."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from model.errors import BadInput
from service.cli.options import WrongUsage

if TYPE_CHECKING:
    from store.database import Engine
    from store.settings import Settings


def settings(**flags: dict[str, Any]) -> Settings:
    """The settings of this process, `flags` first; its logs go to stderr. What cannot be used is wrong usage."""
    import jobs.logs
    import store.settings

    try:
        loaded = store.settings.load(**flags)
    except BadInput as error:
        raise WrongUsage(str(error)) from error
    jobs.logs.to_stderr(loaded.log.level)
    return loaded


@contextmanager
def database(**flags: dict[str, Any]) -> Iterator[tuple[Settings, Engine]]:
    """The settings and an engine whose schema is ready, closed when the block is left."""
    import store.database

    loaded = settings(**flags)
    engine = store.database.connect(loaded.database.url)
    try:
        store.database.prepare(engine)
        yield loaded, engine
    finally:
        engine.dispose()
