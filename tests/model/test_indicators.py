"""Indicators against TA-Lib, on real bars after warm-up.

What TA-Lib defines by a recursion begins at the first bar there, and is a sum over a window here: the two agree within
the residue that is stated.
"""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
import pytest
import talib
from numpy.typing import NDArray

from model.bars import Timeframe, timeframe
from model.features import FEATURES, WARMUP, frames
from model.features.columns import CLIP
from model.features.indicators import RESIDUES
from tests import real_bars
from tests.model import markets

Array = NDArray[np.float64]
REAL = {"ETHUSDT_1h": "1h", "BTCPERP_1m": "1m", "GOOG_1d": "1d"}
BARS = 2_000
ROUNDING = 1e-9


def _macd(b: dict[str, Array], of: int) -> Array:
    return talib.MACD(np.log(b["close"]), 12, 26, 9)[of] / b["scale"]


def _bands(b: dict[str, Array]) -> Array:
    x = np.log(b["close"])
    upper, middle, _ = talib.BBANDS(x, 96, 1, 1)  # deviations of the population, not of a sample
    return (x - middle) / (upper - middle) / math.sqrt(96 / 95)


def _fast(b: dict[str, Array], of: int) -> Array:
    return talib.STOCHF(b["high"], b["low"], b["close"], 14, 3)[of] / 50 - 1


HLC = ("high", "low", "close")
TALIB: dict[str, Callable[[dict[str, Array]], Array]] = {
    "stochastic_14": lambda b: _fast(b, 0),
    "stochastic_14_3": lambda b: _fast(b, 1),
    "position_48": lambda b: talib.WILLR(*(b[c] for c in HLC), 48) / 50 + 1,
    "z_96": _bands,
    "up_fraction_12": lambda b: talib.SMA(np.sign(np.diff(np.log(b["close"]), prepend=np.nan)), 12),
    "return_24": lambda b: np.log(1 + talib.ROCP(b["close"], 24)) / (b["scale"] * math.sqrt(24)),
    "volatility_48_192": lambda b: np.log(b["scale"] / (
        talib.STDDEV(np.diff(np.log(b["close"]), prepend=np.log(b["close"])[0]), 192) * math.sqrt(192 / 191)
    )),
    "slope_24": lambda b: talib.LINEARREG_SLOPE(np.log(b["close"] / b["close"][0]), 24) * math.sqrt(24) / b["scale"],
    "slope_96": lambda b: talib.LINEARREG_SLOPE(np.log(b["close"] / b["close"][0]), 96) * math.sqrt(96) / b["scale"],
    "cci_20": lambda b: talib.CCI(*(b[c] for c in HLC), 20) * 0.015,
    "mfi_14": lambda b: talib.MFI(*(b[c] for c in HLC), b["volume"], 14) / 50 - 1,
    "obv_24": lambda b: (
        (talib.OBV(b["close"], b["volume"]) - np.roll(talib.OBV(b["close"], b["volume"]), 24))
        / talib.SUM(b["volume"], 24)
    ),
    "vwap_24": lambda b: np.log(
        b["close"] * talib.SUM(b["volume"], 24)
        / talib.SUM(talib.TYPPRICE(*(b[c] for c in HLC)) * b["volume"], 24)
    ) / (b["scale"] * math.sqrt(24)),
    "rsi_7": lambda b: talib.RSI(b["close"], 7) / 50 - 1,
    "rsi_14": lambda b: talib.RSI(b["close"], 14) / 50 - 1,
    "atr_14": lambda b: np.log(talib.ATR(*(b[c] for c in HLC), 14) / (b["close"] * b["scale"])),
    "adx_7": lambda b: talib.ADX(*(b[c] for c in HLC), 7) / 100,
    "direction_7": lambda b: (
        talib.PLUS_DI(*(b[c] for c in HLC), 7) - talib.MINUS_DI(*(b[c] for c in HLC), 7)
    ) / 100,
    "macd_12_26": lambda b: _macd(b, 0),
    "macd_12_26_9": lambda b: _macd(b, 2),
}  # fmt: skip


def _computed(bars: pl.DataFrame, step: Timeframe) -> pl.DataFrame:
    features = [FEATURES[name] for name in TALIB]
    parts = [
        frames.compute(bars, step, features, first, end).tail(end - first)
        for first, end in pairwise(frames.edges(bars, step))
    ]
    return pl.concat(parts)


@pytest.mark.parametrize("market", REAL)
def test_indicators_agree_with_talib_on_real_bars(market: str) -> None:
    bars, step = real_bars.bars(market).head(BARS), timeframe(REAL[market])
    computed = _computed(bars, step)
    given: dict[str, Any] = {name: bars[name].to_numpy() for name in ("high", "low", "close", "volume")}
    given["scale"] = computed["_scale"].to_numpy()
    for name, theirs in TALIB.items():
        ours = computed[name].to_numpy()[2 * WARMUP :]
        expected = np.clip(theirs(given)[2 * WARMUP :], -CLIP, CLIP)
        tolerance = 10 * RESIDUES.get(name, 0.0) + ROUNDING  # moves were up to ten times as large before
        np.testing.assert_allclose(ours, expected, rtol=ROUNDING, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("name", RESIDUES)
def test_what_lies_before_the_window_is_no_more_than_the_residue(name: str) -> None:
    assert RESIDUES[name] < 1e-7
    assert name in TALIB


def test_indicators_without_volume_say_nothing_of_it() -> None:
    bars = markets.MARKETS["no_volume"]
    step = timeframe("1h")
    found = _computed(bars, step)
    assert (found["obv_24"][WARMUP:] == 0).all()
    assert (found["mfi_14"][WARMUP:] == 0).all()
    priced = (bars["close"] / ((bars["high"] + bars["low"] + bars["close"]) / 3).rolling_mean(24)).log()
    expected = (priced / (found["_scale"] * math.sqrt(24))).clip(-CLIP, CLIP)
    np.testing.assert_allclose(found["vwap_24"][WARMUP:], expected[WARMUP:], rtol=1e-9, atol=1e-9)
