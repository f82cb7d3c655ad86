"""Laws of caution: each doubt has its reason, and nothing else is doubted."""

from dataclasses import replace

import numpy as np
import pytest

from model import backtest, predictor, training
from model.caution import Caution, doubt
from model.config import TrainConfig
from model.errors import BadInput, SeenRows
from model.predictions import Reason
from model.scaler import distances
from tests.model.test_members import MARKETS
from tests.model.versions import ARCHITECTURES, contents, trained

MODEL = replace(predictor.from_arrays(*contents(trained(ARCHITECTURES["relu-None"]))), domain=2.0)
NOW = MODEL.seen_until + 1_000


@pytest.mark.parametrize(
    ("caution", "closed_at", "distance", "p_up", "reason"),
    [
        (Caution(), NOW, 1.0, 0.5, None),
        (Caution(), NOW, 2.0, 0.5, None),
        (Caution(), NOW, 2.001, 0.99, Reason.OUT_OF_DOMAIN),
        (Caution(), NOW, float("nan"), 0.9, Reason.OUT_OF_DOMAIN),
        (Caution(0.6), NOW, 1.0, 0.59, Reason.LOW_CONFIDENCE),
        (Caution(0.6), NOW, 1.0, 0.41, Reason.LOW_CONFIDENCE),
        (Caution(0.6), NOW, 1.0, 0.61, None),
        (Caution(0.6), NOW, 1.0, 0.39, None),
        (Caution(stale_after=1_000), NOW, 1.0, 0.9, None),
        (Caution(stale_after=999), NOW, 1.0, 0.9, Reason.STALE_MODEL),
        (Caution(0.6, 999), NOW, 9.0, 0.5, Reason.STALE_MODEL),
    ],
)
def test_each_doubt_has_its_reason(
    caution: Caution, closed_at: int, distance: float, p_up: float, reason: Reason | None
) -> None:
    assert doubt(caution, MODEL, closed_at, distance, p_up) is reason


@pytest.mark.parametrize("confidence", [0.49, 1.0, -1.0, float("nan")])
def test_a_confidence_that_cannot_be_is_refused(confidence: float) -> None:
    with pytest.raises(BadInput, match=r"from 0.5 to below 1"):
        Caution(confidence)


def test_the_domain_is_as_far_as_the_farthest_row_that_was_learned_from() -> None:
    data = MARKETS[0]
    fit = training.fit(data, TrainConfig(window=1_000, hidden=(8,), epochs=2, relearn=False))
    model = predictor.from_arrays(*training.contents(fit))
    learned = data.part((data.closed_at >= fit.first_closed_at) & (data.closed_at <= fit.fitted_until))
    far = distances(model.scaler, learned.X[: fit.rows])
    assert far.max() == pytest.approx(model.domain)
    by_hand = np.sqrt((((learned.X[3] - fit.scaler.mean) / fit.scaler.scale) ** 2).mean())
    assert far[3] == pytest.approx(float(by_hand), rel=1e-5)


def test_rows_that_were_learned_from_are_not_judged() -> None:
    data = MARKETS[0]
    model = replace(MODEL, fitted_until=int(data.closed_at[500]))
    with pytest.raises(SeenRows, match="a score of what was learned from says nothing"):
        backtest.forecasts(model, data.part(slice(499, 600)))
