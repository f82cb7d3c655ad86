"""Breaks: against a twin that goes bar by bar from the definition, and the habits of markets that are none."""

import math
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import accumulate, pairwise
from statistics import median
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model import breaks, dataset, features
from model.bars import BAR_SCHEMA, HABIT, Bars, Timeframe, timeframe
from model.breaks import AFTER_GAP, AFTER_JUMP, JUMP_Z, LEAST_MOVES, SETTLED, UNTOLD, Break
from model.config import TrainConfig
from model.features import FeatureRows
from model.features.columns import LONG_WINDOW
from tests import real_bars
from tests.model import markets, synthetic

HOUR, DAY, MINUTE = timeframe("1h"), timeframe("1d"), timeframe("1m")
START = datetime(2024, 1, 1, tzinfo=UTC)


def at(opens: list[datetime], close: list[float] | None = None) -> Bars:
    """Bars that opened then; nothing else of them matters here."""
    prices = close or [100.0] * len(opens)
    same = dict.fromkeys(("open", "high", "low", "close"), prices)
    return pl.DataFrame({"ts": opens, **same, "volume": 1.0}, schema=BAR_SCHEMA)


def at_steps(steps: list[float], unit: timedelta) -> list[datetime]:
    return [START + each * unit for each in accumulate(steps, initial=0.0)]


def found_gaps(opens: list[datetime], length: Timeframe) -> list[Break]:
    return list(breaks.find(at(opens), length).listed(at(opens)["ts"]))


