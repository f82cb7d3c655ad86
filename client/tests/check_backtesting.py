"""Run by tests/client/test_adapters.py in an environment that has backtesting.py: ADDRESS is a service with a ledger."""

import sys
from datetime import timedelta

import pandas as pd
from backtesting import Backtest
from barprop_client import Client, aligned
from barprop_client.adapters.backtesting import HoldsPosition, with_signals

ETH = ("ETHUSDT", "1h")
HOUR = timedelta(hours=1)


def main(address: str) -> None:
    """Backtests the ledger's Signals and checks every fill against them."""
    client = Client(address)
    bars = pd.DataFrame([vars(bar) for bar in client.bars(*ETH)]).set_index("ts").sort_index().tail(200)
    bars = bars.rename(columns=str.capitalize)
    ledger = {entry.signal.as_of: entry.signal for entry in client.predictions(*ETH)}
    known = aligned.from_ledger(client, *ETH, since=bars.index[0].to_pydatetime())
    naive = with_signals(bars.tz_localize(None), known, "1h")
    marked = with_signals(bars, known, "1h")
    assert (naive.Position.to_numpy() == marked.Position.to_numpy())[marked.Position.notna()].all()
    for opened, row in marked.iterrows():
        signal = ledger.get(opened.to_pydatetime() + HOUR)
        assert (signal is None) == pd.isna(row.Position), opened
        assert signal is None or row.Position == aligned.position(signal), opened
    assert marked.Position.notna().sum() >= 20
    cut = with_signals(bars.head(190), [each for each in known if each.since <= bars.index[190]], "1h")
    assert cut.Position.equals(marked.Position.head(190)), "a later Signal changed an earlier bar"

    stats = Backtest(marked, HoldsPosition, cash=1_000_000, finalize_trades=True).run()
    trades = stats["_trades"]
    assert len(trades) >= 2
    for trade in trades.itertuples():
        before = marked.iloc[trade.EntryBar - 1]  # decided at that bar's close, filled at the next open
        assert (trade.Size > 0) == (before.Position > 0)
        assert trade.EntryPrice == marked.Open.iloc[trade.EntryBar]
    print(f"{len(trades)} trades")


main(sys.argv[1])
