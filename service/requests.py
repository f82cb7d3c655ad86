"""The outermost layer: each request's ID, its count and duration by route, and the answer to what nobody foresaw."""

import logging
import re
import secrets
import time
from urllib.parse import quote

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import problems
from service.metrics import HttpMetrics

log = logging.getLogger(__name__)

_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


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
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _ID.fullmatch(given) else secrets.token_hex(8)
        status = 0

        async def with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                header = (b"x-request-id", request_id.encode())
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
            route = getattr(scope.get("route"), "path", None) or "unmatched"
            self.metrics.observe(scope["method"], route, status, time.perf_counter() - began)
