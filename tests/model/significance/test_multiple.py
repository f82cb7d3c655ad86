"""Adjusted p-values are statsmodels', and keep what they promise of noise."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from statsmodels.stats.multitest import multipletests

from model.significance import multiple

P = arrays.arrays(np.float64, st.integers(1, 30), elements=st.floats(0, 1))


@given(p=P)
@settings(deadline=None, max_examples=20)  # theirs collects garbage at each call
def test_holm_is_statsmodels(p: np.ndarray) -> None:
    np.testing.assert_allclose(multiple.holm(p), multipletests(p, method="holm")[1], rtol=1e-9, atol=1e-300)


@given(p=P)
@settings(deadline=None)
def test_benjamini_hochberg_is_statsmodels(p: np.ndarray) -> None:
    theirs = multipletests(p, method="fdr_bh")[1]
    np.testing.assert_allclose(multiple.benjamini_hochberg(p), theirs, rtol=1e-9, atol=1e-300)


def test_holm_steps_down_as_by_hand() -> None:
    found = multiple.holm(np.array([0.03, 0.01, 0.04, 0.005]))
    assert found == pytest.approx([0.06, 0.03, 0.06, 0.02])


def test_benjamini_and_hochberg_claim_four_of_their_own_papers_fifteen() -> None:
    """Their example of 1995: at 5 % the four smallest of fifteen are claimed, by Holm only three."""
    p = np.array(
        [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719, 0.6528,
         0.7590, 1.0000]
    )  # fmt: skip
    assert (multiple.benjamini_hochberg(p) <= 0.05).sum() == 4
    assert (multiple.holm(p) <= 0.05).sum() == 3


def test_no_tests_have_no_adjusted_values() -> None:
    assert len(multiple.holm(np.empty(0))) == len(multiple.benjamini_hochberg(np.empty(0))) == 0


def test_of_noise_holm_claims_anything_at_all_in_five_per_cent_of_cases() -> None:
    draws = np.random.default_rng(0).random((4_000, 20))
    assert np.mean([(multiple.holm(p) <= 0.05).any() for p in draws]) == pytest.approx(0.05, abs=0.012)
