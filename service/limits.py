"""How much one asker may ask, and how long a body may take to arrive."""

import asyncio
import math

from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Message, Receive

from service import problems
from store.settings import Service

# Where nothing is said: so many requests a second for each key, none of whom a bot that works comes near.
PER_SECOND_OF_A_KEY = 1_000.0
# Askers remembered before those that have rested are forgotten.
MOST_REMEMBERED = 10_000


class Rate:
    """A token bucket for each asker of this process: `burst` requests at once, then `per_second`.

    A bucket is one number, the moment at which it will be full again, so that a request costs a dictionary's look-up.
    """

    def __init__(self, per_second: float, burst: int) -> None:
        self.per_second, self.burst = per_second, burst
        self._interval = 1 / per_second
        self._depth = (burst - 1) * self._interval + 1e-9
        self._full_at: dict[str, float] = {}

    def wait(self, asker: str, now: float) -> float:
        """Takes a token and gives 0, or gives the seconds until there is one; `now` is a monotonic clock's."""
        full_at = max(self._full_at.get(asker, now), now)
        if full_at - now > self._depth:
            return full_at - now - self._depth
        if len(self._full_at) >= MOST_REMEMBERED and asker not in self._full_at:
            self._full_at = {who: at for who, at in self._full_at.items() if at > now}
        self._full_at[asker] = full_at + self._interval
        return 0.0

    def refusal(self, asker: str, wait: float) -> Response:
        """The answer to who asked too much."""
        seconds = max(1, math.ceil(wait))
        window = max(1, math.ceil(self.burst / self.per_second))
        return problems.answer(
            "too-many-requests",
            f"{asker} may ask {self.per_second:g} times a second, and {self.burst} times at once",
            headers={
                "retry-after": str(seconds),
                "ratelimit-policy": f'"requests";q={self.burst};w={window}',
                "ratelimit": f'"requests";r=0;t={seconds}',
            },
        )


def rate(service: Service, with_keys: bool) -> Rate | None:
    """The rate that the settings name; None where there is no limit."""
    per_second = service.requests_per_second
    if per_second is None:
        per_second = PER_SECOND_OF_A_KEY if with_keys else 0.0
    return Rate(per_second, service.burst) if per_second else None


def body(receive: Receive, most_bytes: int, seconds: float) -> Receive:
    """`receive` of a body that may have so many bytes and must have arrived after so many seconds."""
    deadline = asyncio.get_running_loop().time() + seconds
    seen = 0
    arrived = False

    async def limited() -> Message:
        nonlocal seen, arrived
        if arrived:  # what comes now is the end of the connection, however long that takes
            return await receive()
        try:
            async with asyncio.timeout_at(deadline):
                message = await receive()
        except TimeoutError:
            raise HTTPException(
                408, f"the body had not arrived after {seconds:g} s", headers={"connection": "close"}
            ) from None
        arrived = not message.get("more_body", False)
        seen += len(message.get("body", b""))
        if seen > most_bytes:
            raise HTTPException(413, too_large(most_bytes), headers={"connection": "close"})
        return message

    return limited


def too_large(most_bytes: int) -> str:
    """What is said of a body that has more bytes."""
    return f"the body is larger than {most_bytes} bytes"
