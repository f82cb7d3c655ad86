"""`barprop versions export`: a file that other programs answer from, written whole or not at all."""

import json
import os
import socket
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

import store.database
import store.markets
import store.versions
from model import artifact, predictor
from model.bars import Market
from store.database import Engine
from tests.model import versions
from tests.model.versions import ARCHITECTURES, KNOTS, contents, trained
from tests.service.cli.conftest import Barprop

NOW = datetime(2024, 3, 1, tzinfo=UTC)
CONTENTS = contents(trained(ARCHITECTURES["silu-layer"]), KNOTS)


@pytest.fixture
def version(fresh: Engine) -> int:
    """A version in a fresh database."""
    store.database.prepare(fresh)
    with store.database.write(fresh) as conn:
        market = store.markets.ensure(conn, Market("ETHUSDT", "1h"), NOW)
        return store.versions.add(conn, market.id, artifact.pack(*CONTENTS), None, NOW)


def test_what_is_exported_answers_like_the_version(barprop: Barprop, version: int, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is the oracle of exports")
    file = tmp_path / "model.onnx"
    ran = barprop("versions", "export", version, "--format", "onnx", "--output", file, "--json")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out) == {
        "version": version,
        "format": "onnx",
        "file": str(file),
        "bytes": file.stat().st_size,
    }
    session = runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    said = session.get_modelmeta().custom_metadata_map
    assert (said["version"], said["symbol"], said["timeframe"]) == (str(version), "ETHUSDT", "1h")
    assert said["sha256"] == artifact.digest(CONTENTS[0])
    X = versions.rows(20)
    (p_up,) = session.run(["p_up"], {"features": X, "scale": np.full(20, 0.01, np.float32)})
    model = predictor.from_arrays(*CONTENTS)
    np.testing.assert_allclose(p_up, [model.predict(x, 0.01, 1.0).p_up for x in X], atol=1e-5)


def test_a_file_that_is_there_stays_unless_forced(barprop: Barprop, version: int, tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    file.write_text("precious")
    ran = barprop("versions", "export", version, "--output", file)
    assert (ran.code, ran.out) == (1, "")
    assert "is there already; --force writes over it" in ran.err
    assert file.read_text() == "precious"
    assert barprop("versions", "export", version, "-o", file, "--force").code == 0
    assert file.stat().st_size > 1_000
    assert [other.name for other in tmp_path.iterdir() if "onnx" in other.name] == ["model.onnx"]


def test_a_disk_that_fails_leaves_the_old_file_and_no_other(
    barprop: Barprop, version: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    file = tmp_path / "model.onnx"
    file.write_text("precious")
    monkeypatch.setattr("os.fsync", full)
    ran = barprop("versions", "export", version, "--output", file, "--force")
    assert (ran.code, ran.err) == (1, f"barprop: {file}: No space left on device\n")
    assert file.read_text() == "precious"
    assert [other.name for other in tmp_path.iterdir() if "onnx" in other.name] == ["model.onnx"]


@pytest.mark.parametrize("made", ["link to a pipe", "pipe", "socket"])
def test_what_is_no_regular_file_is_refused_even_by_force(
    barprop: Barprop, version: int, tmp_path: Path, made: str
) -> None:
    there = tmp_path / "there"
    if made == "link to a pipe":  # of our own: what is tried here must never be tried on a real device
        os.mkfifo(tmp_path / "pipe")
        there.symlink_to("pipe")
    elif made == "pipe":
        os.mkfifo(there)
    else:
        socket.socket(socket.AF_UNIX).bind(str(there))
    before = there.lstat()
    ran = barprop("versions", "export", version, "--output", there, "--force")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == f"barprop: {there} is there already and no regular file: name another\n"
    assert there.lstat().st_mode == before.st_mode


def test_a_link_is_followed_and_stays(barprop: Barprop, version: int, tmp_path: Path) -> None:
    far, link = tmp_path / "far", tmp_path / "link.onnx"
    far.mkdir()
    (far / "model.onnx").write_text("precious")
    link.symlink_to(Path("far") / "model.onnx")
    assert barprop("versions", "export", version, "--output", link).code == 1
    ran = barprop("versions", "export", version, "--output", link, "--force")
    assert (ran.code, ran.err) == (0, "")
    assert link.is_symlink()
    assert (far / "model.onnx").stat().st_size > 1_000
    assert [file.name for file in far.iterdir()] == ["model.onnx"]


def test_the_target_of_a_dangling_link_is_made(barprop: Barprop, version: int, tmp_path: Path) -> None:
    """As by a shell's redirection."""
    link = tmp_path / "link.onnx"
    link.symlink_to("model.onnx")
    assert barprop("versions", "export", version, "--output", link).code == 0
    assert link.is_symlink()
    assert (tmp_path / "model.onnx").stat().st_size > 1_000


@pytest.mark.parametrize("leads", ["nowhere/model.onnx", "link.onnx"])
def test_a_link_that_cannot_be_followed_is_refused(
    barprop: Barprop, version: int, tmp_path: Path, leads: str
) -> None:
    link = tmp_path / "link.onnx"
    link.symlink_to(leads)
    ran = barprop("versions", "export", version, "--output", link, "--force")
    assert (ran.code, ran.out, ran.err.count("\n")) == (1, "", 1)
    assert str(link) in ran.err
    assert link.is_symlink()


def test_what_cannot_be_written_is_named_as_the_user_named_it(
    barprop: Barprop, version: int, tmp_path: Path
) -> None:
    file = tmp_path / ("m" * 250 + ".onnx")  # a longer name than there may be
    ran = barprop("versions", "export", version, "--output", file)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == f"barprop: {file}: File name too long\n"


def test_without_the_extra_it_says_what_to_install(
    barprop: Barprop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.delitem(sys.modules, "model.onnx", raising=False)
    ran = barprop("versions", "export", 1, "--output", tmp_path / "model.onnx")
    assert (ran.code, ran.out) == (2, "")
    assert "pip install '.[onnx]'" in ran.err
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["99", "--output", "model.onnx"], 1, "no version 99"),
        (["1", "--output", "nowhere/model.onnx"], 1, "there is no folder nowhere"),
        (["1", "--output", "."], 2, "is a directory"),
        (["1", "--output", "model.onnx", "--format", "pickle"], 2, "pickle"),
        (["1"], 2, "--output"),
    ],
)
def test_what_cannot_be_exported_is_refused_in_one_line(
    barprop: Barprop,
    version: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = barprop("versions", "export", *arguments)
    assert (ran.code, ran.out) == (code, "")
    assert said in ran.err
    assert ran.err.count("\n") == 1
    assert not (tmp_path / "model.onnx").exists()
