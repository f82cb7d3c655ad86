"""Stored versions, the gradient health of their training, and promotion by hand."""

from typing import Annotated, Any

from fastapi import APIRouter, Path
from pydantic import BaseModel, Field

import store.audit
import store.database
import store.health
import store.markets
import store.versions
from service import problems
from service.deps import (
    Actor,
    AnyMarket,
    ClockDep,
    Cursor,
    EngineDep,
    Ident,
    Limit,
    MarketDocument,
    Page,
    machine_now,
    page,
)


class VersionDocument(BaseModel):
    """A version: which market it answers for, where it comes from, what it is made of, and its role."""

    id: int
    market: MarketDocument
    parent: int | None = Field(description="The version whose weights its training started from.")
    created_at: str
    sha256: str = Field(description="Of the weights alone.")
    role: str = Field(description="candidate, challenger, champion, retired or rejected.")
    reason: str | None = Field(description="Why it has that role.")
    effective_from: str | None = Field(description="The close of the first bar for which that role holds.")
    manifest: dict[str, Any] = Field(
        description="Data window, features, configuration, seed, scores, machine."
    )


class Layer(BaseModel):
    """One layer's gradient in an epoch; a figure that was not finite, or not to be had, is null."""

    layer: int = Field(description="0 is next to the features.")
    name: str
    gradient_norm: float | None = Field(description="In the epoch's middle step, before clipping.")
    update_ratio: float | None = Field(description="Size of the step relative to the weights.")
    dead_fraction: float
    saturated_fraction: float
    non_finite: int
    verdict: str = Field(description="healthy, vanishing, exploding, dead, saturated or non_finite.")
    largest: float | None = Field(description="The gradient's largest entry, whatever its sign.")
    cosine: float | None = Field(
        description="Between the epoch's gradient and the one before: 1 is the same way."
    )
    noise_scale: float | None = Field(
        description="Rows of a batch at which noise is as large as the gradient."
    )


class Epoch(BaseModel):
    """One epoch's losses, on the rows that it learned from and on those that stop it, and its layers."""

    epoch: int
    train_loss: float | None
    stop_loss: float | None
    layers: list[Layer]


class GradientHealth(BaseModel):
    """The gradient health of the training that a version came from; `layers` repeats the last epoch."""

    version: int
    verdict: str
    epochs: list[Epoch]
    layers: list[Layer]


VersionId = Annotated[Ident, Path()]
router = APIRouter(prefix="/v1/versions", tags=["versions"])


@router.get(
    "",
    response_model=Page[VersionDocument],
    responses=problems.responses("not-found", "invalid-request", "bad-input", "unreachable"),
)
def versions(
    market: AnyMarket, engine: EngineDep, cursor: Cursor = None, limit: Limit = 50
) -> dict[str, Any]:
    """Versions of one market or of all, newest first."""
    with store.database.read(engine) as conn:
        market_id = None if market is None else store.markets.need(conn, market).id
        rows = store.versions.page(conn, market_id, cursor, limit + 1)
    return page(rows, limit, lambda version: version.id, store.versions.document)


@router.get(
    "/{version_id}",
    response_model=VersionDocument,
    responses=problems.responses("not-found", "invalid-request", "unreachable"),
)
def version(version_id: VersionId, engine: EngineDep) -> dict[str, Any]:
    """One version."""
    with store.database.read(engine) as conn:
        return store.versions.document(store.versions.get(conn, version_id))


@router.get(
    "/{version_id}/gradient-health",
    response_model=GradientHealth,
    responses=problems.responses("not-found", "invalid-request", "unreachable"),
)
def gradient_health(version_id: VersionId, engine: EngineDep) -> dict[str, Any]:
    """How healthy the gradients were in the training that this version came from, by epoch and layer."""
    with store.database.read(engine) as conn:
        return store.health.of_version(conn, version_id)


@router.post(
    "/{version_id}/promote",
    response_model=VersionDocument,
    responses=problems.responses("not-found", "invalid-request", "unreachable"),
)
def promote(version_id: VersionId, engine: EngineDep, clock: ClockDep, actor: Actor) -> dict[str, Any]:
    """Makes this version the champion, without evidence, from the next bar on; promoting the champion changes nothing."""
    now = clock()
    with store.database.write(engine) as conn:
        version = store.versions.get(conn, version_id)
        row = store.markets.need(conn, version.market)
        if store.versions.champion(conn, row.id) != version_id:
            store.versions.promote(conn, row, version_id, "promoted by hand", now)
            target, detail = f"version {version_id}", {"market": str(row.market)}
            store.audit.note(conn, actor, "version.promote", target, detail, machine_now())
        return store.versions.document(store.versions.get(conn, version_id))
