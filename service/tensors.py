"""Tensors as the Open Inference Protocol v2 sends them: in JSON, or in the binary form of its usual extension.

In the binary form the body begins with the JSON document, whose length a header names; the bytes of the tensors follow,
little-endian, one after another. Every input here is a table of rows, and every output has a value for each row.
"""

import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Annotated, Any, NoReturn

import numpy as np
from fastapi import Response
from fastapi.exceptions import RequestValidationError
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from model.errors import BadInput

HEADER = "Inference-Header-Content-Length"
BINARY = "application/octet-stream"
EXTENSION = "binary_tensor_data"
# Tensors of numbers that are read and written; BYTES, which are texts here, are only written.
DTYPES: dict[str, np.dtype[Any]] = {"FP32": np.dtype("<f4"), "FP64": np.dtype("<f8")}

EXAMPLE_BAR: list[JsonValue] = [1719788400000000, 3435.1, 3442.0, 3430.4, 3438.2, 1250.4]

Numbers = NDArray[np.floating[Any]]
Values = NDArray[np.float64] | list[str]
Parameters = Annotated[dict[str, str | int | float | bool], Field(max_length=64)]


class Wire(BaseModel):
    """A part of a document of the protocol; what it does not know it leaves to those who do."""

    model_config = ConfigDict(strict=True)


class RequestInput(Wire):
    """An input: `data` lists its elements row by row, flat or nested, unless they are binary."""

    name: str = Field(examples=["bars"], max_length=64)
    shape: Annotated[list[Annotated[int, Field(ge=0, lt=2**64)]], Field(max_length=8)] = Field(
        examples=[[1, 6]]
    )
    datatype: str = Field(examples=["FP64"])
    parameters: Parameters | None = None
    data: Any = Field(None, examples=[EXAMPLE_BAR])


class RequestOutput(Wire):
    """An output that is asked for."""

    name: str = Field(examples=["p_up"], max_length=64)
    parameters: Parameters | None = None


class InferenceRequest(Wire):
    """What is asked: all inputs of the model, and the outputs that are wanted; all, where none is named."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"inputs": [{"name": "bars", "shape": [1, 6], "datatype": "FP64", "data": EXAMPLE_BAR}]}
            ]
        }
    )

    id: str | None = None
    parameters: Parameters | None = None
    inputs: Annotated[list[RequestInput], Field(max_length=16)]
    outputs: Annotated[list[RequestOutput], Field(max_length=16)] | None = None


class ResponseOutput(BaseModel):
    """An output; its elements are in `data` or, where it was asked for in binary form, behind the document."""

    name: str
    shape: list[int]
    datatype: str
    parameters: dict[str, str | int | float | bool] | None = None
    data: list[float] | list[str] | None = None


class InferenceResponse(BaseModel):
    """What a version makes of the inputs; `id` is the request's."""

    model_name: str
    model_version: str
    id: str | None = None
    parameters: dict[str, str | bool] | None = None
    outputs: list[ResponseOutput]


@dataclass(frozen=True)
class Tensor:
    """What a model's metadata says of an input or output. -1 in `shape` stands for any number."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    parameters: dict[str, str | int] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        about = {"parameters": self.parameters} if self.parameters else {}
        return {"name": self.name, "datatype": self.datatype, "shape": list(self.shape), **about}


def schema(document: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema of a document, whole in one place as a route's own documentation needs it."""
    found = document.model_json_schema()
    parts = found.pop("$defs", {})

    def whole(node: Any) -> Any:
        if isinstance(node, list):
            return [whole(each) for each in node]
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            return whole(parts[node["$ref"].rpartition("/")[2]])
        return {key: whole(each) for key, each in node.items()}

    inlined: dict[str, Any] = whole(found)
    return inlined


def parse(body: bytes, document_bytes: int | None) -> tuple[InferenceRequest, bytes]:
    """The request, and the bytes behind its document, whose length the header named if it was there. Raises BadInput, or
    RequestValidationError where a field does not fit."""
    if document_bytes is not None and document_bytes > len(body):
        raise BadInput(f"{HEADER} is {document_bytes}, but the body has {len(body)} bytes")
    end = len(body) if document_bytes is None else document_bytes
    try:
        document = json.loads(body[:end], parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"the body is not JSON that can be read: {error}") from error
    try:
        return InferenceRequest.model_validate(document), body[end:]
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        raise RequestValidationError([{**each, "loc": ("body", *each["loc"])} for each in found]) from error


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number in JSON")


def inputs(
    request: InferenceRequest, binary: bytes, declared: Sequence[Tensor], most_rows: int
) -> dict[str, Numbers]:
    """The request's inputs by name, of the form that `declared` says, each number finite. Raises BadInput."""
    names = [each.name for each in request.inputs]
    if sorted(names) != sorted(each.name for each in declared):
        wanted = ", ".join(repr(each.name) for each in declared)
        raise BadInput(f"the inputs must be {wanted}, each once, not {', '.join(map(repr, names)) or 'none'}")
    by_name, read = {each.name: each for each in declared}, {}
    for given in request.inputs:
        tensor = by_name[given.name]
        _fits(given, tensor, most_rows)
        size = (given.parameters or {}).get("binary_data_size")
        numbers = _from_json(given) if size is None else _from_binary(given, size, binary)
        if size is not None:
            binary = binary[numbers.nbytes :]
        with np.errstate(over="ignore"):  # looked for below
            rows = numbers.reshape(given.shape).astype(DTYPES[tensor.datatype])
        _finite(rows, tensor)
        read[given.name] = rows
    if binary:
        raise BadInput(f"{len(binary)} bytes follow behind the inputs that say that they are binary")
    return read


