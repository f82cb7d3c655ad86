"""The Open Inference Protocol as a public client of it speaks it, over a real socket."""

import socket
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl
import pytest
import uvicorn
from fastapi import FastAPI
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from model import predictor
from model.artifact import Packed
from model.bars import timeframe
from model.features import rows
from tests.service.conftest import walk

MODEL = "ETHUSDT:1h"


@pytest.fixture
def triton(app: FastAPI) -> Iterator[Any]:
    """A client of the service behind a real socket."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_config=None))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        client = InferenceServerClient(f"127.0.0.1:{listening.getsockname()[1]}")
        yield client
        client.close()
        server.should_exit = True
        thread.join()


def test_a_public_client_asks_it_all(triton: Any, champion: int, packed: Packed) -> None:
    assert triton.is_server_live()
    assert triton.is_server_ready()
    assert triton.is_model_ready(MODEL)
    assert triton.is_model_ready(MODEL, str(champion))
    assert not triton.is_model_ready("NOSUCH:1h")
    assert not triton.is_model_ready(MODEL, "999")
    assert triton.get_server_metadata()["name"] == "barprop"
    metadata = triton.get_model_metadata(MODEL)
    assert metadata["versions"] == [str(champion)]

    frozen = predictor.from_artifact(packed)
    X = rows(walk(), timeframe("1h"), frozen.features).X[:200]
    p_up = [frozen.predict(row, 1.0, 1.0).p_up for row in X]
    (features,) = metadata["inputs"]
    for binary_in in (True, False):
        given = InferInput(features["name"], X.shape, features["datatype"])
        given.set_data_from_numpy(X, binary_data=binary_in)
        for binary_out in (True, False):
            outputs = [
                InferRequestedOutput(output["name"], binary_data=binary_out) for output in metadata["outputs"]
            ]
            said = triton.infer(MODEL, [given], str(champion), outputs, request_id="1")
            assert said.as_numpy("p_up").tolist() == p_up
            assert said.as_numpy("abstention").shape == (200,)
            assert said.get_response()["id"] == "1"
            assert said.get_response()["model_version"] == str(champion)
        by_default = triton.infer(MODEL, [given])
        assert by_default.as_numpy("p_up").tolist() == p_up
        assert by_default.as_numpy("scaled_return").tolist() == [frozen.read(row).scaled_return for row in X]
        assert by_default.as_numpy("abstention").tolist() == [b""] * 200
        compressed = triton.infer(MODEL, [given], response_compression_algorithm="gzip")
        assert compressed.as_numpy("p_up").tolist() == p_up


def test_a_public_client_gets_the_signal_of_bars(triton: Any, champion: int) -> None:
    bars = walk(768).with_columns(pl.col("ts").dt.epoch("us").cast(pl.Float64)).to_numpy()
    for binary in (True, False):
        for given_bars, reason in ((bars, b""), (bars[-30:], b"too_few_bars")):
            given = InferInput("bars", given_bars.shape, "FP64")
            given.set_data_from_numpy(given_bars, binary_data=binary)
            outputs = [InferRequestedOutput(name, binary_data=binary) for name in ("p_up", "abstention")]
            said = triton.infer(f"{MODEL}:bars", [given], outputs=outputs)
            assert said.as_numpy("p_up").shape == ((0,) if reason else (1,))
            (told,) = said.as_numpy("abstention").tolist()
            assert told == (reason if binary else reason.decode())


def test_a_public_client_is_told_what_is_wrong(triton: Any, champion: int) -> None:
    given = InferInput("features", (1, 2), "FP32")
    given.set_data_from_numpy(np.zeros((1, 2), np.float32))
    with pytest.raises(InferenceServerException, match=r"\[400\] 'features' must be of shape \[n, "):
        triton.infer(MODEL, [given])
    with pytest.raises(InferenceServerException, match=r"\[404\] no market NOSUCH 1h"):
        triton.get_model_metadata("NOSUCH:1h")
