"""A file of bars says the same bars in whatever form; what cannot be understood is refused in one clear line."""

import gzip
import io
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from jobs.sources import files, times
from model.bars import BAR_SCHEMA, TS, check, timeframe
from model.errors import BadBars, BadInput
from tests import real_bars

a_busy_machine_may_be_slow = settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

NOBODY = 65_534
HOUR = timeframe("1h")
NAMES = ("ts", "open", "high", "low", "close", "volume")
# The 12th and the 13th of a month: one of them tells the day from the month.
START = datetime(2024, 1, 12, 1, tzinfo=UTC)
ROWS = [
    (
        START + timedelta(hours=i),
        1000.5 + i,
        1010.25 + i,
        990.125 + i,
        1001.0625 + i,
        float(10 * i),
    )
    for i in range(40)
]
BARS = pl.DataFrame(ROWS, schema=BAR_SCHEMA, orient="row")


@dataclass(frozen=True)
class Form:
    """A way to write BARS, and what must be said to read it."""

    write: Callable[[], str | bytes]
    options: dict[str, Any] = field(default_factory=dict)


def text(
    stamp: str | Callable[[datetime], str] = "%Y-%m-%d %H:%M:%S",
    *,
    header: str | None = ",".join(NAMES),
    sep: str = ",",
    number: Callable[[float], str] = repr,
    above: str = "",
    rows: list[tuple[Any, ...]] | None = None,
    row: Callable[[str, list[str]], list[str]] = lambda time, cells: [time, *cells],
    end: str = "\n",
) -> str:
    """The bars as delimited text."""
    write = stamp if callable(stamp) else lambda moment: moment.strftime(stamp)
    lines = [] if header is None else [header.replace(",", sep)]
    for moment, *values in ROWS if rows is None else rows:
        lines.append(sep.join(row(write(moment), [number(value) for value in values])))
    return above + end.join(lines) + end


def epoch(unit: int) -> Callable[[datetime], str]:
    return lambda moment: str(int(moment.timestamp()) * unit)


def local(zone: str, stamp: str = "%Y-%m-%d %H:%M:%S") -> Callable[[datetime], str]:
    return lambda moment: moment.astimezone(ZoneInfo(zone)).strftime(stamp)


def binary(write: Callable[[pl.DataFrame, io.BytesIO], object], frame: pl.DataFrame = BARS) -> bytes:
    buffer = io.BytesIO()
    write(frame, buffer)
    return buffer.getvalue()


def halves(moment: datetime) -> str:
    """Seconds in the older half of the file, milliseconds in the newer."""
    return epoch(1 if moment < ROWS[20][0] else 1000)(moment)


def objects(**renamed: str) -> list[dict[str, Any]]:
    return [
        {
            renamed.get(name, name): value
            for name, value in zip(NAMES, (epoch(1000)(r[0]), *r[1:]), strict=True)
        }
        for r in ROWS
    ]


MILLIS = [int(epoch(1000)(r[0])) for r in ROWS]
COLUMNS = {name: [r[at] for r in ROWS] for at, name in enumerate(NAMES) if at}
NAIVE = BARS.with_columns(pl.col("ts").dt.replace_time_zone(None))
MAPPED = {
    "ts": "Stand",
    "open": "Erster",
    "high": "Hoch",
    "low": "Tief",
    "close": "Letzter",
    "volume": "Stück",
}

