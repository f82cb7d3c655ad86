"""Replay: whatever was served follows from what was recorded, to the bit; and whatever was changed since is named."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from sqlalchemy import Table, select, update

import store.bars
import store.database
import store.derivations
import store.libraries
import store.markets
import store.predictions
import store.recalibrations
import store.replays
import store.versions
from model import artifact, bars, dataset, features, training
from model.bars import Bars
from model.config import TrainConfig
from model.errors import NotFound
from model.predictions import Reason
from store import tables
from store.database import Engine
from store.forecasts import Terms
from store.loaded import Versions
from store.replays import Replay
from store.settings import Signals
from store.tables import micros, predictions, versions
from tests import postgres as real_postgres
from tests.model import synthetic

MARKET, OTHER = bars.market("SYNTHETIC", "1h"), bars.market("OTHER", "1h")
HOUR = bars.timeframe("1h")
MINUTE = timedelta(minutes=1)
STALE_AFTER = 2.0
DOUBTS = Signals(min_confidence=0.505)
FIRST = 760  # the first bar that is answered for
# what happens at which bar
STALE, PAUSED, SECOND, LATE, CORRECTED, UNASKED, WILD, BROKEN = 764, 766, 775, 785, (790, 797), 805, 815, 830
LAST = 832


def history(n: int, seed: int) -> Bars:
    made = synthetic.bars(n, seed=seed, momentum=0.5)
    wild = pl.when(pl.int_range(pl.len()) == WILD).then(5_000.0).otherwise(1.0)
    return made.with_columns(volume=pl.col("volume") * wild)


BARS, BESIDE = history(LAST, 1), synthetic.bars(LAST, seed=6)


def close(i: int) -> datetime:
    return HOUR.close_of(BARS["ts"][i])


def packed(
    until: int, seed: int, inputs: tuple[features.Input, ...] = (), window: int = 400
) -> artifact.Packed:
    """A version that was made here, of the bars before that one."""
    config = TrainConfig(window=window, held_fraction=0.1, hidden=(8,), epochs=2, seed=seed, inputs=inputs)
    data = dataset.from_bars(BARS.head(until), HOUR, config, others={OTHER: BESIDE.head(until)})
    arrays, manifest = training.contents(training.fit(data, config))
    held = {"rows": 0, "gain": 0.0, "gain_error": 0.0}
    return artifact.pack(arrays, {**manifest, "held": held, "libraries": store.libraries.here()})


def crown(engine: Engine, version: artifact.Packed, at: datetime) -> int:
    with store.database.write(engine) as conn:
        market_id = store.markets.need(conn, MARKET).id
        ident = store.versions.add(conn, market_id, version, None, at)
        store.versions.record(conn, market_id, ident, "champion", "first", at, at)
    return ident


def ask(engine: Engine, now: datetime, predictors: Versions) -> None:
    store.predictions.answer(engine, MARKET, now, predictors, Terms(STALE_AFTER, DOUBTS))


def corrected(i: int) -> Bars:
    return BARS[i : i + 1].with_columns(pl.col(name) * 0.999 for name in ("open", "high", "low", "close"))


def live(engine: Engine) -> None:
    """Hours of serving in which everything happens that may."""
    predictors: Versions = {}
    store.bars.add(engine, MARKET, BARS.head(features.WARMUP // 2), close(FIRST - 1))
    ask(engine, close(features.WARMUP // 2 - 1), predictors)
    first = packed(FIRST, 0)
    # too few bars, asked on the day of the last of them
    few = close(features.WARMUP // 2 - 1)
    crown(engine, first, few)
    ask(engine, few + MINUTE, predictors)
    store.bars.add(engine, MARKET, BARS[features.WARMUP // 2 : FIRST], close(FIRST - 1))
    with store.database.read(engine) as conn:
        market_id = store.markets.need(conn, MARKET).id
    for i in range(FIRST, LAST):
        now = close(i) + 10 * MINUTE
        if i == LATE:
            continue
        store.bars.add(engine, MARKET, BARS[i : i + 1], now)
        if i == STALE:
            ask(engine, close(i) + 3 * HOUR.length, predictors)
            continue
        if i == PAUSED:
            with store.database.write(engine) as conn:
                store.markets.set_paused(conn, market_id, True)
            ask(engine, now, predictors)
            with store.database.write(engine) as conn:
                store.markets.set_paused(conn, market_id, False)
            continue
        if i == SECOND:
            crown(engine, packed(SECOND, 1), close(SECOND))
        if i == BROKEN:
            good = packed(SECOND, 2)
            crown(
                engine, replace(good, weights=bytes([good.weights[0] ^ 1]) + good.weights[1:]), close(BROKEN)
            )
        if i != UNASKED:
            ask(engine, now, predictors)
        if i == LATE + 1:
            store.bars.add(engine, MARKET, BARS[LATE : LATE + 1], now + MINUTE)
            ask(engine, now + 2 * MINUTE, predictors)
        if i in CORRECTED:
            store.bars.add(engine, MARKET, corrected(i), now + MINUTE)
            store.bars.add(engine, MARKET, corrected(i - 20), now + MINUTE)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a database in which `live` happened, once of each kind; who changes anything changes it back."""

    def lived(url: str) -> str:
        engine = store.database.connect(url)
        store.database.upgrade(engine)
        live(engine)
        engine.dispose()
        return url

    if request.param == "sqlite":
        yield lived(f"sqlite:///{tmp_path_factory.mktemp('served') / 'bars.db'}")
    else:
        with real_postgres.fresh(request.getfixturevalue("postgres_server")) as url:
            yield lived(url)


