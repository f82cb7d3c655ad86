"""The network behind MLServer, on which its own Python answers; nothing of the project is imported."""

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

Model: Any = importlib.import_module("mlserver").MLModel
codecs = importlib.import_module("mlserver.codecs")
types = importlib.import_module("mlserver.types")


class Network(Model):  # type: ignore[misc]
    """Rows of features in, p_up and expected_return out."""

    async def load(self) -> bool:
        """Reads the graph beside this file."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(Path(__file__).with_name("model.onnx")), options)
        return True

    async def predict(self, payload: Any) -> Any:
        """Answers a request of the Open Inference Protocol."""
        given = payload.inputs[0]
        x = np.asarray(given.data, np.float32).reshape(given.shape)
        p_up, expected = self._session.run(None, {"features": x, "scale": np.ones(len(x), np.float32)})
        outputs = [
            codecs.NumpyCodec.encode_output(name, values)
            for name, values in (("p_up", p_up), ("expected_return", expected))
        ]
        return types.InferenceResponse(model_name=self.name, outputs=outputs)
