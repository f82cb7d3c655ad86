"""What is installed, pinned and put into containers: the wheel, constraints.txt, docker/, and the rule of CI."""

import itertools
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import store.settings

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("model", "store", "jobs", "service", "migrations", "samples")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker/compose.yaml").read_text())
OURS = [name for name, service in COMPOSE["services"].items() if service["image"] == "barprop"]
STAGES = re.split(r"^(?=FROM )", (ROOT / "docker/Dockerfile").read_text(), flags=re.MULTILINE)[1:]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built from a copy so that the checkout stays clean."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in (*PACKAGES, "pyproject.toml", "README.md", "LICENSE"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source)
    build = (
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--wheel-dir",
        out,
        source,
    )
    subprocess.run([sys.executable, "-m", "pip", *map(str, build)], check=True)
    return zipfile.ZipFile(next(out.glob("barprop-*.whl")))


def test_the_wheel_holds_all_that_runs_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    shipped = {name for name in wheel.namelist() if ".dist-info/" not in name}
    expected = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert shipped == expected
    assert any(name.startswith("samples/") and name.endswith(".parquet") for name in shipped)
    assert any(name.startswith("migrations/versions/") for name in shipped)


def test_each_sample_brings_the_licence_of_the_package_that_it_came_out_of(wheel: zipfile.ZipFile) -> None:
    table = (ROOT / "samples/README.md").read_text()
    packages = set(re.findall(r"^\| `\w+\.parquet` .*\| `([\w-]+)` \d", table, re.MULTILINE))
    assert len(packages) == 3
    for package in packages:
        assert "Copyright (c)" in wheel.read(f"samples/LICENSES/{package}.txt").decode()


def test_the_wheel_brings_the_command_and_the_licence(wheel: zipfile.ZipFile) -> None:
    (info,) = {name.split("/")[0] for name in wheel.namelist() if ".dist-info/" in name}
    assert "barprop = service.cli:main" in wheel.read(f"{info}/entry_points.txt").decode()
    assert "Apache License" in wheel.read(f"{info}/licenses/LICENSE").decode()


def pins() -> dict[str, str]:
    return dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines())


def test_constraints_pin_exact_versions_from_no_particular_place() -> None:
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.]*", line), line


def test_everything_that_is_asked_for_is_pinned_to_a_version_that_fits() -> None:
    pinned = {canonicalize_name(name): version for name, version in pins().items()}
    asked = [*PROJECT["dependencies"], *itertools.chain(*PROJECT["optional-dependencies"].values())]
    for requirement in map(Requirement, asked):
        assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), requirement


@pytest.mark.parametrize("extra", ["dev", "bench"])
def test_pytorch_stays_out_of_what_users_install(extra: str) -> None:
    asked = {Requirement(text).name for text in PROJECT["optional-dependencies"][extra]}
    assert not asked & {"torch", "jax", "tensorflow"}


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_compose_publishes_on_loopback_alone(name: str) -> None:
    for port in COMPOSE["services"][name].get("ports", []):
        assert port.startswith("127.0.0.1:"), port


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_compose_has_no_password_of_its_own(name: str) -> None:
    for key, value in COMPOSE["services"][name].get("environment", {}).items():
        if "PASSWORD" in key:
            assert value.startswith("${POSTGRES_PASSWORD:?"), f"{key} must be asked for, without a default"
        assert "@" not in value or ":" not in value.split("://")[1].split("@")[0], f"{key} holds a password"


@pytest.mark.parametrize("name", OURS)
def test_our_containers_may_do_little(name: str) -> None:
    service = COMPOSE["services"][name]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]


def test_compose_names_settings_that_exist() -> None:
    text = (ROOT / "docker/compose.yaml").read_text() + (ROOT / "docker/Dockerfile").read_text()
    names = set(re.findall(r"BARPROP_[A-Z_]+", text))
    known = {
        f"BARPROP_{section}__{key}".upper()
        for section, values in store.settings.load().model_dump().items()
        for key in values
    }
    assert names
    assert names <= known


def test_the_image_runs_as_nobody_special_and_tells_its_health() -> None:
    final = STAGES[-1]
    assert re.search(r"^USER barprop$", final, re.MULTILINE)
    assert "/livez" in final.partition("HEALTHCHECK")[2]
    assert "pip" not in final
    assert "apt-get" not in final
    assert len(STAGES) == 2


def test_the_image_is_built_from_files_that_exist() -> None:
    lines = (ROOT / "docker/Dockerfile.dockerignore").read_text().splitlines()
    needed = {line.removeprefix("!") for line in lines if line.startswith("!")}
    assert needed == {*PACKAGES, "pyproject.toml", "constraints.txt", "README.md", "LICENSE"}
    assert all((ROOT / name).exists() for name in needed)


def test_prometheus_understands_its_configuration() -> None:
    promtool = shutil.which("promtool") or pytest.skip("needs Prometheus: promtool is not installed")
    command = [promtool, "check", "config", "--syntax-only", str(ROOT / "docker/prometheus.yml")]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize(
    ("ci", "outcome"), [("", "1 passed, 2 skipped"), ("1", "1 failed, 1 passed, 1 error")]
)
def test_where_ci_says_so_a_skipped_test_is_a_failed_one(tmp_path: Path, ci: str, outcome: str) -> None:
    (tmp_path / "conftest.py").write_text((ROOT / "tests/conftest.py").read_text())
    (tmp_path / "test_it.py").write_text(
        "import pytest\n"
        "def test_a_browser(): pytest.skip('needs Chromium')\n"
        "@pytest.mark.skipif(True, reason='needs PyTorch')\n"
        "def test_torch(): pass\n"
        "def test_nothing(): pass\n"
    )
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        f"--rootdir={tmp_path}",
        str(tmp_path),
    ]
    ran = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={"BARPROP_CI": ci, "PYTHONPATH": str(ROOT)},
    )
    assert ran.stdout.strip().splitlines()[-1].startswith(outcome), ran.stdout + ran.stderr
