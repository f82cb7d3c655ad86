"""Tuning: a better configuration is searched for on a market's older rows and judged on its newest, which no choice saw.

Add a parameter to the search by adding a row to SPACE, and where it is no field of TrainConfig, a line to `point_of` and
`config_at`. A *point* is a value for each parameter that is searched, a *trial* a point that was walked forward.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model import backtest, dataset, scores, significance
from model.backtest import Result, Said
from model.config import TrainConfig
from model.dataset import SMALLEST_PART, Dataset
from model.errors import BadInput, TrainingFailed
from model.scores import Scores
from model.significance import Comparison, Gain
from model.significance.overfitting import overfitting

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
Point = Mapping[str, float]

NARROWEST = 8  # units of the last layer, however deep a network is


@dataclass(frozen=True)
class Range:
    """All numbers from `low` to `high`, evenly by their logarithms where `log`."""

    low: float
    high: float
    log: bool = False

    def including(self, value: float) -> "Range":
        """Stretched to where that value is one of them."""
        return replace(self, low=min(self.low, value), high=max(self.high, value))


@dataclass(frozen=True)
class Steps:
    """These numbers, in rising order, and none between."""

    values: tuple[int, ...]

    def including(self, value: float) -> "Steps":
        """That value is one of them."""
        return Steps(tuple(sorted({*self.values, int(value)})))


Space = Mapping[str, Range | Steps]

SPACE: Space = {
    "learning_rate": Range(1e-4, 3e-2, log=True),
    "width": Steps((16, 32, 64, 128)),  # of the first hidden layer; each one after it has half as many units
    "depth": Steps((1, 2, 3, 4)),  # hidden layers
    "dropout": Range(0.0, 0.6),
    "window": Steps((500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000)),
    "horizon": Steps((1, 2, 4, 8, 16, 24)),
}


def space(default: TrainConfig, names: Iterable[str]) -> Space:
    """What is searched when these parameters are, the default's own values included.

    Raises BadInput for a name that is none, and where there is none.
    """
    chosen, start = tuple(names), point_of(default)
    if unknown := [name for name in chosen if name not in SPACE]:
        raise BadInput(f"{', '.join(unknown)} cannot be searched; what can is {', '.join(SPACE)}")
    if not chosen:
        raise BadInput(f"nothing is searched: name at least one of {', '.join(SPACE)}")
    return {name: SPACE[name].including(start[name]) for name in SPACE if name in chosen}


def within(searched: Space, default: TrainConfig, rows: int) -> Space:
    """Without windows wider than so many rows, which would all be the same one; the default's stays."""
    windows = searched.get("window")
    if not isinstance(windows, Steps):
        return searched
    fitting = Steps(tuple(rows_in for rows_in in windows.values if rows_in <= rows))
    return {**searched, "window": fitting.including(default.window)}


def longest(searched: Space, default: TrainConfig) -> int:
    """The longest horizon that any trial may have."""
    horizons = searched.get("horizon")
    return max(horizons.values) if isinstance(horizons, Steps) else default.horizon


def point_of(config: TrainConfig) -> dict[str, float]:
    """Where a configuration stands, every parameter of SPACE; the width of a network without hidden layers is the
    narrowest."""
    own: dict[str, float] = {name: getattr(config, name) for name in SPACE if name not in ("width", "depth")}
    return {**own, "width": config.hidden[0] if config.hidden else NARROWEST, "depth": len(config.hidden)}


def config_at(default: TrainConfig, point: Point) -> TrainConfig:
    """The default with the values of that point. Where neither width nor depth differ from the default's, its layers are
    kept as they are, whatever their shape."""
    start = point_of(default)
    whole = {**start, **point}
    width, depth = int(whole["width"]), int(whole["depth"])
    hidden = default.hidden
    if (width, depth) != (start["width"], start["depth"]):
        hidden = tuple(max(min(NARROWEST, width), width >> layer) for layer in range(depth))
    return replace(
        default,
        learning_rate=float(whole["learning_rate"]),
        dropout=float(whole["dropout"]),
        window=int(whole["window"]),
        horizon=int(whole["horizon"]),
        hidden=hidden,
    )


@dataclass(frozen=True)
class Nested:
    """How a market's rows are divided, by closes in microseconds: what is chosen by the inner ones is judged on the
    outer ones, and no label of an inner row is known later than the first outer row's features."""

    inner_from: int  # the first close that a trial is scored on; what lies before is there to learn from
    inner_until: int  # the last one
    outer_from: int


