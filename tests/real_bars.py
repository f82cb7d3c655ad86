"""Real bars for tests, read in place from the folder beside the checkout; a test that needs them skips without it."""

from pathlib import Path

import polars as pl
import pytest

REAL = Path(__file__).resolve().parents[2] / "shared" / "data"


def path(name: str) -> Path:
    """A file of real bars, e.g. `ETHUSDT_1h.parquet`."""
    file = REAL / name
    if not file.exists():
        pytest.skip(f"needs the real bars {name}, which are not beside this checkout")
    return file


def bars(name: str) -> pl.DataFrame:
    """Real bars in BAR_SCHEMA, e.g. `ETHUSDT_1h`."""
    return pl.read_parquet(path(f"{name}.parquet"))
