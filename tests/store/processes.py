"""Several processes at once, let go together: what threads of one process cannot show."""

import multiprocessing
from collections.abc import Callable
from typing import Any

SPAWN = multiprocessing.get_context("spawn")
PATIENCE_SECONDS = 60


def at_once(work: Callable[..., None], *arguments: tuple[Any, ...]) -> None:
    """Runs `work(barrier, *arguments)` in a process for each of `arguments`; each must end well.

    `work` waits at the barrier where the processes are to go on together.
    """
    barrier = SPAWN.Barrier(len(arguments), timeout=PATIENCE_SECONDS)
    processes = [SPAWN.Process(target=work, args=(barrier, *given), daemon=True) for given in arguments]
    for process in processes:
        process.start()
    for process in processes:
        process.join(PATIENCE_SECONDS)
        if process.exitcode != 0:
            barrier.abort()  # nobody waits for one who will not come
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    assert codes == [0] * len(processes)
