"""The real bars that ship with the program; `samples/README.md` tells where they come from."""

from __future__ import annotations

from importlib.resources import as_file, files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from model.bars import Bars

# Daily closes of an exchange: the first is the one that a check or a demo takes where one is enough.
SYMBOLS = ("SP500", "NASDAQ", "IBM")
TIMEFRAME = "1d"


def bars(symbol: str) -> Bars:
    """All bars of that sample, oldest first."""
    import polars as pl

    with as_file(files("samples") / f"{symbol}_{TIMEFRAME}.parquet") as path:
        return pl.read_parquet(path).sort("ts")
