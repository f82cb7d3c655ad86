"""Times as people write them: epoch numbers, ISO text, dates only, split date and clock, with a zone or without.

A text is cut into date, clock and zone, and each distinct piece is read once. Teach it a way to write a date by
adding a row to DATES. What is not understood becomes null; a date that can be read in two ways raises Ambiguous.
"""

import re
from collections.abc import Callable
from datetime import date
from zoneinfo import ZoneInfo

import polars as pl

from model.bars import TS
from model.errors import BadBars, BadInput

SECOND = 1_000_000  # all counts here are microseconds
DAY = 86_400 * SECOND
_EPOCH = date(1970, 1, 1).toordinal()

# An epoch number below the bound counts units of so many microseconds; above the last bound, nanoseconds. Judged
# number by number, because real files change the unit halfway.
EPOCH_UNITS = ((1e11, SECOND), (1e14, 1_000), (1e17, 1))

# Digits that are a date, and perhaps a clock, when a whole column lies between the bounds and most of it makes sense
# so. As epoch numbers they would lie in 1970 and 1976.
COMPACT = (
    (19000101, 21001231, "%Y%m%d"),
    (190001010000, 210012312359, "%Y%m%d%H%M"),
    (19000101000000, 21001231235959, "%Y%m%d%H%M%S"),
)

_CLOCK = r"\d{1,2}:\d{2}(?::\d{2}(?:[.,]\d{1,9})?)?(?: ?[AaPp][Mm])?|\d{1,2}-[AaPp][Mm]"
_ZONE = r"Z|UTC|GMT|(?:UTC|GMT)?[+-]\d{2}(?::?\d{2})?"
_CUT = rf"^\s*(?:(\d{{8}})[T ](\d{{6}}|\d{{4}})|(.*?)(?:[T ,]+({_CLOCK})\s*({_ZONE})?)?)\s*$"

# How a date is written, and where day (d), month (m) and year (y) stand in it; "?" is settled by the whole column.
DATES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})"), "ymd"),
    (re.compile(r"(\d{4})(\d{2})(\d{2})"), "ymd"),
    (re.compile(r"(\d{1,2})[-/.](\d{1,2})[-/.](\d{4})"), "?"),
    (re.compile(r"(\d{1,2})[ -]([A-Za-z]{3,9})[ -](\d{4})"), "dmy"),
    (re.compile(r"([A-Za-z]{3,9})\.? (\d{1,2}),? (\d{4})"), "mdy"),
)
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")


class Ambiguous(BadBars):
    """A date that nobody can tell: `row` is where it stands, counted from 0."""

    def __init__(self, message: str, row: int) -> None:
        super().__init__(message)
        self.row = row


def moments(column: pl.Series, zone: str) -> pl.Series:
    """The instants (UTC) that `column` names, null where it names none; `zone` is that of times without one.

    Raises Ambiguous, and BadInput for an unknown zone.
    """
    if column.dtype == pl.Date() or isinstance(column.dtype, pl.Datetime):
        stamps = column.cast(pl.Datetime("us", getattr(column.dtype, "time_zone", None)))
        aware = stamps.dtype.time_zone is not None  # type: ignore[attr-defined]
        return stamps.dt.convert_time_zone("UTC") if aware else _placed(stamps, zone)
    numbers = _numbers(column)
    if numbers.null_count() == column.null_count():
        return _from_numbers(numbers, zone)
    texts = column if column.dtype == pl.String() else pl.Series([None] * len(column), dtype=pl.String)
    return pl.select(
        pl.when(pl.lit(numbers.is_null()))
        .then(pl.lit(_from_texts(texts.set(numbers.is_not_null(), None), zone)))
        .otherwise(pl.lit(_from_numbers(numbers, zone)))
    ).to_series()


def joined(dates: pl.Series, clocks: pl.Series, zone: str) -> pl.Series:
    """The instants (UTC) of a date column and a column with the time of day. Raises as `moments` does."""
    days = moments(dates, "UTC").dt.truncate("1d")
    stamps = pl.select(pl.lit(days.dt.epoch("us")) + pl.lit(_of_day(clocks))).to_series()
    return _placed(stamps.cast(pl.Datetime("us")), zone)


