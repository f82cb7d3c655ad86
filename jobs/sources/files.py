"""A file of bars as users have it, read into BAR_SCHEMA.

`tables` finds the cells, `columns` tells which column is which, `times` reads the time; here they become bars.
"""

import math
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import polars as pl

from jobs.sources import columns as names_of
from jobs.sources import tables, times
from jobs.sources.tables import Table
from model.bars import BAR_SCHEMA, PRICES, Timeframe
from model.errors import BadBars, BadInput

Stamp = Literal["open", "close"]

# What readers raise over bytes that are not what they seem to be.
DAMAGE = (
    OSError,
    EOFError,
    zlib.error,
    pl.exceptions.ComputeError,
    pl.exceptions.SchemaError,
    pl.exceptions.NoDataError,
    pl.exceptions.PanicException,
)
# So many rows show whether a column holds times of day.
HEAD_ROWS = 200


@dataclass(frozen=True)
class Found:
    """What a file holds: its rows in BAR_SCHEMA as found, and the symbols that it names itself, if it does."""

    rows: pl.DataFrame
    symbols: tuple[str, ...]


def read(
    path: Path,
    *,
    timeframe: Timeframe,
    tz: str = "UTC",
    stamp: Stamp = "open",
    columns: Mapping[str, str] | None = None,
) -> pl.DataFrame:
    """The rows of a file of bars in BAR_SCHEMA, unchecked and unsorted; see `load`."""
    return load(path, timeframe=timeframe, tz=tz, stamp=stamp, columns=columns).rows


def load(
    path: Path,
    *,
    timeframe: Timeframe,
    tz: str = "UTC",
    stamp: Stamp = "open",
    columns: Mapping[str, str] | None = None,
) -> Found:
    """What a file of bars holds. A cell that is no time or number becomes null, and its row stays.

    `tz` is the zone of times without one; with `stamp="close"` the times are closes, and the timeframe is taken
    off in that zone's calendar; `columns` maps unusual names, e.g. {"close": "PX_LAST"}. Raises BadBars, naming
    file, place and reason, where not one row is a bar's.
    """
    if stamp not in ("open", "close"):
        raise BadInput(f"a stamp is open or close, not {stamp!r}")
    try:
        return _load(path, timeframe, tz, stamp, columns or {})
    except BadBars as error:
        raise BadBars(f"{path.name}: {error}") from error
    except DAMAGE as error:
        said = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
        raise BadBars(f"{path.name}: damaged or not readable: {said.splitlines()[0]}") from error


def _load(path: Path, timeframe: Timeframe, tz: str, stamp: Stamp, columns: Mapping[str, str]) -> Found:
    table = tables.open_table(path, columns)
    try:
        symbol = names_of.symbol_column(table.names, columns)
        chosen = names_of.roles(table.names, columns, _first(table, symbol))
    except BadBars as error:
        raise BadBars(f"{table.header}{error}") from error
    cells = _numbered(table, chosen)
    if cells.is_empty():
        raise BadBars(f"{table.header}no rows")
    try:
        ts = _opens(_moments(cells, tz, columns), timeframe, tz, stamp)
    except times.Ambiguous as error:
        raise BadBars(f"{_place(table, cells, error.row)}: {error}") from error
    rows = cells.select(ts.alias("ts"), *PRICES, "volume")
    usable = pl.col("ts").is_not_null() & pl.all_horizontal(pl.col(*PRICES, "volume").is_finite())
    if not rows.select(usable.any()).item():
        raise BadBars(f"{_place(table, cells, 0)}: {_why(table, chosen, cells, rows)}")
    symbols = (
        cells["symbol"].drop_nulls().cast(pl.String).unique(maintain_order=True) if "symbol" in chosen else ()
    )
    return Found(rows.cast(BAR_SCHEMA), tuple(symbols))


def _first(table: Table, column: int | None) -> str:
    """The first value of a column, as text."""
    if column is None:
        return ""
    head = table.cells.select(pl.col(str(column)).cast(pl.String)).head(1).collect()
    return "" if head.is_empty() else head.item() or ""


