"""When to ask again, and after how long. Pure, but for chance and the clock of durations."""

import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

# The service is overloaded, or its database is away; or a proxy (502, 504) waits for it to come back.
LATER = frozenset({429, 502, 503, 504})


@dataclass(frozen=True)
class Retries:
    """How long a call may take in all, and how attempts are spaced: doubling, up to a longest wait, with jitter."""

    deadline_seconds: float = 30.0
    first_wait_seconds: float = 0.2
    longest_wait_seconds: float = 5.0

    def wait(self, attempt: int, retry_after: float) -> float:
        """Seconds before attempt `attempt` + 1 (1: the first has failed), never shorter than the service asked for."""
        longest = min(self.longest_wait_seconds, self.first_wait_seconds * 2 ** min(attempt - 1, 30))
        return max(retry_after, random.uniform(longest / 2, longest))  # noqa: S311  spreads bots, hides nothing


@dataclass
class Attempts:
    """The attempts of one call: counts them, and knows how much of the deadline is left."""

    retries: Retries
    began: float = field(default_factory=time.monotonic)
    failed: int = 0

    def left(self) -> float:
        """Seconds until the deadline."""
        return self.began + self.retries.deadline_seconds - time.monotonic()

    def within(self, timeout_seconds: float) -> float:
        """The time limit of one attempt, which ends with the call's; never 0, which would be no attempt."""
        return max(min(timeout_seconds, self.left()), 0.01)

    def next_wait(self, retry_after: float = 0.0) -> float | None:
        """How long to wait before the next attempt, or None where it would begin after the deadline."""
        self.failed += 1
        wait = self.retries.wait(self.failed, retry_after)
        return wait if wait < self.left() else None


def may_pass(status: int, headers: Mapping[str, str]) -> bool:
    """Whether the same request may be answered later. A 409 that names a time is of a request still at work."""
    return status in LATER or (status == 409 and "retry-after" in headers)


def retry_after(headers: Mapping[str, str]) -> float:
    """Seconds that the answer asks to wait, 0 where it does not say."""
    text = headers.get("retry-after", "").strip()
    if text.isdecimal():
        return float(text[:9])
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    return max((at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds(), 0.0)
