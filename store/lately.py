"""What the ledger last said of a market: read once, for all that a new answer asks of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, bindparam, func, select

from store.tables import EPOCH, markets, predictions

# Nearly always the bar's own row, and that of the bar before.
MOST = 4


@dataclass(frozen=True)
class Lately:
    """A market's rows up to the bar that closed `as_of`, MOST of them or all: those of the newest bar first, and of a bar
    its prediction first, then what was said last."""

    as_of: datetime
    rows: Sequence[Row[Any]]
    waiting: Mapping[str, Any] | None = None  # a row of a bar before that the ledger has yet to get

    @property
    def prediction(self) -> Row[Any] | None:
        """That bar's, if there is one: it stands."""
        of_bar = (row for row in self.rows if row.as_of == self.as_of and row.kind == "prediction")
        return next(of_bar, None)

    @property
    def earlier(self) -> Sequence[Mapping[Any, Any]]:
        """Those of bars before, by column."""
        rows = [row._mapping for row in self.rows if row.as_of < self.as_of]
        if self.waiting is None or (rows and rows[0]["as_of"] >= self.waiting["as_of"]):
            return rows
        return [self.waiting, *rows]

    @property
    def newest_id(self) -> int:
        """The id of the market's newest row in the ledger; 0 where nothing was said up to that bar."""
        return self.rows[0].newest_id if self.rows else 0

    @property
    def since(self) -> datetime:
        """The close from which on what is said has to do with the bar's own answer: that of the bar before."""
        if self.earlier:
            return self.earlier[0]["as_of"]  # type: ignore[no-any-return]
        return EPOCH if self.whole else self.as_of

    @property
    def whole(self) -> bool:
        """Whether there are no more."""
        return len(self.rows) < MOST


def read(
    conn: Connection, market_id: int, as_of: datetime, waiting: Mapping[str, Any] | None = None
) -> Lately:
    """What was said of the market up to that bar; `waiting` is its newest row that the ledger has yet to get."""
    before = waiting if waiting is not None and waiting["as_of"] < as_of else None
    return Lately(as_of, conn.execute(_NEWEST, {"market_id": market_id, "as_of": as_of}).all(), before)


_every = predictions.alias()
_NEWEST_ID = select(func.max(_every.c.id)).where(_every.c.market_id == bindparam("market_id"))
_NEWEST = (
    select(
        predictions, markets.c.symbol, markets.c.timeframe, _NEWEST_ID.scalar_subquery().label("newest_id")
    )
    .join(markets, markets.c.id == predictions.c.market_id)
    .where(predictions.c.market_id == bindparam("market_id"), predictions.c.as_of <= bindparam("as_of"))
    .order_by(
        predictions.c.as_of.desc(), (predictions.c.answer == "prediction").desc(), predictions.c.id.desc()
    )
    .limit(MOST)
)
