"""Run by tests/client/test_adapters.py in an environment that has nautilus_trader: ADDRESS is a service with a ledger,
STREAM one that streams a Signal."""

import asyncio
import sys
from datetime import UTC, datetime

from barprop_client import Client
from barprop_client.adapters.nautilus import CLIENT, DATA_TYPE, SignalActor, SignalActorConfig, history
from nautilus_trader.backtest.engine import BacktestEngine
from nautilus_trader.config import BacktestEngineConfig, LoggingConfig, TradingNodeConfig
from nautilus_trader.live.node import TradingNode
from nautilus_trader.trading.strategy import Strategy

ETH = ("ETHUSDT", "1h")
SILENT = LoggingConfig(log_level="ERROR")


class Listener(Strategy):
    """Keeps what it is given, and when."""

    def __init__(self, client_id=None):
        super().__init__()
        self.client_id = client_id
        self.heard = []

    def on_start(self):
        """Subscribes to Signals."""
        self.subscribe_data(DATA_TYPE, client_id=self.client_id)

    def on_data(self, data):
        """Keeps it."""
        self.heard.append((self.clock.timestamp_ns(), data))


def backtest(address: str) -> int:
    """Every Signal of the ledger arrives once, at the simulated moment from which it counts."""
    client = Client(address)
    data = history(client, *ETH, since=datetime(2020, 1, 1, tzinfo=UTC))
    engine = BacktestEngine(BacktestEngineConfig(logging=SILENT))
    listener = Listener(CLIENT)
    engine.add_strategy(listener)
    engine.add_data(data, client_id=CLIENT)
    engine.run()
    assert [heard.signal for _, heard in listener.heard] == [each.data.signal for each in data]
    assert all(now == heard.ts_init >= heard.ts_event for now, heard in listener.heard)
    engine.dispose()
    return len(data)


def live(address: str) -> int:
    """A Signal of the stream reaches a strategy of a running node."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    node = TradingNode(TradingNodeConfig(logging=SILENT), loop=loop)
    listener = Listener()
    node.trader.add_actor(SignalActor(SignalActorConfig(symbol=ETH[0], timeframe=ETH[1], url=address)))
    node.trader.add_strategy(listener)
    node.build()

    async def run() -> None:
        running = asyncio.ensure_future(node.run_async())
        for _ in range(200):
            if listener.heard:
                break
            await asyncio.sleep(0.1)
        await node.stop_async()
        await running

    loop.run_until_complete(run())
    node.dispose()
    return len(listener.heard)


count = backtest(sys.argv[1])
assert count >= 20
assert live(sys.argv[2]) == 1
print(f"{count} Signals, and one live")
