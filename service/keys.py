"""Make, list, rotate and revoke keys. A key's secret stands in the answer that makes it, and nowhere else."""

from contextlib import suppress
from datetime import timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel, ConfigDict, Field, JsonValue

import store.audit
import store.database
import store.keys
from model.errors import Unreachable
from service import problems
from service.deps import Actor, Body, EngineDep, Ident, Page, Time, machine_now

DAY_SECONDS = 86_400

KEY: dict[str, JsonValue] = {
    "id": 3,
    "name": "my-bot",
    "prefix": "3f2a9c0b7d41",
    "scopes": ["read", "predict"],
    "created_at": "2024-07-01T00:00:12Z",
    "expires_at": None,
    "last_used_at": None,
    "revoked_at": None,
}
MADE: dict[str, JsonValue] = {**KEY, "key": "bp_3f2a9c0b7d41_" + "0" * 64}


class KeyDocument(BaseModel):
    """A key, without its secret. Its times are the machine's, in a replay too."""

    model_config = ConfigDict(json_schema_extra={"examples": [KEY]})

    id: int
    name: str
    prefix: str = Field(description="What its text begins with, after `bp_`.")
    scopes: list[str]
    created_at: str
    expires_at: str | None
    last_used_at: str | None = Field(description="To the minute.")
    revoked_at: str | None


class MadeKey(KeyDocument):
    """A new key with its text, which is shown this once."""

    model_config = ConfigDict(json_schema_extra={"examples": [MADE]})

    key: str = Field(description="To be sent as `Authorization: Bearer …`; it is kept nowhere.")


class RotatedKey(MadeKey):
    """A new key in the place of an old one, which ends after its grace."""

    model_config = ConfigDict(json_schema_extra={"examples": [{**MADE, "replaces": {**KEY, "id": 2}}]})

    replaces: KeyDocument


class KeyAsk(Body):
    """Whose key it is, what it may do, and until when."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "my-bot", "scopes": ["read", "predict"]}]}
    )

    name: str = Field(min_length=1, max_length=store.keys.LONGEST_NAME)
    scopes: list[Literal["read", "predict", "ingest", "train", "admin"]] = Field(
        default=["read", "predict"], min_length=1, max_length=len(store.keys.SCOPES)
    )
    expires_at: Time | None = Field(None, description="When it ends; never, where nothing is said.")


class RotateAsk(Body):
    """How long the old key goes on."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"grace_seconds": DAY_SECONDS}]})

    grace_seconds: int = Field(default=DAY_SECONDS, ge=0, le=store.keys.LONGEST_GRACE // timedelta(seconds=1))


KeyId = Annotated[Ident, Path()]
router = APIRouter(prefix="/v1/keys", tags=["keys"])


@router.get("", response_model=Page[KeyDocument], responses=problems.responses("unreachable"))
def keys(engine: EngineDep) -> dict[str, Any]:
    """Every key, also revoked and expired ones, without secrets. The list has one page."""
    with store.database.read(engine) as conn:
        items = [store.keys.document(key) for key in store.keys.all(conn)]
    return {"items": items, "next": None}


@router.post(
    "",
    status_code=201,
    response_model=MadeKey,
    responses=problems.responses("malformed", "invalid-request", "bad-input", "unreachable"),
)
def create_key(body: KeyAsk, engine: EngineDep, actor: Actor, response: Response) -> dict[str, Any]:
    """Makes a key. Its secret is in this answer and kept nowhere."""
    now = machine_now()
    with store.database.write(engine) as conn:
        made, text = store.keys.create(conn, body.name, body.scopes, now, body.expires_at)
        store.audit.note(conn, actor, "key.create", *store.keys.noted(made), now)
    return _secret(response, {**store.keys.document(made), "key": text})


@router.post(
    "/{key_id}/rotate",
    status_code=201,
    response_model=RotatedKey,
    responses=problems.responses("malformed", "not-found", "invalid-request", "bad-input", "unreachable"),
)
def rotate_key(
    key_id: KeyId,
    engine: EngineDep,
    actor: Actor,
    request: Request,
    response: Response,
    body: RotateAsk | None = None,
) -> dict[str, Any]:
    """Makes a key of the same name, scopes and end; the old one goes on for the grace, and no longer."""
    now, grace = machine_now(), timedelta(seconds=(body or RotateAsk()).grace_seconds)
    with store.database.write(engine) as conn:
        made, text, old = store.keys.rotate(conn, str(key_id), now, grace)
        target, detail = store.keys.noted(old)
        store.audit.note(conn, actor, "key.rotate", target, {**detail, "new": made.prefix}, now)
    _heed(request)
    new = {**store.keys.document(made), "key": text, "replaces": store.keys.document(old)}
    return _secret(response, new)


@router.delete(
    "/{key_id}",
    response_model=KeyDocument,
    responses=problems.responses("not-found", "invalid-request", "unreachable"),
)
def revoke_key(key_id: KeyId, engine: EngineDep, actor: Actor, request: Request) -> dict[str, Any]:
    """Ends a key: in this process at once, in others within two seconds. A revoked one stays as it was."""
    now = machine_now()
    with store.database.write(engine) as conn:
        key = store.keys.revoke(conn, str(key_id), now)
        if key.revoked_at == now:
            store.audit.note(conn, actor, "key.revoke", *store.keys.noted(key), now)
    _heed(request)
    return store.keys.document(key)


def _heed(request: Request) -> None:
    """Makes this process obey the change at once; it is made, even where the database has gone since."""
    with suppress(Unreachable):
        request.app.state.keyring.refresh()


def _secret(response: Response, document: dict[str, Any]) -> dict[str, Any]:
    response.headers["cache-control"] = "no-store"
    return document
