"""A process that belongs to the one that started it: a pipe between them closes with either, however it ends."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence

# -P: a folder named `model` or `store` where this was started must not be taken for ours
BARPROP = (sys.executable, "-P", "-m", "service.cli")
FLAG = "--parent-pipe"


def start(arguments: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Starts a command of ours that ends with this process; it must know FLAG."""
    return subprocess.Popen(
        [*BARPROP, *arguments, FLAG], stdin=subprocess.PIPE, env={**os.environ, **environment}
    )


def stop(process: subprocess.Popen[bytes], seconds: float) -> None:
    """Closes the pipe and waits; a process that takes longer is killed."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def watch(gone: Callable[[], None]) -> None:
    """Calls `gone`, from a thread, once the parent's end of the pipe (our stdin) is closed."""

    def wait() -> None:
        while os.read(sys.stdin.fileno(), 1024):
            pass
        gone()

    threading.Thread(target=wait, name="watch-parent", daemon=True).start()
