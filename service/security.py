"""Who may ask what: pure ASGI around the whole service. Add a right by adding a row to SCOPES.

On loopback no key is needed, but the request must be meant for this machine: its Host is a loopback name (DNS
rebinding) and its Origin, where there is one, is loopback too (cross-site posts). Where keys are required, a request
brings `Authorization: Bearer bp_…` with the scope of its route; a browser that opens a page may give the key as the
password of its own prompt instead (Basic, reading only, since browsers send it along from any site).
"""

import base64
import binascii
import re
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketClose

import store.database
import store.keys
from model.errors import BadInput
from service import problems
from service.deps import machine_now
from store.database import Engine
from store.keys import Key
from store.settings import Settings

# Answered whoever asks: a supervisor's question whether the process lives.
OPEN = frozenset({"/livez"})
READING = frozenset({"GET", "HEAD", "OPTIONS"})
# First row that fits; reading needs `read`, and what no row names needs `admin`.
SCOPES: tuple[tuple[str, re.Pattern[str], str], ...] = (
    ("POST", re.compile(r"/v1/predict"), "predict"),
    ("POST", re.compile(r"/v1/bars"), "ingest"),
    ("POST", re.compile(r"/v1/(retrains|backtests)"), "train"),
    ("DELETE", re.compile(r"/v1/jobs/[^/]+"), "train"),
    ("POST", re.compile(r"/v1/versions/[^/]+/promote"), "admin"),
    ("POST", re.compile(r"/v1/markets/[^/]+/[^/]+/rollback"), "admin"),
)

HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cross-origin-resource-policy": "same-origin",
}
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


def scope_of(method: str, path: str) -> str:
    """The scope that a request needs."""
    if method in READING:
        return "read"
    return next((s for verb, place, s in SCOPES if verb == method and place.fullmatch(path)), "admin")


class Gate:
    """ASGI middleware: who may pass, how much they may send, and the headers that every answer bears."""

    def __init__(self, app: ASGIApp, engine: Engine, settings: Settings) -> None:
        self.app = app
        self.engine = engine
        self.keys_required = keys_required(settings)
        self.max_body_bytes = settings.service.max_body_bytes

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
                added = [(k.encode(), v.encode()) for k, v in HEADERS.items() if k.encode() not in present]
                message = {**message, "headers": [*message["headers"], *added]}
            await send(message)

        headers = Headers(scope=scope)
        refusal = await self._refusal(scope, headers)
        if refusal is not None:
            await refusal(scope, receive, with_headers)
        else:
            await self.app(scope, self._limited(receive), with_headers)

    async def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        if scope["path"] in OPEN:
            return None
        if self.keys_required:
            refusal = await self._without_right(scope, headers)
        else:
            refusal = _foreign(headers)
        if refusal is None and _content_length(headers) > self.max_body_bytes:
            return problems.answer("too-large", self._too_large(), headers={"connection": "close"})
        return refusal

    async def _without_right(self, scope: Scope, headers: Headers) -> Response | None:
        method = scope["method"]
        presented = _presented(headers, method)
        key = None if presented is None else await run_in_threadpool(self._verified, presented)
        if key is None:
            detail = "no key was given" if presented is None else "the key is unknown, expired or revoked"
            ask = (
                "Bearer"
                if method not in READING or scope["path"].startswith("/v1/")
                else 'Basic realm="Barprop"'
            )
            return problems.answer("not-authenticated", detail, headers={"www-authenticate": ask})
        needed = scope_of(method, scope["path"])
        if needed not in key.scopes:
            detail = f"this needs the scope {needed!r}; the key {key.prefix} has {', '.join(key.scopes)}"
            return problems.answer("missing-scope", detail)
        return None

    def _verified(self, presented: str) -> Key | None:
        now = machine_now()
        with store.database.read(self.engine) as conn:
            key = store.keys.verify(conn, presented, now)
        if key is not None and store.keys.use_is_due(key, now):
            with store.database.write(self.engine) as conn:
                store.keys.note_use(conn, key, now)
        return key

    def _limited(self, receive: Receive) -> Receive:
        seen = 0

        async def limited() -> Message:
            nonlocal seen
            message = await receive()
            if message["type"] == "http.request":
                seen += len(message.get("body", b""))
                if seen > self.max_body_bytes:
                    raise HTTPException(413, self._too_large(), headers={"connection": "close"})
            return message

        return limited

    def _too_large(self) -> str:
        return f"the body is larger than {self.max_body_bytes} bytes"


def _foreign(headers: Headers) -> Response | None:
    """The refusal of a request that was not meant for this machine by this machine, or None."""
    hosts = headers.getlist("host")
    match = _HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
    if match is None or not is_loopback(match["name"]):
        return problems.answer(
            "foreign-host", f"host {', '.join(hosts) or 'not given'!r} is not this machine's loopback"
        )
    for origin in headers.getlist("origin"):
        if not _is_loopback_origin(origin):
            return problems.answer("foreign-origin", f"origin {origin!r} is another site")
    return None


def _is_loopback_origin(origin: str) -> bool:
    try:
        parts = urlsplit(origin)
        return parts.scheme in ("http", "https") and is_loopback(parts.hostname or "")
    except ValueError:
        return False


def _presented(headers: Headers, method: str) -> str | None:
    """The key that a request brings, or None."""
    kind, _, value = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return value.strip() or None
    if kind.lower() == "basic" and method in READING:
        try:
            return base64.b64decode(value, validate=True).decode().partition(":")[2] or None
        except (binascii.Error, UnicodeDecodeError):
            return None
    return None


def _content_length(headers: Headers) -> int:
    text = headers.get("content-length", "")
    return int(text) if text.isdecimal() and len(text) < 20 else 0
