"""Made-up markets for tests, with a known share of signal. Synthetic, and called so."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from model.bars import BAR_SCHEMA, Bars

START = datetime(2024, 1, 1, tzinfo=UTC)


def bars(n: int, seed: int = 0, momentum: float = 0.0, every: timedelta = timedelta(hours=1)) -> Bars:
    """n synthetic bars of a random walk whose next return leans by `momentum` towards the last one's direction."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal(n) * 0.01
    returns = noise.copy()
    for i in range(1, n):
        returns[i] += momentum * 0.01 * np.sign(returns[i - 1])
    close = 100 * np.exp(np.cumsum(returns))
    opens = np.concatenate([[100.0], close[:-1]])
    wick = np.exp(np.abs(rng.standard_normal((2, n))) * 0.002)
    return pl.DataFrame(
        {
            "ts": [START + i * every for i in range(n)],
            "open": opens,
            "high": np.maximum(opens, close) * wick[0],
            "low": np.minimum(opens, close) / wick[1],
            "close": close,
            "volume": rng.lognormal(3, 1, n),
        },
        schema=BAR_SCHEMA,
    )
