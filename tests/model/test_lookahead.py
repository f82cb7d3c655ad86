"""Proof that nothing looks ahead, nor further back than it states; and that whatever does is caught."""

from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from model.bars import iso, timeframe
from model.errors import BadBars, BadInput
from model.features import FEATURES, WARMUP, Feature, check, unmet_needs, user
from model.features.indicators import RESIDUES
from tests import real_bars
from tests.model import markets
from tests.model.cheats import CHEATS, LOOKS_AHEAD
from tests.model.markets import MARKETS

HOUR = timeframe("1h")
ALL = tuple(FEATURES.values())
REAL = {"ETHUSDT_1h": "1h", "EURUSD_1h": "1h", "GOOG_1d": "1d", "BTCPERP_1m": "1m", "GBPUSD_1m": "1m"}

# --- no look-ahead

C, R = pl.col("close"), pl.col("log_return")
BY_LOOKING_AHEAD = [name for name, cheat in CHEATS.items() if cheat.caught_by == LOOKS_AHEAD]


@pytest.mark.parametrize("market", MARKETS)
def test_cutting_or_corrupting_the_future_changes_no_feature(market: str) -> None:
    assert check(MARKETS[market], HOUR, ALL, seed=0, cuts=8) == ()


@pytest.mark.parametrize("market", REAL)
def test_cutting_or_corrupting_the_future_of_real_bars_changes_no_feature(market: str) -> None:
    assert check(real_bars.bars(market), timeframe(REAL[market]), ALL, seed=3, cuts=12) == ()


@pytest.mark.parametrize("cheat", BY_LOOKING_AHEAD)
def test_a_feature_that_looks_ahead_is_caught(cheat: str) -> None:
    bars = MARKETS["gaps"]
    found = check(
        bars,
        HOUR,
        [*ALL[::20], Feature(cheat, "cheat", 200, "looks ahead", CHEATS[cheat].expr)],
        seed=1,
        cuts=6,
    )
    assert found
    assert {finding.feature for finding in found} == {cheat}
    for finding in found:
        assert finding.first_moved < finding.cut
        assert finding.kind in {"truncated", "scaled", "shuffled", "replaced"}
        assert {finding.first_moved, finding.cut} <= set(bars["ts"])
        assert finding.line().startswith(
            f"feature {cheat!r} looks ahead: its value at {iso(finding.first_moved)}"
        )


@pytest.mark.parametrize("cheat", [name for name in CHEATS if name not in BY_LOOKING_AHEAD])
def test_a_cheat_that_does_not_look_ahead_is_caught_by_what_it_needs(cheat: str) -> None:
    feature = Feature(cheat, "cheat", 200, "has no end", CHEATS[cheat].expr)
    assert check(MARKETS["plain"], HOUR, [feature], seed=1, cuts=6) == ()
    assert [found.feature for found in unmet_needs(MARKETS["plain"], HOUR, [feature], seed=1, cuts=6)] == [
        cheat
    ]


@pytest.mark.parametrize("cheat", CHEATS)
def test_a_cheat_cannot_be_registered(cheat: str) -> None:
    with pytest.raises(BadInput, match=f"feature '{cheat}' (looks ahead|needs more|calls a Python function)"):
        user.prove([Feature(cheat, "cheat", 200, "cheats", CHEATS[cheat].expr)])


@pytest.mark.parametrize("column", ["open", "high", "low", "close", "volume"])
def test_the_column_that_is_looked_at_is_named(column: str) -> None:
    feature = Feature("peek", "cheat", 3, "the next bar", pl.col(column).shift(-1) / (1 + pl.col(column)))
    for found in check(MARKETS["plain"], HOUR, [feature], seed=1, cuts=3):
        assert found.column == column
    feature = Feature(
        "peek", "cheat", 3, "the next bar", (pl.col("ts").shift(-1) - pl.col("ts")).dt.total_hours()
    )
    for found in check(MARKETS["gaps"], HOUR, [feature], seed=1, cuts=3):
        assert found.column == "number or times"


def test_the_documentation_lists_every_cheat_and_what_catches_it() -> None:
    text = (Path(__file__).parents[2] / "docs" / "features.md").read_text()
    for name, cheat in CHEATS.items():
        assert f"| {cheat.about} | {cheat.caught_by} |" in text, name