def nested(data: Dataset, judge: float) -> Nested:
    """The newest share `judge` of the rows is outer. `data` has the longest horizon that is searched, so that the purge
    holds for every trial. Raises TrainingFailed where a part is too small."""
    n = len(data)
    row = n - round(n * judge)
    inner = dataset.known_by(data, row) if row < n else 0
    if min(inner // 2, n - row) < SMALLEST_PART:
        raise TrainingFailed(
            f"{n} rows with features and a known label are too few to search on {max(row, 0)} and to judge on {n - row}: "
            "more bars are needed"
        )
    at = data.closed_at
    return Nested(int(at[inner // 2]), int(at[inner - 1]), int(at[row]))


def rows_before(data: Dataset, since: int) -> int:
    """How many rows a walk's first training has for the first judged row to be the first that closed at `since` or
    later. Raises TrainingFailed where there is none."""
    row = int(np.searchsorted(data.closed_at, since)) - 1
    first = dataset.known_by(data, row) if 0 <= row < len(data) - 1 else 0
    if first == 0:
        raise TrainingFailed(
            "there are no rows to learn from before those that are to be judged, or none of these"
        )
    return first


def judged_since(result: Result, since: int) -> Result:
    """The judged rows that closed at `since` or later: after a gap a walk may begin a little earlier."""
    rows = slice(int(np.searchsorted(result.data.closed_at, since)), None)
    said = Said(*(getattr(result.said, column.name)[rows] for column in fields(Said)))
    return Result(result.data.part(rows), said, result.refused[rows], result.refit[rows], result.refits)


@dataclass(frozen=True, eq=False)
class Walked:
    """How a configuration did on the n rows that it was judged on, (n,) each."""

    horizon: int
    closed_at: Int64
    losses: Float64  # log losses
    base_losses: Float64  # those of the base rate, which no window decides
    net_return: Float64  # the strategy's in the bar after each row, after costs
    scores: Scores
    gain: Gain  # over the base rate
    sharpe_bar: float | None  # None where it did not trade


def walked(data: Dataset, result: Result, net_return: Float64, sharpe_bar: float | None) -> Walked:
    """What a walk through `data` comes to; net_return (n,) belongs to the rows that it judged.

    The base rate is the share of up in all rows that were known when it trained, and not in the trial's own window: in a
    narrow one it is off by so much that beating it is no merit.
    """
    known = [backtest.known_at_close(data, refit.row).up for refit in result.refits]
    base_rate = np.array([float(up.mean()) if len(up) else 0.5 for up in known])[result.refit]
    rows, judged = result.data, backtest.judge(result.data, replace(result.said, base_rate=base_rate))
    losses, base = (scores.log_losses(p, rows.up.astype(np.float64)) for p in (result.said.p_up, base_rate))
    return Walked(
        rows.horizon, rows.closed_at, losses, base, net_return, judged.model, judged.gain, sharpe_bar
    )


@dataclass(frozen=True)
class Trial:
    """A point that was tried, and how it did on the inner rows, or why it failed."""

    number: int  # 0: the default
    point: Point
    config: TrainConfig
    outcome: Walked | str
    seconds: float

    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        found = self.outcome if isinstance(self.outcome, Walked) else None
        return {
            "number": self.number,
            "params": dict(self.point),
            "gain": None if found is None else found.gain.mean,
            "gain_bar": objective(self.outcome),
            "z": None if found is None else found.gain.z,
            "log_loss": None if found is None else found.scores.log_loss,
            "sharpe_bar": None if found is None else found.sharpe_bar,
            "seconds": self.seconds,
            "failed": self.outcome if isinstance(self.outcome, str) else None,
        }


def objective(outcome: Walked | str) -> float | None:
    """What the search makes as large as it can, in nats per bar: the gain over the base rate by the bars of the horizon.
    None of a trial that failed.

    The gain is how fast a gambler's capital grows who bets by these forecasts at the base rate's odds (Kelly 1956), and a
    bet is settled after as many bars as the horizon has. The gain in units of its error would compare across horizons
    too, but is largest for forecasts that hardly leave the base rate: it is no proper score.
    """
    return None if isinstance(outcome, str) else outcome.gain.mean / outcome.horizon


def choose(trials: Sequence[Trial]) -> Trial:
    """The one with the largest objective, of equal ones the first; the default where none has gained anything.

    Raises TrainingFailed where all have failed.
    """
    done = [(found, trial) for trial in trials if (found := objective(trial.outcome)) is not None]
    if not done:
        reason = f"; the first: {trials[0].outcome}" if trials else ""
        raise TrainingFailed(f"none of {len(trials)} trials came to an end{reason}")
    largest, best = max(done, key=lambda each: each[0])
    return best if largest > 0 else done[0][1]


@dataclass(frozen=True)
class Overfit:
    """How often the best of the trials in one half of the inner rows is a poor one in the other (CSCV); None where rows
    or trials are too few to say, and of returns where no trial traded."""

    rows: int  # that every trial was judged on
    trials: int  # that came to an end
    probability: float | None  # chosen by the Sharpe ratio of net returns
    loss: float | None  # how often that choice lost money where it was judged
    probability_by_gain: float | None  # chosen by the gain over the base rate in units of its spread


def overfit(trials: Sequence[Trial]) -> Overfit:
    """Over the rows that all trials which did not fail were judged on."""
    done = [trial.outcome for trial in trials if isinstance(trial.outcome, Walked)]
    if not done:
        return Overfit(0, 0, None, None, None)
    common = reduce(np.intersect1d, [each.closed_at for each in done])
    places = [np.searchsorted(each.closed_at, common) for each in done]
    both = list(zip(done, places, strict=True))
    gains = overfitting(np.stack([each.base_losses[rows] - each.losses[rows] for each, rows in both]))
    returns = np.stack([each.net_return[rows] for each, rows in both])
    earned = overfitting(returns) if returns.any() else None
    return Overfit(
        len(common),
        len(done),
        None if earned is None else earned.probability,
        None if earned is None else earned.loss,
        None if gains is None else gains.probability,
    )


def paired(default: Walked, chosen: Walked) -> Comparison:
    """The default's losses against the chosen configuration's, over the rows that both were judged on. Where their
    horizons differ, so do their labels, and what each gained per bar, as `objective` has it, is compared instead."""
    _, its, ours = np.intersect1d(default.closed_at, chosen.closed_at, return_indices=True)
    same = default.horizon == chosen.horizon
    first, second = (
        each.losses[rows] if same else (each.losses[rows] - each.base_losses[rows]) / each.horizon
        for each, rows in ((default, its), (chosen, ours))
    )
    return significance.compare(first, second, max(default.horizon, chosen.horizon))


@dataclass(frozen=True)
class Verdict:
    """Whether the chosen configuration is better than the default on the outer rows; None where there is nothing to
    tell it by."""

    better: bool | None
    text: str
    paired: Comparison | None


def verdict(default: Walked | str, chosen: Walked | str) -> Verdict:
    """As one would say it; texts are why a walk failed."""
    for whose, outcome in (("default", default), ("chosen configuration", chosen)):
        if isinstance(outcome, str):
            return Verdict(
                None, f"nothing to compare: the {whose} failed on the newest rows: {outcome}", None
            )
    assert isinstance(default, Walked)
    assert isinstance(chosen, Walked)
    found = paired(default, chosen)
    if chosen is default:
        return Verdict(
            False, "the default stays: no trial did better on the rows that it was chosen by", found
        )
    z, evidence = found.z or 0.0, _evidence(default.horizon, chosen.horizon, found)
    if found.rows < significance.ROWS_TO_CLAIM:
        return Verdict(None, f"too few bars to tell: {evidence}", found)
    if z > significance.Z_CLAIM:
        return Verdict(True, f"better than the default on rows that no choice saw: {evidence}", found)
    if z < -significance.Z_CLAIM:
        return Verdict(False, f"worse than the default on rows that no choice saw: {evidence}", found)
    return Verdict(False, f"no evidence that it is better than the default: {evidence}", found)


def _evidence(its: int, ours: int, found: Comparison) -> str:
    size, over = f"{abs(found.gain):.5f}", f"over {found.rows} bars, z = {found.z or 0.0:.1f}"
    if its == ours:
        return f"log loss {size} {'below' if found.gain >= 0 else 'above'} the default's {over}"
    return (
        f"at a horizon of {ours} bars it gains {size} {'more' if found.gain >= 0 else 'less'} per bar on the base rate than "
        f"the default does at {its}, {over}"
    )
