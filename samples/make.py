"""Makes the samples again from the packages that they come from; see README.md beside this file.

    pip install arch==8.0.0 bokeh_sampledata==2026.1 gym-anytrading==2.0.0
    python -m samples.make

The last needs no more than its file of bars, so `pip install --no-deps` will do for it.
"""

from collections.abc import Callable
from importlib.metadata import distribution
from pathlib import Path

import polars as pl

from model.bars import BAR_SCHEMA

HERE = Path(__file__).parent


def _index(name: str) -> pl.DataFrame:
    rows = pl.read_csv(_file("arch", f"arch/data/{name}/{name}.csv.gz"))
    return rows.with_columns(pl.col("Date").str.to_datetime("%m/%d/%Y"))


def _ibm() -> pl.DataFrame:
    rows = pl.read_csv(_file("bokeh_sampledata", "bokeh_sampledata/_data/stocks.csv.gz"))
    return rows.filter(pl.col("Ticker") == "IBM").with_columns(pl.col("Date").str.to_datetime("%Y-%m-%d"))


def _eurusd() -> pl.DataFrame:
    rows = pl.read_csv(_file("gym-anytrading", "gym_anytrading/datasets/data/FOREX_EURUSD_1H_ASK.csv"))
    return rows.rename({"Time": "Date"}).with_columns(pl.col("Date").str.to_datetime("%d.%m.%Y %H:%M:%S%.f"))


SAMPLES: dict[str, Callable[[], pl.DataFrame]] = {
    "SP500_1d": lambda: _index("sp500"),
    "NASDAQ_1d": lambda: _index("nasdaq"),
    "IBM_1d": _ibm,
    "EURUSD_1h": _eurusd,
}


def _file(package: str, path: str) -> Path:
    """A file that an installed package brought along; the package itself is not imported."""
    return Path(str(distribution(package).locate_file(path)))


def bars(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows with a naive Date and Open … Volume, as published, in BAR_SCHEMA and sorted."""
    named = rows.rename(
        {"Date": "ts", **{name: name.lower() for name in ("Open", "High", "Low", "Close", "Volume")}}
    )
    stamped = named.with_columns(pl.col("ts").dt.cast_time_unit("us").dt.replace_time_zone("UTC"))
    return stamped.select(pl.col(name).cast(kind) for name, kind in BAR_SCHEMA.items()).sort("ts")


if __name__ == "__main__":
    for name, rows in SAMPLES.items():
        made = bars(rows())
        made.write_parquet(HERE / f"{name}.parquet", compression="zstd", compression_level=19)
        print(name, len(made), made["ts"][0], made["ts"][-1])