def test_the_first_bar_that_moved_is_named() -> None:
    bars = MARKETS["plain"]
    found = check(bars, HOUR, [Feature("peek", "cheat", 3, "two bars on", C.shift(-2))], seed=1, cuts=5)
    assert found
    assert {finding.cut - finding.first_moved for finding in found} == {timedelta(hours=2)}


def test_the_check_repeats_itself() -> None:
    cheat = [Feature("peek", "cheat", 3, "the next bar", C.shift(-1))]
    once = check(MARKETS["plain"], HOUR, cheat, seed=4, cuts=5)
    assert once == check(MARKETS["plain"], HOUR, cheat, seed=4, cuts=5)
    assert once != check(MARKETS["plain"], HOUR, cheat, seed=5, cuts=5)


def test_the_check_refuses_what_it_cannot_judge() -> None:
    with pytest.raises(BadBars, match="257 bars are too few to judge features by: 258 or more are needed"):
        check(markets.bars(257), HOUR, ALL, seed=0, cuts=3)
    wrong = Feature("typo", "mine", 3, "no such column", pl.col("clsoe") / C)
    for function in (check, unmet_needs):
        with pytest.raises(BadInput, match=r"feature 'typo' cannot be computed: .*clsoe"):
            function(MARKETS["plain"], HOUR, [*ALL, wrong], seed=0, cuts=3)


# --- no more history than stated


@pytest.mark.parametrize("market", MARKETS)
def test_every_feature_states_all_the_history_it_looks_at(market: str) -> None:
    assert unmet_needs(MARKETS[market], HOUR, ALL, seed=0, cuts=25) == ()


@pytest.mark.parametrize("market", REAL)
def test_every_feature_states_all_the_history_it_looks_at_on_real_bars(market: str) -> None:
    assert unmet_needs(real_bars.bars(market), timeframe(REAL[market]), ALL, seed=0, cuts=25) == ()


def test_no_feature_states_more_history_than_it_looks_at() -> None:
    # volatile bars, then hardly any movement: here the longer run's volatility is the floor of all others
    volatile = markets.bars(500, seed=11)
    calm = markets.bars(500, seed=12, start=volatile["ts"][-1] + HOUR.length).with_columns(
        (pl.col(price) / volatile["close"][-1]).pow(0.002) for price in ("open", "high", "low", "close")
    )
    # two bars, since a window of 192 prices is never so still that the floor shows the 193rd
    short = [Feature(f.name, f.group, f.needs - 2, f.about, f.expr) for f in ALL if f.needs > 2]
    short = [
        f for f in short if f.name not in RESIDUES
    ]  # of an exponential mean the oldest bar is next to nothing
    found = unmet_needs(pl.concat([volatile, calm]), HOUR, short, seed=2, cuts=60)
    assert {finding.feature for finding in found} == {f.name for f in short}
    assert {f.name for f in ALL if f.needs <= 2} == {
        "close_location", "hour_sin", "hour_cos", "weekday_sin", "weekday_cos",
    }  # fmt: skip


@pytest.mark.parametrize(
    "expr",
    [
        C.rolling_mean(6) / C,
        C / C.shift(5),
        C / C.shift(400),
        C.cum_sum() / C,
        C.ewm_mean(span=3) / C,
        C.cum_count() / 500,
        R.rolling_mean(5).rolling_mean(2),
    ],
)
def test_a_feature_that_needs_more_bars_than_it_states_is_caught(expr: pl.Expr) -> None:
    feature = Feature("short", "mine", 5, "states five bars", expr)
    assert [(f.feature, f.needs) for f in unmet_needs(MARKETS["plain"], HOUR, [*ALL, feature], 0, 5)] == [
        ("short", 5)
    ]


def test_a_value_that_is_not_finite_is_an_unmet_need() -> None:
    feature = Feature("undefined", "mine", 5, "0 / 0 where nothing moves", (C - C) / (C - C))
    assert len(unmet_needs(MARKETS["plain"], HOUR, [feature], seed=0, cuts=5)) == 1


@pytest.mark.parametrize("needs", [0, -1, WARMUP + 1])
def test_a_feature_needs_between_one_bar_and_the_warmup(needs: int) -> None:
    with pytest.raises(BadInput, match=f"feature 'odd' needs {needs} bars: 1 to 256 are given"):
        Feature("odd", "mine", needs, "", C)
