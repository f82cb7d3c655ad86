"""Labels: what the next `horizon` bars did, and when that became known."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.errors import BadInput
from model.features import FeatureRows


@dataclass(frozen=True)
class Labels:
    """Labels of the first m = n - horizon of n feature rows; the arrays are read-only.

    up (m,) float32: 1 where the close `horizon` bars on is above the row's own, else 0 (an equal close is no rise);
    log_return (m,) float64: log return over the horizon, unscaled;
    known_at (m,) int64 microseconds UTC: the close of the last bar of the horizon.
    """

    up: NDArray[np.float32]
    log_return: NDArray[np.float64]
    known_at: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.up)


def labels(rows: FeatureRows, horizon: int) -> Labels:
    """The labels of those of `rows` whose outcome `horizon` bars on is known. Raises BadInput on a horizon below 1."""
    if horizon < 1:
        raise BadInput(f"a horizon of {horizon} bars looks at nothing: it must be 1 or more")
    now, then = rows.close[:-horizon], rows.close[horizon:]
    up = (then > now).astype(np.float32)
    log_return = np.log(then / now)
    known_at = rows.closed_at[horizon:].copy()
    for array in (up, log_return, known_at):
        array.flags.writeable = False
    return Labels(up, log_return, known_at)
