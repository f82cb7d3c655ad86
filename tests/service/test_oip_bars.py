"""The Open Inference Protocol's models of bars: the Signal of bars that are brought along."""

import json
from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st
from numpy.typing import NDArray

import store.database
import store.predictions
from model.bars import Bars, iso
from store.database import Engine
from tests.service.conftest import CLOSE, Clock, walk

MODEL = "/v2/models/ETHUSDT:1h:bars"
INFER = f"{MODEL}/infer"
NUMBERS = ("p_up", "expected_return", "price", "low", "high")


def table(bars: Bars) -> NDArray[np.float64]:
    """Bars as the protocol sends them."""
    return bars.with_columns(pl.col("ts").dt.epoch("us").cast(pl.Float64)).to_numpy()


def ask(rows: NDArray[np.float64], **others: Any) -> dict[str, Any]:
    """A request about these bars."""
    bars = {"name": "bars", "shape": list(rows.shape), "datatype": "FP64", "data": rows.ravel().tolist()}
    return {"inputs": [bars], **others}


def native(client: TestClient, bars: Bars) -> dict[str, Any]:
    """What the service's own route says of them."""
    body = {
        "symbol": "ETHUSDT",
        "timeframe": "1h",
        "bars": [{**bar, "ts": iso(bar["ts"])} for bar in bars.iter_rows(named=True)],
    }
    document: dict[str, Any] = client.post("/v1/predict", json=body).json()
    return document


def test_metadata_says_what_a_bar_is(client: TestClient, champion: int) -> None:
    document = client.get(MODEL).json()
    assert document["name"] == "ETHUSDT:1h:bars"
    (bars,) = document["inputs"]
    assert (bars["name"], bars["datatype"], bars["shape"]) == ("bars", "FP64", [-1, 6])
    assert bars["parameters"]["columns"] == "ts,open,high,low,close,volume"
    assert "microseconds" in bars["parameters"]["ts"]
    assert [output["name"] for output in document["outputs"]] == [*NUMBERS, "abstention"]
    assert client.get(f"{MODEL}/versions/{champion}/ready").json() == {
        "name": "ETHUSDT:1h:bars",
        "ready": True,
    }


def test_a_signal_of_bars_is_the_services_own(client: TestClient, engine: Engine, champion: int) -> None:
    bars = walk(768, seed=11)
    said = native(client, bars)
    assert said["kind"] == "prediction"
    document = client.post(INFER, json=ask(table(bars), id="7")).json()
    assert document["model_version"] == str(champion)
    assert document["parameters"] == {"in_sample": said["in_sample"], "as_of": said["as_of"]}
    outputs = {output["name"]: output for output in document["outputs"]}
    low, high = said["interval"]
    wanted = {**{name: said[name] for name in NUMBERS[:3]}, "low": low, "high": high, "abstention": ""}
    assert {name: output["data"] for name, output in outputs.items()} == {
        name: [value] for name, value in wanted.items()
    }
    assert all(output["shape"] == [1] for output in outputs.values())
    shuffled = np.random.default_rng(0).permutation(table(bars))
    assert client.post(INFER, json=ask(shuffled, id="7")).json() == document
    with store.database.read(engine) as conn:
        assert store.predictions.page(conn) == []


def test_an_abstention_has_a_reason_and_no_numbers(client: TestClient, clock: Clock, champion: int) -> None:
    few = walk(30)
    said = native(client, few)
    document = client.post(INFER, json=ask(table(few))).json()
    assert document["parameters"] == {
        "in_sample": False,
        "as_of": said["as_of"],
        "detail": said["detail"],
    }
    outputs = {output["name"]: output for output in document["outputs"]}
    assert outputs["abstention"]["data"] == ["too_few_bars"]
    assert all((outputs[name]["shape"], outputs[name]["data"]) == ([0], []) for name in NUMBERS)
    binary = client.post(INFER, json=ask(table(few), parameters={"binary_data_output": True}))
    end = int(binary.headers["inference-header-content-length"])
    sizes = [each["parameters"]["binary_data_size"] for each in json.loads(binary.content[:end])["outputs"]]
    assert sizes == [0, 0, 0, 0, 0, 16]
    assert binary.content[end:] == b"\x0c\0\0\0too_few_bars"
    clock.now = CLOSE + timedelta(days=3)
    outputs = client.post(INFER, json=ask(table(walk(768)))).json()["outputs"]
    assert outputs[-1]["data"] == ["stale_bars"]


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        (0, 0.5, "whole microseconds"),
        (0, -1.0, "whole microseconds"),
        (0, 1e300, "whole microseconds"),
        (2, 1.0, "1 high_low_contradiction"),
        (4, -1.0, "1 not_positive"),
        (4, 1e308, "high_low_contradiction"),
    ],
)
def test_bars_that_are_not_sound(
    client: TestClient, champion: int, column: int, value: float, words: str
) -> None:
    rows = table(walk(768))
    rows[5, column] = value
    answer = client.post(INFER, json=ask(rows))
    assert (answer.status_code, list(answer.json())) == (400, ["error"])
    assert words in answer.json()["error"]


def test_other_units_of_time_are_refused(client: TestClient, champion: int) -> None:
    rows = table(walk(768))
    for unit in (1e3, 1e6):
        scaled = rows * [1 / unit, 1, 1, 1, 1, 1]
        assert "not the timeframe 1h" in client.post(INFER, json=ask(scaled)).json()["error"]


def test_a_price_beyond_all_numbers_is_no_failure(client: TestClient, champion: int) -> None:
    rows = table(walk(768))
    rows[:, 1:5] *= 1.7e308 / rows[:, 1:5].max()
    answer = client.post(INFER, json=ask(rows))
    assert answer.status_code in (200, 400), answer.text


ROW = st.tuples(
    st.integers(0, 2**53)
    | st.sampled_from([k * 3_600_000_000 for k in range(400_000, 400_100)])
    | st.floats(),
    *[st.floats(allow_nan=False) | st.just(1.0)] * 5,
)


@settings_of_hypothesis(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=st.lists(ROW, min_size=1, max_size=12))
def test_no_bars_break_it(client: TestClient, champion: int, rows: list[tuple[float, ...]]) -> None:
    body = json.dumps(ask(np.array(rows, np.float64)))
    assert client.post(INFER, content=body).status_code in (200, 400)
