"""Who may ask what: pure ASGI around the whole service. Add a right by adding a row to SCOPES.

On loopback no key is needed, but the request must be meant for this machine: its Host is a loopback name (DNS
rebinding) and its Origin, where there is one, is loopback too (cross-site posts). Where keys are required, a request
brings `Authorization: Bearer bp_…` with the scope of its route; a browser that opens a page may give the key as the
password of its own prompt instead (Basic, reading only, since browsers send it along from any site).
"""

import base64
import binascii
import re
import time
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import ip_address
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from model.errors import BadInput
from service import limits, problems
from service.keyring import Keyring
from store.audit import LOOPBACK
from store.settings import Settings

# Answered whoever asks: a supervisor's question whether the process lives.
OPEN = frozenset({"/livez", "/v2/health/live"})
READING = frozenset({"GET", "HEAD", "OPTIONS"})
# First row that fits; of what no row names, reading needs `read`, the rest `admin`.
SCOPES: tuple[tuple[str, re.Pattern[str], str], ...] = (
    ("GET", re.compile(r"/v1/(keys|audit)"), "admin"),
    ("GET", re.compile(r"/v1/signals(/[^/]+/[^/]+)?"), "predict"),  # they have answers made, for the ledger
    ("POST", re.compile(r"/v1/predict(/batch)?"), "predict"),
    ("POST", re.compile(r"/v2/models/[^/]+(/versions/[^/]+)?/infer"), "predict"),
    ("POST", re.compile(r"/v1/(bars|backfills)"), "ingest"),
    ("POST", re.compile(r"/v1/(retrains|backtests|tunes)"), "train"),
    ("DELETE", re.compile(r"/v1/jobs/[^/]+"), "train"),
    ("POST", re.compile(r"/v1/versions/[^/]+/promote"), "admin"),
    ("POST", re.compile(r"/v1/markets/[^/]+/[^/]+/rollback"), "admin"),
)

# What every answer bears, unless its route says otherwise.
HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[^:\[\]/@\s]+)(:\d{1,5})?")


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine and nothing else."""
    name = host.removeprefix("[").removesuffix("]").lower()
    if name == "localhost":
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


def may_bind(host: str, keys_exist: bool) -> None:
    """Raises BadInput where the service would listen beyond this machine without one usable key."""
    if not is_loopback(host) and not keys_exist:
        raise BadInput(
            f"will not listen on {host} without keys, since anybody there could ask and train: "
            "make one with `barprop keys create`, or keep to 127.0.0.1"
        )


def keys_required(settings: Settings) -> bool:
    """Beyond loopback always, on loopback where the settings say so."""
    return settings.service.require_keys or not is_loopback(settings.service.host)


@lru_cache(4096)
def scope_of(method: str, path: str) -> str:
    """The scope that a request needs."""
    verb = "GET" if method in READING else method
    found = next((s for v, place, s in SCOPES if v == verb and place.fullmatch(path)), None)
    return found or ("read" if verb == "GET" else "admin")


class Headers(NamedTuple):
    """Those of a request's headers that decide whether it passes."""

    hosts: list[bytes]
    origins: list[bytes]
    authorization: bytes | None
    length: int  # of the body, as far as it is told beforehand
    has_body: bool


