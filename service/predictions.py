"""Ask for a market's Signal, and read the ledger of all that were ever given."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, JsonValue

import model.predictions
import store.database
import store.markets
import store.predictions
from model.predictions import Reason
from service import problems
from service.deps import (
    AnyMarket,
    ClockDep,
    Cursor,
    EngineDep,
    Ident,
    Limit,
    MarketBody,
    MarketDocument,
    Page,
    PredictorsDep,
    SettingsDep,
    Time,
    page,
)

ABSTENTION: dict[str, JsonValue] = {
    "kind": "abstention",
    "market": {"symbol": "ETHUSDT", "timeframe": "1h"},
    "as_of": "2024-07-01T00:00:00Z",
    "version": 7,
    "reason": "stale_bars",
    "detail": "the newest bar closed at 2024-07-01T00:00:00Z, 3 h ago",
}
PREDICTION: dict[str, JsonValue] = {
    "kind": "prediction",
    "market": {"symbol": "ETHUSDT", "timeframe": "1h"},
    "as_of": "2024-07-01T00:00:00Z",
    "version": 7,
    "horizon": 1,
    "p_up": 0.552,
    "expected_return": 0.0004,
    "price": 3439.5,
    "interval": [3398.2, 3481.3],
    "level": 0.9,
    "skill": None,
    "weights": "9f2c4e1b7a3d",
}


class Ask(MarketBody):
    """Which market's Signal, and of which moment where it is not for now."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"symbol": "ETHUSDT", "timeframe": "1h"}]})

    at: Time | None = Field(
        None, description="Answer from the bars that had closed by then; not written to the ledger."
    )
    version: Ident | None = Field(
        None, description="Ask this version instead of today's champion; not written to the ledger."
    )


class Prediction(BaseModel):
    """A number, with its probability and its interval."""

    model_config = ConfigDict(json_schema_extra={"examples": [PREDICTION]})

    kind: Literal["prediction"]
    market: MarketDocument
    as_of: str = Field(description="The close of the bar that it stands on.")
    version: int
    horizon: int = Field(description="Bars ahead.")
    p_up: float = Field(description="Calibrated probability that the close then is above this close.")
    expected_return: float = Field(description="Log return over the horizon, unscaled.")
    price: float = Field(description="This close x exp(expected_return).")
    interval: Annotated[
        list[float], Field(min_length=2, max_length=2, description="Of the price, at `level`.")
    ]
    level: float
    skill: bool | None = Field(
        description="What live and held-back evidence says so far; null: too little of it."
    )
    weights: str = Field(description="First 12 digits of the weights' SHA-256.")
    in_sample: bool = Field(
        False, description="With `at` or `version`: whether the version had learned from this bar's outcome."
    )


class Abstention(BaseModel):
    """No number, and why."""

    model_config = ConfigDict(json_schema_extra={"examples": [ABSTENTION]})

    kind: Literal["abstention"]
    market: MarketDocument
    as_of: str | None
    version: int | None
    reason: Reason
    detail: str
    in_sample: bool = Field(
        False, description="With `at` or `version`: whether the version had learned from this bar's outcome."
    )


class Outcome(BaseModel):
    """What came true, and how good the Signal was."""

    model_config = ConfigDict(serialize_by_alias=True)

    up: bool
    log_return: float = Field(alias="return")
    log_loss: float
    scored_at: str


class KeptPrediction(Prediction):
    """A prediction of the ledger; `outcome` is null until it is known."""

    id: int
    served_at: str
    outcome: Outcome | None


class KeptAbstention(Abstention):
    """An abstention of the ledger; it has no outcome."""

    id: int
    served_at: str
    outcome: None


Signal = Annotated[Prediction | Abstention, Field(discriminator="kind")]
Kept = Annotated[KeptPrediction | KeptAbstention, Field(discriminator="kind")]

router = APIRouter(prefix="/v1", tags=["predictions"])


@router.post(
    "/predict",
    response_model=Signal,
    response_model_exclude_unset=True,
    responses=problems.responses(
        "malformed", "not-found", "too-large", "invalid-request", "bad-input", "unreachable"
    ),
)
def predict(
    ask: Ask, engine: EngineDep, clock: ClockDep, settings: SettingsDep, predictors: PredictorsDep
) -> dict[str, Any]:
    """The market's Signal for its newest closed bar; an abstention is an answer, with its reason.

    The first Signal of a bar stands: asking again gives the same one. It is in the ledger before it is answered.
    With `at` or `version` the answer is what that version says of that moment, and is not in the ledger.
    """
    market, now, stale_after = ask.market(), clock(), settings.service.stale_after_timeframes
    if ask.at is None and ask.version is None:
        answer = store.predictions.answer(engine, market, now, predictors, stale_after, settings.signals)
        return model.predictions.document(answer.signal)
    signal, in_sample = store.predictions.answer_at(
        engine, market, ask.at, now, predictors, ask.version, stale_after, settings.signals
    )
    return {**model.predictions.document(signal), "in_sample": in_sample}


@router.get(
    "/predictions",
    response_model=Page[Kept],
    response_model_exclude_unset=True,
    responses=problems.responses("not-found", "invalid-request", "bad-input", "unreachable"),
)
def ledger(market: AnyMarket, engine: EngineDep, cursor: Cursor = None, limit: Limit = 100) -> dict[str, Any]:
    """The ledger, newest first: every Signal that was served, and its outcome once it is known."""
    with store.database.read(engine) as conn:
        market_id = None if market is None else store.markets.need(conn, market).id
        rows = store.predictions.page(conn, market_id, cursor, limit + 1)
    return page(rows, limit, lambda entry: entry.id, store.predictions.entry_document)
