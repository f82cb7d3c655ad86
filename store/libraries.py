"""What the bits of an answer depend on besides bars, configuration and seed; a version's manifest records it."""

import sys
from importlib.metadata import version
from typing import Any

import numpy as np  # noqa: F401  # its BLAS can be asked once it is there
from threadpoolctl import threadpool_info

# Those that decide bits. The interpreter's release is told beside them, and decides none.
DECIDING = ("numpy", "polars", "blas")


def here() -> dict[str, str]:
    """The releases in this process, and which kernels BLAS chose for this kind of CPU."""
    blas: dict[str, Any] = next((lib for lib in threadpool_info() if lib["user_api"] == "blas"), {})
    return {
        "python": sys.version.split()[0],
        "numpy": version("numpy"),
        "polars": version("polars"),
        "blas": f"{blas.get('internal_api', 'unknown')} {blas.get('version', '')} {blas.get('architecture', '')}",
    }


def alike(manifest: dict[str, Any], libraries: dict[str, str]) -> bool:
    """Whether a version with that manifest was made where bits are those of `libraries`; not where it does not say."""
    recorded = manifest.get("libraries", {})
    return all(recorded.get(name) == libraries[name] for name in DECIDING)
