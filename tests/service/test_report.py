"""The report of a backtest as a page: it stands alone, escapes what it is told, and copes with what is missing."""

import copy
import json
import math
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any

import numpy as np
import plotly.graph_objects
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.predictions import Reason
from service.dashboard import curves, figures, gradients, report, report_words, words
from service.dashboard.drawing import Chart
from tests.service.backtests import document, frame, old_document

OLD_COLUMNS = (
    "as_of",
    "base_rate",
    "p_up",
    "expected_return",
    "price",
    "low",
    "high",
    "close",
    "log_return",
    "up",
)
VOID = {"meta", "link", "br", "img", "input", "hr", "rect", "path", "line", "polyline"}


class Page(HTMLParser):
    """What a browser would find: elements with their attributes, headings, text, and the styles and scripts apart."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.said: dict[str, str] = {"script": "", "style": ""}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        inside = self.open[-1] if self.open else ""
        if inside in self.said:
            self.said[inside] += data
        else:
            self.text += data

    def ids(self) -> list[str]:
        return [attributes["id"] or "" for _, attributes in self.elements if "id" in attributes]

    def charts(self) -> dict[str, Any]:
        start = self.said["script"].index("{")
        return json.JSONDecoder().raw_decode(self.said["script"], start)[0]  # type: ignore[no-any-return]


def page(found: dict[str, Any], rows: pl.DataFrame) -> Page:
    read = Page(report.html(found, rows))
    assert read.open == []
    ids = read.ids()
    assert len(set(ids)) == len(ids)
    for tag, attributes in read.elements:
        if tag == "th":
            assert attributes.get("scope") in ("col", "row")
        if labelled := attributes.get("aria-labelledby"):
            assert labelled in ids
    return read


def everything(found: dict[str, Any]) -> dict[str, Chart]:
    return report._charts(found, frame())


@pytest.fixture(scope="module")
def full() -> Page:
    return page(document(), frame())


def test_the_page_loads_nothing(full: Page) -> None:
    for tag, attributes in full.elements:
        assert tag not in ("iframe", "object", "embed", "base", "form", "img", "video", "audio", "source")
        for name in ("src", "srcset", "data", "action", "poster", "background", "xlink:href"):
            assert name not in attributes
        if "href" in attributes:
            assert (attributes["href"] or "").startswith(("#", "data:image/svg+xml"))
    assert not re.search(r"@import|url\(", full.said["style"])
    policy = (
        next(attributes["content"] for tag, attributes in full.elements if "http-equiv" in attributes) or ""
    )
    assert "default-src 'none'" in policy
    assert "http" not in policy


def test_the_page_has_every_part_in_its_order(full: Page) -> None:
    parts = ("verdict", "judged", "equity", "scores", "gain", "reliability", "coverage", "health", "sweep", "abstained", "controls", "trades", "refits", "significance", "outcomes")  # fmt: skip
    assert [each for each in full.ids() if each in parts] == list(parts)
    assert {each for each in full.ids() if each.endswith("-chart")} == {
        f"{key}-chart" for key in full.charts()
    }
    assert len(full.charts()) == 6


def test_the_verdict_stands_first_with_its_numbers(full: Page) -> None:
    before = full.text[: full.text.index("What was judged")]
    for said in ("Has skill", "0.00455", "4.14", "0.68857", "0.69312", "24 trials"):
        assert said in before


@pytest.mark.parametrize(
    ("verdict", "word"),
    [
        ({"skill": True, "z": 4.0}, "has skill"),
        ({"skill": False, "z": 0.3}, "no evidence of skill"),
        ({"skill": False, "z": -1.7}, "worse than the base rate"),
        ({"skill": False, "z": None}, "no evidence of skill"),
        ({"skill": None, "z": 9.0}, "skill not known yet"),
        ({}, "skill not known yet"),
    ],
)
def test_a_verdict_in_words(verdict: dict[str, Any], word: str) -> None:
    assert report.judgement(verdict).word == word


def test_a_failed_control_is_the_first_thing_said() -> None:
    found = document()
    found["controls"][1] |= {"passed": False, "found": 0.5113}
    text = page(found, frame()).text
    assert "Do not trust this report: 1 of 5" in text[: text.index("Has skill")]
    assert "Do not trust" not in page(document(), frame()).text


def test_the_newest_200_trades_are_listed() -> None:
    found = document()
    found["trading"]["trades"] *= 2
    text = page(found, frame()).text
    assert "The newest 200 of 412." in text
    assert len(re.findall(r"\n?(?:long|short)(?=[\s\d])", text)) == 200


def test_what_a_document_says_is_escaped() -> None:
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7 * 7 }}\"'&"
    keep = (
        "closed_at",
        "entered",
        "left",
        "created_at",
        "timeframe",
        "first_read",
        "first_judged",
        "last_judged",
    )

    def spoilt(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {name: spoilt(each, name) for name, each in value.items()} | {evil: evil}
        if isinstance(value, list):
            return [spoilt(each) for each in value]
        return evil if isinstance(value, str) and key not in keep else value

    found = document()
    plain = Page(report.html(found, frame()))
    for key in (
        "market",
        "config",
        "policy",
        "refits",
        "abstained",
        "controls",
        "verdict",
        "outcomes",
        "breaks",
        "trading",
    ):
        if key == "trading":
            found[key]["text"] = evil
            found[key]["trades"] = spoilt(found[key]["trades"])
        else:
            found[key] = spoilt(found[key])
    found["abstained"]["reasons"] = {evil: 7}
    for who in ("scores", "intervals", "paired"):
        found[who][evil] = found[who]["logistic"]
    read = page(found, frame())
    assert {tag for tag, _ in read.elements} == {tag for tag, _ in plain.elements} | {"section"}
    assert [tag for tag, _ in read.elements].count("script") == 3
    assert not [name for _, attributes in read.elements for name in attributes if name.startswith("on")]
    assert "{{ 7 * 7 }}" in read.text


def test_a_backtest_from_before_there_were_reports_can_be_read() -> None:
    read = page(old_document(), frame().select(OLD_COLUMNS))
    assert {"gain", "coverage", "health"} == set(read.charts())
    assert {"abstained", "controls", "trades", "significance", "sweep", "reliability"} & set(
        read.ids()
    ) == set()


@pytest.mark.parametrize("key", document())
def test_a_part_that_is_not_there_is_left_out(key: str) -> None:
    found = document()
    value = found.pop(key)
    rows = frame() if key != "market" else frame().select(OLD_COLUMNS)
    page(found, rows)
    page({**found, key: None}, rows)
    if key not in ("market", "verdict") and isinstance(value, dict | list):
        page({**found, key: type(value)()}, rows)


def leaves(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Where the figures of a document stand."""
    if isinstance(value, dict | list):
        for key, each in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(each, (*path, key))
    elif not isinstance(value, str) and (not path or path[-1] != "closed_at"):
        yield path


