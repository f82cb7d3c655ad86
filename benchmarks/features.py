"""60 features over a long history of one-minute bars, and one row of a new bar: `python -m benchmarks.features [--quick] [--json]`.

The bars are synthetic. Ours is the path that training takes: frames anchored in time, so that a bar has the same bits
whenever it is asked for; the same expressions over the whole history at once stand beside it (quicker, and a value's
last bits then depend on where the history begins). The peer computes the same 60 in pandas, vectorised, shared columns
once: as pandas does it, on one of the cores, and with the columns divided among two threads by hand. Its values are
compared with ours before anything is measured. Indicators that TA-Lib has are shown beside TA-Lib's. Each side runs in a
process of its own, whose peak memory counts all of it.
"""

import importlib.util
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

import store.bars
import store.database
import store.markets
from benchmarks import ingest, report
from benchmarks.report import Row
from model.bars import Bars, Market, timeframe
from model.features import HISTORY, WARMUP, FeatureSet, columns, last_row, rows

ROWS, QUICK_ROWS = 1_000_000, 100_000
NEW_BARS = 200
NOW = datetime(2024, 7, 1, tzinfo=UTC)
MARKET = Market("SYNTHETIC", "1m")
MINUTE = timeframe("1m")
CORES = 2
TOLERANCE = 1e-6  # between ours and pandas', of values of order one: running sums round differently

NAMES = (
    *(f"return_{k}" for k in (1, 2, 3, 6, 12, 24, 48, 96, 168)),
    *(f"lag_{k}" for k in range(1, 9)),
    *("volatility_6_48", "volatility_12_96", "volatility_24_192", "volatility_48_192"),
    *("parkinson_24", "garman_klass_24", "range_1", "move_6"),
    *(f"z_{k}" for k in (12, 24, 48, 96, 192)),
    *(f"position_{k}" for k in (12, 24, 48, 96, 192)),
    *("body", "upper_wick", "lower_wick", "opening_gap", "close_location", "close_location_6"),
    *(f"volume_{k}" for k in (1, 3, 12, 48, 144)),
    *("volume_z_48", "volume_z_144", "signed_volume_6", "signed_volume_24", "signed_volume_96", "money_flow_24"),
    *(f"rsi_cutler_{k}" for k in (7, 14, 28, 56)),
    *("stochastic_14", "stochastic_14_3", "up_fraction_12", "up_fraction_48"),
)  # fmt: skip
SIXTY = FeatureSet(NAMES)

INDICATORS = (
    "rsi_14", "adx_7", "direction_7", "atr_14", "macd_12_26_9", "cci_20", "mfi_14", "stochastic_14", "slope_24", "z_96",
)  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """Seconds, and the process's peak memory in MiB."""

    seconds: float
    peak_mib: float


def anchored(file: Path) -> Measured:
    """Ours, as a training computes it."""
    bars = pl.read_parquet(file)
    return _timed(lambda: rows(bars, MINUTE, SIXTY))


def unanchored(file: Path) -> Measured:
    """The same expressions over the whole history at once."""
    bars = pl.read_parquet(file)
    return _timed(lambda: at_once(bars))


def in_pandas(file: Path, threads: int) -> Measured:
    """The peer."""
    frame = pandas_bars(pl.read_parquet(file))
    return _timed(lambda: pandas_values(frame, threads))


def indicators(file: Path) -> Measured:
    """Ours of what TA-Lib has."""
    bars, chosen = pl.read_parquet(file), FeatureSet(INDICATORS)
    return _timed(lambda: rows(bars, MINUTE, chosen))


def talib_indicators(file: Path) -> Measured:
    """TA-Lib's, one after another, raw: neither in volatilities nor bounded."""
    import talib

    bars = pl.read_parquet(file)
    h, lo, c, v = (bars[name].to_numpy() for name in ("high", "low", "close", "volume"))

    def all_of_them() -> None:
        talib.RSI(c, 14)
        talib.ADX(h, lo, c, 7)
        talib.PLUS_DI(h, lo, c, 7)
        talib.MINUS_DI(h, lo, c, 7)
        talib.ATR(h, lo, c, 14)
        talib.MACD(c, 12, 26, 9)
        talib.CCI(h, lo, c, 20)
        talib.MFI(h, lo, c, v, 14)
        talib.STOCHF(h, lo, c, 14, 3)
        talib.LINEARREG_SLOPE(c, 24)
        talib.BBANDS(c, 96)

    return _timed(all_of_them)


