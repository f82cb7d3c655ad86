"""Laws of a walk's keeping: what is done is kept, what goes on from there is to the bit what an unbroken walk gives."""

import dataclasses
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice

import numpy as np
import pytest

import store.backtests
import store.bars
import store.database
import store.markets
from jobs import folds, walks
from model import backtest, dataset, features
from model.backtest import Block, Policy
from model.bars import market, timeframe
from model.config import TrainConfig
from model.dataset import Dataset
from store.database import Engine
from store.settings import load
from tests.model import synthetic
from tests.model.test_members import same

HOUR = timeframe("1h")
BARS = synthetic.bars(features.WARMUP + 1_100, seed=5, momentum=0.5)
CONFIG = TrainConfig(window=500, hidden=(8,), epochs=2, members=2)
DATA = dataset.from_bars(BARS, HOUR, CONFIG)
POLICY = Policy(refit_every=60, first=500)
NOW = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture
def market_id(database: Engine) -> int:
    store.bars.add(database, market("SYNTHETIC", "1h"), BARS.head(300), HOUR.close_of(BARS["ts"][-1]))
    with store.database.read(database) as conn:
        return store.markets.need(conn, market("SYNTHETIC", "1h")).id


def blocks(
    engine: Engine, market_id: int, data: Dataset = DATA, policy: Policy = POLICY, resume: bool = True
) -> Iterator[Block]:
    return walks.blocks(engine, market_id, data, CONFIG, policy, backtest.one_by_one, resume, lambda: NOW)


def alike(one: list[Block], other: list[Block]) -> bool:
    """To the bit, but for who stands after a block that is not the last: that is kept as numbers."""
    names = ("refit", "said", "refused")
    return all(
        a.rows == b.rows
        and all(same(getattr(a, name), getattr(b, name)) for name in names)
        and same(
            a.standing and (a.standing.moved, a.standing.until),
            b.standing and (b.standing.moved, b.standing.until),
        )
        for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize(
    "policy", [POLICY, replace(POLICY, warm=True), replace(POLICY, by_need=True, latency=3)]
)
def test_an_interrupted_walk_goes_on_to_the_same_end(
    database: Engine, market_id: int, policy: Policy
) -> None:
    whole = list(backtest.walk_forward(DATA, CONFIG, policy))
    assert len(whole) > 8
    stopped = list(islice(blocks(database, market_id, policy=policy), 5))
    trained: list[int] = []

    def counting(data: Dataset, config: TrainConfig, rows: range) -> Iterator[object]:
        for row, result in zip(rows, backtest.one_by_one(data, config, rows), strict=True):
            trained.append(row)
            yield result

    rest = list(walks.blocks(database, market_id, DATA, CONFIG, policy, counting, True, lambda: NOW))  # type: ignore[arg-type]
    assert alike(stopped, whole[:5])
    assert alike(rest, whole)
    if not (policy.warm or policy.by_need):
        assert trained == [block.refit.row for block in whole[5:]]


def test_without_being_asked_to_it_begins_anew(database: Engine, market_id: int) -> None:
    list(islice(blocks(database, market_id), 5))
    first = next(blocks(database, market_id, resume=False))
    with store.database.read(database) as conn:
        kept = list(store.backtests.blocks(conn, walks.name(market_id, CONFIG, POLICY)))
    assert len(kept) == 1
    assert first.refit.row == backtest.refit_rows(DATA, CONFIG, POLICY)[0]


def test_bars_that_came_since_follow(database: Engine, market_id: int) -> None:
    early = DATA.part(slice(0, 815))
    list(blocks(database, market_id, early))
    assert alike(list(blocks(database, market_id)), list(backtest.walk_forward(DATA, CONFIG, POLICY)))


def test_where_earlier_bars_have_changed_it_begins_anew_from_there(database: Engine, market_id: int) -> None:
    list(islice(blocks(database, market_id), 6))
    close = DATA.close.copy()
    close[700] *= 1.001
    other = replace(DATA, close=close)
    assert alike(list(blocks(database, market_id, other)), list(backtest.walk_forward(other, CONFIG, POLICY)))


def test_a_damaged_block_and_what_follows_are_done_again(database: Engine, market_id: int) -> None:
    list(islice(blocks(database, market_id), 5))
    with store.database.write(database) as conn:
        conn.exec_driver_sql("UPDATE backtest_blocks SET sha256 = 'x' WHERE number = 2")
    assert alike(list(blocks(database, market_id)), list(backtest.walk_forward(DATA, CONFIG, POLICY)))


def test_all_that_decides_a_walk_is_in_its_name() -> None:
    names = {walks.name(1, CONFIG, POLICY), walks.name(2, CONFIG, POLICY)}
    for field in dataclasses.fields(Policy):
        other = {"refit_every": 61, "first": 501, "by_need": True, "warm": True, "latency": 1}.get(field.name)
        if other is not None:
            names.add(walks.name(1, CONFIG, replace(POLICY, **{field.name: other})))
    names.add(walks.name(1, replace(CONFIG, seed=1), POLICY))
    assert len(names) == 8


def test_processes_change_no_bit() -> None:
    policy = replace(POLICY, refit_every=50)
    spread = list(backtest.walk_forward(DATA, CONFIG, policy, folds.over(load(), 2)))
    assert len(spread) >= folds.FEWEST
    assert alike(spread, list(backtest.walk_forward(DATA, CONFIG, policy)))


def test_latency_lets_the_former_champion_answer_for_as_long() -> None:
    plain, late = (backtest.run(DATA, CONFIG, replace(POLICY, latency=k)) for k in (0, 7))
    changes = np.flatnonzero(np.diff(plain.refit)) + 1
    assert len(late.data) == len(plain.data) - 7
    for change in changes.tolist():
        assert late.refit[change - 7 : change].tolist() == plain.refit[change - 7 : change].tolist()
        assert late.refit[change : change + 7].max() <= plain.refit[change]
