"""`GET /v1/signals`: over real sockets, from real processes, with readers that come back, are slow, or go away."""

import contextlib
import json
import signal
import socket
import threading
import time
from contextlib import ExitStack, closing
from datetime import timedelta

import httpx
import psycopg
import pytest
from fastapi import FastAPI

import store.bars
import store.clock
import store.database
import store.keys
import store.markets
import store.predictions
import store.settings
from model import artifact, dataset, training
from model.artifact import Packed
from model.bars import Market, timeframe
from model.features import Input
from service import broadcast, stream
from service.answers import Answered
from service.app import create_app
from service.deps import machine_now
from store import tables
from store.database import Engine
from store.settings import Settings
from tests.processes import first_document, started
from tests.service.conftest import BARS, CLOSE, ETH, Clock, TestClient, add_version, problem, walk
from tests.service.streams import Reader, listening, push, reading
from tests.waiting import until

OF_ETH = "?symbol=ETHUSDT&timeframe=1h"
HOUR = timedelta(hours=1)


def later(count: int) -> list[dict[str, object]]:
    """The next bars of ETHUSDT, as requests bring them."""
    bars = walk(BARS + count, CLOSE + count * HOUR).tail(count)
    return [{**bar, "ts": bar["ts"].isoformat()} for bar in bars.iter_rows(named=True)]


def put(engine: Engine, market_id: int, count: int, first: int = 0) -> list[int]:
    """The ids of new rows of the ledger, as another process would write them, in one commit."""
    with store.database.write(engine) as conn:
        store.database.alone(conn, store.database.LEDGER_LOCK)
        rows = [
            {
                "market_id": market_id,
                "as_of": CLOSE + n * HOUR,
                "answer": "no_model:-",
                "kind": "abstention",
                "reason": "no_model",
                "detail": "no version answers yet",
                "served_at": CLOSE,
            }
            for n in range(first, first + count)
        ]
        made = conn.execute(tables.predictions.insert().returning(tables.predictions.c.id), rows)
        return sorted(made.scalars())


def second_market(engine: Engine) -> int:
    """A market beside ETHUSDT, without a version."""
    store.bars.add(engine, Market("BTCUSDT", "1h"), walk(seed=8), CLOSE)
    with store.database.read(engine) as conn:
        return store.markets.need(conn, Market("BTCUSDT", "1h")).id


def opened(url: str) -> int:
    """How many streams are open, as /metrics has it."""
    text = httpx.get(f"{url}/metrics").text
    return int(float(text.partition("\nbarprop_streams_open ")[2].partition("\n")[0]))


def changed(settings: Settings, **values: object) -> Settings:
    """These settings with others of the service."""
    return settings.model_copy(update={"service": settings.service.model_copy(update=values)})


def test_a_pushed_bar_is_a_signal_on_the_stream(app: FastAPI, champion: int, clock: Clock) -> None:
    with listening(app) as url, reading(url, OF_ETH) as reader:
        assert reader.next()["as_of"] == "2024-07-01T00:00:00Z"  # nobody had asked for the newest bar's
        clock.now += HOUR
        push(url, later(1)[0])
        told = reader.next()
        asked = httpx.post(f"{url}/v1/predict", json={"symbol": "ETHUSDT", "timeframe": "1h"}).json()
    assert (told["kind"], told["as_of"], told["version"]) == ("prediction", "2024-07-01T01:00:00Z", champion)
    assert {**asked, "id": told["id"], "served_at": told["served_at"]} == told


def test_an_abstention_is_told_too(app: FastAPI, market_id: int) -> None:
    with listening(app) as url, reading(url) as reader:
        assert reader.next()["reason"] == "no_model"


def test_a_reader_of_one_market_gets_no_other(app: FastAPI, engine: Engine, market_id: int) -> None:
    other = second_market(engine)
    for market in (ETH, Market("BTCUSDT", "1h")):
        app.state.answers.signal(market)
    with listening(app) as url, reading(url, OF_ETH) as one, reading(url) as every:
        ids = put(engine, other, 3, 1) + put(engine, market_id, 2, 1)
        assert one.all(2) == ids[3:]
        assert every.all(5) == ids


def test_a_reader_that_comes_back_misses_none_and_sees_none_twice(
    app: FastAPI, engine: Engine, market_id: int
) -> None:
    written: list[int] = []

    def write() -> None:
        for n in range(1, 301):
            written.extend(put(engine, market_id, 1, n))

    with listening(app) as url, ExitStack() as beginning:
        reader = beginning.enter_context(reading(url))
        seen = [reader.next()["id"]]
        beginning.close()
        writer = threading.Thread(target=write)
        writer.start()
        while len(seen) < 301:
            with reading(url, last=seen[-1]) as reader:
                seen += reader.all(min(17, 301 - len(seen)))
        writer.join()
    assert seen[1:] == written


