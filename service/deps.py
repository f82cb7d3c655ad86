"""What routes are given: the engine, the settings, the clock, the Signals in memory, a market, a page of a list.

The getters are `async` because they only read an attribute: a plain `def` would cost a thread each.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, Generic, TypeVar

from fastapi import Depends, Query, Request
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

import model.bars
from model.bars import Market
from model.errors import BadInput
from service.answers import Answers
from store.database import Engine
from store.settings import Settings

Clock = Callable[[], datetime]


def machine_now() -> datetime:
    """The machine's time, for jobs, leases and keys, which never follow a demo's clock."""
    return datetime.now(UTC)


async def _engine(request: Request) -> Engine:
    return request.app.state.engine  # type: ignore[no-any-return]


async def _settings(request: Request) -> Settings:
    return request.app.state.settings  # type: ignore[no-any-return]


async def _clock(request: Request) -> Clock:
    # a demo's clock is a row, so it is asked in the route's thread and not here
    return request.app.state.clock  # type: ignore[no-any-return]


async def _answers(request: Request) -> Answers:
    return request.app.state.answers  # type: ignore[no-any-return]


async def _actor(request: Request) -> str:
    return request.state.actor  # type: ignore[no-any-return]


EngineDep = Annotated[Engine, Depends(_engine)]
SettingsDep = Annotated[Settings, Depends(_settings)]
ClockDep = Annotated[Clock, Depends(_clock)]
AnswersDep = Annotated[Answers, Depends(_answers)]
Actor = Annotated[str, Depends(_actor)]  # a key's prefix, or "loopback": see service.security


def _utc(moment: datetime) -> datetime:
    try:
        return model.bars.utc(moment)
    except OverflowError as error:
        raise ValueError("the time is out of range") from error


Time = Annotated[datetime, AfterValidator(_utc)]  # one without a zone is taken as UTC
Symbol = Annotated[str, Field(examples=["ETHUSDT"], min_length=1, max_length=64)]
TimeframeText = Annotated[
    str, Field(examples=["1h"], min_length=2, max_length=8, description="`1m`, `4h`, `1d` …; `60m` is `1h`")
]


class Body(BaseModel):
    """A request's body: unknown fields, NaN and infinity are refused."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class MarketDocument(BaseModel):
    """A market: a symbol and a timeframe."""

    symbol: str = Field(examples=["ETHUSDT"])
    timeframe: str = Field(examples=["1h"])


class MarketBody(Body):
    """A body that names a market."""

    symbol: Symbol
    timeframe: TimeframeText

    def market(self) -> Market:
        """The market that is named, in its one spelling. Raises BadInput."""
        return model.bars.market(self.symbol, self.timeframe)


async def _one_market(symbol: Annotated[str, Query()], timeframe: Annotated[str, Query()]) -> Market:
    return model.bars.market(symbol, timeframe)


async def _any_market(
    symbol: Annotated[str | None, Query(description="Of one market only; needs `timeframe` too.")] = None,
    timeframe: Annotated[str | None, Query()] = None,
) -> Market | None:
    if symbol is None and timeframe is None:
        return None
    if symbol is None or timeframe is None:
        raise BadInput("a market is two fields: give both symbol and timeframe, or neither")
    return model.bars.market(symbol, timeframe)


OneMarket = Annotated[Market, Depends(_one_market)]
AnyMarket = Annotated[Market | None, Depends(_any_market)]

# PostgreSQL's integer ends here; a larger id names nothing and must not become an error of the database.
Ident = Annotated[int, Field(ge=1, le=2**31 - 1)]
Limit = Annotated[int, Query(ge=1, le=500, description="How many items at most.")]
Cursor = Annotated[int | None, Query(ge=1, le=2**31 - 1, description="`next` of the page before.")]

Item = TypeVar("Item")


class Page(BaseModel, Generic[Item]):
    """A page of a list, newest first; `next` is the cursor of the page after it, null on the last one."""

    items: list[Item]
    next: int | None


def page(
    rows: list[Any], limit: int, ident: Callable[[Any], int], document: Callable[[Any], Any]
) -> dict[str, Any]:
    """The page's document, of one row more than `limit`: that row only tells that there is a next page."""
    shown = rows[:limit]
    return {
        "items": [document(row) for row in shown],
        "next": ident(shown[-1]) if len(rows) > limit else None,
    }
