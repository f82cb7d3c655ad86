"""The stream of Signals, read for as long as everything else is asked."""

import threading
import time
from dataclasses import dataclass, field

import httpx

SILENT_SECONDS = 60.0  # of a stream that has heartbeats: it is dead


@dataclass
class Heard:
    """What came over the stream."""

    events: int = 0
    newest: int = 0  # id
    longest_wait_seconds: float = 0.0
    failures: list[str] = field(default_factory=list)


def keep_listening(url: str, heard: Heard, over: threading.Event) -> None:
    """Reads the stream until it is over; one that ends before, or repeats an event, has failed."""
    last, ident = time.monotonic(), 0
    try:
        with httpx.stream("GET", f"{url}/v1/signals", timeout=SILENT_SECONDS) as response:
            response.raise_for_status()
            for line in response.iter_lines():
                if over.is_set():
                    return
                if line.startswith("id: "):
                    ident = int(line.removeprefix("id: "))
                elif line.startswith("event: "):
                    now = time.monotonic()
                    heard.longest_wait_seconds = max(heard.longest_wait_seconds, now - last)
                    heard.events, last = heard.events + 1, now
                    if ident <= heard.newest:
                        heard.failures.append(f"event {ident} came after {heard.newest}")
                    heard.newest = ident
            heard.failures.append("the stream ended")
    except httpx.HTTPError as error:
        heard.failures.append(repr(error))
