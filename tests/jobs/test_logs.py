"""A record is one line that speaks to nobody but its reader."""

import logging
import sys

import pytest

from jobs.logs import LINE, OneLine


def line(message: str, error: BaseException | None = None) -> str:
    """The record as it is written."""
    info = None if error is None else (type(error), error, error.__traceback__)
    return OneLine(LINE).format(logging.LogRecord("a", logging.ERROR, "f", 1, "%s", (message,), info))


BREAKS = ["\n", "\r", "\r\n", "\x1b[2J", "\x9b1A", "\x00", "\x08", "\x85", "\u2028", "\u202e", "\ud800"]


@pytest.mark.parametrize("text", BREAKS, ids=ascii)
def test_nothing_that_is_logged_ends_the_line_or_moves_the_cursor(text: str) -> None:
    for written in (line(f"one{text}ERROR forged"), line("failed", ValueError(f"one{text}ERROR forged"))):
        assert written.isprintable()
        assert "one" in written
        assert "ERROR forged" in written


def test_what_can_be_read_stays_as_it_is() -> None:
    assert line("no market ÉTÉ 1h: 90 % → “ingest”").endswith("ERROR a: no market ÉTÉ 1h: 90 % → “ingest”")


def test_an_error_is_told_with_its_type_and_its_place() -> None:
    try:
        raise KeyError("who")
    except KeyError as error:
        written = line("it failed", error)
    place = f"test_logs.py:{sys._getframe().f_lineno - 3}"
    assert f"it failed: KeyError: 'who' (at {place})" in written
