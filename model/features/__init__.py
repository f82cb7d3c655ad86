"""Features: causal Polars expressions over a market's bars, the frames they are computed in, and their proof.

table      FEATURES: add a feature by adding a row
frames     the rule for where a frame starts, and `rows` and `last_row`, which give the same bits
lookahead  `check`: the future moves no value; `unmet_needs`: older bars than stated move none either
"""

from model.features.frames import BLOCK, HISTORY, FeatureRows, last_row, rows
from model.features.lookahead import LookAhead, UnmetNeed, check, unmet_needs
from model.features.table import BASE, DEFAULT, FEATURES, SCALE_NEEDS, WARMUP, Feature, FeatureSet

__all__ = [
    "BASE",
    "BLOCK",
    "DEFAULT",
    "FEATURES",
    "HISTORY",
    "SCALE_NEEDS",
    "WARMUP",
    "Feature",
    "FeatureRows",
    "FeatureSet",
    "LookAhead",
    "UnmetNeed",
    "check",
    "last_row",
    "rows",
    "unmet_needs",
]
