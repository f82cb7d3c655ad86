"""Between requests as values and httpx, the same for both clients: where to, with which key, and what came of it."""

import os
import re
from collections.abc import MutableMapping
from importlib.metadata import PackageNotFoundError, version
from typing import TypeVar
from urllib.parse import urlsplit

import httpx

from barprop_client import reading
from barprop_client.asking import Ask
from barprop_client.errors import Problem, UnexpectedAnswer, Unreachable
from barprop_client.retrying import Attempts, may_pass, retry_after
from barprop_client.values import Signal

T = TypeVar("T")
Result = httpx.Response | httpx.RequestError
Kept = MutableMapping[tuple[str, str], tuple[str, Signal]]  # by market: the newest Signal and its ETag
UNREADABLE = (ValueError, KeyError, TypeError, AttributeError)


def base(url: str) -> str:
    """The service's address. Raises ValueError where it is none, or holds a password, which errors would show."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url!r} is no address of a service; one is like http://127.0.0.1:8000")
    if parts.username is not None or parts.password is not None:
        raise ValueError("an address must hold no password; give the key as api_key or by BARPROP_API_KEY")
    return url.rstrip("/")


def headers(api_key: str | None) -> dict[str, str]:
    """What every request carries; the key is the argument's, else that of BARPROP_API_KEY, else there is none."""
    try:
        agent = f"barprop-client/{version('barprop-client')}"
    except PackageNotFoundError:  # imported from a checkout
        agent = "barprop-client"
    key = (api_key if api_key is not None else os.environ.get("BARPROP_API_KEY", "")).strip()
    if not key:
        return {"user-agent": agent}
    if not re.fullmatch(r"[!-~]+", key):
        raise ValueError("the API key holds a character that no key has: is it quoted, or two in one?")
    return {"user-agent": agent, "authorization": f"Bearer {key}"}


def delay(ask: Ask[T], attempts: Attempts, result: Result) -> float | None:
    """Seconds until the next attempt; None where this result is the last one."""
    if isinstance(result, httpx.RequestError):
        return attempts.next_wait()
    if result.status_code in ask.answers or not may_pass(result.status_code, result.headers):
        return None
    return attempts.next_wait(retry_after(result.headers))


def response(result: Result, url: str) -> httpx.Response:
    """The response. Raises Unreachable where there is none."""
    if isinstance(result, httpx.RequestError):
        raise unreachable(result, url)
    return result


def unreachable(error: httpx.RequestError, url: str) -> Unreachable:
    """The error of a request that got no answer. It is not chained to httpx's, which holds the key's header."""
    return Unreachable(f"{url} does not answer: {str(error) or type(error).__name__}")


def answer(ask: Ask[T], response: httpx.Response) -> T:
    """The value that was asked for. Raises Problem where it was refused, UnexpectedAnswer where it cannot be read."""
    if not response.is_success and response.status_code not in ask.answers:
        raise refusal(response)
    try:
        return ask.read(None if response.status_code == 304 else response.json())
    except UNREADABLE as error:
        said = f"{response.status_code} {response.headers.get('content-type', 'without a type')}"
        raise UnexpectedAnswer(
            f"{ask.method} {ask.path} was answered by {said} that cannot be read: {error!r}"
        ) from error


def refusal(response: httpx.Response) -> Problem:
    """The problem that a response is, its body having been read."""
    try:
        said = response.json()
    except ValueError:
        said = None
    return reading.problem(said, response.status_code, response.headers.get("x-request-id"))


def keep(kept: Kept, market: tuple[str, str], response: httpx.Response, found: Signal | None) -> Signal:
    """The Signal of a conditional request: the one that came, or the one that still holds."""
    if found is None:
        return kept[market][1]
    if "etag" in response.headers:
        kept[market] = (response.headers["etag"], found)
    return found
