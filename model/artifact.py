"""Weights to and from bytes, without pickle: plain arrays, a manifest, and a SHA-256 of each.

The weights are the arrays' bytes one after another, little-endian and in C order; the manifest, canonical JSON,
lists them and so tells where each begins. Nothing else is in the bytes, so that every bit of them is under the
digest, equal arrays are equal bytes, and no length is believed before it is compared with what is there.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from model.errors import BadArtifact

FORMAT = 1
DTYPES = ("<f4", "<f8", "<i8")

# Keys of the manifest that belong to the artifact itself.
_OWN = ("format", "arrays", "sha256")


@dataclass(frozen=True)
class Packed:
    """Arrays as bytes, with their digest, and the manifest's text with its own.

    `sha256` covers the arrays alone (name, dtype, shape and bytes, in order); the manifest repeats it, so that
    neither can be exchanged for another version's.
    """

    weights: bytes
    sha256: str
    manifest: str
    manifest_sha256: str


def pack(arrays: Mapping[str, NDArray[Any]], manifest: Mapping[str, Any]) -> Packed:
    """The artifact of these arrays, in their order, and this manifest. Raises BadArtifact for what may not be kept."""
    listed, parts = _plain(arrays)
    if own := [key for key in _OWN if key in manifest]:
        raise BadArtifact(f"the manifest may not bring its own {', '.join(own)}")
    sha256 = _digest(listed, parts)
    whole = {**manifest, "format": FORMAT, "arrays": listed, "sha256": sha256}
    try:
        text = json.dumps(whole, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise BadArtifact(f"the manifest cannot be kept as JSON: {error}") from None
    return Packed(b"".join(parts), sha256, text, _text_digest(text))


def digest(arrays: Mapping[str, NDArray[Any]]) -> str:
    """The SHA-256 that these arrays have when packed. Raises BadArtifact for what may not be kept."""
    return _digest(*_plain(arrays))


def unpack(packed: Packed) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """The arrays, read-only, and the manifest that were packed. Raises BadArtifact unless every bit is in order."""
    if _text_digest(packed.manifest) != packed.manifest_sha256:
        raise BadArtifact("the manifest does not match its SHA-256: it is damaged")
    try:
        manifest = json.loads(packed.manifest, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise BadArtifact("the manifest is not JSON") from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        found = manifest.get("format") if isinstance(manifest, dict) else None
        raise BadArtifact(f"artifact format {found!r} is unknown; this program reads format {FORMAT}")
    listed = _listed(manifest.get("arrays"))
    lengths = [math.prod(row["shape"]) * np.dtype(row["dtype"]).itemsize for row in listed]
    if sum(lengths) != len(packed.weights):
        raise BadArtifact(
            f"the weights have {len(packed.weights)} bytes, but the manifest lists {sum(lengths)}"
        )
    ends = accumulate(lengths, initial=0)
    parts = [packed.weights[start:end] for start, end in pairwise(ends)]
    if not packed.sha256 == manifest.get("sha256") == _digest(listed, parts):
        raise BadArtifact("the weights do not match their SHA-256: they are damaged")
    arrays = {}
    for row, part in zip(listed, parts, strict=True):
        array = np.frombuffer(part, row["dtype"]).reshape(row["shape"])  # of bytes, hence read-only
        if not np.isfinite(array).all():
            raise BadArtifact(f"array {row['name']} is not finite, so it is not used")
        arrays[row["name"]] = array
    return arrays, {key: value for key, value in manifest.items() if key not in _OWN}


def _plain(arrays: Mapping[str, NDArray[Any]]) -> tuple[list[dict[str, Any]], list[bytes]]:
    """Name, dtype and shape of each array as the manifest lists them, and its bytes."""
    listed, parts = [], []
    for name, array in arrays.items():
        dtype = array.dtype.newbyteorder("<").str
        if dtype not in DTYPES:
            raise BadArtifact(f"array {name} is of dtype {array.dtype}, which is not kept")
        if not np.isfinite(array).all():
            raise BadArtifact(f"array {name} is not finite, so it is not kept")
        listed.append({"name": name, "dtype": dtype, "shape": list(array.shape)})
        parts.append(array.astype(dtype).tobytes())
    return listed, parts


def _listed(arrays: object) -> list[dict[str, Any]]:
    """The manifest's list of arrays, once it is known to be one."""
    if not isinstance(arrays, list):
        raise BadArtifact("the manifest lists no arrays")
    for row in arrays:
        if not (
            isinstance(row, dict)
            and row.keys() == {"name", "dtype", "shape"}
            and isinstance(row["name"], str)
            and row["dtype"] in DTYPES
            and isinstance(row["shape"], list)
            and all(type(length) is int and length >= 0 for length in row["shape"])
        ):
            raise BadArtifact(f"the manifest lists an array that cannot be read: {str(row)[:80]}")
    if len({row["name"] for row in arrays}) != len(arrays):
        raise BadArtifact("the manifest lists an array twice")
    return arrays


def _digest(listed: list[dict[str, Any]], parts: list[bytes]) -> str:
    """SHA-256 over name, dtype, shape and bytes of each array, in order."""
    sha256 = hashlib.sha256()
    for row, part in zip(listed, parts, strict=True):
        sha256.update(json.dumps([row["name"], row["dtype"], row["shape"]]).encode() + b"\n")
        sha256.update(part)
    return sha256.hexdigest()


def _text_digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
