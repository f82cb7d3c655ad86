"""What a command writes: one JSON document for a program; plain lines, on a terminal a table, for a person."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any


def document(content: Any) -> None:
    """The one JSON document of a command, on stdout."""
    print(json.dumps(content, indent=2, allow_nan=False))


def line(text: str) -> None:
    """A line for a person, on stdout, at once."""
    print(text, flush=True)


def note(text: str) -> None:
    """A line about what goes on, on stderr, where it disturbs no document."""
    print(text, file=sys.stderr, flush=True)


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], empty: str = "none") -> None:
    """Rows under their columns: a table on a terminal, else aligned plain lines; `empty` where there are none."""
    cells = [[_cell(value) for value in row] for row in rows]
    if not cells:
        line(empty)
    elif sys.stdout.isatty():
        import rich.box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        drawn = Table(box=rich.box.SIMPLE_HEAD, pad_edge=False)
        for name in columns:
            drawn.add_column(name)
        for row in cells:
            drawn.add_row(*map(Text, row))  # Text: what a user named must not be read as markup
        Console().print(drawn)
    else:
        widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
        for row in [list(columns), *cells]:
            line("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip())


def facts(pairs: dict[str, object]) -> None:
    """Names and values, a line each."""
    width = max(map(len, pairs), default=0)
    for name, value in pairs.items():
        line(f"{name.ljust(width)}  {_cell(value)}")


@contextmanager
def progress(what: str) -> Iterator[Callable[[float], None]]:
    """A bar on stderr while the block runs, if that is a terminal; gives the function that takes 0 to 1."""
    if not sys.stderr.isatty():
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=1.0)
        yield lambda done: bar.update(task, completed=done)


def number(value: float | None, digits: int = 4) -> str:
    """A figure for a person; a dash where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"


def percent(value: float | None) -> str:
    """A share for a person; a dash where there is none."""
    return "-" if value is None else f"{100 * value:.1f} %"


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
