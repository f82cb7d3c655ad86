"""Run by tests/client/test_adapters.py in an environment that has freqtrade: ADDRESS is a service with a ledger, FOLDER an
empty one. The exchange alone is a stand-in, since it would be asked over the internet."""

import json
import sys
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from unittest.mock import patch

import pandas as pd
from barprop_client import Client, aligned
from freqtrade.configuration import Configuration
from freqtrade.data.dataprovider import DataProvider
from freqtrade.data.history import get_datahandler
from freqtrade.enums import CandleType, RunMode
from freqtrade.exceptions import OperationalException
from freqtrade.exchange import Exchange
from freqtrade.optimize.backtesting import Backtesting
from freqtrade.resolvers import StrategyResolver

PAIR = "ETH/USDT"
ETH = ("ETHUSDT", "1h")
HOUR = timedelta(hours=1)
STRATEGY = """
from barprop_client.adapters.freqtrade import BarpropStrategy
class Ours(BarpropStrategy):
    timeframe = "1h"
    patience_seconds = 0.5
"""
MARKET = {
    "id": "ETHUSDT", "symbol": PAIR, "base": "ETH", "quote": "USDT", "spot": True, "swap": False, "future": False,
    "linear": None, "inverse": None, "contract": False, "contractSize": None, "type": "spot", "active": True,
    "margin": False, "maker": 0.001, "taker": 0.001,
    "precision": {"amount": 1e-6, "price": 1e-6}, "limits": {"amount": {"min": 0, "max": None}, "cost": {"min": 0,
    "max": None}, "price": {"min": None, "max": None}, "leverage": {"min": None, "max": None}}, "info": {},
}  # fmt: skip


def configured(address: str, folder: Path, **more: object) -> dict:
    """A configuration as freqtrade itself reads it from a file."""
    (folder / "strategies").mkdir(exist_ok=True)
    (folder / "strategies" / "ours.py").write_text(STRATEGY)
    text = {
        "stake_currency": "USDT", "stake_amount": 100, "dry_run": True, "dry_run_wallet": 10_000, "max_open_trades": 1,
        "exchange": {"name": "binance", "pair_whitelist": [PAIR]}, "pairlists": [{"method": "StaticPairList"}],
        "entry_pricing": {"price_side": "same", "use_order_book": False},
        "exit_pricing": {"price_side": "same", "use_order_book": False},
        "user_data_dir": str(folder), "strategy": "Ours", "barprop": {"url": address}, "fee": 0.001,
        "timeframe": "1h", "export": "none", "dataformat_ohlcv": "feather", **more,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(text))
    return Configuration(
        {"config": [str(folder / "config.json")], "user_data_dir": str(folder)}, None
    ).get_config()


def check_columns(frame: pd.DataFrame, client: Client) -> int:
    """Each candle has the position of the Signal that stands on it, and enters and leaves as that says."""
    ledger = {entry.signal.as_of: entry.signal for entry in client.predictions(*ETH)}
    for row in frame.itertuples():
        signal = ledger.get(row.date.to_pydatetime() + HOUR)
        assert (signal is None) == pd.isna(row.barprop), row
        assert signal is None or row.barprop == aligned.position(signal), row
        assert (row.enter_long == 1) == (row.barprop > 0), row
        assert (row.exit_long == 1) == (row.barprop <= 0), row
    return int(frame.barprop.notna().sum())


def main(address: str, folder: Path) -> None:
    """A backtest from the ledger, a live candle, a pair without a market, a service that is away."""
    client = Client(address)
    bars = pd.DataFrame([vars(bar) for bar in client.bars(*ETH)]).rename(columns={"ts": "date"})
    bars["date"] = bars["date"].astype("datetime64[ms, UTC]")
    bars = bars.sort_values("date").tail(200).reset_index(drop=True)
    config = configured(address, folder) | {"runmode": RunMode.BACKTEST}
    config["datadir"].mkdir(parents=True, exist_ok=True)
    get_datahandler(config["datadir"], "feather").ohlcv_store(PAIR, "1h", bars, CandleType.SPOT)

    with (
        patch.multiple(Exchange, _load_async_markets=lambda *_, **__: None, validate_config=lambda *_: None,
                       reload_markets=lambda *_, **__: None, additional_exchange_init=lambda *_: None),
        patch.object(Exchange, "markets", {PAIR: MARKET}),
        patch.object(Exchange, "_markets", {PAIR: MARKET}, create=True),
    ):  # fmt: skip
        backtesting = Backtesting(config)
        backtesting.start()
        trades = backtesting.results["strategy"]["Ours"]["trades"]
        strategy = backtesting.strategylist[0]
        frame = strategy.analyze_ticker(bars.copy(), {"pair": PAIR})
        assert check_columns(frame, client) >= 20
        assert trades, "no trade"
        positions = dict(zip(frame["date"], frame["barprop"], strict=True))
        for trade in trades:
            assert positions[pd.Timestamp(trade["open_date"]) - HOUR] > 0, (
                "entered without a Signal of the candle before"
            )
        strategy.config["runmode"] = RunMode.DRY_RUN
        now = strategy.analyze_ticker(bars.copy(), {"pair": PAIR})
        assert now["barprop"].notna().sum() == 1
        assert now["barprop"].iloc[-1] == aligned.position(client.predict(*ETH))
        early = strategy.analyze_ticker(bars.assign(date=bars["date"] + HOUR), {"pair": PAIR})
        assert early["barprop"].isna().all(), "a Signal of an older candle was used"

        wrong = configured(address, folder, barprop={"url": address, "symbols": {PAIR: "NOSUCH"}})
        strategy = StrategyResolver.load_strategy(wrong)
        strategy.dp = DataProvider(wrong, backtesting.exchange, backtesting.pairlists)
        with suppress(OperationalException):
            strategy.bot_start()
            raise AssertionError("a pair without a market was accepted")
    print(f"{len(trades)} trades")


main(sys.argv[1], Path(sys.argv[2]))
