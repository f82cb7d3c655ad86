"""Ask for Signals: a market's, many markets', of bars in the request; and read the ledger of all that were ever given."""

from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, FastAPI
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field, JsonValue

import model.predictions
import store.database
import store.markets
import store.predictions
from model.errors import BadInput, NotFound
from model.predictions import Reason
from service import at_hand, bars, problems
from service.answers import Answers
from service.bars import Bar
from service.deps import (
    AnswersDep,
    AnyMarket,
    Body,
    ClockDep,
    Cursor,
    EngineDep,
    Ident,
    Limit,
    MarketBody,
    MarketDocument,
    Page,
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
    "position": 0.0,
    "pays_up_to_bps": None,
}


class Ask(MarketBody):
    """Which market's Signal, of which moment where it is not for now, and of which bars where not of those stored."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"symbol": "ETHUSDT", "timeframe": "1h"}]})

    at: Time | None = Field(
        None, description="Answer from the bars that had closed by then; not written to the ledger."
    )
    version: Ident | None = Field(
        None, description="Ask this version instead of today's champion; not written to the ledger."
    )
    bars: list[Bar] | None = Field(
        None,
        min_length=1,
        description="Answer from these instead of the stored ones, 768 of them always suffice; nothing is stored.",
    )


class AskMany(Body):
    """Which markets' Signals."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"markets": [{"symbol": "ETHUSDT", "timeframe": "1h"}]}]}
    )

    markets: list[MarketBody] = Field(min_length=1)


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
    position: float | None = Field(
        None,
        description="To hold by the market's policy, as a share of the capital, after what its Signal before asked for "
        "(with `bars` nothing was held before); below 0 is short, null: not kept then.",
    )
    pays_up_to_bps: float | None = Field(
        None,
        description="The round trip's cost from which on that position stops paying; null: nothing is held.",
    )
    in_sample: bool = Field(
        False, description="With `at` or `version`: whether the version had learned from this bar's outcome."
    )
    degraded: bool = Field(
        False, description="True: from memory, since the database is away; it may be behind."
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
    degraded: bool = Field(
        False, description="True: from memory, since the database is away; it may be behind."
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


class LedgerPage(Page[Kept]):
    """A page of the ledger, newest first."""


class Unanswered(BaseModel):
    """A market of a batch that there is no Signal for, and why."""

    market: MarketDocument
    problem: problems.Problem


class Answered(BaseModel):
    """The Signals of a batch, in the order in which their markets were named."""

    items: list[Signal | Unanswered]


router = APIRouter(prefix="/v1", tags=["predictions"])


def predict(
    ask: Ask, engine: EngineDep, clock: ClockDep, settings: SettingsDep, answers: AnswersDep
) -> Response:
    """The market's Signal for its newest closed bar; an abstention is an answer, with its reason.

    The first Signal of a bar stands: asking again gives the same one, with the same ETag. It is in the ledger before it is
    answered. With `at`, `version` or `bars` the answer is what that version says of that moment or of these bars, and is
    not in the ledger.
    """
    market = ask.market()
    if ask.at is None and ask.version is None and ask.bars is None:
        return at_hand.response(answers.signal(market))
    if ask.bars is not None:
        frame = bars.frame(ask.bars, settings.service.max_bars_per_request)
        return JSONResponse(answers.of_bars(market, frame, ask.at, ask.version))
    signal, in_sample = store.predictions.answer_at(
        engine, market, ask.at, clock(), answers.versions, ask.version, answers.terms
    )
    return JSONResponse({**model.predictions.document(signal), "in_sample": in_sample})


def predict_many(ask: AskMany, settings: SettingsDep, answers: AnswersDep) -> Response:
    """The Signals of many markets for now, in their order; a market that there is none for has a problem in its place."""
    most = settings.service.max_batch_markets
    if len(ask.markets) > most:
        raise BadInput(f"{len(ask.markets)} markets in one request; at most {most}")
    return at_hand.together([_item(each, answers) for each in ask.markets])


def _item(named: MarketBody, answers: Answers) -> bytes:
    try:
        return answers.signal(named.market()).body
    except (NotFound, BadInput) as error:
        refusal = problems.of_error(error)
        assert refusal is not None
        market = msgspec.json.encode({"symbol": named.symbol, "timeframe": named.timeframe})
        return b'{"market":%s,"problem":%s}' % (market, bytes(refusal.body))


def at_hand_first(app: FastAPI) -> None:
    """Adds the two routes that bots ask all day. On the app itself and before all others, so that no router is
    walked through to find them."""
    app.router.add_api_route(
        "/v1/predict",
        predict,
        methods=["POST"],
        tags=["predictions"],
        response_model=Signal,
        responses=problems.responses(*_REFUSALS, "not-found", "bad-bars"),
        route_class_override=at_hand.One,
    )
    app.router.add_api_route(
        "/v1/predict/batch",
        predict_many,
        methods=["POST"],
        tags=["predictions"],
        response_model=Answered,
        responses=problems.responses(*_REFUSALS),
        route_class_override=at_hand.Batch,
    )


_REFUSALS = ("malformed", "too-large", "invalid-request", "bad-input", "unreachable")


@router.get(
    "/predictions",
    response_model=LedgerPage,
    response_model_exclude_unset=True,
    responses=problems.responses("not-found", "invalid-request", "bad-input", "unreachable"),
)
def ledger(market: AnyMarket, engine: EngineDep, cursor: Cursor = None, limit: Limit = 100) -> dict[str, Any]:
    """The ledger, newest first: every Signal that was served, and its outcome once it is known."""
    with store.database.read(engine) as conn:
        market_id = None if market is None else store.markets.need(conn, market).id
        rows = store.predictions.page(conn, market_id, cursor, limit + 1)
    return page(rows, limit, lambda entry: entry.id, store.predictions.entry_document)
