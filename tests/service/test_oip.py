"""The Open Inference Protocol: its documents, its tensors, and what it refuses."""

import json
import struct
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st
from numpy.typing import NDArray

import store.bars
import store.database
import store.keys
import store.predictions
from model import predictor
from model.artifact import Packed
from model.bars import Market, timeframe
from model.errors import Unreachable
from model.features import DEFAULT, rows
from model.predictor import Predictor
from model.recalibration import FRESH
from service.app import create_app
from store.database import Engine
from store.settings import Settings
from tests.service.conftest import CLOSE, HERE, Clock, add_version, walk

MODEL = "/v2/models/ETHUSDT:1h"
INFER = f"{MODEL}/infer"
LENGTH = "inference-header-content-length"
F = len(DEFAULT.columns)


@pytest.fixture(scope="session")
def frozen(packed: Packed) -> Predictor:
    """The version that is asked, as the model package makes it."""
    return predictor.from_artifact(packed)


@pytest.fixture(scope="session", name="X")
def real_rows(frozen: Predictor) -> NDArray[np.float32]:
    """Real rows of its features."""
    return rows(walk(), timeframe("1h"), frozen.features).X[:300]


def ask(X: NDArray[np.float32], **others: Any) -> dict[str, Any]:
    """A request about these rows."""
    return {"inputs": [tensor(X)], **others}


def tensor(X: NDArray[np.float32], **others: Any) -> dict[str, Any]:
    """An input of these rows."""
    values = {"name": "features", "shape": list(X.shape), "datatype": "FP32", "data": X.ravel().tolist()}
    return values | others


def by_name(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The outputs of a response."""
    return {output["name"]: output for output in document["outputs"]}


def refused(response: Any, status: int, *words: str) -> None:
    """It is the protocol's error document, and says these words."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert list(response.json()) == ["error"]
    for word in words:
        assert word in response.json()["error"]


def test_the_server_says_what_it_is(client: TestClient) -> None:
    for path in ("/v2", "/v2/"):
        document = client.get(path).json()
        assert document["name"] == "barprop"
        assert document["extensions"] == ["binary_tensor_data"]
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"live": True, "ready": True}


def test_a_server_that_stops_is_not_ready(app: FastAPI, client: TestClient) -> None:
    app.state.stopping = True
    answer = client.get("/v2/health/ready")
    assert (answer.status_code, answer.json()) == (503, {"live": True, "ready": False})


def test_metadata_says_what_a_row_is(
    client: TestClient, engine: Engine, market_id: int, champion: int, packed: Packed, frozen: Predictor
) -> None:
    newer = add_version(engine, market_id, packed, None)
    document = client.get(MODEL).json()
    assert document["name"] == "ETHUSDT:1h"
    assert document["versions"] == [str(newer), str(champion)]
    (features,) = document["inputs"]
    columns = frozen.features.columns
    assert (features["datatype"], features["shape"]) == ("FP32", [-1, len(columns)])
    assert features["parameters"]["columns"].split(",") == list(columns)
    assert [(each["name"], each["datatype"], each["shape"]) for each in document["outputs"]] == [
        ("p_up", "FP64", [-1]),
        ("scaled_return", "FP64", [-1]),
        ("abstention", "BYTES", [-1]),
    ]
    assert document["parameters"] == {
        "version": str(champion),
        "horizon": frozen.horizon,
        "weights": frozen.sha256[:12],
    }
    pinned = client.get(f"{MODEL}/versions/{newer}").json()
    assert pinned["parameters"]["version"] == str(newer)
    assert client.get("/v2/models/ETHUSDT%3A60m").json() == document


def test_answers_are_the_predictors_to_the_bit(
    client: TestClient, engine: Engine, champion: int, frozen: Predictor, X: NDArray[np.float32]
) -> None:
    readings = [frozen.read(row) for row in X]
    p_up = [frozen.predict(row, 1.0, 1.0).p_up for row in X]
    document = client.post(INFER, json=ask(X, id="a b")).json()
    assert document["model_name"] == "ETHUSDT:1h"
    assert document["model_version"] == str(champion)
    assert document["id"] == "a b"
    said = by_name(document)
    assert said["p_up"] == {"name": "p_up", "shape": [300], "datatype": "FP64", "data": p_up}
    assert said["scaled_return"]["data"] == [reading.scaled_return for reading in readings]
    assert said["abstention"]["data"] == [""] * 300
    with store.database.read(engine) as conn:
        assert store.predictions.page(conn) == []


