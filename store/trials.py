"""Trials: every way to train and trade that was ever evaluated in a market, for later claims are to be deflated by them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, func, select

from store.tables import trials


@dataclass(frozen=True)
class Trials:
    """How many different ways were tried, and the Sharpe ratios per bar of those that traded."""

    count: int
    sharpes_bar: tuple[float, ...]


def add(
    conn: Connection,
    market_id: int,
    job_id: int,
    config: Mapping[str, Any],
    rows: int,
    log_loss: float | None,
    sharpe_bar: float | None,
    now: datetime,
) -> None:
    """Counts one more."""
    conn.execute(
        trials.insert().values(
            market_id=market_id,
            job_id=job_id,
            created_at=now,
            config=dict(config),
            rows=rows,
            log_loss=log_loss,
            sharpe_bar=sharpe_bar,
        )
    )


def others(conn: Connection, market_id: int, config: Mapping[str, Any]) -> Trials:
    """Those of a market beside this one. The same way tried again, on other bars, is no other way: its newest counts."""
    beside = (trials.c.market_id == market_id, trials.c.config != dict(config))
    newest = select(func.max(trials.c.id)).where(*beside).group_by(trials.c.config)
    sharpes = conn.scalars(
        select(trials.c.sharpe_bar).where(trials.c.id.in_(newest)).order_by(trials.c.id)
    ).all()
    return Trials(len(sharpes), tuple(sharpe for sharpe in sharpes if sharpe is not None))