def new_bar(file: Path) -> dict[str, float]:
    """Median milliseconds of the newest bar's row, from what is stored: in memory, and with its bars from SQLite."""
    bars = pl.read_parquet(file)
    ends = np.random.default_rng(0).integers(len(bars) - 50_000, len(bars), NEW_BARS).tolist()
    tails = [bars.slice(end - HISTORY, HISTORY) for end in ends]
    found = {"row": _median([partial(last_row, tail, MINUTE, SIXTY) for tail in tails])}
    found["of all"] = _median([partial(last_row, bars.head(end), MINUTE, SIXTY) for end in ends])
    with tempfile.TemporaryDirectory(prefix="barprop-") as folder:
        engine = store.database.connect(f"sqlite:///{folder}/bars.db")
        store.database.upgrade(engine)
        store.bars.add(engine, MARKET, bars, NOW)
        with store.database.read(engine) as conn:
            market_id = store.markets.need(conn, MARKET).id

        def stored() -> None:
            with store.database.read(engine) as conn:
                last_row(store.bars.read(conn, market_id, MINUTE, last=HISTORY), MINUTE, SIXTY)

        found["stored"] = _median([stored] * NEW_BARS)
        engine.dispose()
    if importlib.util.find_spec("pandas"):
        # the same warm-up, which suffices for the newest value
        newest = [pandas_bars(tail.tail(WARMUP + 1)) for tail in tails[:50]]
        found["pandas"] = _median([partial(pandas_values, frame, 1) for frame in newest])
    return found


def at_once(bars: Bars) -> pl.DataFrame:
    """The 60 of every bar, unanchored."""
    frame = columns.with_base(bars, MINUTE)
    return frame.select(feature.expr.cast(pl.Float32).alias(feature.name) for feature in SIXTY.features)


def pandas_bars(bars: Bars) -> Any:
    """The bars as pandas has them."""
    import pandas as pd

    return pd.DataFrame({name: bars[name].to_numpy() for name in bars.columns if name != "ts"})


def pandas_values(b: Any, threads: int) -> NDArray[np.float32]:
    """The 60 features in pandas, (n, 60) in the order of NAMES; a value without its full window is NaN."""
    o, h, lo, c, v = (b[name] for name in ("open", "high", "low", "close", "volume"))
    x = np.log(c)
    r = (x - x.shift(1)).fillna(0.0)
    calm = (0.1 * r.rolling(192).std()).clip(lower=1e-6)
    pool = ThreadPoolExecutor(threads)
    windows = (6, 12, 24, 48, 96, 192)
    sd = dict(zip(windows, pool.map(lambda k: np.maximum(r.rolling(k).std(), calm), windows), strict=True))
    scale = sd[48]
    body, span = np.log(c / o), np.log(h / lo)
    most = v.rolling(96).max()
    relative = (v / np.maximum(v.rolling(96).mean(), most / 96)).where(most > 0, 1.0)

    def place(low: Any, high: Any) -> Any:
        return ((2 * c - high - low) / np.maximum(high - low, 1e-6 * c)).clip(-1, 1)

    location = place(lo, h)

    def position(k: int) -> Any:
        return place(lo.rolling(k).min(), h.rolling(k).max())

    def volatility(estimate: Any, k: int) -> Any:
        return np.log(np.sqrt(np.maximum(estimate.rolling(k).mean(), calm * calm)) / sd[k]).clip(-3, 3)

    def weighted(what: Any, k: int) -> Any:
        return ((relative * what).rolling(k).mean() / relative.rolling(k).mean().clip(lower=0.01)).clip(-1, 1)

    def rsi(k: int) -> Any:
        path = (c - c.shift(1)).abs().rolling(k).sum()
        return ((c - c.shift(k)) / np.maximum(path, calm * c)).clip(-1, 1)

    def z(k: int) -> Any:
        return ((x - x.rolling(k).mean()) / np.maximum(x.rolling(k).std(), calm)).clip(-8, 8)

    def volume_z(k: int) -> Any:
        return ((relative - relative.rolling(k).mean()) / relative.rolling(k).std().clip(lower=0.01)).clip(
            -8, 8
        )

    def signed(k: int) -> Any:
        return weighted(np.sign(r), k)

    def past(k: int) -> Any:
        return ((x - x.shift(k)) / (scale * math.sqrt(k))).clip(-8, 8)

    def lag(k: int) -> Any:
        return (r.shift(k) / scale).clip(-8, 8)

    def ratio(windows: tuple[int, int]) -> Any:
        return np.log(sd[windows[0]] / sd[windows[1]]).clip(-3, 3)

    def volume(k: int) -> Any:
        return np.log(relative.rolling(k).mean().clip(lower=0) + 0.01).clip(-8, 8)

    def ups(k: int) -> Any:
        return np.sign(r).rolling(k).mean()

    def each(function: Callable[[Any], Any], *windows: Any) -> list[Callable[[], Any]]:
        return [partial(function, window) for window in windows]

    asked: list[Callable[[], Any]] = [
        *each(past, 1, 2, 3, 6, 12, 24, 48, 96, 168),
        *each(lag, *range(1, 9)),
        *each(ratio, (6, 48), (12, 96), (24, 192), (48, 192)),
        lambda: volatility(span * span / (4 * math.log(2)), 24),
        lambda: volatility(span * span / 2 - body * body * (2 * math.log(2) - 1), 24),
        lambda: (span / scale).clip(-8, 8),
        lambda: (r.abs().rolling(6).mean() / scale).clip(-8, 8),
        *each(z, 12, 24, 48, 96, 192),
        *each(position, 12, 24, 48, 96, 192),
        lambda: (body / scale).clip(-8, 8),
        lambda: (np.log(h / np.maximum(o, c)) / scale).clip(-8, 8),
        lambda: (np.log(np.minimum(o, c) / lo) / scale).clip(-8, 8),
        lambda: ((r - body) / scale).clip(-8, 8),
        lambda: location,
        lambda: location.rolling(6).mean(),
        *each(volume, 1, 3, 12, 48, 144),
        *each(volume_z, 48, 144),
        *each(signed, 6, 24, 96),
        lambda: weighted(location, 24),
        *each(rsi, 7, 14, 28, 56),
        lambda: position(14),
        lambda: position(14).rolling(3).mean(),
        *each(ups, 12, 48),
    ]
    X = np.empty((len(b), len(NAMES)), np.float32)

    def fill(column: int) -> None:
        X[:, column] = asked[column]()

    list(pool.map(fill, range(len(NAMES))))
    pool.shutdown()
    return X