def without(found: dict[str, Any], paths: list[tuple[str | int, ...]]) -> dict[str, Any]:
    spoilt = copy.deepcopy(found)
    for path in paths:
        place: Any = spoilt
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = None
    return spoilt


LEAVES = list(leaves(document()))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(LEAVES)))
def test_a_figure_without_meaning_is_a_dash(paths: list[tuple[str | int, ...]]) -> None:
    assert "None" not in page(without(document(), paths), frame(200)).text


def test_a_document_of_which_no_figure_has_a_meaning_can_be_read() -> None:
    text = page(without(document(), LEAVES), frame(200)).text
    assert "None" not in text
    assert "–" in text


@pytest.mark.parametrize("rows", [0, 1, 2, 99, 100, 30_000])
def test_any_number_of_rows(rows: int) -> None:
    shown = page(document(), frame(rows))
    assert ("gain" in shown.charts()) == (rows >= 100)
    for chart in shown.charts().values():
        assert max(len(line["x"]) for line in chart["data"]) <= curves.POINTS


@pytest.mark.parametrize("refits", [0, 1, 300, 700])
def test_any_number_of_refits(refits: int) -> None:
    read = page(document(refits=refits), frame(200))
    assert ("health" in read.charts()) == (refits > 0)
    assert ("The newest 500 of 700." in read.text) == (refits == 700)


def test_zero_trades_are_said_and_not_scored() -> None:
    found = document()
    found["trading"]["strategy"] |= {"trades": 0, "sharpe_annual": None, "net_return": 0.0}
    found["trading"] |= {"trades": [], "break_even_bps": None, "text": None}
    rows = frame().with_columns(position=pl.lit(0.0), net_return=pl.lit(0.0))
    text = page(found, rows).text
    assert "The strategy never traded" in text
    assert "no trades" in text[: text.index("What was judged")]


