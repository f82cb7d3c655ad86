"""Who changed what: every change by a route or a command has its row, and nothing else has."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

import service.cli
import store.audit
import store.database
from model.artifact import Packed
from store.audit import Entry
from store.database import Engine
from tests.service.conftest import CLOSE, add_version, bar, problem, walk

MARKET = {"symbol": "ETHUSDT", "timeframe": "1h"}


def entries(engine: Engine) -> list[Entry]:
    with store.database.read(engine) as conn:
        return store.audit.page(conn)


def test_every_change_by_a_route_is_noted(
    client: TestClient, engine: Engine, champion: int, market_id: int, packed: Packed
) -> None:
    other = add_version(engine, market_id, packed, "challenger")
    calls: list[tuple[str, Callable[[], object]]] = [
        ("version.promote", lambda: client.post(f"/v1/versions/{other}/promote")),
        ("version.rollback", lambda: client.post("/v1/markets/ETHUSDT/1h/rollback")),
        ("job.ask", lambda: client.post("/v1/retrains", json=MARKET)),
        ("job.ask", lambda: client.post("/v1/backtests", json=MARKET)),
        ("job.cancel", lambda: client.delete("/v1/jobs/1")),
        ("bars.push", lambda: client.post("/v1/bars", json={**MARKET, "bars": [bar(CLOSE)]})),
        ("key.create", lambda: client.post("/v1/keys", json={"name": "bot"})),
        ("key.rotate", lambda: client.post("/v1/keys/1/rotate")),
        ("key.revoke", lambda: client.delete("/v1/keys/1")),
    ]
    for number, (action, call) in enumerate(calls, 1):
        if action == "bars.push":
            client.app.state.clock.now = CLOSE.replace(hour=1, minute=20)  # type: ignore[attr-defined]
        response = call()
        assert response.status_code < 300, response.text  # type: ignore[attr-defined]
        found = entries(engine)
        assert len(found) == number, action
        assert (found[0].action, found[0].actor) == (action, "loopback")
        assert found[0].request_id == response.headers["x-request-id"]  # type: ignore[attr-defined]
    details = {entry.action: (entry.target, entry.detail) for entry in entries(engine)}
    assert details["bars.push"] == ("ETHUSDT 1h", {"added": 1, "corrected": 0})
    assert details["version.promote"] == (f"version {other}", {"market": "ETHUSDT 1h"})
    assert details["job.cancel"] == ("job 1", {"kind": "retrain"})


def test_what_changes_nothing_is_not_noted(client: TestClient, engine: Engine, champion: int) -> None:
    client.post("/v1/retrains", json=MARKET)
    assert len(entries(engine)) == 1
    known = walk().tail(1).row(0, named=True)
    for response in (
        client.post("/v1/retrains", json=MARKET),  # an equal one waits
        client.post(f"/v1/versions/{champion}/promote"),  # it is the champion
        client.post("/v1/bars", json={**MARKET, "bars": [{**known, "ts": known["ts"].isoformat()}]}),
        client.post("/v1/predict", json=MARKET),
    ):
        assert response.status_code < 300, response.text
    client.post("/v1/markets/ETHUSDT/1h/rollback")  # there is none to go back to
    client.post("/v1/bars", json={**MARKET, "bars": [bar(CLOSE, -1.0)]})
    client.delete("/v1/jobs/1")
    client.delete("/v1/jobs/1")
    assert [entry.action for entry in entries(engine)] == ["job.cancel", "job.ask"]


def test_every_change_by_a_command_is_noted(
    engine: Engine,
    champion: int,
    market_id: int,
    packed: Packed,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("BARPROP_DATABASE__URL", str(engine.url))
    other = add_version(engine, market_id, packed, "challenger")
    walk(300).write_parquet(tmp_path / "bars.parquet")
    changes = {
        "keys create bot": "key.create",
        "keys rotate 1 --grace 1h": "key.rotate",
        "keys revoke 1": "key.revoke",
        f"versions promote {other}": "version.promote",
        "versions rollback ETHUSDT 1h": "version.rollback",
        "markets pause ETHUSDT 1h": "market.pause",
        "markets resume ETHUSDT 1h": "market.resume",
        "schedules set retrain --disable": "schedule.set",
        f"ingest {tmp_path / 'bars.parquet'} BTCUSDT 1h": "bars.push",
    }
    for number, (line, action) in enumerate(changes.items(), 1):
        assert service.cli.run(line.split()) == 0, capsys.readouterr().err
        found = entries(engine)
        assert len(found) == number, line
        assert (found[0].action, found[0].actor, found[0].request_id) == (action, "command line", None)
    for line in (
        "keys revoke 1",
        f"ingest {tmp_path / 'bars.parquet'} BTCUSDT 1h",
        "markets resume ETHUSDT 1h",
    ):
        assert service.cli.run(line.split()) == 0
    assert len(entries(engine)) == len(changes)
    capsys.readouterr()
    assert service.cli.run(["audit", "--json", "--limit", "2"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert service.cli.run(["audit", "--json", "--cursor", str(first["next"])]) == 0
    rest = json.loads(capsys.readouterr().out)
    assert [item["action"] for item in first["items"] + rest["items"]] == list(changes.values())[::-1]
    assert rest["next"] is None


def test_the_log_is_read_in_pages(client: TestClient) -> None:
    for _ in range(3):
        client.post("/v1/keys", json={"name": "bot"})
    first = client.get("/v1/audit?limit=2").json()
    rest = client.get(f"/v1/audit?limit=2&cursor={first['next']}").json()
    ids = [entry["id"] for entry in first["items"] + rest["items"]]
    assert ids == sorted(ids, reverse=True)
    assert (len(ids), rest["next"]) == (3, None)
    assert problem(client.get("/v1/audit?limit=0"))["type"] == "/problems/invalid-request"
