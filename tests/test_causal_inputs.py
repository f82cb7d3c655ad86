"""One causal engine with inputs: another market and a longer timeframe, the same live as in the backtest, to the bit."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

import jobs.backtest
import jobs.retrain
import store.bars
import store.database
import store.features
import store.inputs
import store.jobs
import store.markets
import store.predictions
import store.versions
from jobs import executors
from model import backtest, bars, dataset, features, predictor
from model.bars import Bars
from model.errors import BadInput, TrainingFailed
from model.predictions import Abstention, Prediction, Reason, Signal
from store.database import Engine
from store.loaded import Versions
from store.settings import Settings, load
from tests.model import synthetic

ETH, BTC = bars.market("ETHUSDT", "1h"), bars.market("BTCUSDT", "1h")
HOUR = bars.timeframe("1h")
WINDOW, REFIT_EVERY, JUDGED = 500, 60, 150
FIRST = (
    4 * (features.WARMUP + 1) - 1 + WINDOW
)  # the bar at whose close a whole window of rows has known labels
OWN = synthetic.bars(FIRST + JUDGED, seed=5, momentum=0.5)
OTHER = synthetic.bars(FIRST + JUDGED, seed=6)
LOST = range(FIRST + 130, FIRST + 139)  # bars of the other market that never came
INPUTS: list[dict[str, Any]] = [
    {"symbol": "BTCUSDT", "timeframe": "60m", "features": ["return_1", "z_24"]},
    {"timeframe": "4h"},
]
SETTINGS: Settings = load(training={"window_bars": WINDOW, "inputs": INPUTS})


def others(history: Bars) -> Bars:
    """The other market's bars that come while these do."""
    there = ~pl.int_range(pl.len()).is_in(list(LOST))
    return OTHER.filter(there, pl.col("ts") <= history["ts"][-1])


def add(engine: Engine, market: bars.Market, rows: Bars) -> None:
    if len(rows):
        store.bars.add(engine, market, rows, HOUR.close_of(rows["ts"][-1]))


def retrain(engine: Engine, now: datetime, settings: Settings = SETTINGS) -> dict[str, Any]:
    with store.database.read(engine) as conn:
        market_id = store.markets.need(conn, ETH).id
    job = store.jobs.start(engine, "retrain", market_id, {}, "test", now, timedelta(minutes=5))
    try:
        keep = jobs.retrain.run(engine, job, settings, lambda: now, lambda share: None)
    except Exception as error:
        with store.database.write(engine) as conn:
            store.jobs.fail(conn, job.id, "test", now, str(error))
        raise
    return executors.finish(engine, job, keep)


def ask(engine: Engine, now: datetime, predictors: Versions | None = None) -> Signal:
    return store.predictions.answer(engine, ETH, now, {} if predictors is None else predictors).signal


def lived(engine: Engine) -> Iterator[Signal]:
    """What was served for each bar, with a retrain at the close of every REFIT_EVERY-th one."""
    predictors: Versions = {}
    add(engine, ETH, OWN.head(FIRST))
    add(engine, BTC, others(OWN.head(FIRST)))
    for i in range(FIRST, len(OWN)):
        now = HOUR.close_of(OWN["ts"][i])
        add(engine, ETH, OWN[i : i + 1])
        if i not in LOST:
            add(engine, BTC, OTHER[i : i + 1])
        yield ask(engine, now, predictors)
        if (i - FIRST) % REFIT_EVERY == 0:
            retrain(engine, now)


def walked() -> backtest.Result:
    config = jobs.retrain.config_of(SETTINGS, {})
    data = dataset.from_bars(OWN, HOUR, config, others={BTC: others(OWN)})
    return backtest.run(data, config, backtest.Policy(REFIT_EVERY))


def test_the_backtest_says_to_the_bit_what_was_served_live(database: Engine) -> None:
    signals = {signal.as_of: signal for signal in lived(database)}
    result = walked()
    served = {as_of: signal for as_of, signal in signals.items() if isinstance(signal, Prediction)}
    compared, doubted = 0, []
    for i, closed_at in enumerate(result.data.closed_at.tolist()):
        as_of = store.tables.EPOCH + closed_at * store.tables.MICROSECOND
        if (reason := backtest.REASONS[result.refused[i]]) is not None:
            doubted.append(signals[as_of])
            assert isinstance(doubted[-1], Abstention)
            assert doubted[-1].reason is reason
            continue
        live = served[as_of]
        said = result.said
        assert (live.p_up, live.expected_return, live.price, *live.interval) == (
            said.p_up[i],
            said.expected_return[i],
            said.price[i],
            said.low[i],
            said.high[i],
        )
        compared += 1
    assert compared + len(doubted) >= JUDGED - 15
    assert compared > JUDGED / 2
    assert {refit.outcome for refit in result.refits} >= {"promoted"}

    # the other market's newest bar counts for two hours after its close; then there is no answer, and no row
    abstained = [signal for signal in signals.values() if isinstance(signal, Abstention)]
    stale = [signal for signal in abstained if signal not in doubted][1:]
    assert [signal.as_of for signal in stale] == [HOUR.close_of(OWN["ts"][i]) for i in LOST[2:]]
    for signal in stale:
        assert signal.reason is Reason.STALE_BARS
        assert signal.detail.startswith("the newest bar of the input BTCUSDT 1h closed at")
        assert store.tables.micros(signal.as_of or OWN["ts"][0]) not in result.data.closed_at


