"""The charts of a report, as plotly reads them: one function each, from the document or the frame of a backtest.

A colour is the name of a CSS variable, which the page's script looks up, so that charts follow light, dark and print.
A chart whose keys or columns are not there is left out. Add one by a function and a place in report.html.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from model import scores
from model.bars import timeframe
from service.dashboard import curves
from service.dashboard.report_words import moment_of

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
Figure = dict[str, Any]

LAYER_COLOURS = 6
NORMAL_90 = 1.6448536269514722  # this many standard deviations to both sides hold 90 % of a normal distribution
LEVEL = 0.9
LEAST_ROWS = 100  # below which nothing rolls
OUTCOMES = ("failed", "rejected", "challenger", "kept", "promoted")
SYMBOLS = {"promoted": "circle", "challenger": "circle-open", "kept": "line-ew-open", "rejected": "x-thin-open", "failed": "x"}
TONES = {"promoted": "good", "challenger": "fair", "kept": "quiet", "rejected": "down", "failed": "bad"}


@dataclass(frozen=True)
class Chart:
    """A figure, and what it shows in a sentence, for those who do not see it."""

    figure: Figure
    label: str
    tall: bool = False


def equity(document: Mapping[str, Any], frame: pl.DataFrame) -> Chart | None:
    """What 1 became, by the strategy and by buying and holding, and how far below its peak it was."""
    if not _has(frame, "net_return", "buy_and_hold", "position"):
        return None
    times = _times(frame)
    end = int(times[-1]) + int(timeframe(document["market"]["timeframe"]).length.total_seconds() * 1e6)
    at = np.append(times, end)
    data: list[Figure] = []
    for name, column, colour, width in (("buy and hold", "buy_and_hold", "quiet", 1.2), ("strategy", "net_return", "accent", 1.8)):
        grown = curves.equity(_filled(frame, column))
        style = {"line": {"color": _colour(colour), "width": width}, "legendgroup": name}
        # a lost capital has no place on a logarithmic scale
        data += [
            {**_line(name, at, grown, ".3f", positive=True), **style},
            {**_line(name, at, curves.drawdown(grown), ".1%"), **style, "yaxis": "y2", "showlegend": False},
        ]
    idle = _shades("no position", curves.stretches(times, _filled(frame, "position") == 0, end), "shade")
    gaps = _shades("rows missing", curves.gaps(times), "fair")
    layout = {
        "xaxis": {"type": "date", "anchor": "y2"},
        "yaxis": {"type": "log", "domain": [0.38, 1], "title": {"text": "value of 1"}, "nticks": 8},
        "yaxis2": {"domain": [0, 0.3], "tickformat": ".0%", "title": {"text": "drawdown"}, "nticks": 5, "rangemode": "tozero"},
        "shapes": idle + gaps,
        "hovermode": "x unified",
    }
    return Chart({"data": data, "layout": layout}, "Value of the strategy and of buying and holding over time, and their drawdowns", tall=True)


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
    return _rolling(said, gain, window, "gain in nats", 0.0, noise, ".5f", "Rolling gain in log loss over the base rate")


def rolling_coverage(frame: pl.DataFrame) -> Chart | None:
    """How often the 90 % interval held the outcome, over the rows before."""
    said = _complete(frame, "low", "high", "close", "log_return")
    if said is None or (window := window_of(len(said))) is None:
        return None
    outcome = pl.col("close") * pl.col("log_return").exp()
    inside = said.select(outcome.is_between(pl.col("low"), pl.col("high")).cast(pl.Float64)).to_series().to_numpy()
    noise = NORMAL_90 * (LEVEL * (1 - LEVEL) / window) ** 0.5
    return _rolling(said, inside, window, "share inside", LEVEL, noise, ".1%", "Rolling coverage of the 90 % intervals")


def reliability(bins: Sequence[Mapping[str, Any]] | None) -> Chart | None:
    """How often it went up where that much was said."""
    known = [each for each in bins or () if each.get("p") is not None and each.get("up") is not None and each.get("rows")]
    if not known:
        return None
    p, up, rows = (np.array([each[name] for each in known], np.float64) for name in ("p", "up", "rows"))
    error = NORMAL_90 * np.sqrt(up * (1 - up) / rows)
    low, high = max(float(min(p.min(), (up - error).min())), 0.0), min(float(max(p.max(), (up + error).max())), 1.0)
    edge = max(0.05 * (high - low), 0.005)
    span = [low - edge, high + edge]
    data = [
        {"type": "scatter", "mode": "lines", "name": "as said", "x": span, "y": span, "hoverinfo": "skip",
         "line": {"color": _colour("quiet"), "dash": "dot", "width": 1.2}},
        {"type": "scatter", "mode": "lines+markers", "name": "as it came", "x": _list(p), "y": _list(up),
         "line": {"color": _colour("accent"), "width": 1.5},
         "marker": {"size": _list(5 + 7 * np.sqrt(rows / rows.max()))},
         "error_y": {"type": "data", "array": _list(error), "thickness": 1, "width": 2, "color": _colour("accent")},
         "customdata": _list(rows), "hovertemplate": "said %{x:.1%}, came %{y:.1%}<br>%{customdata:,} rows<extra></extra>"},
    ]  # fmt: skip
    layout = {
        "xaxis": {"title": {"text": "said probability of up"}, "tickformat": ".0%" if high - low > 0.1 else ".1%", "range": span},
        "yaxis": {"title": {"text": "share that went up"}, "tickformat": ".0%", "range": span},
    }
    return Chart({"data": data, "layout": layout}, "Reliability: share of ups against the probability that was said")


def health(refits: Sequence[Mapping[str, Any]] | None) -> Chart | None:
    """Each layer's gradients at the end of each training, and what became of it."""
    if not refits or not any(refit.get("health") for refit in refits):
        return None
    at = [_shown(int(moment_of(refit["closed_at"]).timestamp() * 1e6)) for refit in refits]
    by_layer: dict[str, list[tuple[str, Mapping[str, Any]]]] = {}
    for time, refit in zip(at, refits, strict=True):
        for layer in refit.get("health") or ():
            by_layer.setdefault(str(layer.get("layer", layer.get("name", ""))), []).append((time, layer))
    data: list[Figure] = []
    mode = "lines+markers" if len(refits) <= 60 else "lines"
    for i, (name, found) in enumerate(by_layer.items()):
        for key, axis in (("gradient_norm", "y"), ("update_ratio", "y2")):
            values = [_positive(layer.get(key)) for _, layer in found]
            data.append(
                {"type": "scatter", "mode": mode, "name": name, "legendgroup": name, "showlegend": axis == "y", "yaxis": axis,
                 "x": [time for time, _ in found], "y": values, "marker": {"size": 4},
                 "line": {"color": _colour(f"layer-{i % LAYER_COLOURS + 1}"), "width": 1.4},
                 "hovertemplate": f"%{{y:.2g}}<extra>{_plain(name)}</extra>"}
            )  # fmt: skip
    ill = [
        (time, _positive(layer.get("gradient_norm")), f"{name}: {layer.get('verdict')}")
        for name, found in by_layer.items() for time, layer in found if layer.get("verdict") != "healthy"
    ]  # fmt: skip
    if ill:
        x, y, text = (list(column) for column in zip(*ill, strict=True))
        data.append(
            {"type": "scatter", "mode": "markers", "name": "not healthy", "x": x, "y": y, "text": [_plain(each) for each in text],
             "marker": {"symbol": "x", "size": 8, "color": _colour("bad")}, "hovertemplate": "%{text}<extra></extra>"}
        )  # fmt: skip
    named = [str(refit.get("outcome")) for refit in refits]
    rows = [name for name in OUTCOMES if name in named] + sorted(set(named) - set(OUTCOMES))
    for name in rows:
        these = [i for i, outcome in enumerate(named) if outcome == name]
        data.append(
            {"type": "scatter", "mode": "markers", "name": name, "showlegend": False, "yaxis": "y3",
             "x": [at[i] for i in these], "y": [rows.index(name)] * len(these),
             "text": [_plain(str(refits[i].get("reason") or "")) for i in these],
             "marker": {"symbol": SYMBOLS.get(name, "diamond"), "size": 6, "color": _colour(TONES.get(name, "quiet"))},
             "hovertemplate": "%{text}<extra></extra>"}
        )  # fmt: skip
    strip = 0.06 + 0.04 * len(rows)
    middle = (1 + strip + 0.07) / 2
    log = {"type": "log", "exponentformat": "power", "dtick": 1}
    layout = {
        "xaxis": {"type": "date", "anchor": "y3"},
        "yaxis": {**log, "domain": [middle + 0.025, 1], "title": {"text": "gradient norm"}},
        "yaxis2": {**log, "domain": [strip + 0.07, middle - 0.025], "title": {"text": "step / weights"}},
        "yaxis3": {"domain": [0, strip], "range": [-0.7, len(rows) - 0.3], "tickvals": list(range(len(rows))), "ticktext": rows},
    }
    return Chart({"data": data, "layout": layout}, "Gradient norm and step size of each layer, refit by refit, and the refits' outcomes", tall=True)


