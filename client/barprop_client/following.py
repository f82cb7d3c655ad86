"""A stream of Signals over as many connections as it takes, the same for both clients: opens again where it broke."""

import json
import logging
from collections.abc import Iterator

import httpx

from barprop_client import asking, reading, wire
from barprop_client.asking import Ask
from barprop_client.errors import UnexpectedAnswer
from barprop_client.events import Events
from barprop_client.retrying import Attempts, Retries, may_pass, retry_after
from barprop_client.values import Entry

log = logging.getLogger("barprop_client")

# The service sends a heartbeat far more often: a connection as quiet as this is dead.
SILENCE_SECONDS = 60.0


class Following:
    """Where a reader of the stream is. Until it was open once, the deadline holds; from then on it never gives up."""

    def __init__(
        self, url: str, retries: Retries, symbol: str | None, timeframe: str | None, after: int | None
    ) -> None:
        self._url = url
        self._retries = retries
        self._market = (symbol, timeframe)
        self._last = None if after is None else str(after)
        self._opened = False
        self._events = Events()
        self._attempts = Attempts(retries)

    def ask(self) -> Ask[Entry]:
        """The request that goes on after the last Signal that was read."""
        self._events = Events()
        return asking.signals(*self._market, self._last)

    def timeout(self, connect_seconds: float) -> httpx.Timeout:
        """Time limits of one connection."""
        return httpx.Timeout(connect_seconds, read=SILENCE_SECONDS if self._opened else connect_seconds)

    def open(self, response: httpx.Response) -> bool:
        """Whether this response is the stream. Raises UnexpectedAnswer where it is a success of another kind."""
        if not response.is_success:
            return False
        kind = response.headers.get("content-type", "")
        if not kind.startswith("text/event-stream"):
            raise UnexpectedAnswer(f"{self._url}/v1/signals answers {kind or 'nothing'} instead of events")
        self._opened = True
        return True

    def feed(self, chunk: bytes) -> Iterator[Entry]:
        """The Signals that these bytes complete."""
        self._attempts = Attempts(self._retries)
        for event in self._events.feed(chunk):
            if event.kind != "signal":
                continue
            try:
                entry = reading.entry(json.loads(event.data))
            except wire.UNREADABLE as error:
                raise UnexpectedAnswer(f"a Signal of the stream cannot be read: {error!r}") from error
            yield entry
        self._last = self._events.last_id or self._last

    def pause(self, broken: wire.Result) -> float:
        """Seconds until the stream should be opened again. Raises where that would be in vain."""
        asked_for = self._events.retry_seconds
        if isinstance(broken, httpx.Response) and not broken.is_success:
            if not may_pass(broken.status_code, broken.headers):
                raise wire.refusal(broken)
            asked_for = retry_after(broken.headers)
        wait = self._attempts.next_wait(asked_for)
        if wait is None and not self._opened:
            raise (
                wire.refusal(broken)
                if isinstance(broken, httpx.Response)
                else wire.unreachable(broken, self._url)
            )
        if wait is None:
            wait = self._retries.wait(self._attempts.failed, asked_for)
        log.warning("the stream of %s broke; opening it again in %.1f s", self._url, wait)
        return wait