def test_an_answer_is_what_a_live_signal_stands_on(
    client: TestClient, champion: int, frozen: Predictor
) -> None:
    live = client.post("/v1/predict", json={"symbol": "ETHUSDT", "timeframe": "1h"}).json()
    assert live["kind"] == "prediction"
    X = rows(walk(), timeframe("1h"), frozen.features).X[-1:]
    said = by_name(client.post(INFER, json=ask(X)).json())
    moved = frozen.forecast(frozen.read(X[0]), 1.0, 1.0, FRESH).p_up
    assert said["p_up"]["data"] == [moved]
    assert live["p_up"] == pytest.approx(moved, abs=0.05)  # by how far calibration has moved since


def test_nested_and_flat_data_are_the_same(client: TestClient, champion: int, X: NDArray[np.float32]) -> None:
    flat = client.post(INFER, json=ask(X[:3])).json()
    nested = client.post(INFER, json={"inputs": [tensor(X[:3], data=X[:3].tolist())]}).json()
    assert nested == flat
    assert "id" not in flat


def test_outputs_are_chosen_by_name_and_keep_their_order(
    client: TestClient, champion: int, X: NDArray[np.float32]
) -> None:
    chosen = [{"name": "abstention"}, {"name": "p_up", "parameters": {"any": 1}}]
    document = client.post(INFER, json=ask(X[:2], outputs=chosen, parameters={"priority": 1})).json()
    assert [output["name"] for output in document["outputs"]] == ["abstention", "p_up"]
    assert len(client.post(INFER, json=ask(X[:2], outputs=[])).json()["outputs"]) == 3
    for outputs in ([{"name": "price"}], [{"name": "p_up"}] * 2):
        refused(
            client.post(INFER, json=ask(X[:2], outputs=outputs)),
            400,
            "p_up, scaled_return, abstention",
            "once",
        )


def test_binary_tensors_in_and_out(client: TestClient, champion: int, X: NDArray[np.float32]) -> None:
    plain = by_name(client.post(INFER, json=ask(X[:5])).json())
    given = tensor(X[:5], parameters={"binary_data_size": X[:5].nbytes})
    del given["data"]
    head = json.dumps({"inputs": [given], "parameters": {"binary_data_output": True}}).encode()
    answer = client.post(INFER, content=head + X[:5].tobytes(), headers={LENGTH: str(len(head))})
    assert answer.headers["content-type"] == "application/octet-stream"
    end = int(answer.headers[LENGTH])
    outputs, rest = json.loads(answer.content[:end])["outputs"], answer.content[end:]
    assert [output["parameters"]["binary_data_size"] for output in outputs] == [40, 40, 20]
    assert np.frombuffer(rest[:40]).tolist() == plain["p_up"]["data"]
    assert np.frombuffer(rest[40:80]).tolist() == plain["scaled_return"]["data"]
    assert rest[80:] == struct.pack("<5I", 0, 0, 0, 0, 0)


def test_one_output_may_be_binary_and_another_not(
    client: TestClient, champion: int, X: NDArray[np.float32]
) -> None:
    outputs = [{"name": "p_up", "parameters": {"binary_data": False}}, {"name": "abstention"}]
    document = ask(X[:2], outputs=outputs, parameters={"binary_data_output": True})
    answer = client.post(INFER, json=document)
    p_up, abstention = json.loads(answer.content[: int(answer.headers[LENGTH])])["outputs"]
    assert len(p_up["data"]) == 2
    assert abstention["parameters"] == {"binary_data_size": 8}


def test_a_row_far_from_all_that_was_learned_from_says_so(
    client: TestClient, champion: int, X: NDArray[np.float32]
) -> None:
    far = X[:2].copy()
    far[1] = 1e30
    said = by_name(client.post(INFER, json=ask(far)).json())
    assert said["abstention"]["data"] == ["", "out_of_domain"]
    assert all(0 < p < 1 for p in said["p_up"]["data"])
    far[1] = np.where(np.arange(F) % 2, 3e38, -3e38)
    answer = client.post(INFER, json=ask(far))
    assert answer.status_code == 200 or "row 1" in answer.json()["error"]


def test_a_doubtful_row_says_so(
    engine: Engine, settings: Settings, clock: Clock, champion: int, X: NDArray[np.float32]
) -> None:
    strict = settings.model_copy(
        update={"signals": settings.signals.model_copy(update={"min_confidence": 0.99})}
    )
    with TestClient(create_app(engine, strict, clock), base_url=HERE) as client:
        said = by_name(client.post(INFER, json=ask(X[:2])).json())
    assert said["abstention"]["data"] == ["low_confidence"] * 2


