"""Scoring: predictions in the ledger whose outcome is known by now get it, once."""

import logging
from datetime import datetime

import store.outcomes
from store.database import Engine

log = logging.getLogger(__name__)


def run(engine: Engine, now: datetime) -> int:
    """Scores what matured by `now`, and says how many that were."""
    scored = store.outcomes.score(engine, now)
    if scored:
        log.info("scored %d predictions", scored)
    return scored