@pytest.fixture
def engine(served: str) -> Iterator[Engine]:
    made = store.database.connect(served)
    yield made
    made.dispose()


def replayed(engine: Engine, since: datetime | None = None, until: datetime | None = None) -> Replay:
    return store.replays.replay(engine, MARKET, since, until, STALE_AFTER, DOUBTS)


def answered(engine: Engine) -> list[Any]:
    with store.database.read(engine) as conn:
        return list(conn.execute(select(predictions).order_by(predictions.c.id)))


def predicted(engine: Engine, since: int = SECOND + 2) -> Any:
    """The ledger's first prediction for that bar or a later one."""
    return next(row for row in answered(engine) if row.as_of >= close(since) and row.kind == "prediction")


def place(row: Any) -> int:
    """Of the bar that an answer stands on."""
    return BARS["ts"].to_list().index(row.as_of - HOUR.length)


@contextmanager
def changed(engine: Engine, table: Table, key: dict[str, Any], values: dict[str, Any]) -> Iterator[None]:
    """One row of a table otherwise than it was written."""
    where = [table.c[name] == value for name, value in key.items()]
    with store.database.write(engine) as conn:
        before = conn.execute(select(*(table.c[name] for name in values)).where(*where)).one()._asdict()
        assert conn.execute(update(table).where(*where).values(values)).rowcount == 1
    try:
        yield
    finally:
        with store.database.write(engine) as conn:
            conn.execute(update(table).where(*where).values(before))


def test_what_was_served_is_derived_again_to_the_bit(engine: Engine) -> None:
    rows = answered(engine)
    reasons = {row.reason for row in rows}
    assert reasons >= {
        None,
        Reason.NO_MODEL,
        Reason.TOO_FEW_BARS,
        Reason.STALE_BARS,
        Reason.PAUSED,
        Reason.GAP,
        Reason.OUT_OF_DOMAIN,
        Reason.LOW_CONFIDENCE,
        Reason.UNHEALTHY_MODEL,
    }
    found = replayed(engine)
    assert found.different == ()
    assert (found.served, found.equal, found.skipped) == (len(rows), len(rows) - 1, {"paused": 1})
    assert found.bits
    assert (found.since, found.until) == (rows[0].as_of, rows[-1].as_of)