FORMS = {
    # text
    "plain": Form(text),
    "unnamed first column": Form(lambda: text(header=",Open,High,Low,Close,Volume")),
    "names in any case": Form(lambda: text(header="DATE,OPEN,High,lOW,Close,VOL")),
    "names in brackets": Form(lambda: text(header="<TS>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<VOL>")),
    "one letter": Form(lambda: text(epoch(1), header="t,o,h,l,c,v")),
    "numbered names": Form(lambda: text(header="timestamp,1. open,2. high,3. low,4. close,5. volume")),
    "semicolons": Form(lambda: text(sep=";")),
    "tabs": Form(lambda: text(sep="\t")),
    "bars as delimiter": Form(lambda: text(sep="|")),
    "windows line ends": Form(lambda: text(end="\r\n")),
    "old line ends": Form(lambda: text(end="\r")),
    "no last line end": Form(lambda: text().rstrip("\n")),
    "byte order mark": Form(lambda: text().encode("utf-8-sig")),
    "utf-16": Form(lambda: text(sep="\t").encode("utf-16")),
    "gzipped": Form(lambda: gzip.compress(text().encode())),
    "web address above": Form(lambda: text(above="https://www.example.com\n")),
    "junk above": Form(lambda: text(above="Export of 2024-02-01\n\n;;\nSymbol: X, Y, Z\n")),
    "newest first": Form(lambda: text(rows=ROWS[::-1])),
    "quoted": Form(lambda: text(number=lambda value: f'"{value}"')),
    "every line ends with a delimiter": Form(lambda: text(row=lambda time, cells: [time, *cells, ""])),
    "an index without a name": Form(lambda: text(header=",".join(NAMES[1:]))),
    "blank lines": Form(lambda: text().replace("\n", "\n\n")),
    "other columns": Form(
        lambda: text(header="n,date,Adj Close,close,open,high,low,trades,volume",
                     row=lambda time, c: ["7", time, "1", c[3], c[0], c[1], c[2], "5", c[4]]),
    ),
    "volume in two currencies": Form(
        lambda: text(header="date,open,high,low,close,Volume USDT,Volume BTC",
                     row=lambda time, c: [time, *c[:4], "77", c[4]]),
    ),
    "symbol tells the base": Form(
        lambda: text(header="unix,symbol,open,high,low,close,Volume USD,Volume USDT",
                     row=lambda time, c: [time, "USDT/USD", *c[:4], "77", c[4]]),
    ),
    # numbers
    "decimal commas": Form(lambda: text(sep=";", number=lambda value: repr(value).replace(".", ","))),
    "thousands": Form(lambda: text(number=lambda value: f'"{value:,}"')),
    "dollars": Form(lambda: text(number=lambda value: f"${value}")),
    "blanks around": Form(lambda: text(sep=" ; ")),
    "exponents": Form(lambda: text(number=lambda value: f"{value:.9e}")),
    # times
    "headerless, epoch s": Form(lambda: text(epoch(1), header=None)),
    "headerless, epoch ms": Form(lambda: text(epoch(10**3), header=None)),
    "headerless, epoch us": Form(lambda: text(epoch(10**6), header=None)),
    "headerless, epoch ns": Form(lambda: text(epoch(10**9), header=None)),
    "headerless, as exchanges export": Form(
        lambda: text(epoch(1000), header=None, row=lambda time, c: [time, *c, str(int(time) + 3599999), "7", "8"]),
    ),
    "seconds, then milliseconds": Form(lambda: text(halves, header="unix,open,high,low,close,volume")),
    "epoch with a fraction": Form(lambda: text(lambda moment: f"{moment.timestamp():.3f}")),
    "iso with Z": Form(lambda: text("%Y-%m-%dT%H:%M:%SZ")),
    "iso with micros and offset": Form(lambda: text(lambda m: m.astimezone(ZoneInfo("Asia/Kolkata")).isoformat())),
    "offset west of Greenwich": Form(lambda: text(local("America/St_Johns", "%Y-%m-%dT%H:%M:%S%z"))),
    "zone named": Form(lambda: text("%Y-%m-%d %H:%M:%S UTC")),
    "offset after GMT": Form(lambda: text(local("Asia/Tokyo", "%d.%m.%Y %H:%M:%S.000 GMT%z"))),
    "minutes only": Form(lambda: text("%Y/%m/%d %H:%M")),
    "month first": Form(lambda: text("%m/%d/%Y %H:%M")),
    "day first": Form(lambda: text("%d.%m.%Y %H:%M:%S.000")),
    "month by name": Form(lambda: text("%d-%b-%Y %H:%M:%S")),
    "american": Form(lambda: text("%b %d %Y %I:%M:%S %p")),
    "hours of twelve": Form(lambda: text("%Y-%m-%d %I-%p")),
    "local times": Form(lambda: text(local("America/New_York")), {"tz": "America/New_York"}),
    "zone wins over tz": Form(lambda: text("%Y-%m-%d %H:%M:%S+00:00"), {"tz": "America/New_York"}),
    "digits only": Form(lambda: text("%Y%m%d%H%M%S")),
    "digits only, minutes": Form(lambda: text("%Y%m%d%H%M")),
    "compact date and clock": Form(lambda: text("%Y%m%d %H%M%S", header=None, sep=";")),
    "date and clock in two columns": Form(lambda: text("%Y-%m-%d,%H:%M:%S", header="Date,Time," + ",".join(NAMES[1:]))),
    "one name over both": Form(lambda: text("%Y-%m-%d,%H:%M:%S", header="Date," + ",".join(NAMES[1:]))),
    "headerless, two columns": Form(lambda: text("%Y.%m.%d,%H:%M", header=None)),
    "digits in two columns": Form(lambda: text("%Y%m%d,%H%M%S", header="Date,Time," + ",".join(NAMES[1:]))),
    "a clock without its zero": Form(
        lambda: text(lambda m: f"{m:%Y%m%d},{int(m.strftime('%H%M%S'))}", header="Date,Time," + ",".join(NAMES[1:])),
    ),
    "closes": Form(lambda: text(lambda m: f"{m + timedelta(hours=1):%Y-%m-%d %H:%M}"), {"stamp": "close"}),
    "unusual names": Form(lambda: text(header="Stand,Erster,Hoch,Tief,Letzter,Stück"), {"columns": MAPPED}),
    "unusual names of two columns": Form(
        lambda: text("%Y-%m-%d,%H:%M:%S", header="Tag,Zeit," + ",".join(NAMES[1:])),
        {"columns": {"date": "Tag", "time": "Zeit"}},
    ),
    # JSON
    "arrays": Form(lambda: json.dumps([[ms, *r[1:]] for ms, r in zip(MILLIS, ROWS, strict=True)])),
    "arrays of text": Form(lambda: json.dumps([[ms, *map(str, r[1:])] for ms, r in zip(MILLIS, ROWS, strict=True)])),
    "arrays under names": Form(
        lambda: json.dumps([["Time", *NAMES[1:]], *([ms, *r[1:]] for ms, r in zip(MILLIS, ROWS, strict=True))]),
    ),
    "objects": Form(lambda: json.dumps(objects())),
    "objects, many lines": Form(lambda: json.dumps(objects(ts="openTime"), indent=2)),
    "an object a line": Form(lambda: "\n".join(map(json.dumps, objects()))),
    "columns": Form(lambda: json.dumps({"ts": MILLIS, **COLUMNS})),
    "columns of an answer": Form(
        lambda: json.dumps({"s": "ok", "t": MILLIS, **{name[0]: values for name, values in COLUMNS.items()}}),
    ),
    "columns by index": Form(
        lambda: json.dumps({n: dict(zip(map(str, MILLIS), values, strict=True)) for n, values in COLUMNS.items()}),
    ),
    "split": Form(
        lambda: json.dumps({"columns": NAMES, "data": [[ms, *r[1:]] for ms, r in zip(MILLIS, ROWS, strict=True)]}),
    ),
    "rows in an answer": Form(lambda: json.dumps({"code": 0, "data": objects()})),
    "gzipped JSON": Form(lambda: gzip.compress(json.dumps(objects()).encode())),
    # columns with types
    "parquet": Form(lambda: binary(pl.DataFrame.write_parquet)),
    "feather": Form(lambda: binary(pl.DataFrame.write_ipc)),
    "arrow stream": Form(lambda: binary(pl.DataFrame.write_ipc_stream)),
    "parquet, naive": Form(lambda: binary(pl.DataFrame.write_parquet, NAIVE)),
    "parquet, nanoseconds in another zone": Form(
        lambda: binary(pl.DataFrame.write_parquet,
                       BARS.with_columns(pl.col("ts").cast(pl.Datetime("ns", "UTC")).dt.convert_time_zone("Asia/Tokyo"))),
    ),
    "parquet, a stored index": Form(lambda: binary(pl.DataFrame.write_parquet, NAIVE.rename({"ts": "__index_level_0__"}))),
    "parquet, epoch and short names": Form(
        lambda: binary(pl.DataFrame.write_parquet,
                       BARS.with_columns(pl.col("ts").dt.epoch("ms")).rename({"ts": "Open time"})),
    ),
    "parquet, text": Form(lambda: binary(pl.DataFrame.write_parquet, NAIVE.cast(pl.String))),
    "parquet, small floats": Form(
        lambda: binary(pl.DataFrame.write_parquet, BARS.cast({pl.Float64: pl.Float32}).cast({"volume": pl.Int32})),
    ),
    "feather, date and clock": Form(
        lambda: binary(pl.DataFrame.write_ipc, NAIVE.select(pl.col("ts").dt.date().alias("date"),
                                                            pl.col("ts").dt.time().alias("time"), *NAMES[1:])),
    ),
}  # fmt: skip


