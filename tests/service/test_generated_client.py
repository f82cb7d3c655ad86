"""A client that openapi-python-client generates from the document works; the generator has a virtual environment of its
own, since its pins clash with ours.

Made where CI runs; elsewhere where BARPROP_ADAPTERS names a folder, in which the environment is kept for the next run.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fastapi import FastAPI

from tests.service.streams import listening

HERE = Path(__file__).parent
PIP = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input")


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """The `bin` of an environment with the generator."""
    kept = os.environ.get("BARPROP_ADAPTERS")
    if not (kept or os.environ.get("BARPROP_CI")):
        pytest.skip("downloads openapi-python-client: set BARPROP_ADAPTERS to a folder for it")
    place = Path(kept or tmp_path / "environments") / "generated"
    if not (place / "done").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", place], check=True)
        subprocess.run([place / "bin/python", *PIP, "--requirement", HERE / "generated.txt"], check=True)
        (place / "done").touch()
    return place / "bin"


def test_a_generated_client_works(environment: Path, app: FastAPI, champion: int, tmp_path: Path) -> None:
    document = tmp_path / "openapi.json"
    document.write_text(json.dumps(app.openapi()))
    # what it cannot do is a warning, and the client would lack it; it looks for its formatter on the path
    generate = ["generate", "--path", document, "--output-path", tmp_path / "generated", "--meta", "none"]
    path = {**os.environ, "PATH": f"{environment}{os.pathsep}{os.environ.get('PATH', '')}"}
    made = subprocess.run(
        [environment / "openapi-python-client", *generate, "--fail-on-warning"],
        env=path, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert made.returncode == 0, made.stdout + made.stderr
    assert "warning" not in (made.stdout + made.stderr).lower()
    with listening(app) as address:
        found = subprocess.run(
            [environment / "python", HERE / "check_generated.py", address, tmp_path],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
    assert found.returncode == 0, found.stdout + found.stderr
    assert found.stdout == "works\n"
