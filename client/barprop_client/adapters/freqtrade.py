# mypy: disable-error-code="import-not-found, import-untyped, misc"
"""For freqtrade: a strategy that enters and leaves as Barprop's Signals say. Put two lines into user_data/strategies:

    from barprop_client.adapters.freqtrade import BarpropStrategy
    class MyStrategy(BarpropStrategy): timeframe = "1h"

and into the configuration `"barprop": {"url": "http://127.0.0.1:8000", "symbols": {"BTC/USDT": "BTCUSDT"}}`; the key is
read from BARPROP_API_KEY. Live and dry runs ask for the newest Signal; backtests read the ledger, or with
`"backtest": "version"` ask what the champion says of each candle that it has not learned from.
"""

import logging
import time
from datetime import datetime, timedelta
from typing import Any

from freqtrade.enums import TRADE_MODES
from freqtrade.exceptions import OperationalException
from freqtrade.strategy import IStrategy

from barprop_client import aligned
from barprop_client.aligned import Known
from barprop_client.client import Client
from barprop_client.errors import BarpropError

log = logging.getLogger(__name__)


def symbol_of(pair: str, named: dict[str, str]) -> str:
    """The service's symbol of a pair: as the configuration names it, else `BTC/USDT:USDT` is `BTCUSDT`."""
    return named.get(pair) or pair.partition(":")[0].replace("/", "")


class BarpropStrategy(IStrategy):
    """Long where the target position is above 0, short below it (with `can_short`), out at 0 and at abstentions."""

    INTERFACE_VERSION = 3
    timeframe = "1h"
    process_only_new_candles = True
    minimal_roi: dict[str, float] = {}  # noqa: RUF012  freqtrade's own form; the Signal says when to leave
    stoploss = -0.99
    round_trip_bps = 0.0  # what a round trip costs here; positions that pay less are not taken
    patience_seconds = 5.0  # a candle's Signal comes when the service has that candle's bar

    def bot_start(self, **kwargs: Any) -> None:
        """Connects, and checks that the service has a market for every pair. Raises OperationalException."""
        self._settings: dict[str, Any] = self.config.get("barprop", {})
        self._client = Client(self._settings.get("url", "http://127.0.0.1:8000"))
        there = {(each.market.symbol, each.market.timeframe) for each in self._client.markets()}
        for pair in self.dp.current_whitelist():
            if (self._symbol(pair), self.timeframe) not in there:
                raise OperationalException(
                    f"Barprop has no market {self._symbol(pair)} {self.timeframe} for {pair}: "
                    'push its bars, or name its symbol in the configuration under "barprop": {"symbols": {…}}'
                )

    def populate_indicators(self, dataframe: Any, metadata: dict[str, Any]) -> Any:
        """Adds the column `barprop`: the position to hold from each candle's close on, NaN where no Signal was known."""
        closes = [at.to_pydatetime() + aligned.length(self.timeframe) for at in dataframe["date"]]
        live = self.config["runmode"] in TRADE_MODES
        known = (self._now if live else self._past)(self._symbol(metadata["pair"]), closes)
        signals = aligned.newest(known, closes)
        dataframe["barprop"] = [aligned.position(signal, self.round_trip_bps) for signal in signals]
        return dataframe

    def populate_entry_trend(self, dataframe: Any, metadata: dict[str, Any]) -> Any:
        """Enters on the side of the position."""
        dataframe.loc[dataframe["barprop"] > 0, "enter_long"] = 1
        if self.can_short:
            dataframe.loc[dataframe["barprop"] < 0, "enter_short"] = 1
        return dataframe

    def populate_exit_trend(self, dataframe: Any, metadata: dict[str, Any]) -> Any:
        """Leaves a side that the position is no longer on."""
        dataframe.loc[dataframe["barprop"] <= 0, "exit_long"] = 1
        dataframe.loc[dataframe["barprop"] >= 0, "exit_short"] = 1
        return dataframe

    def _symbol(self, pair: str) -> str:
        return symbol_of(pair, self._settings.get("symbols", {}))

    def _past(self, symbol: str, closes: list[datetime]) -> list[Known]:
        if self._settings.get("backtest", "ledger") == "version":
            return aligned.from_version(self._client, symbol, self.timeframe, closes)
        return aligned.from_ledger(self._client, symbol, self.timeframe, closes[0] - timedelta(days=1))

    def _now(self, symbol: str, closes: list[datetime]) -> list[Known]:
        """The Signal of the newest candle; nothing, with a warning, where it does not come in time."""
        deadline = time.monotonic() + self.patience_seconds
        try:
            signal = self._client.predict(symbol, self.timeframe)
            while signal.as_of is None or signal.as_of < closes[-1]:
                if time.monotonic() > deadline:
                    log.warning(
                        "%s %s: no Signal for the candle that closed at %s",
                        symbol,
                        self.timeframe,
                        closes[-1],
                    )
                    return []
                time.sleep(0.25)
                signal = self._client.predict(symbol, self.timeframe)
        except BarpropError as error:
            log.warning("%s %s: no Signal: %s", symbol, self.timeframe, error)
            return []
        return [Known(signal, signal.as_of)]
