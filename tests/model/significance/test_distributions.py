"""The normal and Student's t agree with SciPy's, far into the tails."""

import pytest
from scipy import special, stats

from model.significance import distributions


@pytest.mark.parametrize("z", [-37.0, -8.0, -1.645, 0.0, 0.3, 2.0, 6.0])
def test_the_normal_distribution_is_scipys(z: float) -> None:
    assert distributions.normal_cdf(z) == pytest.approx(special.ndtr(z), rel=1e-13)


@pytest.mark.parametrize("q", [1e-12, 0.001, 0.5, 0.95, 1 - 1e-9])
def test_the_normal_quantile_is_scipys(q: float) -> None:
    assert distributions.normal_quantile(q) == pytest.approx(special.ndtri(q), rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("freedom", [1, 2, 3, 30, 199, 27_000])
@pytest.mark.parametrize("t", [-40.0, -3.0, -0.5, 0.0, 0.001, 0.3, 1.0, 1.7, 1.9, 5.0, 40.0])
def test_students_t_is_scipys(t: float, freedom: int) -> None:
    # beyond 1e-300 a chance is no chance
    assert distributions.student_t_upper(t, freedom) == pytest.approx(
        stats.t.sf(t, freedom), rel=1e-9, abs=1e-300
    )


def test_students_t_of_very_many_rows_is_scipys_to_eight_digits() -> None:
    assert distributions.student_t_upper(1.7, 1e6) == pytest.approx(stats.t.sf(1.7, 1e6), rel=2e-8)
