"""Versions in memory. One never changes once it is stored, so that a loaded one is never stale."""

import json
from dataclasses import dataclass

from sqlalchemy import Connection

import store.outcomes
import store.versions
from model import predictor
from model.predictor import Predictor
from model.significance import Gain
from store.outcomes import Evidence

# A process keeps so many; each is some ten thousand numbers.
MOST = 1_000


@dataclass(eq=False)
class Loaded:
    """A version's predictor, what it gained on the rows that its training held back, and the evidence of its skill when
    it was last asked for."""

    model: Predictor
    held: Gain
    _evidence: Evidence | None = None

    def skill(self, conn: Connection, version: int) -> bool | None:
        """What the evidence so far says; None: there is too little of it."""
        self._evidence = store.outcomes.evidence(conn, version, self.held, self._evidence)
        return self._evidence.gain.skill


Versions = dict[int, Loaded]  # by id


def load(conn: Connection, version: int, kept: Versions) -> Loaded:
    """That version, kept for the next time; the one that was loaded first makes room where there are many. Raises
    BadArtifact where it is damaged or cannot be used any more, NotFound."""
    known = kept.get(version)
    if known is not None:
        return known
    packed = store.versions.packed(conn, version)
    model = predictor.from_artifact(packed)
    held = json.loads(packed.manifest)["held"]
    found = Loaded(model, Gain(held["rows"], held["gain"], held["gain_error"]))
    if len(kept) >= MOST:
        oldest, *_ = list(kept)
        kept.pop(oldest, None)
    kept[version] = found
    return found