def _numbered(table: Table, chosen: Mapping[str, int]) -> pl.DataFrame:
    """The chosen cells with prices and volume as numbers, null where there is none, and `odd` where text is none.

    Numbers are made while the file streams by, so that a long text is never held as text.
    """
    schema = table.cells.collect_schema()
    texts = {role: pl.col(str(at)) for role, at in chosen.items()}
    figures = [role for role in (*PRICES, "volume") if role in chosen]
    sound = ~pl.col("more")
    numbers = {role: pl.when(sound).then(_number(texts[role], schema[str(chosen[role])])) for role in figures}
    words = [role for role in figures if schema[str(chosen[role])] == pl.String()]
    unread = [numbers[role].is_null() & texts[role].is_not_null() for role in words]
    odd = sound & pl.any_horizontal(unread) if words else pl.lit(False)
    cells = table.cells.select("place", "more", **texts | numbers, odd=odd)
    if table.unit == "line":  # an empty line is no row
        cells = cells.filter(
            pl.any_horizontal("more", "odd", pl.exclude("place", "more", "odd").is_not_null())
        )
    made = cells.collect(engine="streaming")
    strange = pl.DataFrame(schema=dict.fromkeys(words, pl.String))
    if made["odd"].any():
        strange = table.cells.filter(odd).select(texts[role].alias(role) for role in words).collect()
        strange = strange.select(pl.all().str.strip_chars(" $").replace("", None))
        rows = made["odd"].arg_true()
        made = made.with_columns(made[role].scatter(rows, read) for role, read in _read_anew(strange).items())
    if "volume" not in chosen or (made["volume"].count() == 0 and _silent(strange, "volume")):
        made = made.with_columns(volume=0.0)
    return made


def _silent(texts: pl.DataFrame, role: str) -> bool:
    """Whether nothing at all is said there."""
    return role not in texts.columns or texts[role].count() == 0


def _number(cell: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    if dtype.is_numeric() or dtype == pl.String():
        return cell.cast(pl.Float64, strict=False)
    return pl.lit(None, dtype=pl.Float64)


def _read_anew(texts: pl.DataFrame) -> dict[str, pl.Series]:
    """Numbers that are not written plainly. A comma is read only where its meaning is certain."""
    every = pl.concat([column.rename("") for column in texts])
    if every.str.contains(r"^[-+]?\d{1,3}(,\d{3})+\.\d+$").any():
        comma, meant = ",", ""  # 1,234.50: thousands
    elif every.str.contains(r"^[-+]?\d+,(\d{1,2}|\d{4,})$").any():
        comma, meant = ",", "."  # 1,0716: a decimal comma
    else:
        comma, meant = " ", ""
    plain = texts.select(pl.all().str.replace_all(comma, meant, literal=True).cast(pl.Float64, strict=False))
    return dict(zip(plain.columns, plain, strict=True))


def _moments(cells: pl.DataFrame, tz: str, columns: Mapping[str, str]) -> pl.Series:
    """The instants that the time columns name: one column, or date and time of day in two."""
    if "ts" in cells.columns and "date" in cells.columns:
        if times.is_clock(cells["ts"].head(HEAD_ROWS)):
            return times.joined(cells["date"], cells["ts"], tz)
        return times.moments(cells["date" if "date" in columns else "ts"], tz)
    return times.moments(cells["ts" if "ts" in cells.columns else "date"], tz)


def _opens(ts: pl.Series, timeframe: Timeframe, tz: str, stamp: Stamp) -> pl.Series:
    if stamp == "open":
        return ts
    # a day of 23 hours is a day where the bars are from
    return ts.dt.convert_time_zone(tz).dt.offset_by(f"-{timeframe.every}").dt.convert_time_zone("UTC")


def _place(table: Table, cells: pl.DataFrame, row: int) -> str:
    return f"{table.unit} {cells['place'][row]}"


def _why(table: Table, chosen: Mapping[str, int], cells: pl.DataFrame, rows: pl.DataFrame) -> str:
    """Why the first row is no bar."""
    here = table.cells.filter(pl.col("place") == cells["place"][0]).collect().row(0, named=True)
    found = {role: here[str(at)] for role, at in chosen.items()}
    bar = rows.row(0, named=True)
    if here["more"]:
        return f"more cells than the {len(table.names)} columns"
    if bar["ts"] is None:
        said = " ".join(str(found[role]) for role in ("date", "ts") if role in found)
        return f"the time {said!r} is not understood"
    role = next(role for role in (*PRICES, "volume") if bar[role] is None or not math.isfinite(bar[role]))
    return f"{role} is {found[role]!r}, not a number"


def same_symbol(named: str, symbol: str) -> bool:
    """Whether the symbol that a file names is the market's: signs apart, with or without an exchange's prefix."""
    forms = {named, *named.split(":"), named.split(".")[0]}
    return _letters(symbol) in {_letters(form) for form in forms}


def _letters(symbol: str) -> str:
    return re.sub(r"[^A-Z0-9]", "", symbol.upper())
