"""Features: causal Polars expressions over a market's bars, the frames they are computed in, and their proof.

columns    what features share, and what a feature is
parts      what of an expression needs frames, and what has the same bits without
few        the newest rows, number by number: the same bits, sooner
table      FEATURES: add a feature by adding a row
frames     the rule for where a frame starts, and the rows of one market's bars, which have the same bits everywhere
inputs     `rows` and `last_row`: those, and beside them the rows of longer timeframes and of other markets
lookahead  `check`: the future moves no value; `unmet_needs`: older bars than stated move none either
indicators the rows that traders know by name
user       `feature`: a user's own, and what they must prove
"""

from model.features.columns import BASE, SCALE_NEEDS, WARMUP, Feature
from model.features.frames import BLOCK, GIVEN, HISTORY, JUMPED, SHORT, STALE, FeatureRows, last_rows
from model.features.inputs import NO_OTHERS, Others, last_row, reach, rows
from model.features.lookahead import LookAhead, UnmetNeed, check, unmet_needs
from model.features.table import (
    DEFAULT,
    FEATURES,
    FeatureSet,
    Input,
    feature_set_from,
    inputs_from,
)
from model.features.user import feature

__all__ = [
    "BASE",
    "BLOCK",
    "DEFAULT",
    "FEATURES",
    "GIVEN",
    "HISTORY",
    "JUMPED",
    "NO_OTHERS",
    "SCALE_NEEDS",
    "SHORT",
    "STALE",
    "WARMUP",
    "Feature",
    "FeatureRows",
    "FeatureSet",
    "Input",
    "LookAhead",
    "Others",
    "UnmetNeed",
    "check",
    "feature",
    "feature_set_from",
    "inputs_from",
    "last_row",
    "last_rows",
    "reach",
    "rows",
    "unmet_needs",
]
