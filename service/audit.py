"""Read who changed what."""

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, JsonValue

import store.audit
import store.database
from service import problems
from service.deps import Cursor, EngineDep, Limit, Page, page

ENTRY: dict[str, JsonValue] = {
    "id": 31,
    "at": "2024-07-01T00:00:12Z",
    "actor": "3f2a9c0b7d41",
    "action": "version.promote",
    "target": "version 7",
    "detail": {"market": "ETHUSDT 1h"},
    "request_id": "5d0c2f6a9be81374",
}


class Change(BaseModel):
    """A change that was made. Its time is the machine's, in a replay too."""

    model_config = ConfigDict(json_schema_extra={"examples": [ENTRY]})

    id: int
    at: str
    actor: str = Field(description="The prefix of a key, `loopback` or `command line`.")
    action: store.audit.Action
    target: str = Field(description="What was changed.")
    detail: dict[str, Any]
    request_id: str | None = Field(description="The `x-request-id` of the request that made it, if one did.")


router = APIRouter(prefix="/v1", tags=["audit"])


@router.get(
    "/audit", response_model=Page[Change], responses=problems.responses("invalid-request", "unreachable")
)
def changes(engine: EngineDep, cursor: Cursor = None, limit: Limit = 50) -> dict[str, Any]:
    """Changes, newest first: keys, promotions, pauses, schedules, jobs asked for, bars pushed."""
    with store.database.read(engine) as conn:
        rows = store.audit.page(conn, cursor, limit + 1)
    return page(rows, limit, lambda entry: entry.id, store.audit.document)