def sweep(trading: Mapping[str, Any]) -> Chart | None:
    """What would be left at higher costs."""
    points = [each for each in trading.get("sweep") or () if each.get("net_return") is not None]
    if len(points) < 2:
        return None
    data = [
        {"type": "scatter", "mode": "lines+markers", "name": "net return", "x": [each["each_way_bps"] for each in points],
         "y": [each["net_return"] for each in points], "line": {"color": _colour("accent"), "width": 1.8},
         "hovertemplate": "%{x:g} bps: %{y:+.1%}<extra></extra>", "showlegend": False}
    ]  # fmt: skip
    shapes = [_level(0.0)]
    even = trading.get("break_even_bps")
    if even is not None and points[0]["each_way_bps"] <= even <= points[-1]["each_way_bps"]:
        shapes.append(
            {"type": "line", "xref": "x", "yref": "paper", "x0": even, "x1": even, "y0": 0, "y1": 1,
             "line": {"color": _colour("down"), "width": 1.5, "dash": "dash"}, "label": {"text": "breaks even", "font": {"color": _colour("down")}}}
        )  # fmt: skip
    layout = {
        "xaxis": {"title": {"text": "costs each way in basis points"}, "rangemode": "tozero"},
        "yaxis": {"title": {"text": "net return"}, "tickformat": "+.0%"},
        "shapes": shapes,
    }
    return Chart({"data": data, "layout": layout}, "Net return of the strategy against costs")


