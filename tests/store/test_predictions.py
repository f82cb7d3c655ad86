"""The ledger: a bar's first Signal stands, abstentions say why, and outcomes are those of the bars that came."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from sqlalchemy.exc import IntegrityError

import store.bars
import store.database
import store.markets
import store.outcomes
import store.predictions
import store.versions
from model import artifact, bars, dataset, features, training
from model.bars import Bars
from model.config import TrainConfig
from model.errors import BadInput, NotFound
from model.predictions import Abstention, Prediction, Reason
from store.database import Engine
from store.loaded import Versions
from store.tables import predictions
from tests.model import synthetic

MARKET = bars.market("SYNTHETIC", "1h")
HOUR = bars.timeframe("1h")
BARS = synthetic.bars(1_200, seed=1, momentum=0.5)
NOW = HOUR.close_of(BARS["ts"][-1])


def packed(history: Bars, seed: int = 0) -> artifact.Packed:
    data = dataset.build(features.rows(history, HOUR), features.DEFAULT, 1)
    fit = training.fit(data, TrainConfig(window=700, hidden=(8,), epochs=2, seed=seed))
    arrays, manifest = training.contents(fit)
    held = {"rows": 0, "gain": 0.0, "gain_error": 0.0}
    return artifact.pack(arrays, {**manifest, "held": held})


PACKED = packed(BARS)


def ingest(engine: Engine, history: Bars) -> int:
    store.bars.add(engine, MARKET, history, HOUR.close_of(history["ts"][-1]))
    with store.database.read(engine) as conn:
        return store.markets.need(conn, MARKET).id


def crown(engine: Engine, market_id: int, effective_from: datetime, version: artifact.Packed = PACKED) -> int:
    with store.database.write(engine) as conn:
        ident = store.versions.add(conn, market_id, version, None, effective_from)
        store.versions.record(conn, market_id, ident, "champion", "first", effective_from, effective_from)
    return ident


def ask(engine: Engine, now: datetime, predictors: Versions | None = None) -> store.predictions.Answer:
    return store.predictions.answer(engine, MARKET, now, {} if predictors is None else predictors)


def test_asking_twice_is_asking_once(database: Engine) -> None:
    crown(database, ingest(database, BARS), NOW)
    first = ask(database, NOW)
    assert isinstance(first.signal, Prediction)
    assert ask(database, NOW + timedelta(minutes=40)) == first
    with store.database.read(database) as conn:
        assert len(store.predictions.page(conn)) == 1


def test_sixteen_who_ask_at_once_get_one_row(database: Engine) -> None:
    crown(database, ingest(database, BARS), NOW)
    predictors: Versions = {}
    with ThreadPoolExecutor(16) as pool:
        answers = set(pool.map(lambda _: ask(database, NOW, predictors).id, range(16)))
    assert len(answers) == 1
    with store.database.read(database) as conn:
        assert len(store.predictions.page(conn)) == 1


def test_a_new_champion_answers_from_the_next_bar_on(engine: Engine) -> None:
    market_id = ingest(engine, BARS.head(1_100))
    at = HOUR.close_of(BARS["ts"][1_099])
    old = crown(engine, market_id, at)
    assert ask(engine, at).signal.version == old
    new = crown(engine, market_id, at + HOUR.length, packed(BARS.head(1_100), seed=9))
    assert ask(engine, at).signal.version == old, "a bar's first Signal stands"
    store.bars.add(engine, MARKET, BARS[1_100:1_101], at + HOUR.length)
    assert ask(engine, at + HOUR.length).signal.version == new


def test_abstentions_say_why_and_stand_in_the_ledger(engine: Engine) -> None:
    with pytest.raises(NotFound, match="SYNTHETIC 1h"):
        ask(engine, NOW)
    market_id = ingest(engine, BARS)

    def reason(now: datetime) -> Reason:
        signal = ask(engine, now).signal
        assert isinstance(signal, Abstention)
        assert signal.detail
        return signal.reason

    assert reason(NOW) is Reason.NO_MODEL
    crown(engine, market_id, NOW)
    assert reason(NOW + timedelta(hours=2, seconds=1)) is Reason.STALE_BARS
    with store.database.write(engine) as conn:
        store.markets.set_paused(conn, market_id, True)
    assert reason(NOW) is Reason.PAUSED
    with store.database.write(engine) as conn:
        store.markets.set_paused(conn, market_id, False)
    assert isinstance(ask(engine, NOW).signal, Prediction), "what was not known a moment ago is known now"
    with store.database.read(engine) as conn:
        assert len(store.predictions.page(conn)) == 4


def test_too_few_bars_are_said_with_their_number(engine: Engine) -> None:
    few = BARS.head(100)
    now = HOUR.close_of(few["ts"][-1])
    crown(engine, ingest(engine, few), now)
    signal = ask(engine, now).signal
    assert isinstance(signal, Abstention)
    assert signal.reason is Reason.TOO_FEW_BARS
    assert "100" in signal.detail


def test_damaged_weights_give_an_abstention_and_no_number(engine: Engine) -> None:
    flipped = bytes([PACKED.weights[0] ^ 1]) + PACKED.weights[1:]
    broken = artifact.Packed(flipped, PACKED.sha256, PACKED.manifest, PACKED.manifest_sha256)
    crown(engine, ingest(engine, BARS), NOW, broken)
    signal = ask(engine, NOW).signal
    assert isinstance(signal, Abstention)
    assert signal.reason is Reason.UNHEALTHY_MODEL


@pytest.mark.parametrize(("number", "named"), [(float("nan"), "nan"), (float("inf"), "inf")])
@pytest.mark.parametrize("field", ["X", "scale"])
def test_a_row_that_is_not_finite_gives_an_abstention_and_no_number(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, field: str, number: float, named: str
) -> None:
    usual = features.last_rows

    def sick(*given: Any) -> features.FeatureRows:
        rows = usual(*given)
        wrong = getattr(rows, field).copy()
        wrong[-1, ...] = number
        return replace(rows, **{field: wrong})

    monkeypatch.setattr(features, "last_rows", sick)
    crown(engine, ingest(engine, BARS), NOW)
    signal = ask(engine, NOW).signal
    assert isinstance(signal, Abstention)
    assert signal.reason is Reason.OUT_OF_DOMAIN
    assert (features.DEFAULT.names[0] if field == "X" else "volatility") in signal.detail
    assert named in signal.detail


@pytest.mark.parametrize("horizon", [1, 3])
def test_outcomes_are_those_of_the_bars_that_came(database: Engine, horizon: int) -> None:
    data = dataset.build(features.rows(BARS, HOUR), features.DEFAULT, horizon)
    fit = training.fit(data, TrainConfig(window=700, hidden=(8,), epochs=2, horizon=horizon))
    arrays, manifest = training.contents(fit)
    held = {"rows": 0, "gain": 0.0, "gain_error": 0.0}
    market_id = ingest(database, BARS.head(1_000))
    at = HOUR.close_of(BARS["ts"][999])
    crown(database, market_id, at, artifact.pack(arrays, {**manifest, "held": held}))
    served = [ask(database, at).signal]
    for i in range(1_000, 1_010):
        at = HOUR.close_of(BARS["ts"][i])
        store.bars.add(database, MARKET, BARS[i : i + 1], at)
        served.append(ask(database, at).signal)
    assert store.outcomes.score(database, at) == len(served) - horizon
    assert store.outcomes.score(database, at) == 0, "each is scored once"
    with store.database.read(database) as conn:
        entries = store.predictions.recent(conn, market_id, 100)
        live = store.outcomes.live(conn, served[0].version or 0)
    scored = [e for e in entries if e.outcome is not None and isinstance(e.signal, Prediction)]
    assert live.rows == len(scored)
    assert live.log_loss == pytest.approx(np.mean([e.outcome.log_loss for e in scored if e.outcome]))
    right = [
        (e.signal.p_up > 0.5) == e.outcome.up
        for e in scored
        if e.outcome and isinstance(e.signal, Prediction)
    ]
    assert live.accuracy == pytest.approx(np.mean(right))
    closes = BARS["close"].to_list()
    for i, entry in enumerate(entries):
        assert isinstance(entry.signal, Prediction)
        if i + horizon >= len(entries):
            assert entry.outcome is None
            continue
        log_return = np.log(closes[999 + i + horizon] / closes[999 + i])
        up = log_return > 0
        p = entry.signal.p_up
        assert entry.outcome is not None
        assert entry.outcome.up == up
        assert entry.outcome.log_return == pytest.approx(log_return, rel=1e-12)
        assert entry.outcome.log_loss == pytest.approx(-np.log(p if up else 1 - p), rel=1e-12)


def test_a_bar_that_comes_late_is_waited_for_before_an_outcome_is_said(engine: Engine) -> None:
    market_id = ingest(engine, BARS.head(1_000))
    at = HOUR.close_of(BARS["ts"][999])
    crown(engine, market_id, at)
    ask(engine, at)
    later = at + 2 * HOUR.length
    store.bars.add(engine, MARKET, BARS[1_001:1_002], later)
    assert store.outcomes.score(engine, later) == 0
    store.bars.add(engine, MARKET, BARS[1_000:1_001], later)
    assert store.outcomes.score(engine, later) == 1
    with store.database.read(engine) as conn:
        (entry,) = store.predictions.recent(conn, market_id, 1)
    assert entry.outcome is not None
    assert entry.outcome.log_return == pytest.approx(np.log(BARS["close"][1_000] / BARS["close"][999]))


def test_a_market_that_was_closed_is_scored_by_its_next_bar(engine: Engine) -> None:
    market_id = ingest(engine, BARS.head(1_000))
    at = HOUR.close_of(BARS["ts"][999])
    crown(engine, market_id, at)
    ask(engine, at)
    opened = at + 40 * HOUR.length
    store.bars.add(engine, MARKET, BARS[1_000:1_001].with_columns(ts=pl.lit(opened)), opened + HOUR.length)
    assert store.outcomes.score(engine, opened + HOUR.length) == 0
    assert store.outcomes.score(engine, opened + 4 * HOUR.length) == 1


def test_the_past_is_answered_without_a_trace(engine: Engine) -> None:
    market_id = ingest(engine, BARS)
    crown(engine, market_id, NOW)
    early = HOUR.close_of(BARS["ts"][800])
    signal, _ = store.predictions.answer_at(engine, MARKET, early, NOW, {}, None)
    assert isinstance(signal, Prediction)
    assert signal.as_of == early
    with store.database.read(engine) as conn:
        assert store.predictions.page(conn) == []


@pytest.mark.parametrize("horizon", [1, 24])
def test_in_sample_is_said_of_the_bars_whose_outcome_was_learned_from_and_of_no_other(
    engine: Engine, horizon: int
) -> None:
    learned = BARS.head(1_100)
    data = dataset.build(features.rows(learned, HOUR), features.DEFAULT, horizon)
    fit = training.fit(data, TrainConfig(window=600, hidden=(8,), epochs=1, horizon=horizon))
    arrays, manifest = training.contents(fit)
    held = {"rows": 0, "gain": 0.0, "gain_error": 0.0}
    crown(engine, ingest(engine, BARS), NOW, artifact.pack(arrays, {**manifest, "held": held}))
    predictors: Versions = {}

    def in_sample(i: int) -> bool:
        at = HOUR.close_of(BARS["ts"][i])
        return store.predictions.answer_at(engine, MARKET, at, NOW, predictors, None)[1]

    last = 1_099 - horizon  # the last row with a label that the training could know
    first = last - 599
    assert [in_sample(i) for i in (first - 1, first, last, last + 1)] == [False, True, True, False]
    assert not in_sample(len(BARS) - 1), "an outcome that is yet to come was learned by nobody"


def test_the_future_is_not_asked_about(engine: Engine) -> None:
    ingest(engine, BARS)
    with pytest.raises(BadInput, match="future"):
        store.predictions.answer_at(engine, MARKET, NOW + HOUR.length, NOW, {}, None)


def test_a_bar_has_one_prediction_even_where_two_processes_see_different_champions(database: Engine) -> None:
    market_id = ingest(database, BARS)
    versions = [crown(database, market_id, NOW), crown(database, market_id, NOW, packed(BARS, seed=9))]
    with store.database.write(database) as conn:
        for version in versions:
            values = {"version_id": version, "kind": "prediction", "horizon": 1, "p_up": 0.5, "weights": "x"}
            row = {**values, "market_id": market_id, "as_of": NOW, "served_at": NOW, "answer": "prediction"}
            if version == versions[0]:
                conn.execute(predictions.insert().values(**row))
                continue
            with pytest.raises(IntegrityError), conn.begin_nested():
                conn.execute(predictions.insert().values(**row))


def test_a_market_with_weekends_is_not_stale_on_a_sunday(engine: Engine) -> None:
    weekdays = BARS.filter(pl.col("ts").dt.weekday() <= 5)
    friday = weekdays.filter(pl.col("ts").dt.weekday() == 5)["ts"].to_list()[-1]
    history = weekdays.filter(pl.col("ts") <= friday)
    crown(engine, ingest(engine, history), HOUR.close_of(friday))
    sunday = HOUR.close_of(friday) + timedelta(hours=40)
    assert isinstance(ask(engine, sunday).signal, Prediction)
    tuesday = HOUR.close_of(friday) + timedelta(hours=90)
    assert isinstance(ask(engine, tuesday).signal, Abstention)


def test_a_signal_that_the_ledger_went_past_is_made_anew(database: Engine) -> None:
    crown(database, ingest(database, BARS.head(1_198)), HOUR.close_of(BARS["ts"][1_197]))
    made = []
    for count in (1_198, 1_199, 1_200):  # three who ask at once, a bar apart
        now = HOUR.close_of(BARS["ts"][count - 1])
        store.bars.add(database, MARKET, BARS[count - 1 : count], now)
        made.append(store.predictions.make(database, MARKET, now, {}))
    assert store.predictions.keep(database, made[1]) is not None
    assert store.predictions.keep(database, made[2]) is None, "it knows nothing of the position before"
    assert store.predictions.keep(database, made[0]) is None, "the next one went on without it"
    answered = ask(database, NOW)
    assert answered.signal.as_of == NOW
    assert store.predictions.keep(database, made[2]) == answered, "that bar's first Signal stands"
    with store.database.read(database) as conn:
        closes = [entry.signal.as_of for entry in store.predictions.page(conn)]
    assert closes == [NOW, NOW - HOUR.length]


def test_a_signal_that_is_always_overtaken_is_kept_in_the_end(
    database: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    crown(database, ingest(database, BARS), NOW)
    make = store.predictions.make

    def overtaken(*given: Any) -> store.predictions.Made:
        made = make(*given)
        assert made.lately is not None
        later = made.row | {"as_of": NOW + timedelta(hours=1 + next(hours))}
        store.predictions.keep_row(database, later)
        return made

    hours = iter(range(100))
    monkeypatch.setattr(store.predictions, "make", overtaken)
    assert ask(database, NOW).signal.as_of == NOW
