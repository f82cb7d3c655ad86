"""A few rows, number by number: the same bits as the expressions have, and none where only Polars can tell."""

import numpy as np
import polars as pl
import pytest

from model.bars import timeframe
from model.features import DEFAULT, FEATURES, WARMUP, Feature, FeatureSet
from model.features.columns import CLOSE, OPEN, with_base
from model.features.few import few
from tests.model.markets import MARKETS

HOUR = timeframe("1h")
X = pl.col("log_close")


def bits(values: pl.DataFrame) -> bytes:
    """All numbers in float64, row by row."""
    return np.ascontiguousarray(values.cast(pl.Float64).to_numpy()).tobytes()


@pytest.mark.parametrize("name", MARKETS)
def test_every_feature_has_the_bits_of_its_expression(name: str) -> None:
    """In float64, where more can differ than in the float32 of a row; bars after the warm-up, where nothing is null."""
    frame = with_base(MARKETS[name], HOUR)
    for feature in FEATURES.values():
        made = few([feature])
        found = made.values(frame.select(made.columns)[WARMUP:].rows())
        assert found is not None, feature.name
        assert bits(pl.DataFrame(found, orient="row")) == bits(frame.select(feature.expr)[WARMUP:]), (
            feature.name
        )


@pytest.mark.parametrize(
    "expr",
    [
        X - X.shift(2),
        (CLOSE - OPEN) / (CLOSE + OPEN),
        (CLOSE + OPEN) / 3,
        3 / CLOSE,
        X * 0.1 - 0.3 + X,
        (X - X.rolling_mean(5)).clip(-0.001, 0.002),
        (X - X).clip(lower_bound=0.0) * -1,
        pl.max_horizontal(X - X, (X - X) * -1),
        pl.min_horizontal((X - X) * -1, X - X),
        (X.shift(1) - X).abs().sqrt(),
        (CLOSE / OPEN).log(2),
        (CLOSE / OPEN).log().fill_null(0.0),
        CLOSE.rolling_max(7) / CLOSE.rolling_min(9) - 1,
        (pl.col("closed_at").dt.epoch("us") % 7_000_000_007 * 1e-6).sin() * (CLOSE % 0.3).cos(),
    ],
    ids=str,
)
def test_arithmetic_has_the_bits_of_its_expression_and_no_column_of_its_own(expr: pl.Expr) -> None:
    frame = with_base(next(iter(MARKETS.values())), HOUR)
    made = few([Feature("made_up", "test", 10, "made up", expr)])
    assert not any(column.meta.output_name().startswith("feature ") for column in made.columns)
    found = made.values(frame.select(made.columns)[WARMUP:].rows())
    assert found is not None
    assert bits(pl.DataFrame(found, orient="row")) == bits(frame.select(expr)[WARMUP:])


@pytest.mark.parametrize(
    "expr",
    [
        (X - X) / (X - X),
        CLOSE / (X - X),
        (X - X - 1).sqrt(),
        (X - X).log(),
        X.shift(5000),
        CLOSE * 1e300 * 1e300,
        (CLOSE * 1e300 * 1e300) - (CLOSE * 1e300 * 1e300),
    ],
    ids=str,
)
def test_what_is_no_number_is_left_to_polars(expr: pl.Expr) -> None:
    frame = with_base(next(iter(MARKETS.values())), HOUR)
    made = few([Feature("made_up", "test", 10, "made up", expr)])
    assert made.values(frame.select(made.columns)[-2:].rows()) is None


@pytest.mark.parametrize(
    "expr",
    [
        X.exp(),
        pl.col("closed_at") - pl.col("ts"),
        (CLOSE > OPEN).shift(1) + (CLOSE > OPEN),
        CLOSE.cast(pl.Float32) + OPEN.cast(pl.Float32),
        pl.lit(0.1, pl.Float32) * CLOSE,
        X.rank() / 2,
        X * (pl.lit(1) / pl.lit(3)),
        X.shift(1) % 2 + 1,
    ],
    ids=str,
)
def test_what_is_more_than_arithmetic_on_floats_is_left_to_polars(expr: pl.Expr) -> None:
    """Durations, truth values, shorter floats and whatever else there is: a column of Polars' own."""
    frame = with_base(next(iter(MARKETS.values())), HOUR)
    (column,) = few([Feature("made_up", "test", 10, "made up", expr)]).columns
    assert frame.select(column.alias("made_up")).equals(frame.select(expr.alias("made_up")))


def test_of_the_default_features_none_is_left_to_polars() -> None:
    """What it still computes looks back, or is a remainder: where this fails, Polars and Python take logarithms or sines
    from two libraries, and a new bar's answer takes longer."""
    assert not [
        name for each in DEFAULT.few.columns if (name := each.meta.output_name()).startswith("feature ")
    ]


def test_equal_sets_of_features_share_what_is_made_of_them() -> None:
    """A process has a feature set for each of its versions."""
    again = FeatureSet(DEFAULT.names)
    assert again is not DEFAULT
    assert again.few is DEFAULT.few
    other = Feature("close_location", "candle", 1, "made up", CLOSE / OPEN)
    assert few([other]) is not few([FEATURES["close_location"]])
