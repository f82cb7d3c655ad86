"""What a file is and where its cells are: Parquet, Feather, text of any delimiter, JSON; text also gzipped.

The first bytes tell what a file is, not its name. Every kind becomes one Table; which column is which is settled
in `columns`, what a time says in `times`.
"""

import csv
import gzip
import io
import json
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from jobs.sources import columns as names_of
from model.bars import PRICES
from model.errors import BadBars

# Enough of a text to see its delimiter, its header and its first rows.
HEAD_BYTES = 64 * 1024
HEAD_LINES = 200
DELIMITERS = ",;\t|"
# A row of bars has a time and four prices at least.
FEWEST_CELLS = 5
# A header is a line with so many names that are known.
NAMES_OF_A_HEADER = 2

KINDS = "Parquet, Feather, CSV or JSON"

_NUMBER = re.compile(r"\s*\$?[-+]?\d[\d.,]*(?:[eE][-+]?\d+)?\s*")
_CLOCK = re.compile(r"\d{1,2}:\d{2}.*")
_WEB_PAGE = re.compile(r"\s*<(?:!doctype|html|head|body|\?xml|!--)", re.IGNORECASE)


@dataclass(frozen=True)
class Table:
    """Cells as found: columns `0`, `1` … that are called `names`.

    Beside them stand `place`, the 1-based line or row in the file, and `more`: whether it has more cells than names.
    """

    names: tuple[str, ...]
    cells: pl.LazyFrame
    unit: str = "row"  # what `place` counts: row or line
    header: str = ""  # where the names stand, e.g. "line 2: "


def open_table(path: Path, columns: Mapping[str, str]) -> Table:
    """The cells of the file at `path`; `columns` helps to find the header. Raises BadBars, OSError, PolarsError."""
    if not path.exists():
        raise BadBars("no such file")
    if not path.is_file():
        raise BadBars("a folder, not a file" if path.is_dir() else "not a regular file")
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if head.startswith(b"PAR1"):
        return _typed(pl.scan_parquet(path, glob=False))
    if head.startswith(b"ARROW1"):
        return _typed(pl.scan_ipc(path))
    if head.startswith(b"\xff\xff\xff\xff"):
        return _typed(pl.read_ipc_stream(path).lazy())
    if head.startswith(b"FEA1"):
        raise BadBars(
            "Feather of the first version, which is no longer read: write it anew as Feather or Parquet"
        )
    if head.startswith(b"PK"):
        raise BadBars(f"an archive or a spreadsheet: unpack it, or save it as {KINDS}")
    if head.startswith(b"\x1f\x8b"):
        with gzip.open(path) as file:
            head = file.read(HEAD_BYTES)
    return _text(path, head, columns)


def _typed(frame: pl.LazyFrame) -> Table:
    names = tuple(frame.collect_schema().names())
    cells = frame.select(pl.col(name).alias(str(at)) for at, name in enumerate(names))
    return Table(names, cells.with_columns(more=False).with_row_index("place", offset=1))


# ---------------------------------------------------------------- text


def _text(path: Path, head: bytes, columns: Mapping[str, str]) -> Table:
    source: Path | bytes = path
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):  # as spreadsheets save "Unicode text"
        source = _whole(path).decode("utf-16", errors="replace").encode()
        head = source[:HEAD_BYTES]
    text = head.decode("utf-8-sig", errors="replace")
    if not text.strip():
        raise BadBars("the file is empty")
    if "\0" in text or text.count("\ufffd") * 10 > len(text):
        raise BadBars(f"line 1: neither text nor any other file of bars: {KINDS} is read")
    if _WEB_PAGE.match(text):
        raise BadBars("line 1: a web page, not bars")
    if text.lstrip()[0] in "[{":
        whole = source if isinstance(source, bytes) else _whole(path)
        return _json(whole.decode("utf-8-sig", errors="replace"))
    return _delimited(source, text, len(head) == HEAD_BYTES, columns)


def _whole(path: Path) -> bytes:
    data = path.read_bytes()
    return gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data


