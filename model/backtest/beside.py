"""What baselines would have said of a walk's rows, each trained anew where the walk was, on the very rows it had."""

from collections.abc import Callable, Sequence

import numpy as np

from model import weights
from model.backtest.judging import Others
from model.backtest.walk import KEPT, Policy, Result, answered_after, known_at_close
from model.baselines import BASELINES
from model.config import TrainConfig
from model.dataset import Dataset
from model.errors import BadInput


def beside(
    data: Dataset,
    config: TrainConfig,
    policy: Policy,
    walked: Result,
    names: Sequence[str],
    progress: Callable[[float], None] = lambda share: None,
) -> Others:
    """For each named baseline the probability of up and the expected return of every row that the walk judged, (n,).

    Raises BadInput for a name that is none.
    """
    if unknown := [name for name in names if name not in BASELINES]:
        raise BadInput(f"there is no baseline {', '.join(unknown)}; there are {', '.join(BASELINES)}")
    n = len(walked.data)
    first = int(np.searchsorted(data.closed_at, walked.data.closed_at[0]))
    said = {name: (np.empty(n), np.empty(n)) for name in names}
    trained = [refit for refit in walked.refits if refit.outcome != KEPT]
    for number, refit in enumerate(trained):
        learn = known_at_close(data, refit.row)
        learn = learn.part(slice(max(0, len(learn) - config.window), len(learn)))
        weight = np.atleast_2d(weights.of(learn, config))[0]
        # until the next one that trained: what lies between is said anew then
        begins = max(answered_after(refit.row, policy, len(data)).start, first)
        rows = data.part(slice(begins, first + n))
        if number + 1 < len(trained):
            ends = answered_after(trained[number + 1].row, policy, len(data)).start
            rows = data.part(slice(begins, max(begins, min(ends, first + n))))
        if len(rows) == 0:
            continue
        into = slice(begins - first, begins - first + len(rows))
        for name, (p_up, expected) in said.items():
            p_up[into], expected[into] = BASELINES[name](learn, weight, rows)
        progress((number + 1) / len(trained))
    return said
