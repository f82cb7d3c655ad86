"""The report of one backtest: a single page that is read, kept, printed and sent on without a network.

What a report says stands in report.html; `figures` and `gradients` have its charts and `report_words` the names of its figures. A part whose
key the document does not have is left out, so that backtests of older versions can be read too.
"""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import plotly
import polars as pl
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from service.dashboard import figures, gradients, report_words, words
from service.dashboard.drawing import Chart

TRADES_SHOWN = 200
REFITS_SHOWN = 500
CLAIM_Z = -1.6448536269514722  # below this it is worse than the base rate beyond chance, at 5 % on one side

HERE = Path(__file__).parent
PLOTLY = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"

templates = Environment(
    loader=PackageLoader("service", "dashboard"),
    autoescape=select_autoescape(),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
templates.filters.update(
    show=report_words.show,
    named=report_words.name,
    kind=report_words.kind,
    forecaster=report_words.forecaster,
    when=report_words.when,
    side=report_words.side,
    code=words.code,
)
templates.globals.update(words=words, report_words=report_words)


def html(document: Mapping[str, Any], frame: pl.DataFrame) -> str:
    """The page (about 5 MB, most of it the chart library) of a backtest's document and the frame of its judged rows."""
    charts = _charts(document, frame)
    data = {key: chart.figure for key, chart in charts.items()}
    scripts = [_library(), (HERE / "report.js").read_text()]
    return templates.get_template("report.html").render(
        document=document,
        charts=charts,
        data=data,
        data_size=len(json.dumps(data)) / 1e6,
        library_size=len(scripts[0]) / 1e6,
        failed=[each for each in document.get("controls") or () if not each.get("passed")],
        judgement=judgement(document.get("verdict") or {}),
        styles=Markup((HERE / "page.css").read_text() + (HERE / "report.css").read_text()),  # noqa: S704 - our own
        scripts=[Markup(script) for script in scripts],  # noqa: S704 - our own, and the chart library
        policy=_policy(scripts),
        trades_shown=TRADES_SHOWN,
        refits_shown=REFITS_SHOWN,
    )


def judgement(verdict: Mapping[str, Any]) -> words.Sign:
    """The verdict in a few words."""
    skill, z = verdict.get("skill"), verdict.get("z")
    if skill is False:
        if z is not None and z < CLAIM_Z:
            return words.Sign("✕", "worse than the base rate", "bad")
        return words.Sign("–", "no evidence of skill", "calm")
    return words.SKILL[skill]


def trend(backtests: Sequence[Mapping[str, Any]]) -> str:
    """How the verdict moved over a market's stored backtests, newest first: a table and a line of z, to stand in a page."""
    z = [each["verdict"].get("z") for each in reversed(backtests) if each.get("verdict")]
    return templates.get_template("trend.html").render(
        backtests=backtests, judgement=judgement, zero=_height(0.0, z), line=_line(z)
    )


def _line(values: Sequence[float | None]) -> str:
    """Points of an SVG line in a 100 x 24 box; empty where there are fewer than two."""
    known = [(i, value) for i, value in enumerate(values) if value is not None]
    if len(known) < 2:
        return ""
    return " ".join(f"{100 * i / (len(values) - 1):.1f},{_height(value, values):.1f}" for i, value in known)


def _height(value: float, values: Sequence[float | None]) -> float:
    """Where it lies in a box 24 high that holds all of them and the z of a claim to both sides."""
    known = [each for each in values if each is not None]
    low, high = min([*known, CLAIM_Z]), max([*known, -CLAIM_Z])
    return 22 - 20 * (value - low) / (high - low)


def _charts(document: Mapping[str, Any], frame: pl.DataFrame) -> dict[str, Chart]:
    """Those that there is something to draw for."""
    drawn = {
        "equity": figures.equity(document, frame),
        "gain": figures.rolling_gain(frame),
        "reliability": figures.reliability(document.get("reliability")),
        "coverage": figures.rolling_coverage(frame),
        "health": gradients.health(document.get("refits")),
        "sweep": figures.sweep(document.get("trading") or {}),
    }
    return {key: chart for key, chart in drawn.items() if chart is not None}


@cache
def _library() -> str:
    """The chart library as it may stand between script tags: it may say neither of these inside."""
    return PLOTLY.read_text().replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _policy(scripts: Sequence[str]) -> str:
    """Nothing is loaded from anywhere, and no script runs but these."""
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in scripts
    )
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )
