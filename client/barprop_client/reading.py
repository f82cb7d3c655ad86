"""Documents into values. Pure; a document that lacks what it must have raises KeyError, TypeError or ValueError."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any, Generic, TypeVar

from barprop_client.errors import FieldError, Problem
from barprop_client.values import (
    Abstention,
    Bar,
    Doubt,
    Entry,
    Ingested,
    Job,
    Market,
    MarketState,
    Outcome,
    Prediction,
    Readiness,
    Refused,
    Rejected,
    Signal,
    Version,
)

T = TypeVar("T")
Document = Mapping[str, Any]
_PHRASES = {status.value: status.phrase for status in HTTPStatus}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Page(Generic[T]):
    """One page of a list; `next` is the cursor of the page after it, None on the last one."""

    items: tuple[T, ...]
    next: int | str | None


def page(read: Callable[[Document], T]) -> Callable[[Document], Page[T]]:
    """A reader of pages whose items `read` reads."""
    return lambda said: Page(tuple(map(read, said["items"])), said["next"])


def market(said: Document) -> Market:
    """A market."""
    return Market(said["symbol"], said["timeframe"])


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def signal(said: Document) -> Signal:
    """A Prediction or an Abstention, by its `kind`."""
    kind = said["kind"]
    if kind == "abstention":
        return Abstention(
            market=market(said["market"]),
            as_of=_moment(said["as_of"]),
            version=said["version"],
            reason=said["reason"],
            detail=said["detail"],
            degraded=bool(said.get("degraded", False)),
            in_sample=said.get("in_sample"),
        )
    if kind != "prediction":
        raise ValueError(f"a Signal of the kind {kind!r}, which this client does not know")
    low, high = said["interval"]
    return Prediction(
        market=market(said["market"]),
        as_of=datetime.fromisoformat(said["as_of"]),
        version=said["version"],
        horizon=said["horizon"],
        p_up=said["p_up"],
        expected_return=said["expected_return"],
        price=said["price"],
        interval=(low, high),
        level=said["level"],
        skill=said["skill"],
        weights=said["weights"],
        position=said.get("position"),
        pays_up_to_bps=said.get("pays_up_to_bps"),
        degraded=bool(said.get("degraded", False)),
        in_sample=said.get("in_sample"),
    )


def batch(said: Document) -> list[Signal | Refused]:
    """The answers of a batch, in the order of its markets."""
    return [
        Refused(market(item["market"]), problem(item["problem"], item["problem"]["status"], None))
        if "problem" in item
        else signal(item)
        for item in said["items"]
    ]


def entry(said: Document) -> Entry:
    """A row of the ledger, or an event of the stream, which has no outcome yet."""
    outcome = said.get("outcome")
    return Entry(
        id=said["id"],
        signal=signal(said),
        served_at=datetime.fromisoformat(said["served_at"]),
        outcome=None
        if outcome is None
        else Outcome(
            outcome["up"],
            outcome["return"],
            outcome["log_loss"],
            datetime.fromisoformat(outcome["scored_at"]),
        ),
    )


def bar(said: Document) -> Bar:
    """A stored bar."""
    numbers = (float(said[name]) for name in ("open", "high", "low", "close", "volume"))
    return Bar(datetime.fromisoformat(said["ts"]), *numbers)


def ingested(said: Document) -> Ingested:
    """What became of pushed bars."""
    return Ingested(
        market=market(said["market"]),
        added=said["added"],
        repeated=said["repeated"],
        corrected=said["corrected"],
        rejected=tuple(Rejected(r["reason"], r["rows"], _moment(r["first"])) for r in said["rejected"]),
        gaps=said["gaps"],
        first=_moment(said["first"]),
        last=_moment(said["last"]),
    )


def market_state(said: Document) -> MarketState:
    """A market of the list of markets."""
    return MarketState(
        market=market(said["market"]),
        paused=said["paused"],
        bars=said["bars"],
        last_close=_moment(said["last_close"]),
        champion=said["champion"],
    )


def version(said: Document) -> Version:
    """A stored version."""
    seen_until = said["manifest"].get("seen_until")  # microseconds
    return Version(
        id=said["id"],
        market=market(said["market"]),
        role=said["role"],
        reason=said["reason"],
        created_at=datetime.fromisoformat(said["created_at"]),
        sha256=said["sha256"],
        seen_until=None if seen_until is None else _EPOCH + timedelta(microseconds=seen_until),
        manifest=said["manifest"],
    )


def job(said: Document) -> Job:
    """A job."""
    return Job(
        id=said["id"],
        kind=said["kind"],
        market=None if said["market"] is None else market(said["market"]),
        state=said["state"],
        progress=said["progress"],
        error=said["error"],
        result=said.get("result"),
    )


def readiness(said: Document) -> Readiness:
    """Whether the service can answer, and every doubt."""
    return Readiness(
        said["status"],
        tuple(
            Doubt(r["reason"], None if r["market"] is None else market(r["market"]), r["detail"])
            for r in said["reasons"]
        ),
    )


def problem(said: object, status: int, request_id: str | None) -> Problem:
    """A refusal; where its body is no problem document (a proxy's page), its status alone speaks."""
    known = said if isinstance(said, Mapping) else {}
    phrase = _PHRASES.get(status, "An error")
    return Problem(
        type=str(known.get("type", "about:blank")),
        title=str(known.get("title", phrase)),
        status=status,
        detail=str(known.get("detail", "the answer does not say why")),
        errors=tuple(FieldError(str(e["field"]), str(e["message"])) for e in known.get("errors") or ()),
        request_id=request_id or known.get("request_id"),
    )