def is_clock(column: pl.Series) -> bool:
    """Whether most of `column` are times of day rather than instants."""
    return _of_day(column).count() * 2 > column.count()


def _numbers(column: pl.Series) -> pl.Series:
    """The column as integers where all its numbers are whole, else as floats; null where there is no number."""
    if column.dtype.is_integer():
        return column.cast(pl.Int64)
    if column.dtype.is_float() or column.dtype.is_decimal():
        return column.cast(pl.Float64).fill_nan(None)
    if column.dtype != pl.String():
        return pl.Series([None] * len(column), dtype=pl.Int64)
    column = column.str.strip_chars()
    whole = column.cast(pl.Int64, strict=False)
    broken = column.cast(pl.Float64, strict=False)
    return whole if whole.null_count() == broken.null_count() else broken


def _from_numbers(numbers: pl.Series, zone: str) -> pl.Series:
    """Instants of epoch numbers, or of digits such as 20240102."""
    low, high = numbers.min(), numbers.max()
    for first, last, written in COMPACT:
        if low is not None and first <= low and high <= last:  # type: ignore[operator]
            texts = numbers.cast(pl.Int64).cast(pl.String)
            parsed = texts.str.to_datetime(written, time_unit="us", strict=False)
            if parsed.count() * 2 > numbers.count():
                return _placed(parsed, zone)
    value = pl.col("value")
    unit = pl.coalesce(
        *(pl.when(value.abs() < bound).then(value * size) for bound, size in EPOCH_UNITS),
        value / 1_000 if numbers.dtype.is_float() else value // 1_000,
    )
    micros = numbers.to_frame("value").select(unit.round().cast(pl.Int64, strict=False)).to_series()
    return micros.cast(TS)


def _from_texts(texts: pl.Series, zone: str) -> pl.Series:
    pieces = texts.str.extract_groups(_CUT).struct.unnest()
    compact_date, compact_clock, dates, clocks, zones = (pieces[name] for name in pieces.columns)
    dates = dates.zip_with(dates.is_not_null(), compact_date)
    clocks = clocks.zip_with(clocks.is_not_null(), compact_clock)
    order = _order(dates)
    days = _each(dates, lambda text: _day(text, order))
    # a date alone is its midnight, a clock that is not understood spoils the row
    of_day = _of_day(clocks).zip_with(clocks.is_not_null(), pl.Series([0], dtype=pl.Int64))
    local = days + of_day
    if zones.null_count() == len(zones):
        return _placed(local.cast(pl.Datetime("us")), zone)
    known = (local - _each(zones, _offset)).cast(TS)
    return known.zip_with(zones.is_not_null(), _placed(local.cast(pl.Datetime("us")), zone))


def _placed(local: pl.Series, zone: str) -> pl.Series:
    """Instants of naive local times; null where the clock jumped over them.

    An hour that the clock repeats is told apart by its order in the file; one that stands there once is null.
    """
    if zone == "UTC":
        return local.dt.replace_time_zone("UTC")
    try:
        ZoneInfo(zone)
    except (LookupError, ValueError, OSError) as error:
        raise BadInput(f"unknown time zone {zone!r}: a name such as America/New_York") from error
    known = local.drop_nulls()
    falling = len(known) > 1 and known[0] > known[-1]
    stands = pl.col("local")
    choice = (
        pl.when(pl.len().over(stands) != 2)
        .then(pl.lit("null"))
        .when((stands.cum_count().over(stands) == 1) != falling)
        .then(pl.lit("earliest"))
        .otherwise(pl.lit("latest"))
    )
    placed = stands.dt.replace_time_zone(zone, ambiguous=choice, non_existent="null")
    return local.to_frame("local").select(placed.dt.convert_time_zone("UTC")).to_series()