class Gate:
    """ASGI middleware: who may pass, how much they may ask and send, and the headers that every answer bears.

    Who asks is left in the request's state as `actor`: the prefix of a key, or "loopback" where none is needed.
    """

    def __init__(self, app: ASGIApp, settings: Settings, keyring: Keyring) -> None:
        self.app = app
        self.keyring = keyring
        self.keys_required = keys_required(settings)
        self.rate = limits.rate(settings.service, self.keys_required)
        self.max_body_bytes = settings.service.max_body_bytes
        self.body_seconds = settings.service.body_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers with a problem or lets the request pass."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # what no rule here looks at may not pass
            await WebSocketClose()(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = {name for name, _ in message["headers"]}
                added = [header for header in HEADERS if header[0] not in present]
                message = {**message, "headers": [*message["headers"], *added]}
            await send(message)

        headers = _headers(scope["headers"])
        refusal = await self._refusal(scope, headers)
        if refusal is not None:
            await refusal(scope, receive, with_headers)
            return
        if headers.has_body or scope["method"] not in READING:
            receive = limits.body(receive, self.max_body_bytes, self.body_seconds)
        await self.app(scope, receive, with_headers)

    async def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        if scope["path"] in OPEN:
            return None
        if self.keys_required:
            refusal = await self._without_right(scope, headers)
        else:
            refusal = _foreign(headers) or self._too_often((scope.get("client") or ("unknown",))[0])
            scope.setdefault("state", {})["actor"] = LOOPBACK
        if refusal is None and headers.length > self.max_body_bytes:
            said = limits.too_large(self.max_body_bytes)
            return problems.answer("too-large", said, headers={"connection": "close"})
        return refusal

    async def _without_right(self, scope: Scope, headers: Headers) -> Response | None:
        method = scope["method"]
        presented = _presented(headers.authorization, method)
        key = None if presented is None else await self.keyring.verified(presented)
        if key is None:
            detail = "no key was given" if presented is None else "the key is unknown, expired or revoked"
            ask = (
                "Bearer"
                if method not in READING or scope["path"].startswith("/v1/")
                else 'Basic realm="Barprop"'
            )
            told = {"www-authenticate": ask}
            if (
                headers.has_body
            ):  # of which nothing is read, so that a stranger cannot hold a connection by it
                told["connection"] = "close"
            return problems.answer("not-authenticated", detail, headers=told)
        scope.setdefault("state", {})["actor"] = key.prefix
        needed = scope_of(method, scope["path"])
        if needed not in key.scopes:
            detail = f"this needs the scope {needed!r}; the key {key.prefix} has {', '.join(key.scopes)}"
            return problems.answer("missing-scope", detail)
        return self._too_often(key.prefix)

    def _too_often(self, asker: str) -> Response | None:
        if self.rate is None:
            return None
        wait = self.rate.wait(asker, time.monotonic())
        return self.rate.refusal(asker, wait) if wait else None


def _headers(sent: Iterable[tuple[bytes, bytes]]) -> Headers:
    hosts, origins, authorization = [], [], None
    length, has_body = 0, False
    for name, value in sent:
        if name == b"host":
            hosts.append(value)
        elif name == b"content-length":
            length = int(value) if value.isdigit() and len(value) < 20 else 0
            has_body = has_body or value != b"0"
        elif name == b"authorization":
            authorization = authorization or value
        elif name == b"origin":
            origins.append(value)
        elif name == b"transfer-encoding":
            has_body = True
    return Headers(hosts, origins, authorization, length, has_body)


def _foreign(headers: Headers) -> Response | None:
    """The refusal of a request that was not meant for this machine by this machine, or None."""
    hosts = headers.hosts
    if len(hosts) != 1 or not _is_loopback_host(hosts[0]):
        given = ", ".join(host.decode("latin-1") for host in hosts)
        return problems.answer(
            "foreign-host", f"host {given or 'not given'!r} is not this machine's loopback"
        )
    for origin in headers.origins:
        if not _is_loopback_origin(origin):
            return problems.answer("foreign-origin", f"origin {origin.decode('latin-1')!r} is another site")
    return None


@lru_cache(256)
def _is_loopback_host(host: bytes) -> bool:
    match = _HOST.fullmatch(host.decode("latin-1"))
    return match is not None and is_loopback(match["name"])


@lru_cache(256)
def _is_loopback_origin(origin: bytes) -> bool:
    try:
        parts = urlsplit(origin.decode("latin-1"))
        return parts.scheme in ("http", "https") and is_loopback(parts.hostname or "")
    except ValueError:
        return False


def _presented(authorization: bytes | None, method: str) -> str | None:
    """The key that a request brings, or None."""
    kind, _, value = (authorization or b"").decode("latin-1").partition(" ")
    if kind.lower() == "bearer":
        return value.strip() or None
    if kind.lower() == "basic" and method in READING:
        try:
            return base64.b64decode(value, validate=True).decode().partition(":")[2] or None
        except (binascii.Error, UnicodeDecodeError):
            return None
    return None


# What the gate may answer to any request, and what only to one with a body.
ANSWERS = problems.responses(
    "not-authenticated", "missing-scope", "foreign-host", "foreign-origin", "too-many-requests", "unreachable"
)
ANSWERS_TO_A_BODY = problems.responses("too-slow", "too-large")


def describe(openapi: dict[str, Any]) -> dict[str, Any]:
    """`openapi` with the key that routes ask for and with the problems that the gate answers."""
    schemes = openapi.setdefault("components", {}).setdefault("securitySchemes", {})
    schemes["key"] = {"type": "http", "scheme": "bearer", "description": "Needed beyond loopback: `bp_…`"}
    for path, operations in openapi["paths"].items():
        if path in OPEN:
            continue
        for operation in operations.values():
            operation["security"] = [{"key": []}, {}]
            answers = ANSWERS | (ANSWERS_TO_A_BODY if "requestBody" in operation else {})
            for status, answer in answers.items():
                _add_answer(operation["responses"], str(status), answer["description"])
    return openapi


def _add_answer(responses: dict[str, Any], status: str, said: str) -> None:
    there = responses.get(status)
    if there is None:
        schema = {"$ref": "#/components/schemas/Problem"}
        responses[status] = {
            "description": said,
            "content": {problems.MEDIA_TYPE: {"schema": schema}},
        }
    elif said not in there["description"]:
        there["description"] += f", or: {said}"
