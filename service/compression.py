"""gzip for answers that are long enough to gain by it, at next to no cost for the others.

Most answers are short and say their length before anything else, so whether one is worth compressing is asked when it
begins, and only then is Starlette's own compression taken into use. Streams of events are left alone by it.
"""

from starlette.middleware.gzip import GZipResponder, IdentityResponder
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.problems import MEDIA_TYPE

LEAST_BYTES = 1_400  # what one packet carries anyway
LEVEL = 1  # the higher ones take several times as long and make JSON little shorter


class Compression:
    """ASGI middleware that compresses what is long enough for a client that takes gzip."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on, and its answer back, compressed or as it is."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        forward = send

        async def compressed(message: Message) -> None:
            nonlocal forward
            if message["type"] == "http.response.start" and not _stays(message):
                responder = _responder(self.app, scope)
                responder.send = send
                forward = responder.send_with_compression
            await forward(message)

        await self.app(scope, receive, compressed)


def _stays(message: Message) -> bool:
    """Whether an answer says of itself that it is short, or a problem, which outer layers may still translate."""
    for name, value in message["headers"]:
        if name == b"content-length" and int(value) < LEAST_BYTES:
            return True
        if name == b"content-type" and value == MEDIA_TYPE.encode():
            return True
    return False


def _responder(app: ASGIApp, scope: Scope) -> IdentityResponder:
    """What sends a long answer: compressed if the client takes that, else as it is; it says that the two differ."""
    taken = b", ".join(value for name, value in scope["headers"] if name == b"accept-encoding").lower()
    if _takes_gzip(taken.decode("latin-1")):
        return GZipResponder(app, LEAST_BYTES, LEVEL)
    return IdentityResponder(app, LEAST_BYTES)


def _takes_gzip(accepted: str) -> bool:
    """Whether an Accept-Encoding names gzip and does not refuse it by a weight of 0."""
    for part in accepted.split(","):
        coding, *parameters = (piece.strip() for piece in part.split(";"))
        if coding == "gzip":
            return not any(p.startswith("q=") and not p[2:].strip("0.") for p in parameters)
    return False