def test_reads_that_overlap_repeat_nothing(
    app: FastAPI, engine: Engine, champion: int, market_id: int, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = broadcast.Broadcaster._page

    def late(self: broadcast.Broadcaster, after: int, of: int | None) -> list[broadcast.Event]:
        time.sleep(0.05)  # what is committed meanwhile is read, and told by others too
        return read(self, after, of)

    monkeypatch.setattr(broadcast.Broadcaster, "_page", late)
    app.state.answers.signal(ETH)
    with listening(app) as url, reading(url) as first, reading(url, "?after=0") as second:
        for bar in later(4):
            clock.now += HOUR
            push(url, bar)
            first.next()
        for n in range(5, 45):
            put(engine, market_id, 1, n)
            time.sleep(0.005)
        with reading(url, "?after=0") as third:
            for n in range(45, 60):
                put(engine, market_id, 1, n)
                time.sleep(0.005)
            everything = second.all(60)
            assert everything == sorted(set(everything))
            assert third.all(60) == everything
            assert first.all(55) == everything[5:]


def test_rows_of_others_just_before_an_answer_are_not_left_out(
    app: FastAPI, engine: Engine, market_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = app.state.answers.signal
    others: list[int] = []

    def preceded(market: Market) -> Answered:
        if not others:
            others.extend(put(engine, market_id, 3, 1))
        found: Answered = answer(market)
        return found

    monkeypatch.setattr(app.state.answers, "signal", preceded)
    with listening(app) as url, reading(url) as reader:
        assert reader.all(4) == [1, 2, 3, 4]
    assert others == [1, 2, 3]


def test_a_bar_that_came_while_nobody_read_is_answered_when_somebody_comes_back(
    app: FastAPI, champion: int, clock: Clock
) -> None:
    with listening(app) as url:
        with reading(url, OF_ETH) as reader:
            last = reader.next()["id"]
        until(lambda: opened(url) == 0)
        clock.now += HOUR
        push(url, later(1)[0])
        with reading(url, OF_ETH, last) as reader:
            assert reader.next()["as_of"] == "2024-07-01T01:00:00Z"


def test_where_a_reader_is_is_told_before_the_first_event(
    app: FastAPI, engine: Engine, market_id: int
) -> None:
    ids = put(engine, market_id, 3)
    with listening(app) as url:
        with reading(url) as reader:
            until(lambda: reader.last_id is not None)
            assert reader.last_id == ids[-1]
        with reading(url, f"?after={ids[0]}") as reader:
            assert reader.all(2) == ids[1:]
        with reading(url, f"?after={ids[0]}", last=ids[1]) as reader:  # as EventSource comes back
            assert reader.all(1) == ids[2:]


def test_an_empty_last_event_id_is_none_and_one_that_is_no_id_is_refused(
    app: FastAPI, engine: Engine, market_id: int
) -> None:
    ids = put(engine, market_id, 3)
    with listening(app) as url:
        with reading(url, last="") as reader:
            until(lambda: reader.last_id is not None)
            assert reader.last_id == ids[-1]
        with reading(url, f"?after={ids[0]}", last="") as reader:
            assert reader.all(2) == ids[1:]
        refused = httpx.get(f"{url}/v1/signals", headers={"last-event-id": "none"})
        assert problem(refused)["errors"] == [
            {
                "field": "last-event-id",
                "message": "Input should be a valid integer, unable to parse string as an integer",
            }
        ]


@pytest.mark.parametrize(
    ("query", "headers", "status", "said"),
    [
        ("", {"last-event-id": "abc"}, 422, "last-event-id"),
        ("", {"last-event-id": "1.5"}, 422, "last-event-id"),
        ("", {"last-event-id": "99999999999999"}, 422, "last-event-id"),
        ("", {"last-event-id": "-1"}, 422, "last-event-id"),
        ("?after=99999999999999", {}, 422, "after"),
        ("?after=5", {}, 422, "no event 5 yet"),
        ("?symbol=ETHUSDT", {}, 422, "both symbol and timeframe"),
        ("?symbol=NOSUCH&timeframe=1h", {}, 404, "no market NOSUCH 1h"),
    ],
)
def test_what_cannot_be_followed_is_refused_with_the_reason(
    client: TestClient, query: str, headers: dict[str, str], status: int, said: str
) -> None:
    answer = client.get(f"/v1/signals{query}", headers=headers)
    assert answer.status_code == status
    assert said in str(problem(answer)["detail"])


def test_a_silent_stream_says_that_it_lives(engine: Engine, settings: Settings, clock: Clock) -> None:
    app = create_app(engine, changed(settings, heartbeat_seconds=0.2), clock)
    with listening(app) as url, reading(url) as reader:
        assert reader.comments[0] == "open"
        until(lambda: reader.comments.count("heartbeat") >= 3, 5)


def stalled(url: str, query: str = "") -> socket.socket:
    """A connection that has asked for the stream and reads nothing of it."""
    host, _, port = url.removeprefix("http://").partition(":")
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    made.connect((host, int(port)))
    made.sendall(f"GET /v1/signals{query} HTTP/1.1\r\nhost: {host}\r\n\r\n".encode())
    return made


def test_a_slow_reader_holds_no_memory_and_loses_nothing(
    app: FastAPI, engine: Engine, market_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    most, dropped = 0, False
    offer = broadcast.Subscriber.offer

    def watched(self: broadcast.Subscriber, events: list[broadcast.Event]) -> None:
        nonlocal most, dropped
        offer(self, events)
        most, dropped = max(most, len(self._waiting)), dropped or self._overrun

    monkeypatch.setattr(broadcast.Subscriber, "offer", watched)
    app.state.answers.signal(ETH)  # so that nothing is told but what is put
    with listening(app) as url, reading(url) as quick, closing(stalled(url)) as slow:
        until(lambda: opened(url) == 2)
        ids = [ident for n in range(20) for ident in put(engine, market_id, 1_000, 1 + n * 1_000)]
        assert quick.all(20_000) == ids
        reader, block = Reader(), dict[str, str]()
        lines = slow.makefile("r", encoding="utf-8")
        slow.settimeout(20)
        while reader.last_id != ids[-1]:
            assert "heartbeat" not in reader.comments, "there is nothing more to come"
            line = lines.readline().rstrip("\r\n")
            if line.startswith((":", "id:", "event:", "data:", "retry:")) or (block and not line):
                reader.take(line, block)
        assert reader.all(20_000) == ids
    assert dropped
    assert most <= broadcast.MOST_WAITING


def test_there_are_so_many_streams_and_no_more(engine: Engine, settings: Settings, clock: Clock) -> None:
    app = create_app(engine, changed(settings, max_streams=3, max_streams_per_key=2), clock)
    with listening(app) as url:
        with reading(url), reading(url):
            answer = httpx.get(f"{url}/v1/signals")
            assert problem(answer)["type"] == "/problems/too-many-streams"
            assert answer.status_code == 429
            assert int(answer.headers["retry-after"]) > 0
            assert "loopback has 2 streams open" in answer.json()["detail"]
            assert opened(url) == 2
        until(lambda: opened(url) == 0)  # who has gone makes room
        with reading(url):
            assert opened(url) == 1


def test_a_market_that_cannot_be_answered_stops_no_other(
    app: FastAPI, engine: Engine, market_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    second_market(engine)
    answer = app.state.answers.signal

    def faulty(market: Market) -> Answered:
        if market.symbol == "BTCUSDT":
            raise RuntimeError("not foreseen")
        found: Answered = answer(market)
        return found

    monkeypatch.setattr(app.state.answers, "signal", faulty)
    with listening(app) as url, reading(url) as reader:
        assert reader.next()["market"]["symbol"] == ETH.symbol
        assert put(engine, market_id, 1, 1) == reader.all(1)


def test_a_revoked_key_ends_its_streams(engine: Engine, settings: Settings, clock: Clock) -> None:
    with store.database.write(engine) as conn:
        _, secret = store.keys.create(conn, "bot", ("predict",), machine_now())
    app = create_app(engine, changed(settings, require_keys=True), clock)
    with listening(app) as url, reading(url, key=secret) as reader:
        with store.database.write(engine) as conn:
            store.keys.revoke(conn, secret.split("_")[1], machine_now())
        until(lambda: reader.ended, 2)
    assert reader.comments[-1] == "the key is no longer valid"


@pytest.fixture
def replayed(database: Engine, url: str, packed: Packed) -> dict[str, str]:
    """The environment of a service over a database of each kind, in which ETHUSDT has a champion and it is 00:20."""
    store.bars.add(database, ETH, walk(), CLOSE)
    with store.database.read(database) as conn:
        market_id = store.markets.need(conn, ETH).id
    add_version(database, market_id, packed, "champion")
    store.clock.set(database, CLOSE + timedelta(minutes=20))
    return {"BARPROP_DATABASE__URL": url}


SERVE = ("serve", "--port", "0", "--no-worker", "--json")


def test_a_bar_pushed_to_one_process_is_told_by_another(database: Engine, replayed: dict[str, str]) -> None:
    with started(*SERVE, env=replayed) as one, started(*SERVE, env=replayed) as other:
        here, there = first_document(one)["url"], first_document(other)["url"]
        with reading(there, f"{OF_ETH}&after=0") as reader, reading(here, "?after=0") as own:
            seen = [reader.next()]
            for n, bar in enumerate(later(3)):
                store.clock.set(database, CLOSE + (n + 1) * HOUR + timedelta(minutes=20))
                push(here, bar)
                seen.append(reader.next())
            assert [document["as_of"][11:13] for document in seen] == ["00", "01", "02", "03"]
            assert {document["kind"] for document in seen} == {"prediction"}
            assert own.all(4) == [document["id"] for document in seen]


def test_a_process_that_stops_ends_its_streams(replayed: dict[str, str]) -> None:
    with started(*SERVE, env=replayed) as process:
        url = first_document(process)["url"]
        with reading(url) as reader, closing(stalled(url)):
            reader.next()
            until(lambda: opened(url) == 2)
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            assert process.wait(15) == 0
            until(lambda: reader.ended, 1)
    assert time.monotonic() - began < 3
    assert "stopping" in reader.comments[-1]


def test_a_reader_that_takes_nothing_does_not_keep_a_process_from_stopping(
    database: Engine, replayed: dict[str, str]
) -> None:
    with started(*SERVE, env=replayed) as process:
        url = first_document(process)["url"]
        with closing(stalled(url)), reading(url) as reader:
            put(database, 1, 20_000, 1)
            reader.all(20_000)
            process.send_signal(signal.SIGTERM)
            assert process.wait(15) == 0


def test_a_reader_that_takes_nothing_for_long_makes_room(
    app: FastAPI, engine: Engine, market_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "STALLED_SECONDS", 3.0)
    app.state.answers.signal(ETH)
    with listening(app) as url, closing(stalled(url)), reading(url) as reader:
        assert put(engine, market_id, 20_000, 1) == reader.all(20_000)
        until(lambda: opened(url) == 1, 15)
        assert put(engine, market_id, 1, 30_000) == reader.all(1)


def test_while_the_database_is_away_the_stream_stays_open(
    postgres: str, settings: Settings, clock: Clock
) -> None:
    engine = store.database.connect(postgres)
    store.database.upgrade(engine)
    store.bars.add(engine, ETH, walk(), CLOSE)
    app = create_app(engine, settings, clock)
    name = postgres.partition("?")[0].rpartition("/")[2]
    with listening(app) as url, reading(url) as reader:
        reader.next()
        with psycopg.connect(postgres.replace(f"/{name}?", "/postgres?"), autocommit=True) as admin:
            admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
            admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
            until(lambda: any("does not answer" in comment for comment in reader.comments), 10)
            time.sleep(1.5)
            admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        until(lambda: _written(engine), 20)
        assert reader.next()["market"]["symbol"] == ETH.symbol
        assert sum("does not answer" in comment for comment in reader.comments) == 1
    engine.dispose()


def _written(engine: Engine) -> bool:
    with contextlib.suppress(store.database.Unreachable):
        return bool(put(engine, 1, 1, 1))
    return False


def test_the_newest_signal_is_sent_once_and_then_said_to_be_the_same(
    client: TestClient, champion: int, clock: Clock
) -> None:
    first = client.get("/v1/signals/ETHUSDT/1h")
    asked = client.post("/v1/predict", json={"symbol": "ETHUSDT", "timeframe": "1h"})
    assert (first.status_code, first.json()) == (200, asked.json())
    assert first.headers["cache-control"] == "no-cache"
    etag = first.headers["etag"]
    assert etag.startswith('"')
    for known in (etag, f'"other", W/{etag}', "*"):
        same = client.get("/v1/signals/ETHUSDT/60m", headers={"if-none-match": known})
        assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", etag)
    clock.now += HOUR
    client.post("/v1/bars", json={"symbol": "ETHUSDT", "timeframe": "1h", "bars": later(1)})
    moved = client.get("/v1/signals/ETHUSDT/1h", headers={"if-none-match": etag})
    assert moved.status_code == 200
    assert moved.json()["as_of"] == "2024-07-01T01:00:00Z"
    assert moved.headers["etag"] != etag


def test_no_such_market_has_no_signal(client: TestClient) -> None:
    assert problem(client.get("/v1/signals/NOSUCH/1h"))["type"] == "/problems/not-found"
    assert problem(client.get("/v1/signals/ETHUSDT/7x"))["type"] == "/problems/bad-input"


def test_what_has_answers_made_needs_the_right_to_predict(
    engine: Engine, settings: Settings, clock: Clock, market_id: int
) -> None:
    app = create_app(engine, changed(settings, require_keys=True), clock)
    with store.database.write(engine) as conn:
        _, reads = store.keys.create(conn, "reader", ("read",), machine_now())
        _, predicts = store.keys.create(conn, "bot", ("predict",), machine_now())
    with listening(app) as url:
        for place in ("/v1/signals", "/v1/signals/ETHUSDT/1h"):
            refused = httpx.get(f"{url}{place}", headers={"authorization": f"Bearer {reads}"})
            assert problem(refused)["type"] == "/problems/missing-scope"
        with store.database.read(engine) as conn:
            assert store.predictions.page(conn) == []
        with reading(url, key=predicts) as reader:
            told = reader.next()
        newest = httpx.get(f"{url}/v1/signals/ETHUSDT/1h", headers={"authorization": f"Bearer {predicts}"})
    assert told["reason"] == newest.json()["reason"] == "no_model"


def test_the_stream_is_documented(client: TestClient) -> None:
    operation = client.get("/openapi.json").json()["paths"]["/v1/signals"]["get"]
    content = operation["responses"]["200"]["content"]
    assert list(content) == ["text/event-stream"]
    data = content["text/event-stream"]["example"].partition("data: ")[2].partition("\n")[0]
    assert json.loads(data)["kind"] == "prediction"
    assert {"404", "422", "429", "503"} <= set(operation["responses"])


def test_a_stream_that_opens_while_a_market_is_being_answered_holds_nothing_up(
    app: FastAPI, engine: Engine, champion: int, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer, begun, go_on = app.state.answers.signal, threading.Event(), threading.Event()

    def slow(market: Market) -> Answered:
        begun.set()
        go_on.wait(10)
        found: Answered = answer(market)
        return found

    monkeypatch.setattr(app.state.answers, "signal", slow)
    with listening(app) as url, reading(url) as early:
        assert begun.wait(10)
        threading.Timer(2.0, go_on.set).start()  # whatever happens, the service ends
        with reading(url) as late:
            assert httpx.get(f"{url}/livez", timeout=1).status_code == 200
            go_on.set()
            assert early.next()["id"] == late.next()["id"]


def test_a_bar_of_a_market_that_is_looked_at_beside_is_an_answer_anew(
    app: FastAPI, engine: Engine, market_id: int, clock: Clock
) -> None:
    """Of one bar first an abstention, since the other market's bars are late, then, once they are there, a number."""
    second_market(engine)
    btc = Market("BTCUSDT", "1h")
    beside = Input(btc.symbol, btc.timeframe, ("return_1",))
    config = training.TrainConfig(hidden=(8,), epochs=2, patience=1, inputs=(beside,))
    data = dataset.from_bars(walk(), timeframe("1h"), config, others={btc: walk(seed=8)})
    arrays, manifest = training.contents(training.fit(data, config))
    arrays["calibration"][3] = 1e9  # so that all bars lie in its domain
    held = {"rows": 0, "gain": 0.0, "gain_error": 0.0}
    add_version(engine, market_id, artifact.pack(arrays, manifest | {"held": held}), "champion")
    hours = 4
    with listening(app) as url, reading(url, OF_ETH) as reader:
        assert reader.next()["kind"] == "prediction"
        clock.now += hours * HOUR
        store.bars.add(engine, ETH, walk(BARS + hours, CLOSE + hours * HOUR).tail(hours), clock.now)
        late = reader.next()
        assert (late["as_of"], late.get("reason")) == ("2024-07-01T04:00:00Z", "stale_bars")
        others = walk(BARS + hours, CLOSE + hours * HOUR, seed=8).tail(hours)
        store.bars.add(engine, btc, others, clock.now)
        told = reader.next()
        assert (told["as_of"], told["kind"]) == (late["as_of"], "prediction")
        asked = httpx.post(f"{url}/v1/predict", json={"symbol": "ETHUSDT", "timeframe": "1h"}).json()
    assert {**asked, "id": told["id"], "served_at": told["served_at"]} == told
