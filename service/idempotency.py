"""`Idempotency-Key`: a POST that names itself happens once, however often a bot has to send it.

Pure ASGI within the gate, so that it is known who asks; what a request answers is kept under its actor and key before it
is sent. Not kept are answers that only say "not now" (5xx, 409, 429), after which the same key may be tried again.
"""

import hashlib
import logging
import re
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import store.idempotency
from model.errors import Unreachable
from service import problems
from service.deps import machine_now
from store.database import Engine
from store.idempotency import Answer, Refusal, Turn

log = logging.getLogger(__name__)

HEADER = b"idempotency-key"
# A prediction changes nothing that a second one would change again.
WITHOUT = re.compile(r"/v1/predict(/.*)?")
# Their answers hold a secret that is shown once, and must not lie in a table.
SECRET = re.compile(r"/v1/keys(/.*)?")
NOT_NOW = (409, 429)
KEPT_HEADERS = (b"content-type", b"location")
RETRY_AFTER_SECONDS = 1

_KEY = re.compile(rb"[!-~]{1,255}")

ABOUT = (
    "1 to 255 visible ASCII characters that name this request, e.g. a UUID. Sent again within 24 hours, the same "
    "request is given the first answer, with `idempotency-replayed: true`, and nothing happens twice."
)


def applies(method: str, path: str) -> bool:
    """Whether such a request may name itself: what changes something and answers no secret."""
    changes = method == "POST" and path.startswith("/v1/") and WITHOUT.fullmatch(path) is None
    return changes and SECRET.fullmatch(path) is None


class Idempotency:
    """ASGI middleware that carries a named request out once, and gives its answer again."""

    def __init__(self, app: ASGIApp, engine: Engine) -> None:
        self.app = app
        self.engine = engine

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes on what has no name; looks at the name of everything else."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        keys = [value for name, value in scope["headers"] if name == HEADER]
        path = scope["path"]
        if not keys or not (applies("POST", path) or SECRET.fullmatch(path)):
            await self.app(scope, receive, send)
            return
        response = _unusable(path, keys)
        if response is not None:
            await response(scope, receive, send)
            return
        try:
            body = await _body(receive)
        except HTTPException as error:  # the gate's: larger than it lets pass
            if error.status_code not in problems.OF_STATUS:
                raise
            name = problems.OF_STATUS[error.status_code]
            await problems.answer(name, str(error.detail), headers=error.headers)(scope, receive, send)
            return
        if body is not None:
            await self._named(scope, receive, send, keys[0].decode("ascii"), body)

    async def _named(self, scope: Scope, receive: Receive, send: Send, key: str, body: bytes) -> None:
        found = await run_in_threadpool(self._begin, scope, key, body)
        if isinstance(found, Turn):
            await self._carry_out(scope, receive, send, found, body)
        elif isinstance(found, Answer):
            headers = {**found.headers, "idempotency-replayed": "true"}
            await Response(found.body, found.status, headers)(scope, receive, send)
        elif found is Refusal.OTHER_REQUEST:
            detail = f"the key {key!r} named another request before; take a new key for a new request"
            await problems.answer("idempotency-key-reused", detail)(scope, receive, send)
        else:
            detail = f"the first request with the key {key!r} has not been answered yet"
            again = {"retry-after": str(RETRY_AFTER_SECONDS)}
            await problems.answer("idempotency-key-in-use", detail, headers=again)(scope, receive, send)

    def _begin(self, scope: Scope, key: str, body: bytes) -> Turn | Answer | Refusal:
        actor = scope.get("state", {}).get("actor", "loopback")
        return store.idempotency.begin(self.engine, actor, key, _sha256(scope, body), machine_now())

    async def _carry_out(self, scope: Scope, receive: Receive, send: Send, turn: Turn, body: bytes) -> None:
        sent: list[Message] = []
        given = False

        async def once() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        async def collect(message: Message) -> None:
            sent.append(message)

        try:
            await self.app(scope, once, collect)
        except Exception:
            await run_in_threadpool(self._end, turn, None)
            raise
        # kept before it is sent: who has it may rely on being given it again
        await run_in_threadpool(self._end, turn, _answer(sent))
        for message in sent:
            await send(message)

    def _end(self, turn: Turn, answer: Answer | None) -> None:
        """Keeps the answer, or gives the name back."""
        try:
            if answer is None:
                store.idempotency.forget(self.engine, turn)
            else:
                store.idempotency.keep(self.engine, turn, answer)
        except Unreachable as error:  # the request itself is done, and its answer is still right
            log.warning("the answer to the request with Idempotency-Key %s is not kept: %s", turn.key, error)


def _unusable(path: str, keys: list[bytes]) -> Response | None:
    """The refusal of a key that cannot be used, or None."""
    if SECRET.fullmatch(path):
        detail = "an answer with a secret is never kept, so this cannot be asked for with an Idempotency-Key: leave it out"
    elif len(keys) > 1:
        detail = f"{len(keys)} Idempotency-Key headers; send one"
    elif not _KEY.fullmatch(keys[0]):
        detail = "an Idempotency-Key is 1 to 255 visible ASCII characters, without spaces"
    else:
        return None
    return problems.answer("idempotency-key-invalid", detail)


async def _body(receive: Receive) -> bytes | None:
    """The whole body; None where the client went away before its end."""
    parts = []
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


def _sha256(scope: Scope, body: bytes) -> str:
    address = scope["path"].encode("utf-8", "backslashreplace"), scope.get("query_string", b"")
    digest = hashlib.sha256(b"\0".join((scope["method"].encode(), *address, b"")))
    digest.update(body)
    return digest.hexdigest()


def _answer(sent: list[Message]) -> Answer | None:
    """What is to be kept of the messages of a whole answer; None where it only says "not now"."""
    start = sent[0]
    status = start["status"]
    if status >= 500 or status in NOT_NOW:
        return None
    headers = {name.decode(): value.decode() for name, value in start["headers"] if name in KEPT_HEADERS}
    return Answer(status, headers, b"".join(message.get("body", b"") for message in sent[1:]))


def document(openapi: dict[str, Any]) -> dict[str, Any]:
    """`openapi` with the header, and what it can be refused for, at each route that may be asked by name."""
    schema = {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"}
    header = {"name": "Idempotency-Key", "in": "header", "required": False, "schema": schema}
    for path, operations in openapi["paths"].items():
        for method, operation in operations.items():
            if applies(method.upper(), path):
                operation.setdefault("parameters", []).append({**header, "description": ABOUT})
                for name in ("idempotency-key-in-use", "idempotency-key-reused"):
                    _may_answer(operation["responses"], problems.PROBLEMS[name])
    return openapi


def _may_answer(responses: dict[str, Any], kind: problems.Kind) -> None:
    said = responses.get(str(kind.status), {}).get("description")
    schema = {"$ref": "#/components/schemas/Problem"}
    responses[str(kind.status)] = {
        "description": f"{said}, or: {kind.title}" if said else kind.title,
        "content": {problems.MEDIA_TYPE: {"schema": schema}},
    }
