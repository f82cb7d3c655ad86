"""Training more often: what a walk takes, and what it earns on the base rate."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.walks.own import walked
from benchmarks.walks.work import Given
from model import backtest
from model.significance import Gain


@dataclass(frozen=True)
class Interval:
    """A walk with a training every so many bars: how many there were, the seconds of them all, and by how much the log
    loss lies below the base rate's, in nats."""

    every: int
    trainings: int
    seconds: float
    gain: Gain


def interval(given: Given, processes: int) -> Interval:
    """One walk, judged."""
    begun = time.perf_counter()
    result = walked(given, processes)
    seconds = time.perf_counter() - begun
    gain = backtest.judge(result.data, result.said).gain
    return Interval(given.policy.refit_every, len(result.refits), seconds, gain)


def plot(intervals: Sequence[Interval], market: str, file: Path) -> None:
    """Writes skill against the refit interval as one page that needs no network."""
    import plotly.graph_objects as go

    figure = go.Figure(
        go.Scatter(
            x=[each.every for each in intervals],
            y=[1_000 * each.gain.mean for each in intervals],
            error_y={"type": "data", "array": [1_000 * each.gain.error for each in intervals]},
            text=[f"{each.trainings} trainings, {each.seconds:.0f} s" for each in intervals],
            mode="lines+markers",
        )
    )
    figure.add_hline(0, line_dash="dot")
    figure.update_layout(
        title=f"{market}: gain of log loss on the base rate, {intervals[0].gain.rows:,} bars, ± one standard error",
        xaxis={"title": "bars from one training to the next", "type": "log", "tickvals": [i.every for i in intervals]},
        yaxis={"title": "millinats a bar"},
    )  # fmt: skip
    file.write_text(figure.to_html(include_plotlyjs=True), encoding="utf-8")
