"""A client as openapi-python-client generates it, against the service at the address that is given; the folder that it
was generated into is the second argument. Run where the generator is installed, which brings all that its clients need."""

import importlib
import sys
from datetime import UTC, datetime, timedelta
from types import ModuleType

address, folder = sys.argv[1:]
sys.path.insert(0, folder)
client = importlib.import_module("generated").Client(base_url=address)
models = importlib.import_module("generated.models")


def route(name: str) -> ModuleType:
    """The module of an operation, named by its tag and its own name."""
    return importlib.import_module(f"generated.api.{name}")


signal = route("predictions.predict").sync(client=client, body=models.Ask(symbol="ETHUSDT", timeframe="1h"))
assert isinstance(signal, models.Prediction), signal
assert signal.market.symbol == "ETHUSDT"
assert 0 < signal.p_up < 1

markets = route("markets.all_markets").sync(client=client)
assert [(item.market.symbol, item.champion) for item in markets.items] == [("ETHUSDT", signal.version)]

newest = route("bars.newest_bars").sync(client=client, symbol="ETHUSDT", timeframe="1h", limit=1).items[0]
opened = datetime.fromisoformat(newest.ts).astimezone(UTC) - timedelta(hours=1)
pushed = models.Bar(
    ts=opened, open_=newest.open_, high=newest.high, low=newest.low, close=newest.close, volume=1.5
)
ingested = route("bars.push_bars").sync(
    client=client,
    body=models.Push(symbol="ETHUSDT", timeframe="1h", bars=[pushed]),
    idempotency_key="once",
)
assert isinstance(ingested, models.Ingested), ingested
assert ingested.corrected == 1

ledger = route("predictions.ledger").sync(client=client, limit=10)
assert isinstance(ledger.items[0], models.KeptPrediction), ledger

answer = route("predictions.predict").sync_detailed(
    client=client, body=models.Ask(symbol="NOSUCH", timeframe="1h")
)
assert answer.status_code == 404
assert isinstance(answer.parsed, models.Problem), answer
assert answer.parsed.type_ == "/problems/not-found"

print("works")
