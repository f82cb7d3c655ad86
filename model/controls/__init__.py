"""Control models: forecasters whose scores are known beforehand, sent through the very path that a model's forecasts take.

A control that scores otherwise than it must says that the path is broken: outcomes a bar off, up for down, the ends of an
interval swapped. Add a control by adding a row to CONTROLS: what it says, and what follows for its scores.

All that is expected is so given the outcomes. Only a control's own noise, or its shuffle, is random, and independent
from row to row however much the outcomes overlap, so that its sampling error is known too.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass

import numpy as np

from model.backtest import Said
from model.controls import noisy, plain, shuffled
from model.controls.common import RETURN, Control, Expected, Float64
from model.dataset import Dataset

__all__ = ["CONTROLS", "Check", "Control", "Expected", "check"]

Figures = Mapping[str, float | None]

CONTROLS = {
    "perfect oracle": Control(plain.perfect, plain.of_perfect),
    "noisy oracle": Control(noisy.noisy, noisy.of_noisy),
    "base rate": Control(plain.base_rate, plain.of_base_rate),
    "no change": Control(plain.no_change, plain.of_no_change),
    "shuffled labels": Control(shuffled.shuffled, shuffled.of_shuffled),
}

ERRORS = 5.0  # standard errors that a figure may be off: of two million right ones one is further
ROUNDING = 1e-9  # what is exact is so but for this
FEWEST = 20  # ups, and downs, with which the sampling errors hold


@dataclass(frozen=True)
class Check:
    """One figure of one control, found and expected."""

    name: str
    figure: str
    expected: float | None
    tolerance: float
    found: float | None
    passed: bool

    def document(self) -> dict[str, str | float | bool | None]:
        """As JSON has it."""
        return asdict(self)


def check(
    data: Dataset,
    judge: Callable[[Dataset, Said], Figures],
    earn: Callable[[Dataset, Said], Float64] | None = None,
    seed: int = 0,
) -> tuple[Check, ...]:
    """Every control through the path: `judge` gives the figures of what was said of these rows, by the names of `Scores`
    and `gain`, the mean by which the log loss lies below the base rate's.

    `earn`, if there is one, gives what each row earned (n,) before costs by the sign of the expected return, where what
    can be earned is the simple return of the row's own label, exp(r) - 1. Empty where there are fewer than FEWEST ups or
    downs: nothing is known well enough then.
    """
    ups = int(np.count_nonzero(data.up > 0.5))
    if min(ups, len(data) - ups) < FEWEST:
        return ()
    return tuple(_checks(data, judge, earn, seed))


def _checks(
    data: Dataset,
    judge: Callable[[Dataset, Said], Figures],
    earn: Callable[[Dataset, Said], Float64] | None,
    seed: int,
) -> Iterator[Check]:
    for place, (name, control) in enumerate(CONTROLS.items()):
        said = control.say(data, np.random.default_rng((seed, place)))
        found = dict(judge(data, said))
        if earn is not None:
            found[RETURN] = float(earn(data, said).mean())
        for expected in control.expect(data, said):
            if expected.figure != RETURN or earn is not None:
                yield _compared(name, expected, found.get(expected.figure))


def _compared(name: str, expected: Expected, found: float | None) -> Check:
    tolerance = ERRORS * expected.error + ROUNDING
    if expected.value is None or found is None:
        passed = expected.value is None and found is None
    else:
        passed = abs(found - expected.value) <= tolerance
    return Check(name, expected.figure, expected.value, tolerance, found, passed)