def _each(texts: pl.Series, read: Callable[[str], int | None]) -> pl.Series:
    """`read` of every text, each distinct one read once."""
    distinct = texts.drop_nulls().unique()
    if distinct.is_empty():
        return pl.Series([None] * len(texts), dtype=pl.Int64)
    values = pl.Series([read(text) for text in distinct], dtype=pl.Int64)
    return texts.replace_strict(distinct, values, default=None, return_dtype=pl.Int64)


def _order(dates: pl.Series) -> str:
    """How dates such as 13/01/2024 are written in this column: "dmy" or "mdy". Raises Ambiguous."""
    pattern = next(pattern for pattern, order in DATES if order == "?")
    distinct = [(match, text) for text in dates.drop_nulls().unique() if (match := pattern.fullmatch(text))]
    day_first = any(int(match[1]) > 12 for match, _ in distinct)
    month_first = any(int(match[2]) > 12 for match, _ in distinct)
    if distinct and day_first == month_first:
        wanted = {text for _, text in distinct}
        row, text = next((i, text) for i, text in enumerate(dates) if text in wanted)
        why = "both orders stand in this column" if day_first else "it may be day or month first"
        raise Ambiguous(f"the date {text!r} cannot be told, {why}: write dates as 2024-01-31", row)
    return "dmy" if day_first else "mdy"


def _day(text: str, order: str) -> int | None:
    """Midnight of the date that `text` names, in microseconds since 1970."""
    for pattern, written in DATES:
        match = pattern.fullmatch(text.strip())
        if match is None:
            continue
        part = dict(zip(order if written == "?" else written, match.groups(), strict=True))
        name = part["m"][:3].lower()
        try:
            month = _MONTHS.index(name) + 1 if name.isalpha() else int(part["m"])
            return (date(int(part["y"]), month, int(part["d"])).toordinal() - _EPOCH) * DAY
        except ValueError:  # no such month or day
            return None
    return None


def _of_day(clocks: pl.Series) -> pl.Series:
    """Microseconds since midnight; null where there is no time of day."""
    if clocks.dtype == pl.Time():
        return clocks.cast(pl.Int64) // 1_000
    if not (clocks.dtype == pl.String() or clocks.dtype.is_integer()):
        return pl.Series([None] * len(clocks), dtype=pl.Int64)
    texts = clocks.cast(pl.String).str.strip_chars()
    digits = texts.cast(pl.Int64, strict=False)
    if digits.null_count() < len(digits):
        # 93000 has lost its leading zero; as hours and minutes it would be out of range
        width = 6 if (texts.str.len_chars().max() or 0) > 4 else 4  # type: ignore[operator]
        texts = texts.zip_with(digits.is_null(), texts.str.zfill(width))
    return _each(texts, _clock)


_CLOCK_PARTS = re.compile(
    r"(\d{1,2}):(\d{2})(?::(\d{2})(?:[.,](\d{1,9}))?)?(?: ?([AaPp])[Mm])?|(\d{1,2})-([AaPp])[Mm]"
    r"|(\d{2})(\d{2})(\d{2})?"
)


def _clock(text: str) -> int | None:
    match = _CLOCK_PARTS.fullmatch(text)
    if match is None:
        return None
    hour, minute = int(match[1] or match[6] or match[8]), int(match[2] or match[9] or 0)
    second, fraction = int(match[3] or match[10] or 0), (match[4] or "").ljust(6, "0")[:6]
    half = (match[5] or match[7] or "").lower()
    if half:
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + (12 if half == "p" else 0)
    of_day = ((hour * 60 + minute) * 60 + second) * SECOND + int(fraction)
    # 24:00 is how some write the last midnight
    return of_day if minute < 60 and second < 60 and of_day <= DAY else None


def _offset(text: str) -> int:
    """Microseconds east of Greenwich."""
    match = re.search(r"([+-])(\d{2}):?(\d{2})?", text)
    if match is None:
        return 0
    size = (int(match[2]) * 60 + int(match[3] or 0)) * 60 * SECOND
    return -size if match[1] == "-" else size