def write(folder: Path, content: str | bytes, name: str = "bars.csv") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(folder: Path, content: str | bytes, bars_timeframe: str = "1h", **options: Any) -> pl.DataFrame:
    return files.read(write(folder, content), timeframe=timeframe(bars_timeframe), **options)


@pytest.mark.parametrize("name", FORMS)
def test_the_same_bars_in_whatever_form(tmp_path: Path, name: str) -> None:
    rows = read(tmp_path, FORMS[name].write(), **FORMS[name].options)
    assert rows.schema == BAR_SCHEMA
    assert rows.sort("ts").equals(BARS)


def test_the_name_of_a_file_tells_nothing(tmp_path: Path) -> None:
    for name, form in (("bars.txt", "parquet"), ("bars.parquet", "arrays"), ("bars[1]*.json", "plain")):
        path = write(tmp_path, FORMS[form].write(), name)
        assert files.read(path, timeframe=HOUR).sort("ts").equals(BARS)


def test_no_volume_is_volume_nought(tmp_path: Path) -> None:
    without = text(header=",".join(NAMES[:-1]), row=lambda time, cells: [time, *cells[:-1]])
    empty = text(row=lambda time, cells: [time, *cells[:-1], ""])
    left_out = text()
    expected = BARS.with_columns(volume=pl.lit(0.0))
    assert read(tmp_path, without).equals(expected)
    assert read(tmp_path, empty).equals(expected)
    assert read(tmp_path, left_out, columns={"volume": ""}).equals(expected)


