"""What a process of Barprop writes to stderr: one line a record, never a traceback."""

import logging
import sys
import traceback
from pathlib import Path

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
        return printable(text if error is None else f"{text}: {described(error)}")


def printable(text: str) -> str:
    """`text` with a space for each character that could end the line or speak to the terminal."""
    return "".join(character if character.isprintable() else " " for character in text)


def described(error: BaseException) -> str:
    """An error that nobody foresaw as one line: type, message, and the innermost places that it passed."""
    frames = traceback.extract_tb(error.__traceback__)[: -PLACES - 1 : -1]
    places = " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames)
    return f"{type(error).__name__}: {' '.join(str(error).split())} (at {places or 'an unknown place'})"


def to_stderr(level: str) -> None:
    """Sends this process's logs from `level` on to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine(LINE))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in QUIET:
        logging.getLogger(name).setLevel("ERROR")
