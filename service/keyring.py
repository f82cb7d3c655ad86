"""The keys in a process's memory, so that no request waits for the database to be let in.

A thread reads them again twice a second, so that a revocation by another process is obeyed within one; a key that is
not known yet is looked for at once. While the database is away, what is known goes on to be used. Another thread notes
when keys were last used, since a write may have to wait for others.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from datetime import datetime

from starlette.concurrency import run_in_threadpool

import store.database
import store.keys
from model.errors import Unreachable
from service.deps import machine_now
from store.database import Engine
from store.keys import Key, Known

log = logging.getLogger(__name__)

# How often the keys are read again; a revocation is obeyed after that and the time of one read.
LOOK_SECONDS = 0.5
# How long a request with an unknown key waits for a reading under way, and the end for a last note.
WAIT_SECONDS = 2.0


class Keyring:
    """Verifies keys against memory. `mark` tells whether anything was committed, as a watch of store.changes has it."""

    def __init__(self, engine: Engine, mark: Callable[[], object]) -> None:
        self._engine, self._mark = engine, mark
        self._keys: Mapping[str, Known] = {}
        self._read_under: object = None  # the mark before the newest reading
        self._used: dict[str, datetime] = {}  # by prefix: uses to be noted
        self._reading, self._stop = threading.Lock(), threading.Event()
        self._threads: list[threading.Thread] = []

    async def verified(self, presented: str) -> Key | None:
        """The usable key whose text was presented, else None. The use is noted later.

        Raises Unreachable where a key is not known and the database cannot tell.
        """
        now = machine_now()
        key = store.keys.verify(self._keys, presented, now)
        if key is None:
            prefix = store.keys.prefix_of(presented)
            if prefix is None or prefix in self._keys:
                return None
            await run_in_threadpool(self.refresh)  # it may have been made a moment ago
            key = store.keys.verify(self._keys, presented, now)
        if key is not None and store.keys.use_is_due(key, now):
            self._used[key.prefix] = now
        return key

    def admits(self, prefix: str) -> bool:
        """Whether the key of that prefix is still usable, as far as is known: for what lasts longer than a request."""
        known = self._keys.get(prefix)
        return known is not None and store.keys.usable(known.key, machine_now())

    def refresh(self) -> None:
        """Reads the keys again if anything was committed since. Raises Unreachable."""
        if not self._reading.acquire(timeout=WAIT_SECONDS):
            raise Unreachable("the database does not answer: keys have been read for too long already")
        try:
            if self._mark() != self._read_under:
                self._read()
        finally:
            self._reading.release()

    def _read(self) -> None:
        mark = self._mark()
        with store.database.read(self._engine) as conn:
            self._keys = store.keys.known(conn)
        self._read_under = mark

    def start(self) -> None:
        """Starts to follow what is committed, and to note uses."""
        for work in (self._follow, self._note_uses):
            thread = threading.Thread(target=self._repeat, args=(work,), name="keyring", daemon=True)
            thread.start()
            self._threads.append(thread)

    def close(self) -> None:
        """Ends that, once the uses that were not noted yet are, if that takes no time."""
        self._stop.set()
        for thread in self._threads:
            thread.join(WAIT_SECONDS)

    def _repeat(self, work: Callable[[], None]) -> None:
        ended = False
        while not ended:
            ended = self._stop.wait(LOOK_SECONDS)
            try:
                work()
            except Unreachable as error:
                log.debug("%s: what is known of keys goes on to be used", error)
            except Exception:
                log.exception("the keys cannot be followed; it is tried again")

    def _follow(self) -> None:
        # whatever the mark says: who changes a key by other means than this program's need not tell
        with self._reading:
            self._read()

    def _note_uses(self) -> None:
        uses = {prefix: self._used.pop(prefix) for prefix in list(self._used)}
        if not uses:
            return
        with store.database.write(self._engine) as conn:
            known = store.keys.known(
                conn
            )  # the note before this one, or another process, may have noted it meanwhile
            for prefix, at in uses.items():
                key = known[prefix].key if prefix in known else None
                if key is not None and store.keys.use_is_due(key, at):
                    store.keys.note_use(conn, key, at)
