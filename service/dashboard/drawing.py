"""What the charts of a report share: colours, lines, shades, and a figure with its label."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.dashboard import curves

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
Figure = dict[str, Any]


@dataclass(frozen=True)
class Chart:
    """A figure, and what it shows in a sentence, for those who do not see it."""

    figure: Figure
    label: str
    tall: bool = False
    window: int | None = None  # rows that each of its values is a mean of


def line(name: str, times: Int64, values: Float64, form: str, positive: bool = False) -> Figure:
    """A line over time, thinned; where only positive values have a place, the others leave a hole."""
    places = curves.thinned(values)
    shown = [
        None if positive and value is not None and value <= 0 else value for value in numbers(values[places])
    ]
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": [moment(time) for time in times[places].tolist()],
        "y": shown,
        "hovertemplate": f"%{{y:{form}}}<extra>{name}</extra>",
    }


def shades(name: str, spans: Sequence[tuple[int, int]], variable: str) -> list[Figure]:
    """What lies behind the lines from when to when; of all of one name, one is in the legend."""
    return [
        {
            "type": "rect",
            "xref": "x",
            "yref": "paper",
            "x0": moment(first),
            "x1": moment(end),
            "y0": 0,
            "y1": 1,
            "layer": "below",
            "fillcolor": colour(variable),
            "opacity": 0.6 if variable == "shade" else 0.35,
            "line": {"width": 0},
            "name": name,
            "legendgroup": name,
            "showlegend": i == 0,
        }
        for i, (first, end) in enumerate(spans)
    ]


def level_line(y: float) -> Figure:
    """A dotted line from left to right."""
    line = {"color": colour("quiet"), "width": 1, "dash": "dot"}
    return {"type": "line", "xref": "paper", "yref": "y", "x0": 0, "x1": 1, "y0": y, "y1": y, "line": line}


def colour(name: str) -> str:
    """The CSS variable of that name, which the page's script looks up."""
    return f"var(--{name})"


def plain(text: str) -> str:
    """Text that plotly shows as it is: it reads a few tags, and %{…} in templates."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("%{", "% {")


def numbers(values: NDArray[Any]) -> list[Any]:
    """To six digits, which is more than a screen shows; None for what JSON has no number for."""
    return [float(f"{value:.6g}") if math.isfinite(value) else None for value in values.tolist()]


def positive(value: float | None) -> float | None:
    """What has a place on a logarithmic scale, and None for the rest."""
    return value if value is not None and 0 < value < float("inf") else None


def moment(micros: int) -> str:
    """A time as plotly reads it, in UTC."""
    return str(np.datetime64(micros, "us").astype("datetime64[s]"))