@dataclass(frozen=True)
class _Layout:
    """How a delimited text is laid out; lines are counted from 0."""

    delimiter: str
    header: int | None
    first: int | None  # the first row of numbers
    header_cells: tuple[str, ...]
    row: tuple[str, ...]  # one of the usual width

    @property
    def likeness(self) -> tuple[int, int]:
        return _numeric(self.row), len(self.header_cells)


def _delimited(source: Path | bytes, head: str, cut: bool, columns: Mapping[str, str]) -> Table:
    end = "\r" if "\r" in head and "\n" not in head else "\n"
    lines = head.split(end)[: -1 if cut else None][:HEAD_LINES]
    layout = max(
        (_layout(lines, delimiter, columns) for delimiter in DELIMITERS), key=lambda found: found.likeness
    )
    if layout.first is None and layout.header is None:
        raise BadBars(
            "line 1: neither names of columns such as ts, open, high, low, close nor rows of numbers"
        )
    names = _names(layout)
    start = layout.first if layout.header is None else layout.header + 1
    where = "" if layout.header is None else f"line {layout.header + 1}: "
    if start is None or not any(line.strip() for line in lines[start:]):
        raise BadBars(f"{where}no rows below the names")
    cells = pl.scan_csv(
        source,
        has_header=False,
        separator=layout.delimiter,
        quote_char='"' if '"' in head else None,
        eol_char=end,
        encoding="utf8-lossy",
        skip_lines=start,
        infer_schema=False,
        schema={**{str(at): pl.String() for at in range(len(names))}, "more": pl.String()},
        missing_columns="insert",
        truncate_ragged_lines=True,
        row_index_name="place",
        row_index_offset=start + 1,
        glob=False,
    )
    return Table(names, cells.with_columns(pl.col("more").is_not_null()), "line", where)


def _layout(lines: Sequence[str], delimiter: str, columns: Mapping[str, str]) -> _Layout:
    rows = [_cells(line, delimiter) for line in lines]
    bars = [at for at, row in enumerate(rows) if len(row) >= FEWEST_CELLS and _numeric(row) >= len(PRICES)]
    first = bars[0] if bars else None
    width = statistics.mode(len(rows[at]) for at in bars) if bars else 0
    above = range(len(rows) if first is None else first)
    header = max((at for at in above if names_of.known(rows[at], columns) >= NAMES_OF_A_HEADER), default=None)
    if header is None and first and _foreign_header(rows[first - 1], rows[first]):
        header = first - 1
    return _Layout(
        delimiter,
        header,
        first,
        () if header is None else rows[header],
        next((rows[at] for at in bars if len(rows[at]) == width), ()),
    )


def _cells(line: str, delimiter: str) -> tuple[str, ...]:
    return tuple(
        cell.strip() for row in csv.reader([line.replace("\r", " ")], delimiter=delimiter) for cell in row
    )


def _numeric(cells: Sequence[str]) -> int:
    return sum(_NUMBER.fullmatch(cell) is not None for cell in cells)


def _foreign_header(above: Sequence[str], row: Sequence[str]) -> bool:
    """Whether the line above the first row names its columns, in words that are not known."""
    return len(above) == len(row) and not any(cell[:1].isdigit() for cell in above)


def _names(layout: _Layout) -> tuple[str, ...]:
    names, row = layout.header_cells, layout.row
    if layout.header is None:
        return headerless(row)
    if len(row) <= len(names):
        return names
    if len(row) == len(names) + 1:
        if not row[-1]:  # every line ends with a delimiter
            return (*names, "")
        if _CLOCK.fullmatch(row[1]):  # one name stands over date and time
            return (names[0], "time", *names[1:])
        if not any(names_of.is_time(name) for name in names):  # an index without a name
            return ("", *names)
    place = (layout.first or 0) + 1
    raise BadBars(f"line {place}: {len(row)} cells below {len(names)} names")


def headerless(row: Sequence[Any]) -> tuple[str, ...]:
    """Names by position: time (or date and time), open, high, low, close, volume; what follows is called by number."""
    split = len(row) > FEWEST_CELLS and _CLOCK.fullmatch(str(row[1])) is not None
    usual = (*(("date", "time") if split else ("ts",)), *names_of.NEEDED, "volume")[: len(row)]
    return (*usual, *(str(number) for number in range(len(usual) + 1, len(row) + 1)))


