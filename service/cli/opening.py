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
    jobs.logs.to_stderr(loaded.log)
    return loaded


def features(settings: Settings, prove: bool = True) -> None:
    """Makes the user's own features usable, once they are proven; for commands that compute any."""
    import store.features

    store.features.register(settings, prove)


def training(settings: Settings) -> None:
    """Looks at the settings of trainings, for commands that start them later; what cannot be used is wrong usage."""
    import jobs.retrain

    try:
        jobs.retrain.config_of(settings, {})
    except BadInput as error:
        raise WrongUsage(f"setting training: {error}") from error


@contextmanager
def database(**flags: dict[str, Any]) -> Iterator[tuple[Settings, Engine]]:
    """The settings and an engine whose schema is ready, closed when the block is left.

    In the block, matrix products take as many threads as the settings say: on networks this small, more of them
    only wait for each other.
    """
    import numpy  # noqa: F401  # its BLAS can be limited once it is there
    from threadpoolctl import threadpool_limits

    import store.database

    loaded = settings(**flags)
    engine = store.database.connect(loaded.database.url)
    try:
        store.database.prepare(engine)
        with threadpool_limits(loaded.training.blas_threads, "blas"):
            yield loaded, engine
    finally:
        engine.dispose()
