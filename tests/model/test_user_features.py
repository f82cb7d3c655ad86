"""A user's own features: written, proven, registered, served; and what may not be."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.bars import timeframe
from model.errors import BadInput
from model.features import (
    DEFAULT,
    FEATURES,
    WARMUP,
    Feature,
    FeatureSet,
    feature,
    frames,
    last_row,
    rows,
    user,
)
from tests.model import markets

HOUR = timeframe("1h")
C = pl.col("close")
STRETCH = (100 * (C / C.rolling_mean(20) - 1)).clip(-8, 8)


@pytest.fixture(autouse=True)
def _table() -> Iterator[None]:
    before = dict(FEATURES)
    yield
    user.register(())
    assert before == FEATURES


def own(expr: pl.Expr, name: str = "mine", needs: int = 20) -> Feature:
    return Feature(name, "user", needs, "a user's own", expr)


def test_a_function_becomes_a_feature_of_its_name() -> None:
    @feature(needs=20)
    def stretch_20() -> pl.Expr:
        """Distance of the close from its mean, in percent.

        More words are for the reader of the file.
        """
        return STRETCH

    assert (stretch_20.name, stretch_20.group, stretch_20.needs) == ("stretch_20", "user", 20)
    assert stretch_20.about == "Distance of the close from its mean, in percent."
    assert stretch_20.expr.meta.eq(STRETCH)


def test_what_is_no_feature_is_refused_by_name() -> None:
    def silent() -> pl.Expr:
        return STRETCH

    def Loud() -> pl.Expr:  # noqa: N802
        """Loud."""
        return STRETCH

    def number() -> pl.Expr:
        """A number."""
        return 1.0  # type: ignore[return-value]

    for function, fault in ((silent, "docstring"), (Loud, "small letters"), (number, "returns float")):
        with pytest.raises(BadInput, match=f"feature '{function.__name__}'.*{fault}"):
            feature(needs=3)(function)
    with pytest.raises(BadInput, match="needs 300 bars: 1 to 256 are given"):
        feature(needs=300, about="too far")(silent)


def test_an_honest_feature_is_proven_registered_and_served() -> None:
    before = DEFAULT.sha256
    user.prove([own(STRETCH), own(STRETCH * 0.5, "half")])
    user.register([own(STRETCH), own(STRETCH * 0.5, "half")])
    assert list(FEATURES)[-2:] == ["mine", "half"]
    chosen = FeatureSet(("return_1", "half", "mine"))
    found = rows(markets.MARKETS["plain"], HOUR, chosen)
    close = markets.MARKETS["plain"]["close"].to_numpy()
    mean = np.array([close[t - 19 : t + 1].mean() for t in range(WARMUP, len(close))])
    expected = np.clip(100 * (close[WARMUP:] / mean - 1), -8, 8)
    np.testing.assert_allclose(found.X[:, 2], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.X[:, 1], expected / 2, rtol=1e-4, atol=1e-5)
    assert DEFAULT.sha256 == before
    user.register([own(STRETCH)])  # registering anew replaces what was there
    assert "half" not in FEATURES


def test_a_definition_is_part_of_the_hash() -> None:
    hashes = set()
    for expr, needs in ((STRETCH, 20), (STRETCH * 2, 20), (STRETCH, 21)):
        user.register([own(expr, needs=needs)])
        hashes.add(FeatureSet(("return_1", "mine")).sha256)
        hashes.add(user.definition(user.registered()))
    assert len(hashes) == 6


def test_a_name_that_is_taken_is_refused() -> None:
    with pytest.raises(
        BadInput, match="feature 'rsi_14' cannot be added: a built-in feature bears that name"
    ):
        user.register([own(STRETCH, "rsi_14")])
    with pytest.raises(
        BadInput, match="feature 'mine' cannot be added: two of these features bears that name"
    ):
        user.register([own(STRETCH), own(C, "mine")])


@pytest.mark.parametrize(
    ("expr", "fault"),
    [
        ((C - C) / (C - C.shift(1)), "feature 'mine' is nan at .* it must be finite"),
        (pl.col("volume"), "within 1000"),
        (C.map_elements(lambda value: value, return_dtype=pl.Float64), "calls a Python function"),
        (C.rolling_map(lambda s: s.sum(), 3), "calls a Python function"),
        (pl.sum_horizontal("open", "close") / C, "adds horizontally"),
        (pl.mean_horizontal("open", "close") / C, "adds horizontally"),
        (pl.col("clsoe"), "cannot be computed: .*clsoe"),
        (pl.lit("text"), "cannot be computed"),
        (C.shift(1).rolling_sum(3, weights=[1, 2, 1]) / C, "cannot be computed: weights not yet supported"),
        (C.rolling_mean(21) / C, "needs more than the 20 bars it states"),
    ],
)
def test_a_feature_that_may_not_be_used_is_refused(expr: pl.Expr, fault: str) -> None:
    with pytest.raises(BadInput, match=fault) as refused:
        user.prove([own(STRETCH, "honest"), own(expr)])
    assert "mine" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_zero_whose_sign_depends_on_the_frame_is_refused() -> None:
    nothing = pl.when(C < 0).then(C).otherwise(0.0)  # one number for all where no bar is below 0
    with pytest.raises(BadInput, match=r"feature .mine. has other bits at .* when many blocks are computed"):
        user.prove([own(nothing + -(C * 0.0))])


def test_the_proof_names_the_bar_that_moved() -> None:
    with pytest.raises(BadInput) as refused:
        user.prove([own(C.shift(-1) / C - 1)])
    assert "feature 'mine' looks ahead: its value at 2021-" in str(refused.value)
    assert str(refused.value).endswith("it looks at their close")


HONEST = [
    STRETCH,
    (C / C.shift(19) - 1).clip(-1, 1),
    ((C - C.rolling_min(20)) / pl.max_horizontal(C.rolling_max(20) - C.rolling_min(20), C * 1e-6)),
    (pl.col("log_return").rolling_std(20) / pl.col("volatility")).clip(0, 8),
    (C / C.rolling_mean_by("ts", "5h") - 1).clip(-1, 1),
    (C.mean().rolling("ts", period="5h") / C - 1).clip(-1, 1),  # a window of its own
    (C.shift(1) < C),
    C.fill_null(strategy="forward").rolling_quantile(0.5, window_size=20) / C,
    pl.when(pl.col("closed_at").dt.hour() < 12).then(1).otherwise(0),
    (C.rolling_skew(20)).fill_nan(0.0).fill_null(0.0).clip(-4, 4),
]


@pytest.mark.parametrize("number", range(len(HONEST)))
def test_honest_features_pass_and_have_the_same_bits_live_and_in_training(number: int) -> None:
    one = own(HONEST[number], needs=193 if number == 3 else 20)
    user.prove([one])
    user.register([one])
    chosen = FeatureSet(("mine", "z_24"))
    for market in ("plain", "gaps"):
        bars = markets.MARKETS[market]
        whole = rows(bars, HOUR, chosen)
        for t in [*frames.edges(bars, HOUR)[1:], *range(700, 1100, 37)]:
            if t > WARMUP:
                assert last_row(bars[:t], HOUR, chosen).X.tobytes() == whole.X[t - 1 - WARMUP].tobytes()


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 20), st.integers(1, 20), st.sampled_from(["mean", "std", "min", "max", "sum", "var"]))
def test_whatever_window_a_feature_has_its_proof_knows_it(window: int, shift: int, kind: str) -> None:
    kernel = getattr(pl.col("log_return"), f"rolling_{kind}")
    expr = kernel(window + 1).shift(shift).fill_null(0.0).clip(-8, 8)
    user.prove([own(expr, needs=window + shift + 2)])
    with pytest.raises(BadInput, match="looks ahead"):
        user.prove(
            [own(kernel(window + 1).shift(-shift).fill_null(0.0).clip(-8, 8), needs=window + shift + 2)]
        )


def test_many_blocks_together_have_the_bits_of_each_alone() -> None:
    every = tuple(FEATURES.values())
    for market in ("plain", "gaps", "flat", "no_volume", "standstill"):
        bars = markets.MARKETS[market]
        blocks = [block for block in pairwise(frames.edges(bars, HOUR)) if block[1] > WARMUP]
        together = frames.together(bars, HOUR, every, blocks)
        alone = pl.concat([frames.together(bars, HOUR, every, [block]) for block in blocks])
        for name in together.columns:  # a column at a time: -0.0 is not 0.0 here
            assert together[name].to_numpy().tobytes() == alone[name].to_numpy().tobytes(), name