@contextmanager
def windows(near: int, lookback: int) -> Iterator[None]:
    """Shorter windows, so that few bars fill them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(breaks, "NEAR", near)
        patch.setattr(breaks, "LOOKBACK", lookback)
        yield


# ---------------------------------------------------------------- the twins


def missing_by_hand(opens: list[datetime], length: timedelta, near: int, lookback: int) -> list[int]:
    """How many bars are missing before each, where that is unusual."""
    out = []
    for i, opened in enumerate(opens):
        step = opened - opens[i - 1] if i else length
        count = round(step / length)
        if step <= 1.5 * length:
            out.append(0)
            continue
        anywhere = here = 0
        for j in range(max(1, i - lookback + 1), i):
            other = opens[j] - opens[j - 1]
            if other <= 1.5 * length:
                continue
            sizes = [round(8 * math.log(n)) for n in (count, round(other / length))]
            anywhere += i - j <= near and 0 <= sizes[1] - sizes[0] <= 2
            apart = (opened - opens[j]) % timedelta(weeks=1)
            if min(apart, timedelta(weeks=1) - apart) <= timedelta(hours=1):
                here += -max(step // 8, length / 2) <= other - step <= max(step // 3, length / 2)
        out.append(count - 1 if anywhere < 3 and here < 3 else 0)
    return out


@given(
    # in quarters of a bar of 56 hours, of which three are a week
    steps=st.lists(st.sampled_from([4, 4, 4, 4, 5, 6, 7, 8, 8, 9, 12, 13, 40, 44, 60, 200]), max_size=40),
    near=st.integers(3, 12),
    more=st.integers(1, 12),
)
@settings(deadline=None, max_examples=200)
def test_gaps_are_those_of_going_bar_by_bar(steps: list[int], near: int, more: int) -> None:
    length = timeframe("56h")
    opens = at_steps([each / 4 for each in steps], length.length)
    with windows(near, near + more):
        found = breaks.find(at(opens), length).missing
    assert found.tolist() == missing_by_hand(opens, length.length, near, near + more)


@pytest.mark.parametrize(("lookback", "gaps"), [(9, [3, 6, 9, 12, 15, 18]), (10, [3, 6, 9])])
def test_a_habit_of_the_week_is_forgotten_with_the_bar_before_its_step(
    lookback: int, gaps: list[int]
) -> None:
    """Four bars a week, of which the third is missing: one step of two bars among three."""
    length = timeframe("42h")
    opens = at_steps([1, 1, 2] * 6, length.length)
    with windows(3, lookback):
        whole = breaks.find(at(opens), length).missing
        cut = breaks.find(at(opens[5:]), length).missing
    assert np.flatnonzero(whole).tolist() == gaps
    assert (cut[lookback:] == whole[5 + lookback :]).all()


def jumps_by_hand(close: list[float], jump_z: float) -> list[float]:
    r = [0.0, *(math.log(b / a) for a, b in pairwise(close))]
    out = [0.0] * len(r)
    for i in range(SETTLED, len(r)):
        moves = [abs(each) for each in r[i - LONG_WINDOW : i] if each != 0]
        usual = max(median(moves) / 0.6745, 1e-6) if len(moves) >= LEAST_MOVES else UNTOLD
        out[i] = r[i] if abs(r[i]) > jump_z * usual else 0.0
    return out


@given(
    seed=st.integers(0, 10_000),
    moving=st.sampled_from([0.0, 0.05, 0.12, 0.15, 0.5, 1.0]),
    size=st.sampled_from([0.003, 1e-9]),
    jump_z=st.sampled_from([2.0, 5.0, JUMP_Z]),
    planted=st.lists(
        st.tuples(st.integers(150, 499), st.sampled_from([7.0, 1 / 7, 1.5, 1e-3, 1e4, 1.00003])), max_size=4
    ),
)
@settings(deadline=None, max_examples=60)
def test_jumps_are_those_of_going_bar_by_bar(
    seed: int, moving: float, size: float, jump_z: float, planted: list[tuple[int, float]]
) -> None:
    rng = np.random.default_rng(seed)
    r = rng.standard_t(3, 500) * size * (rng.random(500) < moving)
    close = 100 * np.exp(np.cumsum(r))
    for place, factor in planted:
        close[place:] *= factor
    opens = at_steps([1] * 499, HOUR.length)
    found = breaks.find(at(opens, close.tolist()), HOUR, jump_z).jump
    assert found.tolist() == pytest.approx(jumps_by_hand(close.tolist(), jump_z), abs=1e-12)


@given(
    broken=st.dictionaries(st.integers(0, 599), st.sampled_from([-1, 1, 2, 5, 47, 48, 49, 400]), max_size=6)
)
def test_the_rows_after_a_break_are_those_of_counting(broken: dict[int, int]) -> None:
    """-1 stands for a jump, other numbers for as many missing bars."""
    n, missing, jump = 600, np.zeros(600, np.int64), np.zeros(600)
    shadow: dict[int, int] = {}
    for place, size in broken.items():
        if size < 0:
            jump[place] = 2.0
        else:
            missing[place] = size
        shadow[place] = 256 if size < 0 else min(size, 48)
    found = breaks.Breaks(missing, jump)
    assert found.broken.tolist() == [i in broken for i in range(n)]
    assert found.clean.tolist() == [not any(p <= i < p + k for p, k in shadow.items()) for i in range(n)]
    ts = at(at_steps([1] * (n - 1), HOUR.length))["ts"]
    for end in (100, 300, n):
        until = breaks.Breaks(missing[:end], jump[:end])
        standing = [p for p, k in shadow.items() if p < end <= p + k]
        under = until.under(ts[:end])
        assert (under is None) == (not standing) == bool(until.clean[-1])
        if under is not None:
            assert (
                under
                == until.listed(ts[:end])[[b.ts for b in until.listed(ts[:end])].index(ts[max(standing)])]
            )


def wild(seed: int) -> Bars:
    """A market with everything in it: gaps of all sizes, stretches without a move, jumps."""
    rng = np.random.default_rng(seed)
    made = markets.bars(1_200, seed % 7, skip=0.2 * (seed % 3 > 0), flat=0.3 * (seed % 2))
    places = rng.integers(0, 1_200, 6)
    factor = np.ones(1_200)
    for place in places:
        factor[place : place + int(rng.integers(1, 40))] *= rng.choice([7.0, 0.01, 1.3])
    return made.with_columns(pl.col("close") * factor).filter(pl.Series(rng.random(1_200) > 0.01))


@given(seed=st.integers(0, 10_000), cut=st.integers(1, 900), data=st.data())
@settings(deadline=None, max_examples=40)
def test_neither_later_bars_nor_a_cut_of_old_ones_change_what_is_found(
    seed: int, cut: int, data: st.DataObject
) -> None:
    history, z = wild(seed), data.draw(st.sampled_from([6.0, JUMP_Z]))
    lookback = data.draw(st.integers(SETTLED, 300))
    with windows(50, lookback):
        whole = breaks.find(history, HOUR, z)
        past = breaks.find(history.head(cut), HOUR, z)
        newest = breaks.find(history[cut:], HOUR, z)
    for name in ("missing", "jump"):
        every = getattr(whole, name)
        assert (getattr(past, name) == every[:cut]).all()
        assert (getattr(newest, name)[lookback:] == every[cut + lookback :]).all()
    assert whole.broken.any()


# ---------------------------------------------------------------- how markets trade


def by_kind(found: list[Break]) -> Counter[float]:
    return Counter(each.size for each in found)


NEW_YORK = ZoneInfo("America/New_York")
TRADED = [date(2021, 1, 4) + timedelta(days=day) for day in range(1_400)]
HOLIDAYS = {each for at_, each in enumerate(TRADED) if at_ % 42 == 0}  # a Monday in six weeks
TRADED = [each for each in TRADED if each.weekday() < 5 and each not in HOLIDAYS]


def test_nights_weekends_holidays_and_changes_of_clocks_are_habits_of_a_stock() -> None:
    opens = [
        datetime(each.year, each.month, each.day, hour, 30, tzinfo=NEW_YORK).astimezone(UTC)
        for each in TRADED
        for hour in range(9, 16)
    ]
    kinds = by_kind(found_gaps(opens, HOUR))
    assert kinds == {17.0: HABIT, 65.0: HABIT, 89.0: HABIT}  # a night, a weekend, a long weekend: until known


def test_weekends_and_holidays_are_habits_of_days_whose_midnight_moves() -> None:
    opens = [datetime(d.year, d.month, d.day, tzinfo=NEW_YORK).astimezone(UTC) for d in TRADED]
    assert by_kind(found_gaps(opens, DAY)) == {2.0: HABIT, 3.0: HABIT}


def test_weekends_of_currency_in_minutes_are_habits() -> None:
    """7,200 bars a week, so that one weekend is far behind the next; clocks change in the third and the seventh."""
    opens, begins = [], datetime(2024, 1, 7, 22, tzinfo=UTC)
    for week in range(9):
        shift = timedelta(hours=1) if 3 <= week < 7 else timedelta(0)
        opens += [begins + timedelta(weeks=week) - shift + i * MINUTE.length for i in range(7_200)]
    found = found_gaps(opens, MINUTE)
    assert len(found) == HABIT
    assert max(each.ts for each in found) < begins + timedelta(weeks=4)


@pytest.mark.parametrize(("share", "broken"), [(0.02, 0.02), (0.3, 0.02), (0.7, 0.06), (0.95, 0.15)])
def test_a_market_of_few_trades_is_not_all_gaps(share: float, broken: float) -> None:
    rng = np.random.default_rng(1)
    kept = np.flatnonzero(rng.random(int(12_000 / (1 - share))) >= share)
    opens = [START + int(minute) * MINUTE.length for minute in kept]
    close = 100 * np.exp(np.cumsum(rng.normal(0, 1e-4, len(opens)) * (rng.random(len(opens)) < 0.3)))
    found = breaks.find(at(opens, close.tolist()), MINUTE)
    assert not found.jump.any()
    assert np.mean(~found.clean[2_000:]) < broken


REAL = {
    "BNBUSDT_1h": 0,
    "BTCPERP_1m": 0,
    "ETHUSDT_1h": 0,
    "EURUSD_1h": 5,
    "GBPUSD_1m": 40,
    "GOOG_1d": 11,
    "ORCL_1d": 12,
}


@pytest.mark.parametrize("name", REAL)
def test_real_bars_have_no_jump_and_few_gaps(name: str) -> None:
    history = real_bars.bars(name)
    found = breaks.find(history, timeframe(name.split("_")[1]))
    assert not found.jump.any()
    assert np.count_nonzero(found.missing) <= REAL[name]
    assert np.mean(~found.clean) < 0.05


def test_the_closing_after_an_attack_was_no_habit() -> None:
    history = real_bars.bars("ORCL_1d")
    found = breaks.find(history, DAY).listed(history["ts"])
    assert Break("gap", datetime(2001, 9, 17, tzinfo=UTC), 6.0) in found


# ---------------------------------------------------------------- what is planted

WALK = synthetic.bars(1_600, seed=4)
WALK = WALK.with_columns(  # 0.4 % an hour
    ((pl.col(name) / 100).log() * 0.4).exp() * 100 for name in ("open", "high", "low", "close")
)
PRICES = ("open", "high", "low", "close")


def times(history: Bars, factor: float, first: int, end: int | None = None) -> Bars:
    """The bars from `first` to before `end` in another unit."""
    place = pl.int_range(pl.len())
    there = (place >= first) & (place < (len(history) if end is None else end))
    return history.with_columns(
        pl.when(there).then(pl.col(name) * factor).otherwise(pl.col(name)) for name in PRICES
    )


@pytest.mark.parametrize("factor", [7.0, 1 / 7, 100.0, 1e-3, 0.5, 0.25])
def test_a_wrong_unit_and_a_split_are_jumps(factor: float) -> None:
    one = times(WALK, factor, 900, 901)
    found = breaks.find(one, HOUR)
    assert np.flatnonzero(found.jump).tolist() == [900, 901]
    assert found.jump[900] == pytest.approx(math.log(factor), abs=0.05)
    split = breaks.find(times(WALK, factor, 900), HOUR)
    assert np.flatnonzero(split.jump).tolist() == [900]
    assert not found.missing.any()


@pytest.mark.parametrize("bars", [1, 2, 10, 300])
def test_an_outage_is_a_gap(bars: int) -> None:
    outage = pl.concat([WALK[:900], WALK[900 + bars :]])
    (found,) = breaks.find(outage, HOUR).listed(outage["ts"])
    assert found == Break("gap", WALK["ts"][900 + bars].astimezone(UTC), float(bars))
    assert (
        found.told
        == f"{bars} {'bar is' if bars == 1 else 'bars are'} missing before {found.document()['ts']}"
    )


@pytest.mark.parametrize("horizon", [1, 5])
def test_rows_around_a_break_are_no_rows_and_no_feature_sees_it_in_the_others(horizon: int) -> None:
    config = TrainConfig(horizon=horizon)
    plain, planted = WALK, times(WALK, 7.0, 900, 901)
    whole, masked = (dataset.from_bars(history, HOUR, config) for history in (plain, planted))
    left_out = np.setdiff1d(whole.closed_at, masked.closed_at)
    opens = plain["ts"].dt.epoch("us").to_numpy() + 3_600_000_000
    # from the first row whose label ends on the bar, to the last row of which a feature may look at the way back
    assert left_out.tolist() == opens[900 - horizon : 901 + AFTER_JUMP].tolist()
    kept = np.isin(whole.closed_at, masked.closed_at)
    np.testing.assert_allclose(masked.X, whole.X[kept], atol=2e-5)
    np.testing.assert_allclose(masked.scale, whole.scale[kept], rtol=1e-9)
    np.testing.assert_array_equal(masked.log_return, whole.log_return[kept])
    assert np.abs(masked.log_return).max() < 0.1
    counts = dataset.left_out(planted, HOUR, config, masked)
    assert counts == {"gaps": 0, "jumps": 2, "rows_left_out": AFTER_JUMP + 1 + horizon}


@pytest.mark.parametrize("missing", [1, 20, 90])
def test_rows_around_an_outage_are_no_rows(missing: int) -> None:
    config = TrainConfig(horizon=3)
    # one more is too old to count, and is not of these rows
    outage = pl.concat([WALK[:40], WALK[50:910], WALK[910 + missing :]])
    data = dataset.from_bars(outage, HOUR, config)
    closed_at = outage["ts"].dt.epoch("us").to_numpy() + 3_600_000_000
    without = [i for i, closed in enumerate(closed_at) if closed not in set(data.closed_at.tolist())]
    expected = [*range(256), *range(897, 900 + min(missing, AFTER_GAP)), *range(len(outage) - 3, len(outage))]
    assert without == expected
    counts = dataset.left_out(outage, HOUR, config, data)
    assert counts == {"gaps": 1, "jumps": 0, "rows_left_out": 3 + min(missing, AFTER_GAP)}


def test_a_jump_before_the_first_row_is_in_its_features_all_the_same() -> None:
    early = times(WALK, 7.0, 230, 231)
    data = dataset.from_bars(early, HOUR, TrainConfig())
    first = early["ts"].dt.epoch("us")[231 + AFTER_JUMP] + 3_600_000_000
    assert data.closed_at[0] == first


def test_another_jump_z_finds_other_jumps() -> None:
    assert not breaks.find(times(WALK, 1.1, 900), HOUR).jump.any()
    assert np.flatnonzero(breaks.find(times(WALK, 1.1, 900), HOUR, 10.0).jump).tolist() == [900]
    assert not breaks.find(times(WALK, 7.0, 900), HOUR, 1e9).jump.any()


# ---------------------------------------------------------------- rows of less history


SMALL = TrainConfig(features=("return_1", "z_24", "volume_3", "macd_12_26"))


@given(
    seed=st.integers(0, 10_000),
    wanted=st.integers(1, 150),
    horizon=st.integers(1, 6),
    more=st.integers(0, 80),
)
@settings(deadline=None, max_examples=25)
def test_rows_of_the_newest_bars_are_those_of_the_whole_history(
    seed: int, wanted: int, horizon: int, more: int
) -> None:
    """To the bit, with breaks in between: enough bars are read for as many whole rows as are wanted."""
    config = TrainConfig(features=SMALL.features, horizon=horizon)
    rng = np.random.default_rng(seed)
    history = synthetic.bars(2_400, seed=seed)
    for place in rng.integers(1_300, 2_400, int(rng.integers(0, 3))).tolist():
        history = times(history, 7.0, place, place + int(rng.integers(1, 30)))
    history = history.filter(pl.Series(rng.random(2_400) > 0.004 * (seed % 3)))
    with pytest.MonkeyPatch.context() as patch:
        for module in (breaks, dataset):
            patch.setattr(module, "LOOKBACK", 400)
        patch.setattr(breaks, "NEAR", 200)
        whole = dataset.from_bars(history, HOUR, config)
        read = history.tail(
            dataset.bars_for(config, HOUR, wanted) + 600 + more
        )  # a fifth of so few is next to nothing
        tail = dataset.from_bars(read, HOUR, config, wanted)
    assert len(tail) >= min(wanted, len(whole))
    for name in ("closed_at", "known_at", "X", "up", "log_return", "scale", "close"):
        assert (getattr(tail, name)[-wanted:] == getattr(whole, name)[-wanted:]).all()


def test_a_habit_of_the_oldest_rows_is_known_from_bars_before_them() -> None:
    """720 bars a week, the newest weekend among the oldest rows that are wanted."""
    ten_minutes = timeframe("10m")
    opens = [START + timedelta(weeks=week) + i * ten_minutes.length for week in range(9) for i in range(720)]
    history = synthetic.bars(len(opens)).with_columns(ts=pl.Series(opens, dtype=BAR_SCHEMA["ts"]))
    history = history.head(8 * 720 + 250)
    with pytest.MonkeyPatch.context() as patch:
        for module in (breaks, dataset):
            patch.setattr(module, "LOOKBACK", 2_300)
        patch.setattr(breaks, "NEAR", 200)
        whole = dataset.from_bars(history, ten_minutes, SMALL)
        read = history.tail(dataset.bars_for(SMALL, ten_minutes, 260))
        tail = dataset.from_bars(read, ten_minutes, SMALL, 260)
    assert len(read) < len(history)
    assert (np.diff(whole.closed_at)[-260:] > 1e9).sum() == 1  # the weekend, between two rows
    assert (tail.closed_at[-260:] == whole.closed_at[-260:]).all()


def test_the_newest_rows_reach_back_over_the_broken_ones() -> None:
    history = times(WALK, 7.0, 1_200, 1_201)
    whole = dataset.from_bars(history, HOUR, TrainConfig())
    tail = dataset.from_bars(history, HOUR, TrainConfig(), 300)
    assert len(tail) >= 300
    assert (tail.closed_at[-300:] == whole.closed_at[-300:]).all()


def test_a_label_that_is_known_late_is_judged_to_its_end() -> None:
    """`unbroken` goes by each row's own span, as labels of barriers need."""
    history = times(WALK, 7.0, 900)
    rows: FeatureRows = features.rows(history, HOUR)
    data = dataset.build(rows, features.DEFAULT, 1)
    known_at = data.known_at.copy()
    known_at[500] = rows.closed_at[900 - 256]  # 500 rows after the first 256 bars
    sound = dataset.unbroken(replace(data, known_at=known_at), rows, breaks.find(history, HOUR))
    assert rows.closed_at[500] not in sound.closed_at
    assert rows.closed_at[501] in sound.closed_at
