"""The page as it is sent, before any script runs."""

import json
import re
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any

import pytest
from fastapi.testclient import TestClient

import store.backtests
import store.bars
import store.clock
import store.database
import store.jobs
import store.markets
import store.outcomes
import store.predictions
from model.artifact import Packed
from model.bars import Market
from model.health import VERDICTS
from model.predictions import Reason
from service.dashboard import page, words
from service.readiness import DOUBTS
from store.database import Engine
from store.tables import predictions
from tests.service.conftest import BARS, CLOSE, ETH, Clock, add_version, walk

ASK = {"symbol": "ETHUSDT", "timeframe": "1h"}


def text_of(client: TestClient) -> str:
    """What a reader sees: no tags, single spaces, no narrow ones."""
    html = client.get("/").text
    plain = re.sub(r"<(script|title|noscript).*?</\1>|<[^>]*>", " ", html, flags=re.DOTALL)
    return re.sub(r"\s+", " ", unescape(plain).replace("\N{NARROW NO-BREAK SPACE}", " "))


def charts(client: TestClient) -> list[dict[str, Any]]:
    found = re.findall(
        r'<script type="application/json"[^>]*>(.*?)</script>', client.get("/").text, re.DOTALL
    )
    return [json.loads(data) for data in found]


def test_an_empty_page_says_what_to_type(client: TestClient) -> None:
    text = text_of(client)
    for command in ("barprop ingest", "barprop train", "barprop demo"):
        assert command in text


def test_a_market_without_a_version_says_what_to_type(client: TestClient, market_id: int) -> None:
    assert "barprop train ETHUSDT 1h" in text_of(client)


def test_the_last_signal_is_told_in_words(client: TestClient, champion: int) -> None:
    signal = client.post("/v1/predict", json=ASK).json()
    text = text_of(client)
    side, share = ("up", signal["p_up"]) if signal["p_up"] > 0.5 else ("down", 1 - signal["p_up"])
    assert f"{100 * share:.1f} % {side}" in text
    assert "90 % interval" in text
    assert f"{signal['interval'][0]:,.2f} to {signal['interval'][1]:,.2f}" in text
    assert words.SKILL[signal["skill"]].word in text
    assert f"version {champion}" in text
    assert "no prediction of this version has been scored yet" in text


def test_even_odds_are_not_called_up(client: TestClient, engine: Engine, champion: int) -> None:
    client.post("/v1/predict", json=ASK)
    with store.database.write(engine) as conn:
        conn.execute(predictions.update().values(p_up=0.50001))
    assert "even odds" in text_of(client)


@pytest.mark.parametrize("reason", Reason)
def test_every_abstention_is_told_in_plain_words(
    client: TestClient, engine: Engine, market_id: int, reason: Reason
) -> None:
    with store.database.write(engine) as conn:
        row = {
            "kind": "abstention",
            "answer": f"{reason}:-",
            "reason": reason,
            "detail": "since <now>, say `hello`",
        }
        conn.execute(predictions.insert().values(market_id=market_id, as_of=CLOSE, served_at=CLOSE, **row))
    text = text_of(client)
    assert words.REASONS[reason] in text
    assert "since <now>, say hello" in text


def test_every_state_that_can_be_shown_has_its_words() -> None:
    assert set(words.REASONS) == set(Reason)
    assert set(words.HEALTH) == set(VERDICTS)
    assert set(words.DOUBTS) == set(DOUBTS)
    assert set(words.JOB_STATES) == {"queued", "running", "succeeded", "failed", "cancelled"}
    assert set(words.SKILL) == {True, False, None}


def test_no_two_states_are_told_apart_by_colour_alone() -> None:
    for table in (words.SKILL, words.HEALTH, words.JOB_STATES):
        assert len({sign.sign for sign in table.values()}) == len(table)
        assert len({sign.word for sign in table.values()}) == len(table)


