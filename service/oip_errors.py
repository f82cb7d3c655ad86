"""Errors as the Open Inference Protocol has them, whoever found them: the gate, a limit, the router or a route."""

import json
from typing import Any

from pydantic import BaseModel, Field
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import problems

PREFIX = "/v2"


class ErrorDocument(BaseModel):
    """The protocol's error document."""

    error: str = Field(examples=["no market NOSUCH 1h: ingest bars for it first"])


ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorDocument, "description": "The request cannot be answered, and why."},
    "5XX": {"model": ErrorDocument, "description": "The service cannot answer just now."},
}


class Errors:
    """ASGI middleware: under /v2 every problem, whoever found it, becomes the protocol's error document. What a request
    said wrong is 400 there, the protocol's own word for it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on, and translates its answer where that is a problem."""
        if scope["type"] != "http" or not f"{scope['path']}/".startswith(f"{PREFIX}/"):
            await self.app(scope, receive, send)
            return
        held: Message | None = None
        body = b""

        async def translated(message: Message) -> None:
            nonlocal held, body
            if message["type"] == "http.response.start" and _is_problem(message):
                held = message
            elif held is None:
                await send(message)
            else:
                body += message.get("body", b"")
                if not message.get("more_body", False):
                    answer = json.dumps({"error": json.loads(body)["detail"]}).encode()
                    await send(_restated(held, len(answer)))
                    await send({"type": "http.response.body", "body": answer})

        await self.app(scope, receive, translated)


def describe(openapi: dict[str, Any]) -> dict[str, Any]:
    """`openapi` with the problems of this protocol's routes as they are sent."""
    for path, operations in openapi["paths"].items():
        if not f"{path}/".startswith(f"{PREFIX}/"):
            continue
        for operation in operations.values():
            responses = operation["responses"]
            for status, response in list(responses.items()):
                if problems.MEDIA_TYPE in response.get("content", {}):
                    del responses[status]  # said by 4XX and 5XX
    return openapi


def _is_problem(start: Message) -> bool:
    return Headers(raw=start["headers"]).get("content-type") == problems.MEDIA_TYPE


def _restated(start: Message, length: int) -> Message:
    headers = MutableHeaders(raw=list(start["headers"]))
    headers["content-type"], headers["content-length"] = "application/json", str(length)
    return {**start, "status": 400 if start["status"] == 422 else start["status"], "headers": headers.raw}
