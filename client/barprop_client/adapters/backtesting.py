# mypy: disable-error-code="import-not-found, import-untyped, misc"
"""For backtesting.py: Signals as columns beside the bars, and a strategy that holds what they say.

    known = aligned.from_ledger(client, "ETHUSDT", "1h", since=start)
    bars = with_signals(bars, known, "1h")
    Backtest(bars, HoldsPosition, finalize_trades=True).run()

The index holds open times, in UTC where it has no zone. Decisions are made at a bar's close and filled at the next
open, as backtesting.py does by itself: leave `trade_on_close` off.
"""

import math
from collections.abc import Iterable
from datetime import UTC
from typing import Any

from backtesting import Strategy

from barprop_client import aligned
from barprop_client.aligned import Known
from barprop_client.values import Prediction


def with_signals(bars: Any, known: Iterable[Known], timeframe: str, round_trip_bps: float = 0.0) -> Any:
    """A copy of the frame with the columns `Position` and `P_up`; both are NaN where no Signal was known."""
    opens = bars.index if bars.index.tz is not None else bars.index.tz_localize(UTC)
    closes = [opened.to_pydatetime() + aligned.length(timeframe) for opened in opens]
    signals = aligned.newest(known, closes)
    return bars.assign(
        Position=[aligned.position(signal, round_trip_bps) for signal in signals],
        P_up=[signal.p_up if isinstance(signal, Prediction) else math.nan for signal in signals],
    )


class HoldsPosition(Strategy):
    """Holds the side of the column `Position` with that share of the equity; keeps what it holds where that is NaN."""

    def init(self) -> None:
        """Nothing: the columns are there."""

    def next(self) -> None:
        """Turns to the other side, or out, where the newest Signal says so."""
        wanted = float(self.data.Position[-1])
        held = (self.position.size > 0) - (self.position.size < 0)
        if math.isnan(wanted) or held == (wanted > 0) - (wanted < 0):
            return
        self.position.close()
        if wanted:
            # a share of 1 is refused: all but nothing is all
            (self.buy if wanted > 0 else self.sell)(size=min(abs(wanted), 0.9999))