def test_dates_alone_are_their_midnights(tmp_path: Path) -> None:
    days = [(date(2024, 1, 12) + timedelta(days=i), *r[1:]) for i, r in enumerate(ROWS[:9])]
    expected = [datetime(2024, 1, 12, tzinfo=UTC) + timedelta(days=i) for i in range(9)]
    for stamp in ("%Y-%m-%d", "%Y%m%d", "%m/%d/%Y", "%d %b %Y", "%B %d, %Y"):
        content = text(stamp, rows=days, sep=";")
        assert read(tmp_path, content, "1d")["ts"].to_list() == expected
    frame = pl.DataFrame(days, schema=["date", *NAMES[1:]], orient="row")
    assert read(tmp_path, binary(pl.DataFrame.write_parquet, frame), "1d")["ts"].to_list() == expected


# ---------------------------------------------------------------- zones and closes


def stamps(*moments: str) -> str:
    return "time,open,high,low,close\n" + "".join(f"{moment},1,2,0.5,1\n" for moment in moments)


def opened(rows: pl.DataFrame) -> list[str | None]:
    return rows["ts"].dt.strftime("%m-%d %H:%M").to_list()


def test_an_hour_that_the_clock_repeats_is_told_by_its_order(tmp_path: Path) -> None:
    moments = [f"2024-11-03 {hour}:30" for hour in ("00", "01", "01", "02")]
    utc = ["11-03 04:30", "11-03 05:30", "11-03 06:30", "11-03 07:30"]
    assert opened(read(tmp_path, stamps(*moments), tz="America/New_York")) == utc
    assert opened(read(tmp_path, stamps(*moments[::-1]), tz="America/New_York")) == utc[::-1]


