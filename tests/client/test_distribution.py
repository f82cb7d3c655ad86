"""The client as a distribution of its own: what its wheel holds, and that it needs nothing of the service."""

import ast
import zipfile
from email.parser import HeaderParser
from pathlib import Path

CLIENT = Path(__file__).resolve().parents[2] / "client"


def test_the_wheel_is_typed_holds_the_package_alone_and_requires_httpx_alone(client_wheel: Path) -> None:
    wheel = zipfile.ZipFile(client_wheel)
    shipped = {name for name in wheel.namelist() if ".dist-info/" not in name}
    package = CLIENT / "barprop_client"
    expected = {
        path.relative_to(CLIENT).as_posix()
        for path in package.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert shipped == expected
    assert "barprop_client/py.typed" in shipped
    (info,) = {name.split("/")[0] for name in wheel.namelist() if ".dist-info/" in name}
    metadata = HeaderParser().parsestr(wheel.read(f"{info}/METADATA").decode())
    assert metadata["Name"] == "barprop-client"
    assert metadata.get_all("Requires-Dist") == ["httpx<1,>=0.28"]
    assert "Apache License" in wheel.read(f"{info}/licenses/LICENSE").decode()


def test_nothing_of_the_service_is_imported() -> None:
    for file in (CLIENT / "barprop_client").rglob("*.py"):
        nodes = ast.walk(ast.parse(file.read_text()))
        names = {
            name.split(".")[0]
            for node in nodes
            for name in (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
        }
        assert not names & {"model", "store", "jobs", "service", "numpy", "polars", "pydantic"}, file


def test_the_licence_is_that_of_the_whole() -> None:
    assert (CLIENT / "LICENSE").read_bytes() == (CLIENT.parent / "LICENSE").read_bytes()
