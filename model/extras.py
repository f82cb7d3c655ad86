"""Packages that come with an extra, and what to do where one is missing."""

import importlib.util

from model.errors import BadInput


def need(package: str, extra: str) -> None:
    """Raises BadInput where the package, which comes with that extra, is not installed. Loads nothing."""
    if importlib.util.find_spec(package) is None:
        raise missing(package, extra)


def missing(package: str | None, extra: str) -> BadInput:
    """The error of a package that is not installed, with what installs it."""
    return BadInput(f"the package {package} is not there: pip install '.[{extra}]' in Barprop's folder")
