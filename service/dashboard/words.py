"""Numbers and verdicts in plain words. A state that can be shown is a row: a sign, a word, and a tone.

Tones colour what the sign and the word already say: good, fair, bad, calm.
"""

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from markupsafe import Markup, escape

from model.predictions import Reason

NARROW = "\N{NARROW NO-BREAK SPACE}"
MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class Sign:
    """How a state is shown."""

    sign: str
    word: str
    tone: str
    about: str = ""


SKILL: dict[bool | None, Sign] = {
    True: Sign(
        "✓", "has skill", "good", "Out of sample it has been better than the base rate, beyond chance."
    ),
    False: Sign(
        "✕", "no skill shown", "bad", "Out of sample it has not been better than always saying the base rate."
    ),
    None: Sign(
        "?", "skill not known yet", "calm", "There is too little evidence to tell it from the base rate."
    ),
}

REASONS: dict[Reason, str] = {
    Reason.NO_MODEL: "No model has been trained for this market yet.",
    Reason.TOO_FEW_BARS: "There are too few bars to answer from.",
    Reason.STALE_BARS: "The newest bar is too old to say anything about now.",
    Reason.STALE_MODEL: "The model is too old for these bars.",
    Reason.GAP: "Bars are missing just before this one.",
    Reason.OUT_OF_DOMAIN: "These bars are unlike anything that the model has learned from.",
    Reason.LOW_CONFIDENCE: "The model is not sure enough either way.",
    Reason.UNHEALTHY_MODEL: "The model did not pass its checks.",
    Reason.PAUSED: "This market is paused.",
}

HEALTH: dict[str, Sign] = {
    "healthy": Sign("✓", "healthy", "good", "Gradients reach this layer at a useful size."),
    "vanishing": Sign("↓", "vanishing", "bad", "Gradients are too small to teach this layer anything."),
    "exploding": Sign("↑", "exploding", "bad", "Gradients are so large that steps overshoot."),
    "dead": Sign("∅", "dead units", "fair", "Many units are shut for every row and cannot learn."),
    "saturated": Sign("≡", "saturated", "fair", "Many units sit at the flat ends of their activation."),
    "non_finite": Sign("!", "not finite", "bad", "Values overflowed or are not numbers."),
}

JOB_STATES: dict[str, Sign] = {
    "queued": Sign("…", "queued", "calm"),
    "running": Sign("▶", "running", "fair"),
    "succeeded": Sign("✓", "succeeded", "good"),
    "failed": Sign("✕", "failed", "bad"),
    "cancelled": Sign("–", "cancelled", "calm"),
}

DOUBTS: dict[str, str] = {
    "stale_bars": "Bars are not fresh",
    "no_champion": "No model yet",
    "learning_stalled": "Scoring has stopped",
    "retrain_failed": "The last training failed",
}

_UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
_CODE = re.compile(r"`([^`]+)`")


def price(value: float) -> str:
    """About six digits that matter: `3,439.21`, `1.08345`, `0.00001234`."""
    decimals = 2 if value <= 0 else min(max(5 - math.floor(math.log10(value)), 2), 10)
    return f"{value:,.{decimals}f}"


def percent(share: float, decimals: int = 1) -> str:
    """`0.612` as `61.2 %`."""
    return f"{share * 100:.{decimals}f}{NARROW}%"


def change(log_return: float) -> str:
    """A log return as the change that it is: `+0.12 %`, and one digit more where it is small: `−0.003 %`."""
    share = math.expm1(log_return) * 100
    text = f"{share:+.{2 if abs(share) >= 0.1 else 3}f}".replace("-", MINUS)
    return f"{text}{NARROW}%"


def small(value: float | None) -> str:
    """A norm or ratio, to two digits: `0.0031`, `2.4e-9`; one that was not finite is said so."""
    if value is None:
        return "not finite"
    return f"{value:.2g}" if value == 0 or value >= 1e-4 else f"{value:.1e}".replace("e-0", "e-")


def duration(length: timedelta) -> str:
    """Days and hours, or hours and minutes, or the one unit that is left: `3 h 12 min`, `12 min`, `8 s`."""
    seconds = max(0, round(length.total_seconds()))
    for (size, unit), (smaller, smaller_unit) in pairwise(_UNITS):
        if seconds >= size:
            rest = seconds % size // smaller
            also = f" {rest}{NARROW}{smaller_unit}" if rest and unit != "min" else ""
            return f"{seconds // size}{NARROW}{unit}{also}"
    return f"{seconds}{NARROW}s"


def moment(at: datetime) -> str:
    """`1 Jul 2024, 00:00 UTC`; seconds only where there are any."""
    utc = at.astimezone(UTC)
    clock = f"{utc:%H:%M:%S}" if utc.second else f"{utc:%H:%M}"
    return f"{utc.day} {utc:%b %Y}, {clock} UTC"


def ahead(horizon: int, timeframe: str) -> str:
    """The horizon in words: `the next bar (1h)`, `the next 3 bars (of 1h)`."""
    return f"the next bar ({timeframe})" if horizon == 1 else f"the next {horizon} bars (of {timeframe})"


def code(text: str) -> Markup:
    """`text`, escaped, with what stands in backticks as code."""
    return Markup(_CODE.sub(r"<code>\1</code>", str(escape(text))))  # noqa: S704 - escaped just here
