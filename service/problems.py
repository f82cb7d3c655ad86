"""Every error of the service as an RFC 9457 problem document. Add a kind of problem by adding a row to PROBLEMS.

A problem's `type` is stable, so bots may switch on it; `GET` on it says what it means. A traceback is never in an
answer: what was not foreseen is logged under the request's ID, and the answer names that ID.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.routing import Match

from model.errors import (
    BadArtifact,
    BadBars,
    BadInput,
    BarpropError,
    Busy,
    NotFound,
    QueueFull,
    Unreachable,
)

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = 5
# A push of 50,000 wrong bars must not be answered by 50,000 lines.
MOST_ERRORS = 20
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


@dataclass(frozen=True)
class Kind:
    """One kind of problem: its status, its title, and what it means to who gets it."""

    status: int
    title: str
    about: str


PROBLEMS: dict[str, Kind] = {
    "malformed": Kind(400, "The body is not JSON", "The request's body could not be read as JSON."),
    "not-authenticated": Kind(
        401,
        "A key is needed",
        "Send a key that is valid: `Authorization: Bearer bp_…` (see `barprop keys create`).",
    ),
    "missing-scope": Kind(
        403, "The key may not do this", "The key is valid, but it lacks the scope that is named."
    ),
    "foreign-host": Kind(
        403,
        "Not asked by this machine's own name",
        "Without keys only requests to localhost, 127.0.0.1 or [::1] are answered (DNS rebinding).",
    ),
    "foreign-origin": Kind(
        403, "Asked by another site's page", "Without keys a page of another site may not use this service."
    ),
    "not-found": Kind(404, "No such thing", "What the address or the request names does not exist."),
    "method-not-allowed": Kind(
        405, "Wrong method", "This address exists, but not for this method; see `Allow`."
    ),
    "too-slow": Kind(
        408, "The body did not arrive", "The limit is the setting `service.body_seconds`; nothing was done."
    ),
    "busy": Kind(
        409, "Somebody else is at it", "Another job holds what was asked for; ask again when it has ended."
    ),
    "idempotency-key-in-use": Kind(
        409,
        "The first request of this key is under way",
        "A request with this `Idempotency-Key` has not been answered yet; ask again after `Retry-After`.",
    ),
    "too-large": Kind(413, "The body is too large", "The limit is the setting `service.max_body_bytes`."),
    "invalid-request": Kind(
        422,
        "The request does not fit",
        "A field is missing, unknown or of the wrong form; `errors` names each.",
    ),
    "bad-input": Kind(
        422, "The request cannot be used", "The request is well formed, but what it says is not usable."
    ),
    "bad-bars": Kind(
        422, "The bars cannot be used", "Not one of the bars is acceptable; nothing was stored."
    ),
    "idempotency-key-invalid": Kind(
        422,
        "The Idempotency-Key cannot be used",
        "An `Idempotency-Key` is 1 to 255 visible ASCII characters, sent once. Answers that hold a secret are never kept.",
    ),
    "idempotency-key-reused": Kind(
        422,
        "The Idempotency-Key belongs to another request",
        "Within 24 hours a key names one request: the same method, address and body. Take a new key for a new one.",
    ),
    "queue-full": Kind(
        429,
        "Too many jobs wait",
        "Nothing was queued; ask again after `Retry-After`. The limit is the setting `jobs.max_queued`.",
    ),
    "too-many-requests": Kind(
        429,
        "Too many requests",
        "Ask again after `Retry-After`. The limit is the setting `service.requests_per_second`.",
    ),
    "too-many-streams": Kind(
        429,
        "Too many streams are open",
        "Close one, or ask again after `Retry-After`. The limits are `service.max_streams` and `service.max_streams_per_key`.",
    ),
    "unexpected": Kind(
        500, "Something went wrong here", "Not foreseen; the service's log has it under the request's ID."
    ),
    "damaged-version": Kind(
        500, "A stored version is damaged", "The weights in the database are not what was stored."
    ),
    "unreachable": Kind(
        503, "The database does not answer", "Nothing was stored; ask again after `Retry-After`."
    ),
}

# The most precise class counts, so that damaged weights are not taken for a mistake of who asks.
OF_ERROR: dict[type[BarpropError], str] = {
    NotFound: "not-found",
    Busy: "busy",
    QueueFull: "queue-full",
    BadArtifact: "damaged-version",
    BadBars: "bad-bars",
    BadInput: "bad-input",
    Unreachable: "unreachable",
}
OF_STATUS = {
    400: "malformed",
    404: "not-found",
    405: "method-not-allowed",
    408: "too-slow",
    413: "too-large",
}


class FieldError(BaseModel):
    """What is wrong with one field."""

    field: str = Field(examples=["timeframe"])
    message: str = Field(examples=["Field required"])


class Problem(BaseModel):
    """An RFC 9457 problem document."""

    type: str = Field(examples=["/problems/not-found"])
    title: str = Field(examples=["No such thing"])
    status: int = Field(examples=[404])
    detail: str = Field(examples=["no market NOSUCH 1h: ingest bars for it first"])
    errors: list[FieldError] | None = Field(None, description="Of `invalid-request`: one a field.")


def answer(
    name: str,
    detail: str,
    errors: list[dict[str, str]] | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """The response of the problem `name`, a row of PROBLEMS."""
    kind = PROBLEMS[name]
    document: dict[str, Any] = {
        "type": f"/problems/{name}",
        "title": kind.title,
        "status": kind.status,
        "detail": detail,
    }
    if errors is not None:
        document["errors"] = errors
    return JSONResponse(document, kind.status, headers=dict(headers or {}), media_type=MEDIA_TYPE)


def of_error(error: Exception) -> JSONResponse | None:
    """The response of an error that was raised on purpose; None for any other."""
    name = next((OF_ERROR[kind] for kind in type(error).__mro__ if kind in OF_ERROR), None)
    if name is None:
        return None
    headers = {"retry-after": str(RETRY_AFTER_SECONDS)} if name in ("unreachable", "queue-full") else None
    return answer(name, str(error), headers=headers)


def _barprop(request: Request, error: Exception) -> JSONResponse:
    response = of_error(error)
    if response is None:  # an error of ours that no route should let out
        raise error
    return response


def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    name = OF_STATUS.get(error.status_code)
    if name is None:
        title = HTTPStatus(error.status_code).phrase
        document = {
            "type": "about:blank",
            "title": title,
            "status": error.status_code,
            "detail": error.detail,
        }
        return JSONResponse(document, error.status_code, headers=error.headers, media_type=MEDIA_TYPE)
    detail = {
        404: f"nothing is at {request.url.path}",
        405: f"{request.method} is not for {request.url.path}",
        400: "the body is not JSON that can be read",
    }.get(error.status_code, str(error.detail))
    headers = {"allow": ", ".join(_methods(request))} if name == "method-not-allowed" else error.headers
    return answer(name, detail, headers=headers)


def _methods(request: Request) -> list[str]:
    """Every method that the request's address has; the router's own refusal names those of one of its routes."""
    scope = {"type": "http", "path": request.scope["path"], "root_path": request.scope.get("root_path", "")}
    return [
        method
        for method in METHODS
        if any(route.matches({**scope, "method": method})[0] is Match.FULL for route in request.app.routes)
    ]


def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    found = error.errors()
    broken = next((e for e in found if e["type"] == "json_invalid"), None)
    if broken is not None:
        reason, place = broken["ctx"]["error"], broken["loc"][-1]
        return answer("malformed", f"the body is not JSON: {reason} at character {place}")
    errors = [{"field": _field(e["loc"]), "message": e["msg"]} for e in found[:MOST_ERRORS]]
    more = f" and {len(found) - MOST_ERRORS} more" if len(found) > MOST_ERRORS else ""
    detail = "; ".join(f"{e['field']}: {e['message']}" for e in errors[:3])
    if len(errors) > 3:
        detail += f"; in all {len(found)} errors"
    if more:
        errors.append({"field": "", "message": more.strip()})
    return answer("invalid-request", detail, errors)


def _field(place: tuple[int | str, ...]) -> str:
    """`("body", "bars", 3, "high")` as `bars.3.high`; the body as a whole as `body`."""
    return ".".join(str(part) for part in place[1:]) or str(place[0])


router = APIRouter(include_in_schema=False)


@router.get("/problems/{name}", response_class=PlainTextResponse)
async def about(name: str) -> str:
    """What a problem's type means."""
    kind = PROBLEMS.get(name)
    if kind is None:
        raise NotFound(f"no problem {name!r}; the problems are {', '.join(PROBLEMS)}")
    return f"{kind.title} ({kind.status})\n\n{kind.about}\n"


def install(app: FastAPI) -> None:
    """Makes every error of `app` a problem document, and its OpenAPI say so."""
    app.add_exception_handler(BarpropError, _barprop)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.include_router(router)


def responses(*names: str) -> dict[int | str, dict[str, Any]]:
    """The problems that a route may answer with, for its `responses`; rows of one status share one entry."""
    statuses: dict[int | str, dict[str, Any]] = {}
    for name in names:
        kind = PROBLEMS[name]
        said = statuses.get(kind.status, {}).get("description")
        statuses[kind.status] = {
            "model": Problem,
            "description": f"{said}, or: {kind.title}" if said else kind.title,
        }
    return statuses


def name_media_type(openapi: dict[str, Any]) -> dict[str, Any]:
    """`openapi` with every problem's media type as it is sent; FastAPI writes that of the route's success."""
    for path in openapi["paths"].values():
        for operation in path.values():
            for response in operation["responses"].values():
                for content in list(response.get("content", {}).values()):
                    if content.get("schema", {}).get("$ref", "").endswith("/Problem"):
                        response["content"] = {MEDIA_TYPE: content}
    return openapi
