"""vectorbt's side of benchmarks.portfolio, a process of its own: `python vbt.py ENGINE FILE`, by vectorbt's own Python.

FILE holds n + 1 prices and positions, the last of them 0. Prints a line for each line that it reads: one portfolio, from
orders to figures. Nothing of the project is imported: its libraries and vectorbt's do not go together.
"""

import importlib
import json
import sys
import time
from typing import Any

import numpy as np


def run(vbt: Any, engine: str, prices: Any, positions: Any, fee: float) -> dict[str, float]:
    """Seconds of a processor to the orders, to returns, equity and positions, and to the figures; and some of these, to be compared."""
    start = time.process_time()
    portfolio = vbt.Portfolio.from_orders(
        prices, size=positions, size_type="targetpercent", fees=fee, init_cash=1e6, freq="1min", engine=engine
    )
    ordered = time.process_time() - start
    value, _ = portfolio.value(), portfolio.returns()
    trades = portfolio.positions
    count = int(trades.count())
    traded = time.process_time() - start
    risk = portfolio.returns_acc()
    fall = float(portfolio.max_drawdown())
    hit_rate = float(trades.win_rate())
    for figure in (trades.profit_factor, trades.expectancy, portfolio.sharpe_ratio, portfolio.sortino_ratio,
                   portfolio.calmar_ratio, portfolio.annualized_return, portfolio.annualized_volatility,
                   risk.tail_ratio, risk.value_at_risk, risk.cond_value_at_risk):  # fmt: skip
        figure()
    return {
        "ordered": ordered,
        "traded": traded,
        "measured": time.process_time() - start,
        "net_return": float(value.iloc[-1]) / 1e6 - 1,
        "max_drawdown": -fall,
        "hit_rate": hit_rate,
        "trades": count,
    }


def main() -> None:
    """Answers each line, the fee as a share of the value traded, by a line of JSON."""
    engine, file = sys.argv[1:]
    vbt = importlib.import_module("vectorbt")
    arrays = np.load(file)
    print(json.dumps({"version": vbt.__version__}), flush=True)
    for line in sys.stdin:
        print(json.dumps(run(vbt, engine, arrays["prices"], arrays["positions"], float(line))), flush=True)


if __name__ == "__main__":
    main()