def test_live_scores_stand_beside_the_base_rate(
    client: TestClient, engine: Engine, champion: int, clock: Clock
) -> None:
    client.post("/v1/predict", json=ASK)
    clock.now = CLOSE + timedelta(hours=1, minutes=1)
    store.bars.add(engine, ETH, walk(BARS + 1, CLOSE + timedelta(hours=1), seed=8).tail(1), clock.now)
    store.outcomes.score(engine, clock.now)
    with store.database.read(engine) as conn:
        live = store.outcomes.live(conn, champion)
    text = text_of(client)
    assert f"{live.log_loss:.4f} base rate {live.base_log_loss:.4f}" in text
    assert "over 1 scored prediction;" in text
    (chart,) = charts(client)
    assert "1 Jul 2024, 00:00 UTC" in text
    client.post("/v1/predict", json=ASK)
    assert "1 Jul 2024, 01:00 UTC" in text_of(client)
    (said,) = chart["said"]
    closes = walk()["close"]
    assert chart["closes"][said["from"]] == closes[-1]
    assert chart["times"][said["from"]] == "2024-07-01T00:00:00Z"
    assert said["to"] == said["from"] + 1
    assert said["up"] is (chart["closes"][said["to"]] > closes[-1])
    assert said["right"] is (said["up"] == (said["p_up"] > 0.5))


def test_the_chart_holds_the_newest_closes(client: TestClient, market_id: int) -> None:
    (chart,) = charts(client)
    assert chart["closes"] == walk()["close"].to_list()[-page.CLOSES_SHOWN :]
    assert chart["times"][-1] == "2024-07-01T00:00:00Z"


def test_an_old_signal_is_not_shown_as_if_it_were_for_now(
    client: TestClient, engine: Engine, champion: int, clock: Clock
) -> None:
    client.post("/v1/predict", json=ASK)
    assert "nobody has asked since" not in text_of(client)
    clock.now = CLOSE + timedelta(hours=2, minutes=1)
    assert "no answer for now" in text_of(client)
    store.bars.add(engine, ETH, walk(BARS + 2, CLOSE + timedelta(hours=2), seed=8).tail(2), clock.now)
    assert "Said 2 h before the newest bar closed; nobody has asked since" in text_of(client)


def test_the_last_backtest_is_told(client: TestClient, engine: Engine, market_id: int) -> None:
    with store.database.write(engine) as conn:
        job = store.jobs.ask(conn, "backtest", market_id, {}, CLOSE)
        verdict = {"skill": False, "text": "no evidence of skill over 800 <bars>"}
        store.backtests.add(conn, job.id, market_id, {}, {"verdict": verdict}, b"", CLOSE)
    assert "no evidence of skill over 800 <bars>" in text_of(client)
    assert "<bars>" not in client.get("/").text


def test_a_job_is_told_and_its_error_cannot_become_markup(
    client: TestClient, engine: Engine, market_id: int
) -> None:
    now = datetime.now(UTC)
    with store.database.write(engine) as conn:
        job = store.jobs.ask(conn, "retrain", market_id, {}, now)
    store.jobs.claim(engine, "me", now, timedelta(minutes=1))
    with store.database.write(engine) as conn:
        store.jobs.fail(conn, job.id, "me", now, "`<b>` & <script>alert('x')</script>")
    html = client.get("/").text
    assert "<script>alert" not in html
    assert "<b>" not in html
    assert "<code>&lt;b&gt;</code> &amp; &lt;script&gt;" in html
    assert "✕ failed" in text_of(client)


def test_data_for_a_chart_cannot_end_its_script() -> None:
    text = page.templates.from_string("{{ value | tojson }}").render(value="</script><script>")
    assert "<" not in text


def test_a_replay_says_so(client: TestClient, engine: Engine, market_id: int) -> None:
    assert "replay" not in text_of(client)
    store.clock.set(engine, CLOSE)
    assert "replay of the past" in text_of(client)
    assert 'data-refresh-seconds="2"' in client.get("/").text


def test_markets_are_told_apart(client: TestClient, engine: Engine, champion: int, packed: Packed) -> None:
    other = Market("BTCUSDT", "1h")
    store.bars.add(engine, other, walk(400, seed=3), CLOSE)
    with store.database.read(engine) as conn:
        row = store.markets.need(conn, other)
    add_version(engine, row.id, packed, "champion")
    html = client.get("/").text
    assert html.count("<article") == 2
    identifiers = re.findall(r'\bid="([^"]+)"', html)
    assert len(identifiers) == len(set(identifiers))
    for name in re.findall(r'aria-labelledby="([^"]+)"', html):
        assert name in identifiers


def test_of_many_markets_the_others_are_links(client: TestClient, engine: Engine) -> None:
    for i in range(page.CARDS_SHOWN + 2):
        store.bars.add(engine, Market(f"M{i:02}", "1h"), walk(2), CLOSE)
    html = client.get("/").text
    assert html.count("<article") == page.CARDS_SHOWN
    others = [unescape(link) for link in re.findall(r'href="(/\?[^"]+)"', html)]
    assert others == ["/?symbol=M10&timeframe=1h", "/?symbol=M11&timeframe=1h"]
    one = client.get(others[0]).text
    assert one.count("<article") == 1
    assert "M10" in one.split("<article")[1]
    assert client.get("/?symbol=NOSUCH&timeframe=1h").status_code == 404


