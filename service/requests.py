"""The outermost layer: each request's ID, its count and duration by route, its line in the log, and the answer to what
nobody foresaw.

It stands before every answer, so it looks at the headers once and builds nothing that it does not need.
"""

import logging
import re
import secrets
import time
from urllib.parse import quote

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import problems
from service.metrics import HttpMetrics
from store import context

log = logging.getLogger(__name__)

_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")


class Requests:
    """ASGI middleware around all others, so that their refusals and failures have an ID and are counted too."""

    def __init__(self, app: ASGIApp, metrics: HttpMetrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on; an error that comes back is logged and answered without its traceback."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = time.perf_counter()
        header = (b"x-request-id", _id(scope))
        request_id = header[1].decode()
        scope.setdefault("state", {})["request_id"] = request_id
        worked_for = context.request_id.set(request_id)
        status = 0

        async def with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message["headers"], header]}
            await send(message)

        try:
            await self.app(scope, receive, with_id)
        except Exception as error:
            response = problems.of_error(error)
            if response is None:
                place = quote(scope["path"], errors="replace")  # decoded it could hold the end of a line
                log.exception("request %s failed: %s %s", request_id, scope["method"], place)
                detail = f"the log of the service has it under the request ID {request_id}"
                response = problems.answer("unexpected", detail)
            if status:  # too late for an answer: the server must close the connection
                raise
            await response(scope, receive, with_id)
        finally:
            seconds = time.perf_counter() - began
            route = route_of(scope)
            self.metrics.observe(scope["method"], route, status, seconds)
            if log.isEnabledFor(logging.INFO):
                _write(scope, route, status, seconds)
            context.request_id.reset(worked_for)


def route_of(scope: Scope) -> str:
    """The template of the route that answered, so that neither ids nor anything that a client made up is kept."""
    return getattr(scope.get("route"), "path", None) or "unmatched"


def _id(scope: Scope) -> bytes:
    """The ID that the request brought, where it is one, else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            if _ID.fullmatch(value):
                return bytes(value)
            break
    return secrets.token_hex(8).encode()


def _write(scope: Scope, route: str, status: int, seconds: float) -> None:
    """The request's line: no address, no query and no header, since secrets may stand in each."""
    fields = {
        "method": scope["method"],
        "route": route,
        "status": status,
        "seconds": round(seconds, 6),
        "actor": scope["state"].get("actor"),
    }
    log.info(
        "%(method)s %(route)s %(status)d in %(seconds).6f s for %(actor)s", fields, extra={"fields": fields}
    )