def test_an_hour_that_cannot_be_told_is_no_time(tmp_path: Path) -> None:
    skipped = read(tmp_path, stamps("2024-03-10 01:30", "2024-03-10 02:30"), tz="America/New_York")
    assert opened(skipped) == ["03-10 06:30", None]
    once = read(tmp_path, stamps("2024-11-03 00:30", "2024-11-03 01:30"), tz="America/New_York")
    assert opened(once) == ["11-03 04:30", None]


def test_a_close_less_a_month_is_the_month_before(tmp_path: Path) -> None:
    rows = read(tmp_path, stamps("2024-03-01", "2024-02-01", "2024-01-01"), "1M", stamp="close")
    assert opened(rows) == ["02-01 00:00", "01-01 00:00", "12-01 00:00"]


def test_a_close_less_a_day_is_a_day_of_its_zone(tmp_path: Path) -> None:
    # the 10th had 23 hours in New York
    rows = read(tmp_path, stamps("2024-03-11"), "1d", stamp="close", tz="America/New_York")
    assert opened(rows) == ["03-10 05:00"]


STAMPS = {
    "%Y-%m-%d %H:%M:%S": lambda m: m,
    "%Y-%m-%dT%H:%M:%S.%fZ": lambda m: m,
    "%Y/%m/%d %H:%M:%S.%f": lambda m: m,
    "%Y%m%d %H%M%S": lambda m: m,
    "%d %B %Y %H:%M:%S": lambda m: m,
    "%b %d, %Y %I:%M:%S %p": lambda m: m,
    "%Y-%m-%dT%H:%M:%S%z": lambda m: m.astimezone(ZoneInfo("Australia/Adelaide")),
}


@pytest.mark.parametrize("stamp", STAMPS)
@a_busy_machine_may_be_slow
@given(micros=st.lists(st.integers(10**15, 7 * 10**15), min_size=1, max_size=9))
def test_a_time_is_what_it_was_before_it_was_written(stamp: str, micros: list[int]) -> None:
    moments = [datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=count) for count in micros]
    whole = moments if "%f" in stamp else [moment.replace(microsecond=0) for moment in moments]
    written = pl.Series([STAMPS[stamp](m).strftime(stamp) for m in whole])
    assert times.moments(written, "UTC").to_list() == whole


@given(
    st.lists(st.integers(3 * 10**8, 4 * 10**9), min_size=1, max_size=9),
    st.sampled_from([1, 10**3, 10**6, 10**9]),
)
def test_epoch_numbers_are_told_by_their_size(seconds: list[int], unit: int) -> None:
    expected = [datetime.fromtimestamp(s, UTC) for s in seconds]
    numbers = pl.Series([s * unit for s in seconds])
    assert times.moments(numbers, "UTC").to_list() == expected
    assert times.moments(numbers.cast(pl.String), "UTC").to_list() == expected


@given(st.lists(st.floats(1e-12, 1e12), min_size=4, max_size=4))
@a_busy_machine_may_be_slow
def test_a_price_keeps_its_last_bit(tmp_path: Path, prices: list[float]) -> None:
    written = text(rows=[(START, *prices, 1.0)])
    assert read(tmp_path, written).row(0)[1:5] == tuple(prices)


# ---------------------------------------------------------------- bad rows


def judged(folder: Path, content: str | bytes) -> tuple[int, dict[str, int]]:
    """How many bars of a file may be kept, and how many rows were refused for what."""
    bars, rejections = check(read(folder, content), HOUR, datetime(2025, 1, 1, tzinfo=UTC))
    return len(bars), {found.reason: found.rows for found in rejections}


@pytest.mark.parametrize(
    ("cell", "reason"),
    [("1005.5", "not_finite"), ("2024-01-12 06:00:00", "no_time")],
)
@pytest.mark.parametrize("nothing", ["n/a", "", "null", "-", "#VALUE!"])
def test_one_bad_cell_costs_its_row_alone(tmp_path: Path, cell: str, reason: str, nothing: str) -> None:
    content = text()
    assert content.count(cell) == 1
    assert judged(tmp_path, content.replace(cell, nothing)) == (39, {reason: 1})