# ---------------------------------------------------------------- JSON


def _json(text: str) -> Table:
    """Arrays of values without names, objects, an object of columns, or one object a line."""
    places: Sequence[int] | None = None
    try:
        found = json.loads(text)
    except RecursionError:
        raise BadBars("JSON, but nested too deeply to be bars") from None
    except json.JSONDecodeError as error:
        if error.msg != "Extra data":
            raise BadBars(f"line {error.lineno}, column {error.colno}: broken JSON: {error.msg}") from error
        places, found = _json_lines(text)
    if isinstance(found, dict):
        if {"columns", "data"} <= found.keys():
            return _of_rows([found["columns"], *found["data"]], None)
        lists = {name: value for name, value in found.items() if isinstance(value, list)}
        if len(lists) >= FEWEST_CELLS:
            return _of_columns(lists)
        maps = {name: value for name, value in found.items() if isinstance(value, dict)}
        if len(maps) >= FEWEST_CELLS:  # each column an object by index: the index is the time
            index = list(next(iter(maps.values())))
            by_name = {name: [value.get(key) for key in index] for name, value in maps.items()}
            return _of_columns({"": index, **by_name})
        if len(lists) == 1:  # rows wrapped into an answer
            found = next(iter(lists.values()))
    if not isinstance(found, list):
        raise BadBars("JSON, but not bars: an array of rows or an object of columns is needed")
    return _of_rows(found, places)


def _json_lines(text: str) -> tuple[list[int], list[Any]]:
    places, rows = [], []
    for number, line in enumerate(io.StringIO(text), 1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise BadBars(f"line {number}, column {error.colno}: broken JSON: {error.msg}") from error
            places.append(number)
    return places, rows


def _of_rows(rows: list[Any], places: Sequence[int] | None) -> Table:
    kind: type = type(rows[0]) if rows else list
    odd = next((at for at, row in enumerate(rows) if type(row) is not kind), None)
    if kind not in (list, dict) or odd is not None:
        raise BadBars(f"row {(odd or 0) + 1}: neither an array of values nor an object like the others")
    if kind is dict:
        names = tuple(dict.fromkeys(name for row in rows for name in row))
        return _of_columns({name: [row.get(name) for row in rows] for name in names}, places)
    header = bool(rows) and names_of.known([str(cell) for cell in rows[0]], {}) >= NAMES_OF_A_HEADER
    body = rows[1:] if header else rows
    if not body:
        raise BadBars("no rows")
    names = tuple(map(str, rows[0])) if header else headerless(max(body[:HEAD_LINES], key=len))
    if len(names) < FEWEST_CELLS:
        raise BadBars(
            f"row 1: {len(names)} values, but ts, open, high, low, close and perhaps volume are needed"
        )
    return _of_columns(
        {at: [row[at] if at < len(row) else None for row in body] for at in range(len(names))}, places, names
    )


def _of_columns(
    columns: Mapping[Any, list[Any]],
    places: Sequence[int] | None = None,
    names: tuple[str, ...] | None = None,
) -> Table:
    lengths = {len(values) for values in columns.values()}
    if len(lengths) > 1:
        raise BadBars(f"the columns are of different lengths: {', '.join(map(str, sorted(lengths)))}")
    cells = pl.DataFrame([_series(str(at), values) for at, values in enumerate(columns.values())])
    place = pl.int_range(1, pl.len() + 1) if places is None else pl.Series(places)
    placed = cells.lazy().with_columns(place=place, more=False)
    return Table(names or tuple(map(str, columns)), placed, "row" if places is None else "line")


def _series(name: str, values: list[Any]) -> pl.Series:
    """Values as numbers where all are, else as text; what is neither becomes null."""
    kinds = set(map(type, values))
    if kinds <= {int, float, type(None)}:
        whole = (
            kinds <= {int, type(None)} and max((abs(v) for v in values if v is not None), default=0) < 2**63
        )
        return pl.Series(name, values, dtype=pl.Int64 if whole else pl.Float64)
    texts = [str(value) if type(value) in (int, float, str) else None for value in values]
    return pl.Series(name, texts, dtype=pl.String)