@pytest.mark.parametrize(
    ("since", "until"),
    [(FIRST, LATE), (SECOND + 3, WILD), (LATE + 1, LATE + 1), (CORRECTED[0] + 1, LAST - 1)],
)
def test_a_part_of_the_period_is_as_equal_as_the_whole(engine: Engine, since: int, until: int) -> None:
    found = replayed(engine, close(since), close(until))
    inside = [row for row in answered(engine) if close(since) <= row.as_of <= close(until)]
    assert found.different == ()
    assert found.served == len(inside) > 0
    assert found.equal == len([row for row in inside if row.reason != Reason.PAUSED])


def test_a_ledger_that_is_read_in_parts_is_as_equal(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = replayed(engine)
    monkeypatch.setattr(store.replays, "CHUNK_ROWS", 7)
    shares: list[float] = []
    assert store.replays.replay(engine, MARKET, None, None, STALE_AFTER, DOUBTS, shares.append) == whole
    assert shares == sorted(shares)
    assert shares[-1] == 1


NUMBERS = (
    "p_up",
    "expected_return",
    "price",
    "low",
    "high",
    "close",
    "log_temperature",
    "certainty",
    "log_width",
)


@pytest.mark.parametrize("column", NUMBERS)
def test_one_number_that_is_one_bit_otherwise_is_named_and_no_other(engine: Engine, column: str) -> None:
    row = predicted(engine)
    value = getattr(row, column)
    wrong = float(np.nextafter(value, np.inf))
    with changed(engine, predictions, {"id": row.id}, {column: wrong}):
        found = replayed(engine)
    (difference,) = found.different
    assert (difference.id, difference.as_of, difference.what) == (row.id, row.as_of, column)
    assert (difference.ledger, difference.replayed) == (wrong, value)
    assert found.differing == 1
    assert found.equal + 1 + found.skipped["paused"] == found.served


@pytest.mark.parametrize("place", [0, 17])
def test_one_bit_of_a_feature_is_named_by_the_features_name(engine: Engine, place: int) -> None:
    row = predicted(engine)
    flipped = bytearray(row.features)
    flipped[4 * place] ^= 1
    with changed(engine, predictions, {"id": row.id}, {"features": bytes(flipped)}):
        (difference,) = replayed(engine).different
    assert difference.what == f"feature {features.DEFAULT.names[place]}"
    assert difference.replayed == np.frombuffer(row.features, np.float32)[place]


def test_a_row_of_another_length_is_a_difference(engine: Engine) -> None:
    row = predicted(engine)
    with changed(engine, predictions, {"id": row.id}, {"features": row.features[:-3]}):
        (difference,) = replayed(engine).different
    assert difference.what == "features"


@pytest.mark.parametrize("reason", [Reason.GAP, Reason.TOO_FEW_BARS, Reason.LOW_CONFIDENCE, Reason.NO_MODEL])
def test_another_reason_is_named(engine: Engine, reason: Reason) -> None:
    row = next(row for row in answered(engine) if row.reason == reason)
    with changed(engine, predictions, {"id": row.id}, {"reason": Reason.STALE_MODEL.value}):
        (difference,) = replayed(engine).different
    assert (difference.id, difference.what) == (row.id, "reason")
    assert (difference.ledger, difference.replayed) == (Reason.STALE_MODEL, reason)


def test_a_version_that_was_not_champion_is_named(engine: Engine) -> None:
    row, other = predicted(engine, FIRST), predicted(engine)
    with changed(engine, predictions, {"id": row.id}, {"version_id": other.version_id}):
        first, *_ = replayed(engine).different
    assert (first.id, first.what) == (row.id, "version")
    assert (first.ledger, first.replayed) == (other.version_id, row.version_id)


def test_an_answer_is_measured_by_the_time_at_which_it_was_served(engine: Engine) -> None:
    row = predicted(engine)
    with changed(engine, predictions, {"id": row.id}, {"served_at": row.as_of + 3 * HOUR.length}):
        (difference,) = replayed(engine).different
    assert (difference.id, difference.what, difference.replayed) == (row.id, "reason", Reason.STALE_BARS)


def test_one_weight_that_is_one_bit_otherwise_is_named_at_every_answer_of_its_version(engine: Engine) -> None:
    version = predicted(engine).version_id
    with store.database.read(engine) as conn:
        arrays, manifest = artifact.unpack(store.versions.packed(conn, version))
    parameters = arrays["parameters"].copy()
    parameters.flat[0] = np.nextafter(parameters.flat[0], np.float32(np.inf))
    other = artifact.pack({**arrays, "parameters": parameters}, manifest)
    with changed(engine, versions, {"id": version}, other.__dict__):
        found = replayed(engine)
    of_version = [row for row in answered(engine) if row.version_id == version and row.kind == "prediction"]
    named = [each.id for each in found.different if each.what == "weights"]
    assert named[:5] == [row.id for row in of_version][:5]
    assert found.differing >= len(of_version)


def test_damaged_weights_are_named(engine: Engine) -> None:
    row = predicted(engine)
    with store.database.read(engine) as conn:
        good = store.versions.packed(conn, row.version_id).weights
    flipped = good[:100] + bytes([good[100] ^ 1]) + good[101:]
    with changed(engine, versions, {"id": row.version_id}, {"weights": flipped}):
        first, *_ = replayed(engine, row.as_of, row.as_of).different
    assert (first.what, first.ledger, first.replayed) == ("reason", None, Reason.UNHEALTHY_MODEL)


def recorded(engine: Engine, i: int, revision: int = 0) -> dict[str, Any]:
    """The key of a bar."""
    with store.database.read(engine) as conn:
        market_id = store.markets.need(conn, MARKET).id
    return {"market_id": market_id, "ts": micros(BARS["ts"][i]), "revision": revision}


def test_a_recorded_bar_that_is_one_bit_otherwise_is_found_where_it_was_answered_for(engine: Engine) -> None:
    row = predicted(engine)
    wrong = float(np.nextafter(row.close, np.inf))
    with changed(engine, tables.bars, recorded(engine, place(row)), {"close": wrong}):
        first = replayed(engine).different[0]
    assert (first.id, first.as_of, first.what) == (row.id, row.as_of, "close")
    assert (first.ledger, first.replayed) == (row.close, wrong)


@pytest.mark.parametrize("i", [LATE, CORRECTED[0]])
def test_a_bar_that_claims_to_have_been_recorded_earlier_is_found(engine: Engine, i: int) -> None:
    key = recorded(engine, i, revision=0 if i == LATE else 1)
    with changed(engine, tables.bars, key, {"recorded_at": micros(close(i) + MINUTE)}):
        first, *_ = replayed(engine).different
    assert first.as_of == close(LATE + 1 if i == LATE else i)


def test_a_bar_that_is_no_longer_there_is_named(engine: Engine) -> None:
    row = predicted(engine)
    key = recorded(engine, place(row))
    elsewhere = {**key, "ts": key["ts"] + 1}
    with store.database.write(engine) as conn:
        conn.execute(update(tables.bars).filter_by(**key).values(ts=elsewhere["ts"]))
    try:
        first = replayed(engine).different[0]
    finally:
        with store.database.write(engine) as conn:
            conn.execute(update(tables.bars).filter_by(**elsewhere).values(ts=key["ts"]))
    assert (first.id, first.what, first.replayed) == (row.id, "bar", None)


def elsewhere(engine: Engine, version: int) -> dict[str, Any]:
    """The columns of that version, had it been made with another NumPy."""
    with store.database.read(engine) as conn:
        arrays, manifest = artifact.unpack(store.versions.packed(conn, version))
    libraries = {**manifest["libraries"], "numpy": "0.9"}
    return dict(artifact.pack(arrays, {**manifest, "libraries": libraries}).__dict__)


@pytest.mark.parametrize(("off", "within"), [(0.0, 0), (4e-6, 1), (4e-5, None)])
def test_where_bits_may_differ_numbers_have_to_be_close(
    engine: Engine, off: float, within: int | None
) -> None:
    row = predicted(engine)
    values = elsewhere(engine, row.version_id)
    with (
        changed(engine, versions, {"id": row.version_id}, values),
        changed(
            engine, predictions, {"id": row.id}, {"p_up": row.p_up + off, "price": row.price * (1 + off)}
        ),
    ):
        found = replayed(engine)
    assert not found.bits
    if within is None:
        assert [(each.id, each.what) for each in found.different] == [(row.id, "p_up")]
    else:
        assert (found.differing, found.within_tolerance) == (0, within)
        assert found.equal + within + 1 == found.served


def test_an_interpreter_of_another_release_moves_no_bit() -> None:
    here = store.libraries.here()
    assert store.libraries.alike({"libraries": {**here, "python": "3.0"}}, here)
    assert not store.libraries.alike({"libraries": {**here, "blas": "openblas 0.3 Prescott"}}, here)
    assert not store.libraries.alike({}, here)


def test_a_period_in_which_nothing_was_served_is_refused(engine: Engine) -> None:
    later = close(LAST - 1) + HOUR.length
    with pytest.raises(NotFound, match=f"nothing was served for SYNTHETIC 1h from {bars.iso(later)}"):
        replayed(engine, later)
    with pytest.raises(NotFound, match="no market OTHER 1h"):
        store.replays.replay(engine, OTHER, None, None, STALE_AFTER)


def test_with_inputs_that_come_late_it_is_as_equal(database: Engine) -> None:
    inputs = (features.Input("OTHER", "1h", ("return_1",)), features.Input(None, "2h", ("return_1",)))
    predictors: Versions = {}
    store.bars.add(database, MARKET, BARS.head(FIRST), close(FIRST - 1))
    crown(database, packed(FIRST, 0, inputs, window=210), close(FIRST))
    for i in range(FIRST, FIRST + 40):
        now = close(i) + MINUTE
        store.bars.add(database, MARKET, BARS[i : i + 1], now)
        if i == FIRST + 2:
            store.bars.add(database, OTHER, BESIDE.head(FIRST + 2), now)
        if i > FIRST + 2 and not FIRST + 20 <= i < FIRST + 25:
            store.bars.add(database, OTHER, BESIDE[i : i + 1], now)
        ask(database, now, predictors)
        if i == FIRST + 30:  # what had not come comes, and one is corrected
            store.bars.add(database, OTHER, BESIDE[FIRST + 20 : FIRST + 25], now + MINUTE)
            wrong = BESIDE[i - 1 : i].with_columns(close=pl.col("open"))
            store.bars.add(database, OTHER, wrong, now + MINUTE)
    reasons = {row.reason for row in answered(database)}
    assert reasons >= {None, Reason.TOO_FEW_BARS, Reason.STALE_BARS}
    found = replayed(database)
    assert (found.different, found.equal) == ((), 40)


@pytest.mark.parametrize("most", [1, 5, 12])
def test_a_version_that_is_seldom_asked_moves_by_as_many_bars_as_it_did(
    database: Engine, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(store.recalibrations, "MOST_BARS", most)
    predictors: Versions = {}
    store.bars.add(database, MARKET, BARS.head(FIRST), close(FIRST - 1))
    crown(database, packed(FIRST, 0), close(FIRST))
    for i in range(FIRST, FIRST + 50):
        store.bars.add(database, MARKET, BARS[i : i + 1], close(i))
        if i - FIRST in (2, 3, 9, 10, 25, 26, 27, 49):
            ask(database, close(i), predictors)
    found = replayed(database)
    assert (found.different, found.equal, found.served) == ((), 8, 8)
