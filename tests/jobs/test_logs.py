"""A record is one line that speaks to nobody but its reader."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

import pytest

from jobs.logs import FORMS, LINE, OneLine, OneObject
from store import context
from store.settings import Log


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


def as_object(message: str, error: BaseException | None = None, **more: object) -> dict[str, Any]:
    """The record as a program reads it."""
    info = None if error is None else (type(error), error, error.__traceback__)
    record = logging.LogRecord("a", logging.ERROR, "f", 1, "%s", (message,), info)
    record.__dict__.update(more)
    written = OneObject().format(record)
    assert written.isprintable()
    return dict(json.loads(written))


@pytest.mark.parametrize("text", BREAKS, ids=ascii)
def test_an_object_is_one_line_whatever_is_logged(text: str) -> None:
    assert as_object(f"one{text}two")["message"] == f"one{text}two"
    assert "one" in as_object("failed", ValueError(f"one{text}two"))["error"]


def test_an_object_has_the_keys_that_a_program_looks_for() -> None:
    before = datetime.now(UTC)
    content = as_object("done", fields={"status": 200, "seconds": 0.5})
    assert before <= datetime.fromisoformat(content.pop("time")) <= datetime.now(UTC)
    assert content == {"level": "ERROR", "logger": "a", "message": "done", "status": 200, "seconds": 0.5}


def test_an_error_in_an_object_has_its_type_and_its_place() -> None:
    try:
        raise KeyError("who")
    except KeyError as error:
        content = as_object("it failed", error)
    assert content["message"] == "it failed"
    assert content["error"].startswith("KeyError: 'who' (at test_logs.py:")


def test_both_forms_name_the_request_and_the_job() -> None:
    request, job = context.request_id.set("mine-1"), context.job_id.set(7)
    try:
        content, written = as_object("done"), line("done")
    finally:
        context.request_id.reset(request)
        context.job_id.reset(job)
    assert (content["request_id"], content["job_id"]) == ("mine-1", 7)
    assert written.endswith("ERROR a: done [request_id mine-1] [job_id 7]")
    assert line("done").endswith("ERROR a: done")


def test_every_form_that_a_setting_may_name_is_there() -> None:
    assert set(FORMS) == set(Log.model_fields["format"].annotation.__args__)  # type: ignore[union-attr]