def test_zero_abstentions_are_said() -> None:
    found = document()
    found["abstained"] = {"rows": 0, "reasons": {}, "scores": found["scores"]["model"]}
    assert "Every judged row would have been answered." in page(found, frame()).text


@pytest.mark.parametrize("key", ["equity", "gain", "reliability", "coverage", "health", "sweep"])
def test_a_chart_is_one_that_plotly_knows(key: str) -> None:
    # validates every name and value against plotly's own schema
    plotly.graph_objects.Figure(everything(document())[key].figure)


def test_the_equity_ends_where_the_returns_lead() -> None:
    rows = frame()
    chart = figures.equity(document(), rows)
    assert chart is not None
    by_name = {line["name"]: line for line in chart.figure["data"] if "yaxis" not in line}
    for name, column in (("strategy", "net_return"), ("buy and hold", "buy_and_hold")):
        grown = math.exp(sum(math.log1p(value) for value in rows[column]))
        assert by_name[name]["y"][0] == 1.0
        assert by_name[name]["y"][-1] == pytest.approx(grown, rel=1e-5)
        assert by_name[name]["x"][-1] == "2023-09-27T08:00:00"  # when the last bar's step ends


def test_idle_stretches_and_missing_rows_are_shaded() -> None:
    rows = frame()
    chart = figures.equity(document(), rows)
    assert chart is not None
    shapes = chart.figure["layout"]["shapes"]
    gap = next(shape for shape in shapes if shape["name"] == "rows missing")
    assert (gap["x0"], gap["x1"]) == (
        f"{rows['as_of'][2500]:%Y-%m-%dT%H:%M:%S}",
        f"{rows['as_of'][2501]:%Y-%m-%dT%H:%M:%S}",
    )
    assert len([shape for shape in shapes if shape["name"] == "no position"]) == 3
    named = [shape["name"] for shape in shapes if shape["showlegend"]]
    assert sorted(named) == ["no position", "rows missing"]


def test_rolling_scores_are_those_of_their_window() -> None:
    rows = frame(400)
    window = figures.window_of(400)
    assert window == 50
    losses = rows.select(
        gain=pl.when("up").then((pl.col("p_up") / pl.col("base_rate")).log()).otherwise(((1 - pl.col("p_up")) / (1 - pl.col("base_rate"))).log()),
        inside=((pl.col("close") * pl.col("log_return").exp()).is_between("low", "high")).cast(pl.Float64),
    )  # fmt: skip
    rolled = losses.select(pl.all().rolling_mean(window)).drop_nulls()
    gain, inside = figures.rolling_gain(rows), figures.rolling_coverage(rows)
    assert gain is not None
    assert inside is not None
    assert gain.figure["data"][0]["y"] == pytest.approx(rolled["gain"].to_list(), rel=1e-4, abs=1e-8)
    assert inside.figure["data"][0]["y"] == pytest.approx(rolled["inside"].to_list(), rel=1e-4)


def test_a_training_that_measured_nothing_leaves_a_hole() -> None:
    refits = document()["refits"]
    chart = gradients.health(refits)
    assert chart is not None
    failed = next(i for i, refit in enumerate(refits) if refit["outcome"] == "failed")
    line = chart.figure["data"][0]
    assert [i for i, value in enumerate(line["y"]) if value is None] == [failed]
    ill = next(trace for trace in chart.figure["data"] if trace["name"] == "not healthy")
    assert ill["text"] == ["dense 1: vanishing"]


