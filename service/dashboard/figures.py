"""The charts of a report, as plotly reads them: one function each, from the document or the frame of a backtest.

A colour is the name of a CSS variable, which the page's script looks up, so that charts follow light, dark and print.
A chart whose keys or columns are not there is left out. Add one by a function and a place in report.html.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from model import scores
from model.bars import timeframe
from service.dashboard import curves, drawing
from service.dashboard.drawing import Chart, Figure

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

# so many standard deviations to both sides hold 90 % of a normal distribution
NORMAL_90 = 1.6448536269514722
LEVEL = 0.9
LEAST_ROWS = 100  # below which nothing rolls


def equity(document: Mapping[str, Any], frame: pl.DataFrame) -> Chart | None:
    """What 1 became, by the strategy and by buying and holding, and how far below its peak it was."""
    if not _has(frame, "net_return", "buy_and_hold", "position"):
        return None
    times = _times(frame)
    end = int(times[-1]) + int(timeframe(document["market"]["timeframe"]).length.total_seconds() * 1e6)
    at = np.append(times, end)
    data: list[Figure] = []
    for name, column, colour, width in (
        ("buy and hold", "buy_and_hold", "quiet", 1.2),
        ("strategy", "net_return", "accent", 1.8),
    ):
        grown = curves.equity(_filled(frame, column))
        style = {"line": {"color": drawing.colour(colour), "width": width}, "legendgroup": name}
        # a lost capital has no place on a logarithmic scale
        data += [
            {**drawing.line(name, at, grown, ".3f", positive=True), **style},
            {
                **drawing.line(name, at, curves.drawdown(grown), ".1%"),
                **style,
                "yaxis": "y2",
                "showlegend": False,
            },
        ]
    idle = drawing.shades(
        "no position", curves.stretches(times, _filled(frame, "position") == 0, end), "shade"
    )
    gaps = drawing.shades("rows missing", curves.gaps(times), "fair")
    layout = {
        "xaxis": {"type": "date", "anchor": "y2"},
        "yaxis": {"type": "log", "domain": [0.38, 1], "title": {"text": "value of 1"}, "nticks": 8},
        "yaxis2": {
            "domain": [0, 0.3],
            "tickformat": ".0%",
            "title": {"text": "drawdown"},
            "nticks": 5,
            "rangemode": "tozero",
        },
        "shapes": idle + gaps,
        "hovermode": "x unified",
    }
    return Chart(
        {"data": data, "layout": layout},
        "Value of the strategy and of buying and holding over time, and their drawdowns",
        tall=True,
    )


def window_of(rows: int) -> int | None:
    """Over how many rows scores roll: a tenth of them, between 50 and 2,000; None where there are too few."""
    return None if rows < LEAST_ROWS else min(max(rows // 10, 50), 2_000)


def rolling_gain(frame: pl.DataFrame) -> Chart | None:
    """By how much the log loss was below the base rate's, over the rows before."""
    said = _complete(frame, "base_rate", "p_up", "up")
    if said is None or (window := window_of(len(said))) is None:
        return None
    p, base, up = (said[column].cast(pl.Float64).to_numpy() for column in ("p_up", "base_rate", "up"))
    gain = scores.log_losses(base, up) - scores.log_losses(p, up)
    noise = NORMAL_90 * float(gain.std()) / window**0.5
    return _rolling(
        said, gain, window, "gain in nats", 0.0, noise, ".5f", "Rolling gain in log loss over the base rate"
    )


def rolling_coverage(frame: pl.DataFrame) -> Chart | None:
    """How often the 90 % interval held the outcome, over the rows before."""
    said = _complete(frame, "low", "high", "close", "log_return")
    if said is None or (window := window_of(len(said))) is None:
        return None
    outcome = pl.col("close") * pl.col("log_return").exp()
    inside = (
        said.select(outcome.is_between(pl.col("low"), pl.col("high")).cast(pl.Float64)).to_series().to_numpy()
    )
    noise = NORMAL_90 * (LEVEL * (1 - LEVEL) / window) ** 0.5
    return _rolling(
        said, inside, window, "share inside", LEVEL, noise, ".1%", "Rolling coverage of the 90 % intervals"
    )


