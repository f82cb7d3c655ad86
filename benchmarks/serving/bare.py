"""The peer of predict: a FastAPI endpoint that answers a constant, as a process: `python -m benchmarks.serving.bare`.

It reads no body and asks nothing, and its constant is shorter than any Signal. uvicorn runs it as it runs the service,
and what FastAPI has of telemetry is off, as there. With `--layers` the service's own layers lie around it, put there by
the function that puts them around the service; settings come from the environment, as the service's do.
"""

import json
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from prometheus_client import CollectorRegistry

import store.changes
import store.database
import store.settings
from service.app import TELEMETRY, layers
from service.cli import answering
from service.cli.serve import address, bind
from service.keyring import Keyring
from store.settings import Settings

ADDRESS = "/v1/predict"


def app(settings: Settings, with_layers: bool) -> FastAPI:
    """The endpoint, in the layers or naked."""
    if not with_layers:
        return _endpoint(FastAPI(telemetry=TELEMETRY))
    engine = store.database.connect(settings.database.url)
    watch = store.changes.watch(engine)
    keyring = Keyring(engine, watch.mark)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        keyring.start()
        yield
        keyring.close()
        watch.close()

    made = _endpoint(FastAPI(lifespan=lifespan, telemetry=TELEMETRY))
    layers(made, engine, settings, keyring, CollectorRegistry())
    return made


def _endpoint(made: FastAPI) -> FastAPI:
    @made.post(ADDRESS)
    async def constant() -> dict[str, float]:
        return {"p_up": 0.5}

    return made


def main(with_layers: bool) -> None:
    """Answers until it is told to stop; says its address once it does."""
    settings = store.settings.load(service={"port": 0})
    listening = bind(settings.service.host, settings.service.port)
    stop = threading.Event()
    answering.heed_signals(stop)

    def ready() -> None:
        print(json.dumps({"url": address(listening)}), flush=True)

    answering.run(app(settings, with_layers), settings, listening, ready, lambda: None, stop)


if __name__ == "__main__":
    main("--layers" in sys.argv[1:])