def test_no_living_market_hides_behind_dead_ones(client: TestClient, engine: Engine) -> None:
    for i in range(page.CARDS_SHOWN):
        store.bars.add(engine, Market(f"DEAD{i}", "1h"), walk(2, CLOSE - timedelta(days=30 - i)), CLOSE)
    long_dead = Market("DEAD1M", "1m")
    store.bars.add(engine, long_dead, walk(2, CLOSE - timedelta(days=1)), CLOSE)  # the newest of the dead
    for symbol in ("ZZZ", "YYY"):
        store.bars.add(engine, Market(symbol, "1h"), walk(2), CLOSE)
    html = client.get("/").text
    headings = [
        re.sub(r"<[^>]*>|\s+", " ", part.split("</h2>")[0]).split()[-2] for part in html.split("<article")[1:]
    ]
    assert headings[:2] == ["YYY", "ZZZ"]
    assert headings[2:] == [f"DEAD{i}" for i in range(page.CARDS_SHOWN - 1, 1, -1)]
    others = [unescape(link) for link in re.findall(r'href="(/\?[^"]+)"', html)]
    assert others == [
        f"/?symbol=DEAD{name}" for name in ("0&timeframe=1h", "1&timeframe=1h", "1M&timeframe=1m")
    ]


def test_looking_changes_nothing(client: TestClient, engine: Engine, champion: int) -> None:
    client.get("/")
    assert client.get("/v1/predictions").json()["items"] == []
    assert client.get("/v1/jobs").json()["items"] == []


def test_everything_comes_from_this_server(client: TestClient, champion: int) -> None:
    response = client.get("/")
    assert "default-src 'self'" in response.headers["content-security-policy"]
    assert (
        "script-src" not in response.headers["content-security-policy"]
    )  # so nothing inline, nothing evaluated
    found = re.findall(r'(?:src|href)="([^"]+)"', response.text)
    for address in found:
        assert address.startswith(("/", "#", "data:image/svg+xml,")), address
        assert not address.startswith("//")
    for address in [a for a in found if a.startswith("/static/")]:
        file = client.get(address)
        assert file.status_code == 200
        assert "immutable" in file.headers["cache-control"]
    assert client.get("/static/page.html").status_code == 404
    assert client.get("/static/..%2fpage.py").status_code == 404


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3439.2149, "3,439.21"),
        (1.083456, "1.08346"),
        (0.0000123456, "0.0000123456"),
        (65000.5, "65,000.50"),
        (12.5, "12.5000"),
    ],
)
def test_a_price_shows_the_digits_that_matter(value: float, text: str) -> None:
    assert words.price(value) == text


@pytest.mark.parametrize(
    ("length", "text"),
    [
        (timedelta(0), "0 s"),
        (timedelta(seconds=59), "59 s"),
        (timedelta(minutes=12, seconds=40), "12 min"),
        (timedelta(hours=3, minutes=12), "3 h 12 min"),
        (timedelta(days=2, minutes=59), "2 d"),
        (timedelta(days=2, hours=5), "2 d 5 h"),
        (timedelta(seconds=-5), "0 s"),
    ],
)
def test_a_duration_shows_what_matters(length: timedelta, text: str) -> None:
    assert words.duration(length).replace("\N{NARROW NO-BREAK SPACE}", " ") == text


def test_a_change_is_the_exponential_of_its_log_return() -> None:
    assert words.change(0.001199) == "+0.12\N{NARROW NO-BREAK SPACE}%"
    assert words.change(-0.00003) == "\N{MINUS SIGN}0.003\N{NARROW NO-BREAK SPACE}%"
    assert words.change(0.6931471805599453) == "+100.00\N{NARROW NO-BREAK SPACE}%"


def test_a_line_of_norms_rises_with_them_and_leaves_out_what_is_no_number() -> None:
    points = [
        tuple(map(float, point.split(","))) for point in page.line([1e-3, None, 1e-1, 0.0, 1e1]).split()
    ]
    assert points == [(0.0, 22.0), (50.0, 12.0), (100.0, 2.0)]
    assert page.line([0.1]) == page.line([None, None]) == page.line([]) == ""
    jitter = [float(point.split(",")[1]) for point in page.line([0.1, 0.11]).split()]
    assert abs(jitter[0] - jitter[1]) < 1
