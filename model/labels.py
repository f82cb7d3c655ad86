"""Labels: what came after each bar, how large that was against what was to be expected, and when it became known."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.errors import BadInput
from model.features import FeatureRows

Bools = NDArray[np.bool_]
Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Labels:
    """Labels of the first m of n feature rows, each decided at the close of a later bar; the arrays are read-only.

    up (m,) float32: 1 where that close is above the row's own, else 0 (an equal close is no rise);
    log_return (m,) float64: log return from the row's own close to that one, unscaled;
    known_at (m,) int64 microseconds UTC: the time of that close. The span of a label is closed: from the close of the
    bar that it is measured from, which is part of it, up to known_at.
    """

    up: NDArray[np.float32]
    log_return: Float64
    known_at: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.up)


def labels(rows: FeatureRows, horizon: int) -> Labels:
    """What the close `horizon` bars on says, of those of `rows` where it is known: m = n - horizon.

    Raises BadInput on a horizon below 1.
    """
    _check(horizon)
    return _decided(rows, np.arange(horizon, len(rows)))


def triple_barrier(rows: FeatureRows, horizon: int, upper: float, lower: float) -> Labels:
    """What is reached first (Lopez de Prado 2018, ch. 3.4): a rise of `upper`, a fall of `lower`, or the end of the horizon.

    Both are in units of the move's expected size over the horizon, as known at the row's own close, and closes alone
    reach them; at the end of the horizon the sign decides. An infinite barrier is none. A label is known at the close
    that decided it, so an older one may be known later. Labelled are the rows before the first that is undecided yet,
    and no later ones: those would be there for having moved fast. Raises BadInput on a horizon below 1, and on a
    barrier that is not above 0.
    """
    _check(horizon)
    for name, barrier in (("upper", upper), ("lower", lower)):
        if not barrier > 0:
            raise BadInput(f"the {name} barrier is {barrier}, but has to be above 0")
    n, size = len(rows), horizon_scale(rows.scale, horizon)
    decided_by = np.full(n, n)  # the place of a bar; n is undecided
    waiting = np.arange(n)
    for ahead in range(1, horizon + 1):
        waiting = waiting[: np.searchsorted(waiting, n - ahead)]
        move = np.log(rows.close[waiting + ahead] / rows.close[waiting])
        reached = (move >= upper * size[waiting]) | (move <= -lower * size[waiting]) | (ahead == horizon)
        decided_by[waiting[reached]] = waiting[reached] + ahead
        waiting = waiting[~reached]
    undecided = np.flatnonzero(decided_by == n)
    return _decided(rows, decided_by[: undecided[0]] if len(undecided) else decided_by)


def horizon_scale(scale: Float64, horizon: int) -> Float64:
    """The expected size of a log return over `horizon` bars, from that of one bar: a random walk's square root."""
    scaled: Float64 = scale * np.sqrt(float(horizon))
    scaled.flags.writeable = False
    return scaled


def beyond(log_return: Float64, scale: Float64, dead_zone: float) -> Bools:
    """Which moves are no smaller than so many times their expected size: within that zone up or down is mostly noise."""
    large: Bools = np.abs(log_return) >= dead_zone * scale
    return large


def _check(horizon: int) -> None:
    if horizon < 1:
        raise BadInput(f"a horizon of {horizon} bars looks at nothing: it must be 1 or more")


def _decided(rows: FeatureRows, by: NDArray[np.intp]) -> Labels:
    """The labels of the first m rows, given the place `by` (m,) of the bar that decides each."""
    now, then = rows.close[: len(by)], rows.close[by]
    up = (then > now).astype(np.float32)
    log_return = np.log(then / now)
    known_at = rows.closed_at[by]
    for array in (up, log_return, known_at):
        array.flags.writeable = False
    return Labels(up, log_return, known_at)
