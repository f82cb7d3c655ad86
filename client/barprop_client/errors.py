"""What can go wrong: the service refused (Problem), was not reached (Unreachable), or said what cannot be read."""

from dataclasses import dataclass


class BarpropError(Exception):
    """Any error of this client. No message holds the API key."""


class Unreachable(BarpropError):
    """No answer came until the deadline; the last reason is in the message."""


class UnexpectedAnswer(BarpropError):
    """An answer that is none of Barprop's: another program at that address, or a service newer than this client."""


@dataclass(frozen=True)
class FieldError:
    """What is wrong with one field of a request."""

    field: str
    message: str


class Problem(BarpropError):
    """The service's refusal, an RFC 9457 problem document; `type` is stable, so switch on it."""

    def __init__(
        self,
        type: str,
        title: str,
        status: int,
        detail: str,
        errors: tuple[FieldError, ...] = (),
        request_id: str | None = None,
    ) -> None:
        super().__init__(type, title, status, detail, errors, request_id)
        self.type = type  # e.g. "/problems/not-found"
        self.title = title
        self.status = status
        self.detail = detail
        self.errors = errors
        self.request_id = request_id  # the service's log has the request under it

    def __str__(self) -> str:
        named = f" [request {self.request_id}]" if self.request_id else ""
        return f"{self.status} {self.title}: {self.detail}{named}"