def _fits(given: RequestInput, tensor: Tensor, most_rows: int) -> None:
    if given.datatype != tensor.datatype:
        raise BadInput(f"{tensor.name!r} must be {tensor.datatype}, not {given.datatype!r}")
    if len(given.shape) != 2 or given.shape[1] != tensor.shape[1] or given.shape[0] == 0:
        raise BadInput(f"{tensor.name!r} must be of shape [n, {tensor.shape[1]}], not {given.shape}")
    if given.shape[0] > most_rows:
        raise BadInput(f"{tensor.name!r} has {given.shape[0]} rows: at most {most_rows} a request")


def _from_json(given: RequestInput) -> Numbers:
    data = given.data
    if not isinstance(data, list):
        raise BadInput(f"{given.name!r} needs its elements as a list in `data`")
    rows, width = given.shape
    if data and isinstance(data[0], list):
        if len(data) != rows or any(type(row) is not list or len(row) != width for row in data):
            raise BadInput(
                f"the data of {given.name!r} must be {rows} lists of {width} numbers, as its shape says"
            )
        data = list(chain.from_iterable(data))
    if len(data) != rows * width:
        raise BadInput(f"{given.name!r} has {len(data)} elements, but {rows * width} by its shape")
    if not set(map(type, data)) <= {int, float}:
        raise BadInput(f"the data of {given.name!r} must be numbers")
    try:
        return np.array(data, np.float64)
    except OverflowError as error:
        raise BadInput(f"the data of {given.name!r} must be numbers that fit {given.datatype}") from error


def _from_binary(given: RequestInput, size: object, binary: bytes) -> Numbers:
    dtype = DTYPES[given.datatype]
    needed = math.prod(given.shape) * dtype.itemsize
    if given.data is not None:
        raise BadInput(f"{given.name!r} has both `data` and `binary_data_size`: give one")
    if type(size) is not int or size != needed:
        raise BadInput(f"binary_data_size of {given.name!r} must be {needed} by its shape, not {size!r}")
    if needed > len(binary):
        raise BadInput(
            f"{given.name!r} needs {needed} bytes, but {len(binary)} are left behind the document: does {HEADER} fit?"
        )
    numbers: Numbers = np.frombuffer(binary[:needed], dtype)
    return numbers


def _finite(rows: Numbers, tensor: Tensor) -> None:
    if not np.isfinite(rows).all():
        row, column = np.argwhere(~np.isfinite(rows))[0].tolist()
        raise BadInput(
            f"row {row} of {tensor.name!r} is not finite as {tensor.datatype} at {column}: no answer can stand on that"
        )


def wanted(request: InferenceRequest, declared: Sequence[Tensor]) -> list[tuple[Tensor, bool]]:
    """The outputs that are asked for, in that order, and whether each goes in binary form. Raises BadInput."""
    everywhere = _flag((request.parameters or {}).get("binary_data_output", False), "binary_data_output")
    by_name = {each.name: each for each in declared}
    if not request.outputs:
        return [(each, everywhere) for each in declared]
    chosen: dict[str, tuple[Tensor, bool]] = {}
    for output in request.outputs:
        if output.name not in by_name or output.name in chosen:
            raise BadInput(f"an output can be any of {', '.join(by_name)}, once, not {output.name!r}")
        binary = _flag((output.parameters or {}).get("binary_data", everywhere), "binary_data")
        chosen[output.name] = (by_name[output.name], binary)
    return list(chosen.values())


def _flag(value: object, name: str) -> bool:
    if not isinstance(value, bool):
        raise BadInput(f"{name} must be true or false, not {value!r}")
    return value


def response(
    model: str,
    version: str,
    ident: str | None,
    outputs: list[tuple[Tensor, bool]],
    values: Mapping[str, Values],
    parameters: Mapping[str, str | bool],
) -> Response:
    """The answer with these outputs. Raises BadInput where a number of theirs is not finite, which JSON cannot say."""
    documents, binary = [], []
    for tensor, in_binary in outputs:
        found = values[tensor.name]
        if not isinstance(found, list) and len(lost := np.flatnonzero(~np.isfinite(found))):
            raise BadInput(f"{tensor.name!r} of row {lost[0]} is no finite number: its inputs are too large")
        document: dict[str, Any] = {
            "name": tensor.name,
            "shape": [len(found)],
            "datatype": tensor.datatype,
        }
        if in_binary:
            packed = _packed(found, tensor)
            binary.append(packed)
            document["parameters"] = {"binary_data_size": len(packed)}
        else:
            document["data"] = found if isinstance(found, list) else found.tolist()
        documents.append(document)
    answer: dict[str, Any] = {"model_name": model, "model_version": version, "outputs": documents}
    if ident is not None:
        answer["id"] = ident
    if parameters:
        answer["parameters"] = parameters
    text = json.dumps(answer, allow_nan=False, separators=(",", ":")).encode()
    if not binary:
        return Response(text, media_type="application/json")
    return Response(b"".join((text, *binary)), headers={HEADER: str(len(text))}, media_type=BINARY)


def _packed(values: Values, tensor: Tensor) -> bytes:
    """Numbers one after another, texts with their length in bytes before each."""
    if not isinstance(values, list):
        numbers: Numbers = values.astype(DTYPES[tensor.datatype])
        return numbers.tobytes()
    texts = [text.encode() for text in values]
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)