def trained(engine: Engine) -> datetime:
    """A market with a champion that reads inputs, and when its newest bar closed."""
    add(engine, ETH, OWN.head(FIRST + 3))
    add(engine, BTC, OTHER.head(FIRST + 3))
    now = HOUR.close_of(OWN["ts"][FIRST + 2])
    said = retrain(engine, now)
    with store.database.write(engine) as conn:
        market_id = store.markets.need(conn, ETH).id
        store.versions.record(conn, market_id, said["version"], "champion", "test", now, now)
    return now


def test_an_input_that_comes_late_changes_no_answer_that_was_given(database: Engine) -> None:
    now = trained(database)
    i = FIRST + 3
    add(database, ETH, OWN[i : i + 1])
    now += HOUR.length
    first = ask(database, now)
    assert isinstance(first, Prediction)
    add(database, BTC, OTHER[i : i + 1])
    assert ask(database, now) == first
    assert store.predictions.answer_at(database, ETH, now, now, {}, None)[0] != first

    # and bars of later hours are not there for an earlier one
    then = store.predictions.answer_at(database, ETH, now, now, {}, None)[0]
    add(database, BTC, OTHER[i + 1 : i + 5])
    assert store.predictions.answer_at(database, ETH, now, now, {}, None)[0] == then


def test_an_input_that_jumps_is_told_by_name(engine: Engine) -> None:
    now = trained(engine) + HOUR.length
    i = FIRST + 3
    add(engine, ETH, OWN[i : i + 1])
    add(engine, BTC, OTHER[i : i + 1].with_columns(pl.col("open", "high", "low", "close") * 1_000))
    said = ask(engine, now)
    assert isinstance(said, Abstention)
    assert said.reason is Reason.GAP
    assert said.detail == "the input BTCUSDT 1h stands on a jump of its price"


def test_asked_for_a_past_moment_a_version_says_what_its_training_row_says(database: Engine) -> None:
    now = trained(database)
    with store.database.read(database) as conn:
        row = store.markets.need(conn, ETH)
        version = store.versions.champion(conn, row.id)
        assert version is not None
        model = predictor.from_artifact(store.versions.packed(conn, version))
    assert model.features.columns[-11:-9] == ("BTCUSDT 1h z_24", "4h return_1")
    config = jobs.retrain.config_of(SETTINGS, {})
    data = dataset.from_bars(OWN, HOUR, config, others={BTC: OTHER})
    for i in (-1, -2, -3, -5, -8, -200):
        at = now + i * HOUR.length
        said = store.predictions.answer_at(database, ETH, at, now, {}, None)[0]
        k = int(np.searchsorted(data.closed_at, store.tables.micros(at)))
        forecast = model.predict(data.X[k], float(data.scale[k]), float(data.close[k]))
        assert isinstance(said, Prediction)
        assert (said.p_up, said.price, *said.interval) == (
            forecast.p_up,
            forecast.price,
            forecast.low,
            forecast.high,
        )


def test_an_input_with_too_few_bars_is_told_by_name(engine: Engine) -> None:
    now = trained(engine)
    early = HOUR.close_of(OWN["ts"][300])
    said = store.predictions.answer_at(engine, ETH, early, now, {}, None)[0]
    assert isinstance(said, Abstention)
    assert said.reason is Reason.TOO_FEW_BARS
    assert said.detail.startswith("the input 4h has fewer than 257 bars")


def test_an_input_that_is_not_there_fails_the_training_in_one_line(engine: Engine) -> None:
    add(engine, ETH, OWN.head(FIRST))
    now = HOUR.close_of(OWN["ts"][FIRST - 1])
    with pytest.raises(TrainingFailed, match="no bars of BTCUSDT 1h, which is an input, had closed by then"):
        retrain(engine, now)
    store.bars.add(engine, BTC, OTHER.head(200), now)
    with pytest.raises(TrainingFailed, match="no row has its input BTCUSDT 1h: of BTCUSDT 1h fewer than 257"):
        retrain(engine, now)
    wrong = load(training={"window_bars": WINDOW, "inputs": [{"timeframe": "90m"}]})
    with pytest.raises(BadInput, match="90m bars cannot be made of 1h ones"):
        retrain(engine, now, wrong)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([{"timeframe": "4h", "features": ["nonsense"]}], "unknown feature 'nonsense'"),
        ([{"timeframe": "240m"}, {"timeframe": "4h"}], "the input 4h is there more than once"),
    ],
)
def test_settings_that_cannot_be_are_refused_with_the_features(
    given: list[dict[str, Any]], said: str
) -> None:
    with pytest.raises(BadInput, match=said):
        store.features.register(load(training={"inputs": given}))


def test_what_is_read_of_another_market_suffices(database: Engine) -> None:
    add(database, ETH, OWN)
    add(database, BTC, others(OWN))
    feature_set = jobs.retrain.config_of(SETTINGS, {}).feature_set
    history = OWN.slice(1_200)
    whole = features.rows(history, HOUR, feature_set, {BTC: others(OWN)})
    with store.database.read(database) as conn:
        beside = store.inputs.beside(conn, feature_set, history, HOUR)
        newest = store.inputs.newest(conn, feature_set, HOUR.close_of(history["ts"][-1]))
    assert len(beside[BTC]) == features.HISTORY + len(history) - 1 - len(LOST)
    assert beside[BTC]["ts"].is_unique().all()
    found = features.rows(history, HOUR, feature_set, beside)
    last = features.last_row(history, HOUR, feature_set, newest)
    assert (found.X[:, -12:-10] == whole.X[:, -12:-10]).all()
    assert (last.X[0, -12:-10] == whole.X[-1, -12:-10]).all()
