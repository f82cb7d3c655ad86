"""What the import contracts in pyproject.toml cannot say of the house; each law is shown to catch an offender too."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("model", "store", "jobs", "service")
FOLDERS = {*PACKAGES, "client", "migrations", "docker", "tests", "benchmarks", "docs", "samples"}
MADE_BY_TOOLS = {"build", "dist", "__pycache__"}
# the only places that ask a clock, one for each package beside the command line: everything else is told the time
CLOCKS = ("service/cli/", "service/deps.py", "jobs/executors.py", "store/clock.py")
LONGEST = {"tests": 600}  # lines of a file
LONGEST_ELSEWHERE = 450

CODE = sorted(
    path.relative_to(ROOT).as_posix() for package in PACKAGES for path in (ROOT / package).rglob("*.py")
)
ALL = CODE + sorted(
    path.relative_to(ROOT).as_posix()
    for folder in ("client", "migrations", "samples", "benchmarks", "tests")
    for path in (ROOT / folder).rglob("*.py")
)


def tree(file: str) -> ast.Module:
    return ast.parse((ROOT / file).read_text(), file)


def imported(module: ast.Module) -> Iterator[str]:
    """The full names that a module imports."""
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def clock_reads(module: ast.Module) -> list[str]:
    """Wall clocks that a module reads or hands on; `time.monotonic` and its like measure durations and are free."""
    attributes = {ast.unparse(node) for node in ast.walk(module) if isinstance(node, ast.Attribute)}
    names = attributes | set(imported(module))
    clocks = ("datetime.now", "datetime.utcnow", "datetime.today", "date.today", "time.time", "time.time_ns")
    return [
        name for name in sorted(names) if any(name == clock or name.endswith(f".{clock}") for clock in clocks)
    ]


def dangers(module: ast.Module) -> list[str]:
    """What could run somebody else's code: unpickling, evaluated text, a shell."""
    found = [
        name for name in imported(module) if name.split(".")[0] in {"pickle", "marshal", "shelve", "dill"}
    ]
    for node in ast.walk(module):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"eval", "exec", "os.system", "os.popen"}:
            found.append(ast.unparse(node))
        if isinstance(node, ast.keyword) and node.arg in {"shell", "allow_pickle"}:
            found += [] if ast.unparse(node.value) == "False" else [f"{node.arg}={ast.unparse(node.value)}"]
    return found


def test_the_top_level_folders_are_those_of_the_house() -> None:
    folders = {path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")}
    assert {name for name in folders - MADE_BY_TOOLS if not name.endswith(".egg-info")} == FOLDERS


@pytest.mark.parametrize("file", [file for file in CODE if not file.startswith(CLOCKS)])
def test_only_entry_points_ask_a_clock(file: str) -> None:
    assert clock_reads(tree(file)) == []


@pytest.mark.parametrize("file", ALL)
def test_nothing_is_unpickled_evaluated_or_given_to_a_shell(file: str) -> None:
    assert dangers(tree(file)) == []


@pytest.mark.parametrize("file", [file for file in CODE if not file.startswith("store/")])
def test_sql_is_said_in_store_alone(file: str) -> None:
    assert [name for name in imported(tree(file)) if name.split(".")[0] in {"sqlalchemy", "alembic"}] == []


@pytest.mark.parametrize("file", [file for file in CODE if not file.startswith("service/cli/")])
def test_nothing_imports_the_command_line(file: str) -> None:
    assert [name for name in imported(tree(file)) if name.startswith("service.cli")] == []


@pytest.mark.parametrize("file", ALL)
def test_a_module_says_what_it_is(file: str) -> None:
    module = tree(file)
    assert not module.body or ast.get_docstring(module), (
        "begin the module with a docstring: what it is, how it grows"
    )


@pytest.mark.parametrize("file", ALL)
def test_a_file_is_short_enough_to_read(file: str) -> None:
    longest = LONGEST.get(file.split("/")[0], LONGEST_ELSEWHERE)
    assert len((ROOT / file).read_text().splitlines()) <= longest


@pytest.mark.parametrize(
    "source",
    [
        "from datetime import datetime\nnow = datetime.now(UTC)",
        "import datetime as dt\nclock = dt.datetime.utcnow",
        "import time\nstart = time.time()",
        "from time import time_ns",
    ],
)
def test_a_clock_read_is_found(source: str) -> None:
    assert clock_reads(ast.parse(source))


def test_a_duration_is_not_a_clock_read() -> None:
    assert (
        clock_reads(ast.parse("import time\nstart = time.monotonic()\nnow = store.clock.now(engine)")) == []
    )


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "value = eval(text)",
        "subprocess.run(line, shell=True)",
        "np.load(file, allow_pickle=allowed)",
    ],
)
def test_a_danger_is_found(source: str) -> None:
    assert dangers(ast.parse(source))