def test_a_row_of_another_width_costs_itself_alone(tmp_path: Path) -> None:
    lines = text().splitlines()
    lines[5] += ",99"
    lines[9] = lines[9].rsplit(",", 2)[0]
    assert judged(tmp_path, "\n".join(lines)) == (38, {"not_finite": 2})
    wide = text(
        header="n,ts,open,high,low,close,volume", row=lambda time, cells: ["7", time, *cells]
    ).splitlines()
    wide[5] += ",99"
    assert judged(tmp_path, "\n".join(wide)) == (39, {"not_finite": 1})


def test_the_first_row_may_be_the_bad_one(tmp_path: Path) -> None:
    lines = text().splitlines()
    lines[1] = "2024-01-12 01:00:00,n/a,n/a,n/a,n/a,n/a"
    assert judged(tmp_path, "\n".join(lines)) == (39, {"not_finite": 1})


def test_a_footer_is_no_bar(tmp_path: Path) -> None:
    assert judged(tmp_path, text() + "Total\n") == (40, {"no_time": 1})


def test_bytes_that_are_no_text_cost_their_row_alone(tmp_path: Path) -> None:
    assert judged(tmp_path, text().encode().replace(b"1005.5", b"\xff\xfe")) == (39, {"not_finite": 1})


def test_a_null_in_json_costs_its_row_alone(tmp_path: Path) -> None:
    rows = objects()
    rows[3]["close"] = None
    del rows[4]["close"]
    rows[5]["close"] = True
    assert judged(tmp_path, json.dumps(rows)) == (37, {"not_finite": 3})


# ---------------------------------------------------------------- refusals

HEADER = ",".join(NAMES) + "\n"
PARQUET = binary(pl.DataFrame.write_parquet)

