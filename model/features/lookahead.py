"""Stub."""

from dataclasses import dataclass


@dataclass(frozen=True)
class LookAhead:
    feature: str


def check() -> None: ...
def unmet_needs() -> None: ...
