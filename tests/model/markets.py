"""Made-up markets for tests: clustered volatility, gaps, weekends, flat stretches, bars without volume."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from model.bars import BAR_SCHEMA, timeframe

START = datetime(2021, 3, 4, 5, tzinfo=UTC)


def bars(
    n: int,
    seed: int = 0,
    *,
    step: str = "1h",
    start: datetime = START,
    skip: float = 0.0,
    weekends: bool = True,
    flat: float = 0.0,
    unit: float = 100.0,
    volume: float = 1000.0,
) -> pl.DataFrame:
    """n bars; a share `skip` of the bars is missing and a share `flat` of time stands still, in stretches.

    `unit` is the price level, `volume` the usual volume of a bar; a flat bar has none.
    """
    rng = np.random.default_rng(seed)
    room = int(n * (3 if not weekends else 1) / (1 - skip)) + 400
    ts = [start + i * timeframe(step).length for i in range(room)]
    keep = rng.random(room) >= skip
    ts = [t for t, kept in zip(ts, keep, strict=True) if kept and (weekends or t.weekday() < 5)][:n]
    assert len(ts) == n
    level = np.repeat(np.exp(rng.normal(-5.0, 1.2, n // 40 + 1)), 40)[:n]  # volatility, new every 40 bars
    still = np.repeat(rng.random(n // 60 + 1) < flat, 60)[:n]
    r = np.where(still, 0.0, level * rng.standard_t(4, n))
    close = unit * np.exp(np.cumsum(np.clip(r, -0.5, 0.5)))
    before = np.concatenate([[unit], close[:-1]])
    open_ = np.where(still, before, before * np.exp(0.1 * level * rng.normal(size=n)))
    high = np.maximum(open_, close) * np.exp(np.where(still, 0.0, level * rng.exponential(0.5, n)))
    low = np.minimum(open_, close) * np.exp(-np.where(still, 0.0, level * rng.exponential(0.5, n)))
    traded = np.where(still, 0.0, volume * rng.lognormal(0.0, 1.0, n))
    return pl.DataFrame(
        {"ts": ts, "open": open_, "high": high, "low": low, "close": close, "volume": traded},
        schema=BAR_SCHEMA,
    )


def days_of_summer_time(n: int) -> pl.DataFrame:
    """Daily bars whose stamp is midnight in a place that is an hour ahead of UTC in summer."""
    daily = bars(n, step="1d", start=datetime(2012, 1, 1, tzinfo=UTC))
    summer = pl.col("ts").dt.month().is_between(4, 9)
    return daily.with_columns(
        ts=pl.when(summer).then(pl.col("ts") - timedelta(hours=1)).otherwise(pl.col("ts"))
    )


MARKETS = {
    "plain": bars(1600, seed=1),
    "gaps": bars(1600, seed=2, skip=0.3),
    "weekends": bars(1600, seed=3, weekends=False),
    "flat": bars(1600, seed=4, flat=0.5),
    "no_volume": bars(1200, seed=5).with_columns(volume=pl.lit(0.0)),
    "satoshis": bars(1200, seed=6, unit=3e-8, volume=1e12, flat=0.2),
    "whole_coins_in_dust": bars(1200, seed=7, unit=9e6, volume=1e-6, flat=0.2),
    "standstill": bars(1200, seed=8, flat=1.1),
}