@given(st.integers(0, 2**32), st.integers(1, 60_000), st.sampled_from(["walk", "spikes", "level"]))
@settings(max_examples=40, deadline=None)
def test_thinning_keeps_what_is_high_and_low(seed: int, n: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    values = {
        "walk": rng.normal(size=n).cumsum(),
        "spikes": np.where(rng.random(n) < 1e-3, 1e6, 0.0),
        "level": np.zeros(n),
    }[kind]
    places = curves.thinned(values)
    assert len(places) <= curves.POINTS
    assert (np.diff(places) > 0).all()
    assert (places[0], places[-1]) == (0, n - 1)
    assert (values[places].min(), values[places].max()) == (values.min(), values.max())
    # and so within each stretch that is twice as long as a bucket, wherever it begins
    stretch = 2 * math.ceil(n / (curves.POINTS // 2 - 1)) if n > curves.POINTS else 1
    first = int(rng.integers(0, n))
    inside = values[places[(places >= first - stretch) & (places < first + 2 * stretch)]]
    part = values[first : first + stretch]
    assert inside.min() <= part.min()
    assert inside.max() >= part.max()


@given(st.lists(st.floats(-0.9, 2.0), min_size=1, max_size=50))
def test_a_drawdown_is_the_fall_from_the_peak(returns: list[float]) -> None:
    value, peak, worst = 1.0, 1.0, [0.0]
    for each in returns:
        value *= 1 + each
        peak = max(peak, value)
        worst.append((value - peak) / peak)
    assert curves.drawdown(curves.equity(np.array(returns))) == pytest.approx(worst, abs=1e-12)


def test_a_lost_capital_stays_lost_and_is_drawn_nowhere() -> None:
    rows = frame(300).with_columns(
        net_return=pl.when(pl.int_range(pl.len()).is_in([9, 20])).then(-1.2).otherwise(0.01)
    )
    chart = figures.equity(document(), rows)
    assert chart is not None
    line = next(trace for trace in chart.figure["data"] if trace["name"] == "strategy")
    assert line["y"][9] == pytest.approx(1.01**9, rel=1e-5)
    assert set(line["y"][10:]) == {None}


def test_nights_and_weekends_are_no_gaps() -> None:
    hour = 3_600_000_000
    week = [day * 24 + at for day in range(5) for at in range(9, 16)]
    times = np.array([(168 * k + at) * hour for k in range(52) for at in week if k != 20])
    assert curves.gaps(times) == [((168 * 19 + 111) * hour, (168 * 21 + 9) * hour)]


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (None, "loss", "–"),
        (math.nan, "share", "–"),
        (math.inf, "ratio", "–"),
        (0.693147, "loss", "0.69315"),
        (-0.0012, "loss", "−0.00120"),
        (0.5, "share", "50.0\u202f%"),
        (-0.0831, "change", "−8.31\u202f%"),
        (12345, "count", "12,345"),
        (0.0004, "p", "< 0.001"),
        (0.0421, "p", "0.042"),
        (1e-7, "number", "1e−7"),
        (True, "number", "yes"),
        ([64, 32], "number", "64, 32"),
        ({"fee_bps": 1.5}, "number", "fee each way 1.5"),
    ],
)
def test_figures_in_words(value: Any, kind: str, text: str) -> None:
    assert report_words.show(value, kind) == text


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_has_words(reason: Reason) -> None:
    assert report_words.reason(reason.value) == words.REASONS[reason]


def test_times_are_read_as_documents_write_them() -> None:
    moment = datetime(2024, 7, 1, 12, tzinfo=UTC)
    assert report_words.moment_of("2024-07-01T12:00:00Z") == moment
    assert report_words.moment_of(1_719_835_200_000_000) == moment


def test_how_the_verdict_moved() -> None:
    backtests = [
        {"id": 3, "created_at": "2024-07-03T00:00:00Z", "rows": 900, "verdict": {"skill": False, "z": -2.0, "gain": -0.001}},
        {"id": 2, "created_at": "2024-07-02T00:00:00Z", "rows": 800, "verdict": {"skill": None, "z": None, "gain": None}},
        {"id": 1, "created_at": "2024-07-01T00:00:00Z", "rows": 700, "verdict": {"skill": True, "z": 2.5, "gain": 0.002}},
    ]  # fmt: skip
    read = Page(report.trend(backtests))
    line = next(attributes["points"] for tag, attributes in read.elements if tag == "polyline") or ""
    (left, high), (right, low) = (map(float, point.split(",")) for point in line.split())
    assert (left, right) == (0, 100)
    assert 0 <= high < low <= 24  # the oldest, to the left, is the best
    assert read.text.index("#3") < read.text.index("#2") < read.text.index("#1")
    for said in ("worse than the base rate", "skill not known yet", "has skill", "−0.00100", "2.50"):
        assert said in read.text


@pytest.mark.parametrize("backtests", [[], [{"id": 1, "created_at": "2024-07-01T00:00:00Z"}]])
def test_too_few_backtests_to_move(backtests: list[dict[str, Any]]) -> None:
    assert "polyline" not in report.trend(backtests)
