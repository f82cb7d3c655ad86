"""A Signal is made once and then served from memory, never a bar too late, whichever process changed something."""

import json
from datetime import timedelta

import pytest
from fastapi import FastAPI

import store.bars
import store.database
import store.markets
import store.predictions
from model.artifact import Packed
from model.bars import Market
from model.portfolio import policies
from store.database import Engine
from tests.service.conftest import CLOSE, ETH, Clock, TestClient, add_version, bar, problem, walk

ASK = {"symbol": "ETHUSDT", "timeframe": "1h"}
SECOND = {"symbol": "BTCUSDT", "timeframe": "1h"}


def ask(client: TestClient, **more: object) -> dict[str, object]:
    response = client.post("/v1/predict", json=ASK | more)
    assert response.status_code == 200, response.text
    return response.json()  # type: ignore[no-any-return]


def other_process(engine: Engine) -> Engine:
    """The same database as another process has it."""
    return store.database.connect(engine.url.render_as_string(hide_password=False))


def test_the_short_way_and_the_usual_one_give_the_same_bytes(
    client: TestClient, app: FastAPI, champion: int
) -> None:
    usual = client.post("/v1/predict", json=ASK)
    moment = app.state.answers.moment() or (app.state.answers.marks() and app.state.answers.moment())
    client.post("/v1/predict", json=ASK)  # the ledger's own row moved the mark
    assert app.state.answers.at_hand("ETHUSDT", "1h", app.state.answers.moment()) is not None, moment
    short = client.post("/v1/predict", json=ASK)
    assert short.content == usual.content
    assert short.headers["etag"] == usual.headers["etag"]
    assert short.headers["content-type"] == usual.headers["content-type"]
    with_null = client.post("/v1/predict", json=ASK | {"at": None})
    assert with_null.content == usual.content


def test_a_bar_or_a_pause_of_another_process_counts_with_the_next_question(
    client: TestClient, engine: Engine, clock: Clock, market_id: int, champion: int
) -> None:
    elsewhere = other_process(engine)
    first = ask(client)
    assert ask(client) == first
    clock.now = CLOSE + timedelta(minutes=61)
    store.bars.add(elsewhere, ETH, walk(BARS_MORE, CLOSE + timedelta(hours=1)), clock.now)
    second = ask(client)
    assert second["as_of"] == "2024-07-01T01:00:00Z"
    with store.database.write(elsewhere) as conn:
        store.markets.set_paused(conn, market_id, True)
    assert ask(client)["reason"] == "paused"
    with store.database.write(elsewhere) as conn:
        store.markets.set_paused(conn, market_id, False)
    assert ask(client) == second
    elsewhere.dispose()


BARS_MORE = 1_101


def test_a_promotion_of_another_process_counts_from_the_next_bar(
    client: TestClient, engine: Engine, clock: Clock, market_id: int, champion: int, packed: Packed
) -> None:
    elsewhere = other_process(engine)
    first = ask(client)
    version = add_version(elsewhere, market_id, packed, None)
    with store.database.write(elsewhere) as conn:
        row = store.markets.need(conn, ETH)
        store.versions.promote(conn, row, version, "promoted by hand", clock.now)
    assert ask(client) == first
    clock.now = CLOSE + timedelta(minutes=61)
    client.post("/v1/bars", json=ASK | {"bars": [bar(CLOSE, 3000.0)]})
    assert ask(client)["version"] == version
    elsewhere.dispose()


def test_what_is_in_memory_grows_stale_by_itself(client: TestClient, clock: Clock, champion: int) -> None:
    assert ask(client)["kind"] == "prediction"
    assert ask(client)["kind"] == "prediction"
    clock.now = CLOSE + timedelta(hours=2, seconds=1)
    assert ask(client)["reason"] == "stale_bars"
    assert ask(client)["reason"] == "stale_bars"


def test_a_batch_answers_in_order_and_says_what_it_does_not_know(
    client: TestClient, engine: Engine, champion: int
) -> None:
    store.bars.add(engine, Market("BTCUSDT", "1h"), walk(300, seed=3), CLOSE)
    markets = [SECOND, ASK, {"symbol": "NOSUCH", "timeframe": "1h"}, {"symbol": "B/D", "timeframe": "1h"}]
    for _ in range(2):
        items = client.post("/v1/predict/batch", json={"markets": markets}).json()["items"]
        assert items[0]["reason"] == "no_model"
        assert items[1] == ask(client)
        assert items[2]["problem"]["type"] == "/problems/not-found"
        assert items[2]["market"] == markets[2]
        assert items[3]["problem"]["status"] == 422
    known = {"markets": [SECOND, ASK]}
    twice = [client.post("/v1/predict/batch", json=known).content for _ in range(3)]
    assert twice[0] == twice[1] == twice[2]
    assert json.loads(twice[0])["items"] == items[:2]


