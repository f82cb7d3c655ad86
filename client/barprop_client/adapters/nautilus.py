# mypy: disable-error-code="import-not-found, import-untyped, misc, call-arg"
"""For nautilus_trader: Signals as custom data, published by an actor when live, and added to the engine in backtests.

    node.trader.add_actor(SignalActor(SignalActorConfig(symbol="ETHUSDT", timeframe="1h")))    # live
    engine.add_data(history(client, "ETHUSDT", "1h", since), client_id=CLIENT)                 # backtest

A strategy subscribes by `self.subscribe_data(DATA_TYPE)`, in a backtest with `client_id=CLIENT` besides, and is given a
BarpropSignal in `on_data`.
"""

import asyncio
import logging
from datetime import datetime

from nautilus_trader.common.actor import Actor
from nautilus_trader.common.config import ActorConfig
from nautilus_trader.core.data import Data
from nautilus_trader.core.datetime import dt_to_unix_nanos
from nautilus_trader.model.data import CustomData, DataType
from nautilus_trader.model.identifiers import ClientId

from barprop_client import aligned
from barprop_client.async_client import AsyncClient
from barprop_client.client import Client
from barprop_client.errors import BarpropError
from barprop_client.values import Signal

CLIENT = ClientId("BARPROP")
log = logging.getLogger(__name__)


class BarpropSignal(Data):
    """A Signal; `ts_event` is the close of its bar, `ts_init` when it was known."""

    def __init__(self, signal: Signal, ts_event: int, ts_init: int) -> None:
        self.signal = signal
        self._ts_event = ts_event
        self._ts_init = ts_init

    @property
    def ts_event(self) -> int:
        """Nanoseconds since 1970."""
        return self._ts_event

    @property
    def ts_init(self) -> int:
        """Nanoseconds since 1970."""
        return self._ts_init

    def __repr__(self) -> str:
        return f"BarpropSignal({self.signal!r})"


DATA_TYPE = DataType(BarpropSignal)


def history(client: Client, symbol: str, timeframe: str, since: datetime) -> list[CustomData]:
    """The ledger since then, in the order in which its Signals were known."""
    known = aligned.from_ledger(client, symbol, timeframe, since)
    made = [_data(each.signal, dt_to_unix_nanos(each.since)) for each in known]
    return [CustomData(DATA_TYPE, data) for data in sorted(made, key=lambda data: data.ts_init)]


def _data(signal: Signal, known: int) -> BarpropSignal:
    return BarpropSignal(signal, known if signal.as_of is None else dt_to_unix_nanos(signal.as_of), known)


class SignalActorConfig(ActorConfig, frozen=True):
    """Which stream to follow; the key is read from BARPROP_API_KEY."""

    symbol: str | None = None  # with `timeframe`: of one market alone
    timeframe: str | None = None
    url: str = "http://127.0.0.1:8000"


class SignalActor(Actor):
    """Publishes each Signal of the service's stream on the message bus, on the node's own loop."""

    def __init__(self, config: SignalActorConfig) -> None:
        super().__init__(config)
        self._task: asyncio.Task[None] | None = None

    def on_start(self) -> None:
        """Begins to follow the stream. It needs a live node's loop."""
        self._task = asyncio.get_running_loop().create_task(self._follow())

    def on_stop(self) -> None:
        """Closes the stream."""
        if self._task is not None:
            self._task.cancel()

    async def _follow(self) -> None:
        try:
            async with AsyncClient(self.config.url) as client:
                async for entry in client.signals(self.config.symbol, self.config.timeframe):
                    self.publish_data(DATA_TYPE, _data(entry.signal, self.clock.timestamp_ns()))
        except BarpropError as error:
            log.error("no more Signals: %s", error)
