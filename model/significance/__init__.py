"""Significance: whether a difference, a Sharpe ratio or the best of many trials is more than chance explains.

comparison    two forecasters over the same rows: Diebold and Mariano's test, and whether skill may be claimed
sharpe        what a Sharpe ratio per bar is worth: probabilistic, deflated, and how long a record it needs
bootstrap     how far any figure could be off: resampled blocks of rows that follow each other
overfitting   how often the best of several trials in one half of the rows is a poor one in the other
multiple      many tests at once: Holm, Benjamini and Hochberg
distributions the normal and Student's t

Nothing here is annualised: a figure per bar says so in its name.
"""

from model.significance.comparison import (
    ROWS_TO_CLAIM,
    Z_CLAIM,
    Comparison,
    Gain,
    compare,
    gain,
    pooled,
)

__all__ = ["ROWS_TO_CLAIM", "Z_CLAIM", "Comparison", "Gain", "compare", "gain", "pooled"]