@pytest.mark.parametrize(
    "wrong", [{}, {"markets": []}, {"markets": [ASK], "more": 1}, {"markets": [{"symbol": "ETHUSDT"}]}]
)
def test_a_batch_that_does_not_fit_is_refused(client: TestClient, wrong: object) -> None:
    assert problem(client.post("/v1/predict/batch", json=wrong))["status"] == 422


def test_a_batch_of_too_many_is_refused(client: TestClient, app: FastAPI) -> None:
    most = app.state.settings.service.max_batch_markets
    refused = client.post("/v1/predict/batch", json={"markets": [ASK] * (most + 1)})
    assert problem(refused)["detail"] == f"{most + 1} markets in one request; at most {most}"


def sent(count: int) -> list[dict[str, object]]:
    """The newest bars of the market, as a request brings them."""
    return [{**row, "ts": row["ts"].isoformat()} for row in walk().tail(count).iter_rows(named=True)]


def test_bars_in_the_request_are_answered_as_if_they_were_stored(client: TestClient, champion: int) -> None:
    given = ask(client, bars=sent(768))
    assert client.get("/v1/predictions", params=ASK).json()["items"] == []
    stored = ask(client)
    assert given == stored | {"in_sample": given["in_sample"]}
    shuffled = sent(768)[::-1]
    assert ask(client, bars=shuffled) == given


def test_bars_in_the_request_may_be_older_fewer_or_wrong(client: TestClient, champion: int) -> None:
    few = ask(client, bars=sent(50))
    assert (few["reason"], few["version"]) == ("too_few_bars", champion)
    late = ask(client, bars=sent(1_000)[:-100])
    assert late["reason"] == "stale_bars"
    at = sent(1_000)[-100]["ts"]
    then = ask(client, bars=sent(1_000), at=at)
    assert then["as_of"] == str(at).replace("+00:00", "Z")
    wrong = sent(768)
    wrong[5]["high"] = 1.0
    refused = client.post("/v1/predict", json=ASK | {"bars": wrong})
    assert problem(refused)["type"] == "/problems/bad-bars"
    assert "1 high_low_contradiction" in refused.text
    nowhere = client.post("/v1/predict", json=SECOND | {"bars": sent(768)})
    assert problem(nowhere)["type"] == "/problems/not-found"
    assert problem(client.post("/v1/predict", json=ASK | {"bars": []}))["status"] == 422


def test_a_signal_s_position_is_what_the_policy_says_after_the_one_before(
    client: TestClient, app: FastAPI, engine: Engine, clock: Clock, champion: int
) -> None:
    terms = app.state.answers.terms
    held = 0.0
    for hour in range(6):
        clock.now = CLOSE + timedelta(hours=hour, minutes=1)
        if hour:
            price = 3000.0 + 30 * hour
            opened = CLOSE + timedelta(hours=hour - 1)
            assert client.post("/v1/bars", json=ASK | {"bars": [bar(opened, price)]}).status_code == 200
        said = ask(client)
        if said["kind"] == "abstention":
            held = 0.0
            assert "position" not in said
            continue
        with store.database.read(engine) as conn:
            entry = store.predictions.page(conn, limit=1)[0]
        signal = entry.signal
        assert isinstance(signal, store.predictions.Prediction)
        wanted = policies.target(
            terms.policy, terms.costs, held, signal.p_up, signal.expected_return, scale=1.0
        )
        assert (said["position"], signal.position) == (wanted, wanted)
        if wanted:
            assert said["pays_up_to_bps"] == pytest.approx(abs(signal.expected_return) * 10_000)
        else:
            assert said["pays_up_to_bps"] is None
        held = wanted


@pytest.mark.parametrize("path", ["/v1/predict", "/v1/predict/batch", "/v1/bars"])
@pytest.mark.parametrize(
    "body", [b'{"symbol": "\xff"}', b'{"markets": [{"symbol": "\xff"}]}', b'{"bars": "\xff"}']
)
def test_bytes_that_are_no_text_are_refused(client: TestClient, path: str, body: bytes) -> None:
    response = client.post(path, content=body, headers={"content-type": "application/json"})
    assert response.status_code == 400, response.text