REFUSED: dict[str, tuple[str | bytes, str]] = {
    "a web page": ("<!doctype html><html><body>429 Too Many Requests</body></html>\n", "line 1: a web page, not bars"),
    "empty": ("", "the file is empty"),
    "blank": (" \n\n", "the file is empty"),
    "header only": (HEADER, "line 1: no rows below the names"),
    "header and blanks": (HEADER + "\n\n", "line 1: no rows below the names"),
    "words": (HEADER + "2024-01-01 00:00:00,one,two,three,four,five\n", "line 2: open is 'one', not a number"),
    "no number": (HEADER + "\n2024-01-01,1,2,0.5,inf,5\n", "line 3: close is 'inf', not a number"),
    "no time": (HEADER + "yesterday,1,2,0.5,1,5\n", "line 2: the time 'yesterday' is not understood"),
    "no such day": (HEADER + "2024-02-30,1,2,0.5,1,5\n", "line 2: the time '2024-02-30' is not understood"),
    "no such hour": (HEADER + "2024-02-03 25:00,1,2,0.5,1,5\n", "line 2: the time '2024-02-03 25:00' is not understood"),
    "no close": (
        "ts,open,high,low,volume\n2024-01-01 00:00:00,1,2,0.5,10\n",
        "line 1: no column for close among 'ts', 'open', 'high', 'low', 'volume'; name it with --columns close=NAME",
    ),
    "no time column": ("open,high,low,close,volume\n1,2,0.5,1,10\n", "line 1: no column for the time among"),
    "two closes": ("ts,open,high,low,close,Close\n2024-01-01,1,2,0.5,1,10\n", "line 1: two columns may be close"),
    "foreign names": ("Datum;Eins;Zwei;Drei;Vier\n2024-01-01;1;2;0.5;1\n", "line 1: no column for the time among 'Datum'"),
    "other text": ("Dear all,\nplease find the bars attached.\n", "line 1: neither names of columns such as"),
    "too many cells": (HEADER + "7,8,2024-01-01,1,2,0.5,1,5\n", "line 2: 8 cells below 6 names"),
    "day or month": (
        HEADER + "01/02/2024,1,2,0.5,1,5\n01/03/2024,1,2,0.5,1,5\n",
        "line 2: the date '01/02/2024' cannot be told, it may be day or month first: write dates as 2024-01-31",
    ),
    "day and month": (
        HEADER + "2024-01-01,1,2,0.5,1,5\n13/02/2024,1,2,0.5,1,5\n02/13/2024,1,2,0.5,1,5\n",
        "line 3: the date '13/02/2024' cannot be told, both orders stand in this column",
    ),
    "commas of unknown meaning": ("ts;open;high;low;close\n2024-01-01;1,234;1,235;1,230;1,231\n", "line 2: open is '1,234'"),
    "torn JSON": ('[[1509836520000, 0.1, 0.1, 0.1, 0.1, 1.0], [15098', "line 1, column 50: broken JSON"),
    "torn JSON lines": ('{"ts": 1}\n{"ts"', "line 2, column 6: broken JSON"),
    "JSON without bars": ('{"error": "rate limit"}', "JSON, but not bars"),
    "JSON numbers": ("[1, 2]", "row 1: neither an array of values nor an object"),
    "JSON of two kinds": ('[[1, 2, 3, 4, 5], {"ts": 1}]', "row 2: neither an array of values nor an object"),
    "JSON, empty": ("[]", "no rows"),
    "JSON, narrow": ("[[1, 2, 3]]", "row 1: 3 values, but ts, open, high, low, close"),
    "JSON, uneven": (json.dumps({n: [1] * (i + 1) for i, n in enumerate(NAMES)}), "the columns are of different lengths: 1, 2, 3, 4, 5, 6"),
    "JSON, nested": ("[" * 100_000, "JSON"),
    "JSON words": ('[[1509836520000, "x", 0.1, 0.1, 0.1, 1.0]]', "row 1: open is 'x', not a number"),
    "rubbish": (bytes(range(256)) * 9, "line 1: neither text nor any other file of bars"),
    "an archive": (b"PK\x03\x04 and so on", "an archive or a spreadsheet"),
    "old feather": (b"FEA1 and so on", "Feather of the first version"),
    "torn gzip": (gzip.compress(text().encode())[:-200], "damaged or not readable"),
    "gzipped rubbish": (b"\x1f\x8b\x08 and so on", "damaged or not readable"),
    "torn parquet": (PARQUET[: len(PARQUET) // 2], "damaged or not readable"),
    "torn feather": (binary(pl.DataFrame.write_ipc)[:900], "damaged or not readable"),
    "parquet without rows": (binary(pl.DataFrame.write_parquet, BARS.clear()), "no rows"),
    "parquet of another thing": (
        binary(pl.DataFrame.write_parquet, pl.DataFrame({"ts": [1], "open": [[1.0]], "high": [True], "low": [1], "close": [1]})),
        "row 1: open is",
    ),
    "an open quote": (HEADER + '"2024-01-01,1,2,0.5,1,5\n2024-01-02,1,2,0.5,1,5\n', "damaged or not readable"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_understood_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    content, reason = REFUSED[name]
    with pytest.raises(BadBars) as caught:
        read(tmp_path, content)
    said = str(caught.value)
    assert said.startswith(f"bars.csv: {reason}")
    assert "\n" not in said


def test_a_file_that_is_not_there_or_no_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadBars, match=r"^nowhere\.csv: no such file$"):
        files.read(tmp_path / "nowhere.csv", timeframe=HOUR)
    with pytest.raises(BadBars, match=rf"^{tmp_path.name}: a folder, not a file$"):
        files.read(tmp_path, timeframe=HOUR)


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, text())
    path.chmod(0)
    me = os.geteuid()
    if me == 0:
        os.seteuid(NOBODY)  # root may read everything
    try:
        with pytest.raises(BadBars, match=r"^bars\.csv: .*Permission denied$"):
            files.read(path, timeframe=HOUR)
    finally:
        os.seteuid(me)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (
            {"columns": {"close": "PX"}},
            "line 1: no column 'PX', asked for as close; the columns are 'ts', 'open'",
        ),
        (
            {"columns": {"clse": "low"}},
            "line 1: --columns names 'clse', which is none of ts, date, time, open",
        ),
        ({"tz": "Nowhere/Else"}, "unknown time zone 'Nowhere/Else'"),
        ({"stamp": "middle"}, "a stamp is open or close, not 'middle'"),
    ],
)
def test_what_was_said_wrongly_is_named(tmp_path: Path, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadInput) as caught:
        read(tmp_path, text(), **options)
    assert reason in str(caught.value)