def test_what_does_not_exist(client: TestClient, market_id: int, X: NDArray[np.float32]) -> None:
    for path in (MODEL, f"{MODEL}/ready"):
        refused(client.get(path), 404, "no version answers for ETHUSDT 1h yet")
    refused(client.post(INFER, json=ask(X)), 404, "barprop train")
    for name, words in (
        ("NOSUCH:1h", "no market NOSUCH 1h"),
        ("ETHUSDT", "SYMBOL:TIMEFRAME"),
        ("ETHUSDT:1h:x", "SYMBOL:TIMEFRAME:bars"),
        ("ETHUSDT:1h:", "SYMBOL:TIMEFRAME:bars"),
        ("ETHUSDT:1h:bars:", "SYMBOL:TIMEFRAME:bars"),
        ("%00:1h", "SYMBOL:TIMEFRAME"),
        ("%FF:1h", "SYMBOL:TIMEFRAME"),
    ):
        refused(client.get(f"/v2/models/{name}"), 404, words)
        refused(client.get(f"/v2/models/{name}/ready"), 404, words)
        refused(client.post(f"/v2/models/{name}/infer", json=ask(X)), 404, words)
    refused(client.get("/v2/nothing"), 404)
    refused(client.get(INFER), 405)


@pytest.mark.parametrize("version", ["999", "0", "-1", "01", "a", "9" * 60, "1.0", "%20", "٣"])
def test_a_version_that_does_not_exist(
    client: TestClient, champion: int, X: NDArray[np.float32], version: str
) -> None:
    path = f"{MODEL}/versions/{version}"
    refused(client.get(path), 404, "no version")
    refused(client.get(f"{path}/ready"), 404, "no version")
    refused(client.post(f"{path}/infer", json=ask(X)), 404, "of ETHUSDT 1h")


def test_another_markets_version_is_none_of_this(
    client: TestClient, engine: Engine, champion: int, packed: Packed
) -> None:
    store.bars.add(engine, Market("BTCUSDT", "1h"), walk(300), CLOSE)
    refused(client.get(f"/v2/models/BTCUSDT:1h/versions/{champion}"), 404, "no version")
    assert client.get(f"{MODEL}/versions/{champion}/ready").json() == {"name": "ETHUSDT:1h", "ready": True}


def test_a_damaged_version_is_not_ready(
    client: TestClient, engine: Engine, market_id: int, packed: Packed, X: NDArray[np.float32]
) -> None:
    add_version(engine, market_id, replace(packed, weights=packed.weights[:-1] + b"\0"), "champion")
    answer = client.get(f"{MODEL}/ready")
    assert (answer.status_code, answer.json()) == (503, {"name": "ETHUSDT:1h", "ready": False})
    refused(client.post(INFER, json=ask(X)), 500)