def reliability(bins: Sequence[Mapping[str, Any]] | None) -> Chart | None:
    """How often it went up where that much was said."""
    known = [
        each
        for each in bins or ()
        if each.get("p") is not None and each.get("up") is not None and each.get("rows")
    ]
    if not known:
        return None
    p, up, rows = (np.array([each[name] for each in known], np.float64) for name in ("p", "up", "rows"))
    error = NORMAL_90 * np.sqrt(up * (1 - up) / rows)
    low, high = (
        max(float(min(p.min(), (up - error).min())), 0.0),
        min(float(max(p.max(), (up + error).max())), 1.0),
    )
    edge = max(0.05 * (high - low), 0.005)
    span = [low - edge, high + edge]
    data = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": "as said",
            "x": span,
            "y": span,
            "hoverinfo": "skip",
            "line": {"color": drawing.colour("quiet"), "dash": "dot", "width": 1.2},
        },
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": "as it came",
            "x": drawing.numbers(p),
            "y": drawing.numbers(up),
            "line": {"color": drawing.colour("accent"), "width": 1.5},
            "marker": {"size": drawing.numbers(5 + 7 * np.sqrt(rows / rows.max()))},
            "error_y": {
                "type": "data",
                "array": drawing.numbers(error),
                "thickness": 1,
                "width": 2,
                "color": drawing.colour("accent"),
            },
            "customdata": drawing.numbers(rows),
            "hovertemplate": "said %{x:.1%}, came %{y:.1%}<br>%{customdata:,} rows<extra></extra>",
        },
    ]
    layout = {
        "xaxis": {
            "title": {"text": "said probability of up"},
            "tickformat": ".0%" if high - low > 0.1 else ".1%",
            "range": span,
        },
        "yaxis": {"title": {"text": "share that went up"}, "tickformat": ".0%", "range": span},
    }
    return Chart(
        {"data": data, "layout": layout}, "Reliability: share of ups against the probability that was said"
    )


def sweep(trading: Mapping[str, Any]) -> Chart | None:
    """What would be left at higher costs."""
    points = [
        each
        for each in trading.get("sweep") or ()
        if each.get("net_return") is not None and each.get("each_way_bps") is not None
    ]
    if len(points) < 2:
        return None
    data = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": "net return",
            "x": [each["each_way_bps"] for each in points],
            "y": [each["net_return"] for each in points],
            "line": {"color": drawing.colour("accent"), "width": 1.8},
            "hovertemplate": "%{x:g} bps: %{y:+.1%}<extra></extra>",
            "showlegend": False,
        }
    ]
    shapes = [drawing.level_line(0.0)]
    even = trading.get("break_even_bps")
    if even is not None and points[0]["each_way_bps"] <= even <= points[-1]["each_way_bps"]:
        shapes.append(
            {
                "type": "line",
                "xref": "x",
                "yref": "paper",
                "x0": even,
                "x1": even,
                "y0": 0,
                "y1": 1,
                "line": {"color": drawing.colour("down"), "width": 1.5, "dash": "dash"},
                "label": {
                    "text": "breaks even",
                    "textposition": "end",
                    "textangle": 0,
                    "xanchor": "left",
                    "yanchor": "top",
                    "font": {"color": drawing.colour("down")},
                },
            }
        )
    layout = {
        "xaxis": {"title": {"text": "costs each way in basis points"}, "rangemode": "tozero"},
        "yaxis": {"title": {"text": "net return"}, "tickformat": "+.0%"},
        "shapes": shapes,
    }
    return Chart({"data": data, "layout": layout}, "Net return of the strategy against costs")


def _rolling(
    frame: pl.DataFrame,
    values: Float64,
    window: int,
    title: str,
    level: float,
    noise: float,
    form: str,
    label: str,
) -> Chart:
    """The rolling mean beside a level, and the band that chance alone leaves it in nine times out of ten."""
    times = _times(frame)[window - 1 :]
    band = {
        "type": "rect",
        "xref": "paper",
        "yref": "y",
        "x0": 0,
        "x1": 1,
        "y0": level - noise,
        "y1": level + noise,
        "layer": "below",
        "fillcolor": drawing.colour("shade"),
        "line": {"width": 0},
        "name": "within chance",
        "showlegend": True,
    }
    line = drawing.line(label, times, curves.rolling_mean(values, window), form)
    line |= {"line": {"color": drawing.colour("accent"), "width": 1.5}, "showlegend": False}
    layout = {
        "xaxis": {"type": "date"},
        "yaxis": {"title": {"text": title}, "tickformat": ".0%" if form.endswith("%") else ".4~f"},
        "shapes": [band, drawing.level_line(level)],
    }
    return Chart({"data": [line], "layout": layout}, f"{label}, {window} rows at a time", window=window)


def _times(frame: pl.DataFrame) -> Int64:
    return frame["as_of"].dt.epoch("us").to_numpy()


def _filled(frame: pl.DataFrame, column: str) -> Float64:
    """A column in which nothing stands for 0."""
    return frame[column].cast(pl.Float64).fill_nan(None).fill_null(0.0).to_numpy()


def _has(frame: pl.DataFrame, *columns: str) -> bool:
    return len(frame) > 0 and {"as_of", *columns} <= set(frame.columns)


def _complete(frame: pl.DataFrame, *columns: str) -> pl.DataFrame | None:
    """The rows that have all of these columns; None where one is not there at all."""
    if not _has(frame, *columns):
        return None
    return frame.filter(pl.all_horizontal(pl.col(name).cast(pl.Float64).is_finite() for name in columns))
