"""Forecast scores: how good stated probabilities, returns and intervals were, once the outcomes are known.

losses    what a single row costs
ranks     mid-ranks, AUC, correlation
bins      calibration over bins of equally many rows: ECE, the reliability curve, the parts of a Brier score
summary   `Paired`, what was said of rows beside what came, and `of`, all its scores
intervals `intervals`: how far each score could be off, from resampled rows

Letters: p (n,) are probabilities of up, `up` (n,) is 0 or 1, returns are log returns over the horizon.
"""

from model.scores.bins import BINS, calibration_error, reliability
from model.scores.intervals import intervals
from model.scores.losses import CERTAINTY, log_losses, pinball_losses
from model.scores.ranks import auc, correlation, mid_ranks
from model.scores.summary import IC_BLOCK, Paired, Scores, of

__all__ = [
    "BINS",
    "CERTAINTY",
    "IC_BLOCK",
    "Paired",
    "Scores",
    "auc",
    "calibration_error",
    "correlation",
    "intervals",
    "log_losses",
    "mid_ranks",
    "of",
    "pinball_losses",
    "reliability",
]
