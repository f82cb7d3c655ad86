"""The network behind BentoML, on which its own Python answers; nothing of the project is imported."""

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

bentoml: Any = importlib.import_module("bentoml")


@bentoml.service(workers=1)
class Network:
    """Rows of features in, p_up and expected_return out."""

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(Path(__file__).with_name("model.onnx")), options)

    @bentoml.api  # type: ignore[untyped-decorator]
    async def infer(self, features: np.ndarray) -> dict[str, list[float]]:
        """Answers one request."""
        x = features.astype(np.float32)
        p_up, expected = self._session.run(None, {"features": x, "scale": np.ones(len(x), np.float32)})
        return {"p_up": p_up.tolist(), "expected_return": expected.tolist()}
