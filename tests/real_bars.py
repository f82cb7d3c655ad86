"""Real bars for tests, read in place; a test that needs them skips without them.

They lie in the folder that BARPROP_REAL_BARS names, else in `../shared/data` beside the checkout.
"""

import os
from pathlib import Path

import polars as pl
import pytest

BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data"
REAL = Path(os.environ.get("BARPROP_REAL_BARS") or BESIDE)


def path(name: str) -> Path:
    """A file of real bars, e.g. `ETHUSDT_1h.parquet`."""
    file = REAL / name
    if not file.exists():
        pytest.skip(f"needs the real bars {name} in the folder that BARPROP_REAL_BARS names")
    return file


def bars(name: str) -> pl.DataFrame:
    """Real bars in BAR_SCHEMA, e.g. `ETHUSDT_1h`."""
    return pl.read_parquet(path(f"{name}.parquet"))