@pytest.mark.parametrize(
    ("others", "words"),
    [
        ({"datatype": "FP64"}, "must be FP32"),
        ({"datatype": "BYTES"}, "must be FP32"),
        ({"shape": [2]}, "must be of shape [n, "),
        ({"shape": [2, 3]}, "must be of shape [n, "),
        ({"shape": [0, F]}, "must be of shape [n, "),
        ({"shape": [1, 2, F]}, "must be of shape [n, "),
        ({"shape": [-2, F]}, "inputs.0.shape.0"),
        ({"shape": [2.0, F]}, "inputs.0.shape.0"),
        ({"shape": [True, F]}, "inputs.0.shape.0"),
        ({"shape": [2**64, F]}, "inputs.0.shape.0"),
        ({"shape": [3, F]}, "elements"),
        ({"shape": [10_001, F]}, "at most 10000"),
        ({"shape": [2**63, F]}, "at most 10000"),
        ({"name": "bars"}, "the inputs must be 'features'"),
        ({"data": None}, "as a list"),
        ({"data": "1"}, "as a list"),
        ({"data": []}, "0 elements"),
        ({"data": [[1.0], [1.0]]}, "2 lists of"),
        ({"data": [[[1.0]]]}, "2 lists of"),
        ({"data": [[], 1]}, "2 lists of"),
        ({"data": ["1.0"] * 2 * F}, "must be numbers"),
        ({"data": [True] * 2 * F}, "must be numbers"),
        ({"data": [None] * 2 * F}, "must be numbers"),
        ({"data": [[1.0] * F, ["1"] * F]}, "must be numbers"),
        ({"data": [1.0, []] * F}, "must be numbers"),
        ({"data": [10**400] * 2 * F}, "numbers that fit FP32"),
        ({"data": [1e39] * 2 * F}, "not finite as FP32"),
        ({"parameters": {"binary_data_size": 8}}, "give one"),
        ({"parameters": {"binary_data_size": 7}, "data": None}, "must be"),
        ({"parameters": {"binary_data_size": "8"}, "data": None}, "must be"),
        ({"parameters": {"nested": {}}}, "inputs.0.parameters.nested"),
        ({"parameters": []}, "inputs.0.parameters"),
    ],
)
def test_an_input_that_does_not_fit(
    client: TestClient, champion: int, X: NDArray[np.float32], others: dict[str, Any], words: str
) -> None:
    refused(client.post(INFER, json={"inputs": [tensor(X[:2], **others)]}), 400, words)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"inputs": [], "x": NaN}', "NaN is no number"),
        (b'{"inputs": [], "x": -Infinity}', "-Infinity is no number"),
        (b'{"inputs": [], "x": ' + b"9" * 5000 + b"}", "not JSON"),
        (b"[]", "body"),
        (b"{}", "inputs: Field required"),
        (b'{"inputs": []}', "each once, not none"),
        (b'{"inputs": [1]}', "inputs.0"),
        (b'{"inputs": {}}', "inputs"),
        (b'{"id": 1, "inputs": []}', "id"),
        (b'{"inputs": [], "outputs": {}}', "outputs"),
        (b'{"inputs": [], "parameters": {"binary_data_output": 1}}', "true or false"),
        (
            b'{"inputs": [], "outputs": [{"name": "p_up", "parameters": {"binary_data": "a"}}]}',
            "true or false",
        ),
        (b'{"inputs": [' + b"1," * 2_000_000 + b"1]}", "at most 16"),
    ],
    ids=lambda part: repr(part)[:40],
)
def test_a_document_that_does_not_fit(client: TestClient, champion: int, body: bytes, words: str) -> None:
    refused(client.post(INFER, content=body), 400, words)


def test_an_input_comes_once_and_alone(client: TestClient, champion: int, X: NDArray[np.float32]) -> None:
    for inputs in ([tensor(X[:1])] * 2, [tensor(X[:1]), tensor(X[:1], name="x")]):
        refused(client.post(INFER, json={"inputs": inputs}), 400, "'features', each once")


def test_binary_tensors_that_do_not_fit(client: TestClient, champion: int, X: NDArray[np.float32]) -> None:
    size, rest = X[:2].nbytes, X[:2].tobytes()
    head = json.dumps({"inputs": [tensor(X[:2], data=None, parameters={"binary_data_size": size})]}).encode()
    length = str(len(head))
    for content, header, words in (
        (head + rest[:-1], length, f"needs {size} bytes, but {size - 1}"),
        (head + rest + b"x", length, "1 bytes follow"),
        (head + rest, str(len(head) + size + 1), "but the body has"),
        (head + rest, str(len(head) - 1), "not JSON"),
        (head, None, f"needs {size} bytes, but 0"),
        (head + rest, None, "not JSON"),
        (head + rest, "-1", "greater than or equal to 0"),
        (head + rest, "a", "integer"),
        (head + np.full(X[:2].shape, np.nan, np.float32).tobytes(), length, "row 0 of 'features'"),
    ):
        headers = {} if header is None else {LENGTH: header}
        refused(client.post(INFER, content=content, headers=headers), 400, words)
    assert client.post(INFER, content=head + rest, headers={LENGTH: length}).status_code == 200


def test_as_many_rows_as_the_setting_allows(
    engine: Engine, settings: Settings, clock: Clock, champion: int, X: NDArray[np.float32]
) -> None:
    few = settings.model_copy(
        update={"service": settings.service.model_copy(update={"max_bars_per_request": 3})}
    )
    with TestClient(create_app(engine, few, clock), base_url=HERE) as client:
        assert client.post(INFER, json=ask(X[:3])).status_code == 200
        refused(client.post(INFER, json=ask(X[:4])), 400, "4 rows: at most 3")


