"""Laws of artifacts: what goes in comes out, equal is equal bytes, and whatever is not in order is refused."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_st

from model import artifact
from model.artifact import Packed, pack, unpack
from model.errors import BadArtifact

DTYPES = [np.dtype(code) for code in ("<f4", "<f8", "<i8", ">f4", ">f8", ">i8")]

ARRAYS = {
    "W": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": np.array([0.1, -0.2]),
    "steps": np.array(7),
}
MANIFEST = {"config": {"seed": 1, "hidden": [64, 32]}, "note": "grün", "none": None}


def arrays() -> st.SearchStrategy[dict[str, np.ndarray]]:
    finite = st.sampled_from(DTYPES).flatmap(
        lambda dtype: numpy_st.arrays(
            dtype,
            numpy_st.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
            elements=numpy_st.from_dtype(dtype, allow_nan=False, allow_infinity=False),
        )
    )
    return st.dictionaries(st.text(max_size=8), finite, max_size=4)


def documents() -> st.SearchStrategy[dict[str, Any]]:
    leaf = (
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text()
    )
    value = st.recursive(
        leaf, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8
    )
    return st.dictionaries(st.text().filter(lambda key: key not in ("format", "arrays", "sha256")), value)


@given(given_arrays=arrays(), manifest=documents())
@settings(max_examples=200, deadline=None)
def test_what_was_packed_is_unpacked(given_arrays: dict[str, np.ndarray], manifest: dict[str, Any]) -> None:
    packed = pack(given_arrays, manifest)
    found, document = unpack(packed)
    assert document == manifest
    assert list(found) == list(given_arrays)
    for name, array in given_arrays.items():
        assert found[name].shape == array.shape
        assert found[name].dtype == array.dtype.newbyteorder("<")
        np.testing.assert_array_equal(found[name], array)
        assert not found[name].flags.writeable
        with pytest.raises(ValueError, match="WRITEABLE"):
            found[name].flags.writeable = True
    assert pack(found, document) == packed
    assert artifact.digest(given_arrays) == packed.sha256


def test_the_memory_layout_of_an_array_does_not_matter() -> None:
    other = {
        "W": np.asfortranarray(ARRAYS["W"]).astype(">f4"),
        "b": np.array([0.1, 9.0, -0.2])[::2],
        "steps": ARRAYS["steps"],
    }
    assert pack(other, MANIFEST) == pack(ARRAYS, dict(reversed(MANIFEST.items())))


def test_equal_arrays_are_equal_bytes_in_every_process() -> None:
    program = (
        "from tests.model.test_artifact import ARRAYS, MANIFEST, pack; "
        "import hashlib; p = pack(ARRAYS, MANIFEST); "
        "print(p.sha256, p.manifest_sha256, hashlib.sha256(p.weights).hexdigest())"
    )
    answers = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for hash_seed in ("1", "2")
    }
    here = pack(ARRAYS, MANIFEST)
    assert answers == {
        f"{here.sha256} {here.manifest_sha256} {hashlib.sha256(here.weights).hexdigest()}",
    }


@pytest.mark.parametrize(
    "other",
    [
        {**ARRAYS, "W": ARRAYS["W"].reshape(3, 2)},
        {**ARRAYS, "W": ARRAYS["W"].astype(np.float64)},
        {**ARRAYS, "b": -ARRAYS["b"]},
        {("V" if name == "W" else name): array for name, array in ARRAYS.items()},
        dict(reversed(ARRAYS.items())),
    ],
)
def test_the_digest_tells_name_dtype_shape_bytes_and_order_apart(other: dict[str, np.ndarray]) -> None:
    assert artifact.digest(other) != artifact.digest(ARRAYS)


def test_the_digest_knows_nothing_of_the_manifest() -> None:
    assert pack(ARRAYS, {}).sha256 == pack(ARRAYS, MANIFEST).sha256


def test_every_flipped_bit_is_refused() -> None:
    packed = pack(ARRAYS, MANIFEST)
    for at in range(len(packed.weights) * 8):
        flipped = bytearray(packed.weights)
        flipped[at // 8] ^= 1 << at % 8
        with pytest.raises(BadArtifact, match="weights do not match"):
            unpack(replace(packed, weights=bytes(flipped)))
    text = packed.manifest.encode()
    for at in range(len(text) * 8):
        flipped = bytearray(text)
        flipped[at // 8] ^= 1 << at % 8
        with pytest.raises(BadArtifact, match="manifest does not match"):
            unpack(replace(packed, manifest=flipped.decode(errors="surrogateescape")))


@pytest.mark.parametrize("field", ["sha256", "manifest_sha256"])
def test_a_changed_digest_is_refused(field: str) -> None:
    packed = pack(ARRAYS, MANIFEST)
    with pytest.raises(BadArtifact, match="SHA-256"):
        unpack(replace(packed, **{field: "0" + getattr(packed, field)[1:] + "0"}))


@pytest.mark.parametrize("keep", [0, 1, -1])
def test_a_truncated_artifact_is_refused(keep: int) -> None:
    packed = pack(ARRAYS, MANIFEST)
    with pytest.raises(BadArtifact, match="bytes, but the manifest lists 48"):
        unpack(replace(packed, weights=packed.weights[:keep]))
    with pytest.raises(BadArtifact, match="bytes, but the manifest lists 48"):
        unpack(replace(packed, weights=packed.weights + b"\0"))
    with pytest.raises(BadArtifact, match="manifest does not match"):
        unpack(replace(packed, manifest=packed.manifest[:keep]))


def test_weights_of_another_version_are_refused() -> None:
    packed, other = pack(ARRAYS, MANIFEST), pack({**ARRAYS, "b": ARRAYS["b"] * 2}, MANIFEST)
    with pytest.raises(BadArtifact, match="weights do not match"):
        unpack(replace(packed, weights=other.weights, sha256=other.sha256))


def forged(change: Callable[[dict[str, Any]], object], weights: bytes | None = None) -> Packed:
    """An artifact whose manifest was changed and given a digest that fits."""
    packed = pack(ARRAYS, MANIFEST)
    manifest = json.loads(packed.manifest)
    change(manifest)
    text = json.dumps(manifest)
    return Packed(
        packed.weights if weights is None else weights,
        manifest.get("sha256", packed.sha256),
        text,
        hashlib.sha256(text.encode()).hexdigest(),
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: m.update(format=2), "format 2 is unknown; this program reads format 1"),
        (lambda m: m.pop("format"), "format None is unknown"),
        (lambda m: m["arrays"][0].update(shape=[3, 2]), "weights do not match"),
        (lambda m: m["arrays"][0].update(shape=[2, 4]), "48 bytes, but the manifest lists 56"),
        (lambda m: m["arrays"][0].update(shape=[10**9, 10**9, 10**9]), "but the manifest lists 4000000000"),
        (lambda m: m["arrays"][0].update(shape=[-2, -3]), "an array that cannot be read"),
        (lambda m: m["arrays"][0].update(shape=[True, 6]), "an array that cannot be read"),
        (lambda m: m["arrays"][0].update(shape=6), "an array that cannot be read"),
        (lambda m: m["arrays"][0].update(dtype="<i8"), "48 bytes, but the manifest lists 72"),
        (lambda m: m["arrays"][0].update(dtype="|O"), "an array that cannot be read"),
        (lambda m: m["arrays"][0].update(dtype=["<f4"]), "an array that cannot be read"),
        (lambda m: m["arrays"][0].update(name=None), "an array that cannot be read"),
        (lambda m: m["arrays"][0].update(name="V"), "weights do not match"),
        (lambda m: m["arrays"][0].pop("shape"), "an array that cannot be read"),
        (lambda m: m["arrays"].append("W"), "an array that cannot be read"),
        (lambda m: m["arrays"].append({"name": "W", "dtype": "<f4", "shape": [0]}), "lists an array twice"),
        (lambda m: m["arrays"].reverse(), "weights do not match"),
        (lambda m: m.update(arrays={}), "lists no arrays"),
        (lambda m: m.pop("arrays"), "lists no arrays"),
        (lambda m: m.update(note=float("nan")), "the manifest is not JSON"),
        (lambda m: m.update(sha256="f" * 64), "weights do not match"),
        (lambda m: m.pop("sha256"), "weights do not match"),
    ],
)
def test_a_manifest_that_lies_is_refused_in_one_line(
    change: Callable[[dict[str, Any]], object], said: str
) -> None:
    with pytest.raises(BadArtifact, match=said) as refused:
        unpack(forged(change))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("text", ["", "[]", "3", "{", '"format"', "[" * 100_000])
def test_a_manifest_that_is_none_is_refused(text: str) -> None:
    packed = replace(
        pack(ARRAYS, MANIFEST), manifest=text, manifest_sha256=hashlib.sha256(text.encode()).hexdigest()
    )
    with pytest.raises(BadArtifact, match=r"not JSON|is unknown"):
        unpack(packed)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_neither_packed_nor_unpacked(bad: float) -> None:
    sick = {"W": np.array([1.0, bad])}
    for door in (lambda: pack(sick, {}), lambda: artifact.digest(sick)):
        with pytest.raises(BadArtifact, match="array W is not finite"):
            door()
    healthy = pack({"W": np.array([1.0, 2.0])}, {})
    weights = sick["W"].tobytes()
    sha256 = hashlib.sha256(b'["W", "<f8", [2]]\n' + weights).hexdigest()
    text = json.dumps({**json.loads(healthy.manifest), "sha256": sha256})
    digest = hashlib.sha256(text.encode()).hexdigest()
    with pytest.raises(BadArtifact, match="array W is not finite"):
        unpack(Packed(weights, sha256, text, digest))


@pytest.mark.parametrize("array", [np.array([object()]), np.array(["a"]), np.array([1j]), np.array([True])])
def test_only_plain_numbers_are_packed(array: np.ndarray) -> None:
    with pytest.raises(BadArtifact, match="which is not kept"):
        pack({"W": array}, {})


def nested() -> dict[str, Any]:
    manifest: dict[str, Any] = {}
    manifest["itself"] = manifest
    return manifest


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        ({"loss": float("nan")}, "cannot be kept as JSON"),
        ({"loss": np.float32(1)}, "cannot be kept as JSON"),
        ({1: 2, "a": 3}, "cannot be kept as JSON"),
        (nested(), "cannot be kept as JSON"),
        ({"format": 9}, "may not bring its own format"),
        ({"arrays": [], "sha256": ""}, "may not bring its own arrays, sha256"),
    ],
)
def test_a_manifest_that_is_no_json_is_refused(manifest: dict[Any, Any], said: str) -> None:
    with pytest.raises(BadArtifact, match=said):
        pack(ARRAYS, manifest)


def test_the_manifest_is_canonical() -> None:
    packed = pack(ARRAYS, MANIFEST)
    document = json.loads(packed.manifest)
    assert packed.manifest == json.dumps(document, sort_keys=True, separators=(",", ":"))
    assert document["format"] == 1
    assert document["sha256"] == packed.sha256 == artifact.digest(ARRAYS)
    assert [row["name"] for row in document["arrays"]] == ["W", "b", "steps"]