@example(b"\n\r\x01")  # a lone carriage return among other line ends
@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
@a_busy_machine_may_be_slow
def test_any_bytes_are_read_or_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    said = ""
    try:
        read(tmp_path, content)
    except BadBars as error:
        said = str(error)
    assert len(said.splitlines()) <= 1


# ---------------------------------------------------------------- symbols


def test_a_file_tells_the_symbols_that_it_names(tmp_path: Path) -> None:
    named = text(
        header="unix,symbol,open,high,low,close,volume", row=lambda time, cells: [time, "BTC/USDT", *cells]
    )
    path = write(tmp_path, named)
    assert files.load(path, timeframe=HOUR).symbols == ("BTC/USDT",)
    assert files.load(path, timeframe=HOUR, columns={"symbol": ""}).symbols == ()
    assert files.load(write(tmp_path, text()), timeframe=HOUR).symbols == ()


@pytest.mark.parametrize("named", ["BTC/USDT", "btc-usdt", "BINANCE:BTCUSDT", "BTC/USDT:USDT", "BTCUSDT.P"])
def test_signs_and_exchanges_make_no_other_symbol(named: str) -> None:
    assert files.same_symbol(named, "BTCUSDT")
    assert not files.same_symbol(named, "ETHUSDT")
    assert not files.same_symbol(named, "USDT1")


# ---------------------------------------------------------------- real files

# Counted by another reader: file, timeframe, rows, first and last open time.
REAL = (
    ("raw/cryptodatadownload_BTCUSDT_1h.csv", "1h", 16319, "2020-08-02 02:00", "2022-06-13 00:00"),
    ("raw/freqtrade_UNITTEST_BTC_1m.json", "1m", 13681, "2017-11-04 23:02", "2017-11-14 22:59"),
    ("raw/backtrader_2006_1m_split_date_time.txt", "1m", 30889, "2006-01-02 09:01", "2006-02-27 22:00"),
    ("raw/backtestingpy_EURUSD_1h.csv", "1h", 5000, "2017-04-19 09:00", "2018-02-07 15:00"),
    ("ETHUSDT_1h.parquet", "1h", 37992, "2020-03-01 00:00", "2024-06-30 23:00"),
    ("BNBUSDT_1h.parquet", "1h", 37992, "2020-03-01 00:00", "2024-06-30 23:00"),
    ("EURUSD_1h.parquet", "1h", 5000, "2017-04-19 09:00", "2018-02-07 15:00"),
    ("GOOG_1d.parquet", "1d", 2148, "2004-08-19 00:00", "2013-03-01 00:00"),
    ("ORCL_1d.parquet", "1d", 5036, "1995-01-03 00:00", "2014-12-31 00:00"),
    ("GBPUSD_1m.parquet", "1m", 30117, "2012-02-01 00:00", "2012-03-01 00:00"),
    ("BTCPERP_1m.parquet", "1m", 45031, "2021-12-31 23:01", "2022-02-01 05:31"),
)  # fmt: skip


@pytest.mark.parametrize(("name", "bars_timeframe", "rows", "first", "last"), REAL, ids=[r[0] for r in REAL])
def test_real_files_go_in_as_they_are(
    name: str, bars_timeframe: str, rows: int, first: str, last: str
) -> None:
    length = timeframe(bars_timeframe)
    found = files.read(real_bars.path(name), timeframe=length)
    bars, rejected = check(found, length, datetime(2025, 1, 1, tzinfo=UTC))
    assert (len(bars), rejected) == (rows, ())
    assert [f"{bars['ts'][at]:%Y-%m-%d %H:%M}" for at in (0, -1)] == [first, last]


def test_a_real_text_and_its_parquet_are_the_same_bars() -> None:
    raw = files.read(real_bars.path("raw/backtestingpy_EURUSD_1h.csv"), timeframe=HOUR)
    assert raw.equals(real_bars.bars("EURUSD_1h").cast({"ts": TS}).select(NAMES))