def test_errors_that_others_find_have_the_protocols_form(
    engine: Engine, settings: Settings, clock: Clock, champion: int, X: NDArray[np.float32]
) -> None:
    guarded = settings.model_copy(
        update={
            "service": settings.service.model_copy(update={"require_keys": True, "max_body_bytes": 100_000})
        }
    )
    with store.database.write(engine) as conn:
        _, reads = store.keys.create(conn, "reads", ("read",), CLOSE)
        _, predicts = store.keys.create(conn, "predicts", ("predict",), CLOSE)
    with TestClient(create_app(engine, guarded, clock), base_url=HERE) as client:

        def send(key: str, rows: int = 1) -> Any:
            headers = {"authorization": f"Bearer {key}"}
            return client.post(INFER, json=ask(X[:rows]), headers=headers)

        unknown = send("bp_no")
        refused(unknown, 401, "unknown")
        assert "www-authenticate" in unknown.headers
        assert "x-request-id" in unknown.headers
        refused(send(reads), 403, "'predict'")
        assert send(predicts).status_code == 200
        refused(send(predicts, 300), 413, "100000 bytes")
        refused(client.get("/v2"), 401)
        assert client.get("/v2/health/live").status_code == 200
        refused(client.get("/v2/health/ready"), 401)
        assert client.get("/v1/markets").headers["content-type"] == "application/problem+json"


def test_an_unreachable_database_is_503(app: FastAPI, champion: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> None:
        raise Unreachable("the database does not answer")

    with TestClient(app, base_url=HERE, raise_server_exceptions=False) as client:
        monkeypatch.setattr(store.database, "read", away)
        answer = client.get(MODEL)
        refused(answer, 503, "does not answer")
        assert answer.headers["retry-after"]
        monkeypatch.setattr(store.database, "read", None)
        refused(client.get(MODEL), 500, "request ID")


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
NUMBERS = st.integers() | st.floats()
INPUT = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["features", "features", "x"]) | JSON,
        "shape": st.just([1, F]) | st.lists(st.integers(), max_size=3) | JSON,
        "datatype": st.just("FP32") | JSON,
        "parameters": st.dictionaries(st.just("binary_data_size") | st.text(max_size=3), JSON, max_size=2)
        | JSON,
        "data": st.lists(NUMBERS, min_size=F, max_size=F)
        | st.lists(st.lists(NUMBERS, min_size=F, max_size=F), max_size=2)
        | JSON,
    },
)
DOCUMENT = st.fixed_dictionaries(
    {},
    optional={
        "id": st.text() | JSON,
        "inputs": st.lists(INPUT, min_size=1, max_size=2) | JSON,
        "outputs": st.lists(st.fixed_dictionaries({"name": st.just("p_up") | JSON}), max_size=2) | JSON,
        "parameters": st.dictionaries(st.just("binary_data_output") | st.text(max_size=3), JSON, max_size=2)
        | JSON,
    },
)


@settings_of_hypothesis(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(document=DOCUMENT | JSON, rest=st.binary(max_size=8), length=st.none() | st.integers(-1, 99))
def test_no_document_breaks_it(
    client: TestClient, champion: int, document: Any, rest: bytes, length: int | None
) -> None:
    headers = {} if length is None else {LENGTH: str(length)}
    answer = client.post(INFER, content=json.dumps(document).encode() + rest, headers=headers)
    if answer.status_code != 200:
        refused(answer, 400)


def test_a_long_error_is_not_compressed_before_it_is_translated(client: TestClient, champion: int) -> None:
    document = {"inputs": [1] * 16, "outputs": [1] * 16}
    answer = client.post(INFER, json=document, headers={"accept-encoding": "gzip"})
    refused(answer, 400, "inputs.0: ", "in all 32 errors")


def test_any_id_comes_back(client: TestClient, champion: int, X: NDArray[np.float32]) -> None:
    for ident in ("", "\ud800", "\0", "é" * 1000):
        assert client.post(INFER, content=json.dumps(ask(X[:1], id=ident))).json()["id"] == ident


def test_the_documentation_names_all_of_it(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    infer = paths["/v2/models/{model_name}/versions/{model_version}/infer"]["post"]
    assert {each["name"] for each in infer["parameters"]} == {
        "model_name",
        "model_version",
        "inference-header-content-length",
    }
    assert set(infer["responses"]) == {"200", "4XX", "5XX"}
    assert "$ref" not in str(infer["requestBody"])
    assert list(infer["responses"]["4XX"]["content"]) == ["application/json"]
    assert list(paths["/v1/markets"]["get"]["responses"]["503"]["content"]) == ["application/problem+json"]