def _rolling(
    frame: pl.DataFrame, values: Float64, window: int, title: str, level: float, noise: float, form: str, label: str
) -> Chart:
    """The rolling mean beside a level, and the band that chance alone leaves it in nine times out of ten."""
    times = _times(frame)[window - 1 :]
    band = {
        "type": "rect", "xref": "paper", "yref": "y", "x0": 0, "x1": 1, "y0": level - noise, "y1": level + noise, "layer": "below",
        "fillcolor": _colour("shade"), "line": {"width": 0}, "name": "within chance", "showlegend": True,
    }  # fmt: skip
    line = _line(label, times, curves.rolling_mean(values, window), form)
    line |= {"line": {"color": _colour("accent"), "width": 1.5}, "showlegend": False}
    layout = {
        "xaxis": {"type": "date"},
        "yaxis": {"title": {"text": title}, "tickformat": ".0%" if form.endswith("%") else ".4~f"},
        "shapes": [band, _level(level)],
    }
    return Chart({"data": [line], "layout": layout}, f"{label}, {window} rows at a time")


def _line(name: str, times: Int64, values: Float64, form: str, positive: bool = False) -> Figure:
    places = curves.thinned(values)
    shown = [None if positive and value <= 0 else value for value in _list(values[places])]
    return {
        "type": "scatter", "mode": "lines", "name": name, "x": [_shown(time) for time in times[places].tolist()], "y": shown,
        "hovertemplate": f"%{{y:{form}}}<extra>{name}</extra>",
    }  # fmt: skip


def _shades(name: str, spans: Sequence[tuple[int, int]], colour: str) -> list[Figure]:
    return [
        {"type": "rect", "xref": "x", "yref": "paper", "x0": _shown(first), "x1": _shown(end), "y0": 0, "y1": 1, "layer": "below",
         "fillcolor": _colour(colour), "opacity": 0.5, "line": {"width": 0}, "name": name, "legendgroup": name, "showlegend": i == 0}
        for i, (first, end) in enumerate(spans)
    ]  # fmt: skip


def _level(y: float) -> Figure:
    line = {"color": _colour("quiet"), "width": 1, "dash": "dot"}
    return {"type": "line", "xref": "paper", "yref": "y", "x0": 0, "x1": 1, "y0": y, "y1": y, "line": line}


def _colour(name: str) -> str:
    return f"var(--{name})"


def _plain(text: str) -> str:
    """Text that plotly shows as it is: it reads a few tags, and %{…} in templates."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("%{", "% {")


def _list(values: NDArray[Any]) -> list[Any]:
    """To six digits, which is more than a screen shows."""
    return [float(f"{value:.6g}") for value in values.tolist()]


def _positive(value: float | None) -> float | None:
    return value if value is not None and 0 < value < float("inf") else None


def _shown(micros: int) -> str:
    """A time as plotly reads it, in UTC."""
    return str(np.datetime64(micros, "us").astype("datetime64[s]"))


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
