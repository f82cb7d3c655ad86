"""The `barprop` command: the composition root, the one place that may import both `jobs` and `service`.

Add a command by adding a module with its function and a row below. A command's own module imports only what its
arguments need; all that is heavy is imported inside the function, so that `barprop --help` stays quick.

Exit codes: 0 done (an abstention too), 1 refused by the facts, 2 wrong usage, 3 database or service not
reachable, 130 interrupted.
"""

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from model.errors import BarpropError, Unreachable
from service.cli import (
    audit,
    backtest,
    config,
    db,
    demo,
    doctor,
    features,
    ingest,
    keys,
    markets,
    predict,
    replay,
    schedules,
    serve,
    train,
    tune,
    versions,
    worker,
)

REFUSED, USAGE, UNREACHABLE, INTERRUPTED = 1, 2, 3, 130

app = typer.Typer(
    name="barprop",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
for command in (
    demo.demo,
    serve.serve,
    worker.worker,
    ingest.ingest,
    train.train,
    predict.predict,
    backtest.backtest,
    tune.tune,
    replay.replay,
    doctor.doctor,
    audit.audit,
):
    app.command()(command)
for group in (
    features.app,
    markets.app,
    versions.app,
    schedules.app,
    keys.app,
    db.app,
    config.app,
):
    app.add_typer(group)


def _show_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"barprop {version('barprop')}")
        raise typer.Exit


@app.callback()
def barprop(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Price bars in, calibrated up/down probabilities out, by a network that keeps learning.

    \b
    See it work, without network or set-up:
      barprop demo
    With bars of your own:
      barprop ingest bars.csv ETHUSDT 1h
      barprop train ETHUSDT 1h
      barprop serve
      barprop predict ETHUSDT 1h

    A market is two arguments: a symbol and the length of its bars. Settings come from a TOML file and from
    BARPROP_SECTION__KEY in the environment; `barprop config show` shows them. `barprop --install-completion` makes
    your shell complete commands, options and markets. Exit codes: 0 done, 1 refused by
    the facts, 2 wrong usage, 3 database or service not reachable, 130 interrupted.
    """


def run(arguments: Sequence[str]) -> int:
    """Runs one command line and gives its exit code. An error is one plain line on stderr, never a traceback."""
    try:
        code = app(list(arguments) or ["--help"], prog_name="barprop", standalone_mode=False)
        sys.stdout.flush()
        if code == INTERRUPTED:  # what the framework makes of a KeyboardInterrupt
            raise KeyboardInterrupt
    except typer.TyperException as error:
        where = getattr(getattr(error, "ctx", None), "command_path", "barprop")
        return _refuse(f"{error.format_message()} (see {where} --help)", error.exit_code)
    except Unreachable as error:
        return _refuse(str(error), UNREACHABLE)
    except BarpropError as error:
        return _refuse(str(error), REFUSED)
    except (KeyboardInterrupt, typer.Abort):
        return _refuse("interrupted", INTERRUPTED)
    except BrokenPipeError:  # the reader of a pipe, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        return _refuse(f"{name}{error.strerror or error}", REFUSED)
    except Exception as error:
        from jobs.logs import described

        return _refuse(f"a fault of the program itself, {described(error)}", REFUSED)
    return code if isinstance(code, int) else 0


def _refuse(text: str, code: int) -> int:
    print(f"barprop: {' '.join(text.split())}", file=sys.stderr)
    return code


def main() -> None:
    """The console script."""
    sys.exit(run(sys.argv[1:]))
