"""The chart of gradient health: how each layer fared, refit by refit, and what became of each refit."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from service.dashboard import drawing
from service.dashboard.drawing import Chart, Figure
from service.dashboard.report_words import moment_of

LAYER_COLOURS = 6
MARKED = 60  # refits up to which each has a dot of its own
OUTCOMES = ("failed", "rejected", "challenger", "kept", "promoted")  # from the lowest row to the highest
SYMBOLS = {
    "promoted": "circle",
    "challenger": "circle-open",
    "kept": "line-ew-open",
    "rejected": "x-thin-open",
    "failed": "x",
}
TONES = {"promoted": "good", "challenger": "fair", "kept": "quiet", "rejected": "down", "failed": "bad"}


def health(refits: Sequence[Mapping[str, Any]] | None) -> Chart | None:
    """Each layer's gradients at the end of each training, and what became of it."""
    if not refits or not any(refit.get("health") for refit in refits):
        return None
    at = [drawing.moment(int(moment_of(refit["closed_at"]).timestamp() * 1e6)) for refit in refits]
    measured = [{str(layer.get("layer")): layer for layer in refit.get("health") or ()} for refit in refits]
    layers = list(dict.fromkeys(name for found in measured for name in found))
    norms = _panel(at, measured, layers, "gradient_norm", "y")
    ratios = _panel(at, measured, layers, "update_ratio", "y2")
    outcomes = [str(refit.get("outcome")) for refit in refits]
    rows = [name for name in OUTCOMES if name in outcomes] + sorted(set(outcomes) - set(OUTCOMES))
    strip = 0.06 + 0.04 * len(rows)
    middle = (1 + strip + 0.07) / 2
    layout = {
        "xaxis": {"type": "date", "anchor": "y3"},
        "yaxis": {**_decades(norms), "domain": [middle + 0.025, 1], "title": {"text": "gradient norm"}},
        "yaxis2": {
            **_decades(ratios),
            "domain": [strip + 0.07, middle - 0.025],
            "title": {"text": "step / weights"},
        },
        "yaxis3": {
            "domain": [0, strip],
            "range": [-0.7, len(rows) - 0.3],
            "tickvals": list(range(len(rows))),
            "ticktext": rows,
        },
    }
    data = [*norms, *ratios, *_ill(at, measured), *_became(at, refits, outcomes, rows)]
    label = "Gradient norm and step size of each layer, refit by refit, and the refits' outcomes"
    return Chart({"data": data, "layout": layout}, label, tall=True)


def _panel(
    at: list[str],
    measured: Sequence[Mapping[str, Mapping[str, Any]]],
    layers: Sequence[str],
    key: str,
    axis: str,
) -> list[Figure]:
    """A line for each layer, with a hole where a training measured nothing."""
    mode = "lines+markers" if len(at) <= MARKED else "lines"
    return [
        {
            "type": "scatter",
            "mode": mode,
            "name": drawing.plain(name),
            "legendgroup": name,
            "showlegend": axis == "y",
            "yaxis": axis,
            "x": at,
            "y": [drawing.positive(found.get(name, {}).get(key)) for found in measured],
            "marker": {"size": 4},
            "line": {"color": drawing.colour(f"layer-{i % LAYER_COLOURS + 1}"), "width": 1.4},
            "hovertemplate": f"%{{y:.2g}}<extra>{drawing.plain(name)}</extra>",
        }
        for i, name in enumerate(layers)
    ]


def _ill(at: list[str], measured: Sequence[Mapping[str, Mapping[str, Any]]]) -> list[Figure]:
    """A mark on each layer that was not healthy."""
    ill = [
        (time, drawing.positive(layer.get("gradient_norm")), drawing.plain(f"{name}: {layer.get('verdict')}"))
        for time, found in zip(at, measured, strict=True)
        for name, layer in found.items()
        if layer.get("verdict") != "healthy"
    ]
    if not ill:
        return []
    x, y, text = (list(column) for column in zip(*ill, strict=True))
    marker = {"symbol": "x", "size": 8, "color": drawing.colour("bad")}
    return [
        {
            "type": "scatter",
            "mode": "markers",
            "name": "not healthy",
            "x": x,
            "y": y,
            "text": text,
            "marker": marker,
            "hovertemplate": "%{text}<extra></extra>",
        }
    ]


def _became(
    at: list[str], refits: Sequence[Mapping[str, Any]], outcomes: list[str], rows: list[str]
) -> Iterator[Figure]:
    """A mark for each refit, in the row of its outcome."""
    for row, name in enumerate(rows):
        these = [i for i, outcome in enumerate(outcomes) if outcome == name]
        marker = {
            "symbol": SYMBOLS.get(name, "diamond"),
            "size": 6,
            "color": drawing.colour(TONES.get(name, "quiet")),
        }
        yield {
            "type": "scatter",
            "mode": "markers",
            "name": name,
            "showlegend": False,
            "yaxis": "y3",
            "x": [at[i] for i in these],
            "y": [row] * len(these),
            "text": [drawing.plain(str(refits[i].get("reason") or "")) for i in these],
            "marker": marker,
            "hovertemplate": "%{text}<extra></extra>",
        }


def _decades(lines: Sequence[Figure]) -> Figure:
    """A logarithmic axis from a power of ten to another, so that each has a number or two beside it."""
    logs = [math.log10(value) for line in lines for value in line["y"] if value is not None]
    low, high = (math.floor(min(logs)), math.ceil(max(logs))) if logs else (0, 0)
    high = max(high, low + 1)
    ticks: Figure = {"type": "log", "exponentformat": "power", "range": [low - 0.1, high + 0.1]}
    return {**ticks, "tick0": low, "dtick": math.ceil((high - low) / 4)}
