"""What a process of Barprop writes to stderr: one line a record, never a traceback. Add a form by adding a row to FORMS.

A record that has more to tell than its message brings it as `extra={"fields": {…}}`: the console has it in the
message already, and JSON as keys of their own. Each record also names the request or job that it was written for.
"""

import json
import logging
import sys
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from store import context
from store.settings import Log

LINE = "%(asctime)s %(levelname)s %(name)s: %(message)s"
# They speak of what is ours to say: a firing that is still at work, a connection that was opened.
QUIET = ("apscheduler", "alembic", "httpx", "httpcore")
PLACES = 3  # of an unforeseen error: how many calls are named


class OneLine(logging.Formatter):
    """A record as one line; of an exception its type, its message and where it came from."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        error = record.exc_info[1] if record.exc_info else None
        plain = logging.makeLogRecord(
            {**record.__dict__, "exc_info": None, "exc_text": None, "stack_info": None}
        )
        text = super().format(plain)
        told = "".join(f" [{name} {value}]" for name, value in _done_for().items())
        return printable((text if error is None else f"{text}: {described(error)}") + told)


class OneObject(logging.Formatter):
    """A record as one JSON object a line; nothing in it can end the line, since JSON escapes it."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        content: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **_done_for(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[1] is not None:
            content["error"] = described(record.exc_info[1])
        return json.dumps(content, default=str)


FORMS: dict[str, Callable[[], logging.Formatter]] = {
    "console": lambda: OneLine(LINE),
    "json": OneObject,
}


def _done_for() -> dict[str, str | int]:
    named = {"request_id": context.request_id.get(), "job_id": context.job_id.get()}
    return {name: value for name, value in named.items() if value is not None}


def printable(text: str) -> str:
    """`text` with a space for each character that could end the line or speak to the terminal."""
    return "".join(character if character.isprintable() else " " for character in text)


def described(error: BaseException) -> str:
    """An error that nobody foresaw as one line: type, message, and the innermost places that it passed."""
    frames = traceback.extract_tb(error.__traceback__)[: -PLACES - 1 : -1]
    places = " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames)
    return f"{type(error).__name__}: {' '.join(str(error).split())} (at {places or 'an unknown place'})"


def to_stderr(settings: Log) -> None:
    """Sends this process's logs to stderr, from the level on and in the form that the settings name."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(FORMS[settings.format]())
    logging.basicConfig(level=settings.level, handlers=[handler], force=True)
    for name in QUIET:
        logging.getLogger(name).setLevel("ERROR")