def agree(file: Path, bars_compared: int = 20_000) -> None:
    """Raises AssertionError unless all sides have the same values."""
    bars = pl.read_parquet(file).head(bars_compared)
    ours = rows(bars, MINUTE, SIXTY).X
    np.testing.assert_allclose(at_once(bars).to_numpy()[WARMUP:], ours, rtol=TOLERANCE, atol=TOLERANCE)
    if importlib.util.find_spec("pandas"):
        theirs = pandas_values(pandas_bars(bars), CORES)[WARMUP:]
        np.testing.assert_allclose(theirs, ours, rtol=1e-5, atol=1e-5)


def _timed(call: Callable[[], object]) -> Measured:
    """The better of two: the first one also warms up."""
    seconds = min(ingest.seconds_of(call) for _ in range(2))
    return Measured(seconds, ingest.peak_mib())


def _median(calls: Sequence[Callable[[], object]]) -> float:
    """Median milliseconds of one of these calls."""
    for call in calls[:10]:
        call()
    took = []
    for call in calls:
        start = time.perf_counter()
        call()
        took.append(time.perf_counter() - start)
    return 1e3 * statistics.median(took)


def main() -> None:
    """Measures all sides."""
    asked = report.arguments("60 features over a history of one-minute bars, beside pandas and TA-Lib.")
    n = QUICK_ROWS if asked.quick else ROWS
    with tempfile.TemporaryDirectory(prefix="barprop-") as folder:
        ingest.apart(ingest.make, Path(folder), n)
        file = Path(folder) / "bars.parquet"
        agree(file)
        ours, whole = ingest.apart(anchored, file), ingest.apart(unanchored, file)
        peers = (
            {threads: ingest.apart(in_pandas, file, threads) for threads in (1, CORES)}
            if importlib.util.find_spec("pandas")
            else {}
        )
        mine = ingest.apart(indicators, file)
        talib = ingest.apart(talib_indicators, file) if importlib.util.find_spec("talib") else None
        bar = ingest.apart(new_bar, file)
    size = f"60 features of {n:,} bars"
    found = []
    for case, side in (("anchored as training has them", ours), ("whole history at once", whole)):
        for threads, peer in peers.items():
            name = "pandas" if threads == 1 else f"pandas, {threads} threads by hand"
            found.append(Row(f"{size}, {case}", CORES, side.seconds, "s", name, peer.seconds))
        if not peers:
            found.append(Row(f"{size}, {case}", CORES, side.seconds, "s"))
        found.append(Row(f"{size}, {case}: peak memory", CORES, side.peak_mib, "MiB"))
    report.show(
        "features",
        [
            *found,
            Row(
                f"{len(INDICATORS)} indicators of {n:,} bars, anchored", CORES, mine.seconds, "s",
                "TA-Lib, raw" if talib else None, talib.seconds if talib else None,
            ),
            Row(f"row of a new bar, from its newest {HISTORY}", 1, bar["row"], "ms",
                f"pandas, newest {WARMUP + 1}" if "pandas" in bar else None, bar.get("pandas")),
            Row(f"row of a new bar, {n:,} in memory", 1, bar["of all"], "ms"),
            Row(f"row of a new bar, {n:,} in SQLite, read included", 1, bar["stored"], "ms"),
        ],
        asked.json,
    )  # fmt: skip


if __name__ == "__main__":
    main()
