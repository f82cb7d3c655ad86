"""Versions in memory. One never changes once it is stored, so that a loaded one is never stale."""

import json
from dataclasses import dataclass

from sqlalchemy import Connection

import store.outcomes
import store.versions
from model import predictor
from model.bars import Market
from model.predictor import Predictor
from model.significance import Gain
from store.outcomes import Evidence

# A process keeps so many, and so many of one market, the newest loaded ones: its champion, the one before, and what bots
# have pinned. Each is some ten thousand numbers.
MOST, MOST_OF_MARKET = 1_000, 4


@dataclass(eq=False)
class Loaded:
    """A version's predictor, what it gained on the rows that its training held back, and the evidence of its skill when
    it was last asked for."""

    market: Market
    model: Predictor
    held: Gain
    _evidence: Evidence | None = None

    def skill(self, conn: Connection, version: int) -> bool | None:
        """What the evidence so far says; None: there is too little of it."""
        self._evidence = store.outcomes.evidence(conn, version, self.held, self._evidence)
        return self._evidence.gain.skill


Versions = dict[int, Loaded]  # by id


def load(conn: Connection, market: Market, version: int, kept: Versions) -> Loaded:
    """That version of the market, kept for the next time; those that were loaded first make room where there are many.
    Raises BadArtifact where it is damaged or cannot be used any more, NotFound."""
    known = kept.get(version)
    if known is not None:
        return known
    packed = store.versions.packed(conn, version)
    model = predictor.from_artifact(packed)
    held = json.loads(packed.manifest)["held"]
    found = Loaded(market, model, Gain(held["rows"], held["gain"], held["gain_error"]))
    there = list(kept.items())
    of_market = [ident for ident, each in there if each.market == market]
    out = set(of_market[: max(0, len(of_market) + 1 - MOST_OF_MARKET)])
    if len(there) - len(out) >= MOST:
        out.add(there[0][0])
    for ident in out:
        kept.pop(ident, None)
    kept[version] = found
    return found
