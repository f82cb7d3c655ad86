"""What a command opens before its work."""

import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from service.cli import opening
from store.database import Engine


def blas_threads() -> set[int]:
    """How many threads matrix products take in this process."""
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


@pytest.mark.parametrize("threads", [1, 2])
def test_matrix_products_take_the_threads_of_the_settings(
    fresh: Engine, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    monkeypatch.setenv("BARPROP_TRAINING__BLAS_THREADS", str(threads))
    with threadpool_limits(3 - threads, "blas"), opening.database():
        assert blas_threads() == {threads}
