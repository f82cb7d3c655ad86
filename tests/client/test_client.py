"""The client against the real service: every call that has a route, its values and its problems."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from barprop_client import Abstention, Bar, Client, Market, Prediction, Problem
from fastapi import FastAPI

import store.jobs
import store.keys
from store.database import Engine, read, write
from store.settings import Settings
from tests.client import clients
from tests.service.conftest import BARS, CLOSE, walk

ETH = ("ETHUSDT", "1h")


def bars(count: int, close: datetime = CLOSE) -> list[Bar]:
    return [Bar(**row) for row in walk(count, close).iter_rows(named=True)]


def test_a_prediction_is_a_value(client: Any, champion: int) -> None:
    signal = client.predict(*ETH)
    assert isinstance(signal, Prediction)
    assert (signal.market, signal.as_of, signal.version) == (Market(*ETH), CLOSE, champion)
    assert signal.interval[0] < signal.price < signal.interval[1]
    assert client.predict(*ETH) == signal
    assert hash(signal)


def test_an_abstention_is_told_apart_by_type(client: Any, market_id: int) -> None:
    signal = client.predict(*ETH)
    assert isinstance(signal, Abstention)
    assert signal.reason == "no_model"


def test_of_a_moment_and_by_a_version(client: Any, champion: int) -> None:
    signal = client.predict(*ETH, at=CLOSE - timedelta(hours=30), version=champion)
    assert (signal.as_of, signal.version, signal.in_sample) == (CLOSE - timedelta(hours=30), champion, True)


def test_bars_are_pushed_once_and_read_back_newest_first_over_pages(client: Any) -> None:
    pushed = bars(BARS)
    first, again = (client.push_bars(*ETH, pushed) for _ in range(2))
    assert (first.added, first.repeated, again.added, again.repeated) == (BARS, 0, 0, BARS)
    assert (first.first, first.last) == (pushed[0].ts, pushed[-1].ts)
    assert list(client.bars(*ETH)) == pushed[::-1]


def test_rejected_bars_are_counted(client: Any) -> None:
    good, bad = bars(2)
    ingested = client.push_bars(*ETH, [good, Bar(bad.ts, 1.0, 0.5, 2.0, 1.0, 1.0)])
    assert ingested.added == 1
    (rejected,) = ingested.rejected
    assert (rejected.rows, rejected.first) == (1, bad.ts)


def test_markets_versions_and_the_ledger(client: Any, champion: int) -> None:
    signal = client.predict(*ETH)
    (market,) = client.markets()
    assert (market.market, market.bars, market.champion, market.last_close) == (
        Market(*ETH),
        BARS,
        champion,
        CLOSE,
    )
    (version,) = client.versions(*ETH)
    assert (version.id, version.role) == (champion, "champion")
    assert timedelta(0) <= CLOSE - version.seen_until < timedelta(days=1)
    (entry,) = client.predictions(*ETH)
    assert entry.signal == signal
    assert entry.outcome is None
    assert entry.served_at == CLOSE + timedelta(minutes=20)


def test_a_job_is_asked_for_watched_and_cancelled(client: Any, market_id: int) -> None:
    job = client.retrain(*ETH, seed=3)
    assert (job.kind, job.market, job.state, job.ended) == ("retrain", Market(*ETH), "queued", False)
    assert client.job(job.id) == job
    with pytest.raises(TimeoutError, match=f"job {job.id} is still queued"):
        client.wait(job, seconds=0.05, every_seconds=0.01)
    assert client.cancel(job).state == "cancelled"
    assert client.cancel(job).state == "cancelled"
    assert client.wait(job).state == "cancelled"


def test_a_backtest_is_asked_for(client: Any, market_id: int, engine: Engine) -> None:
    job = client.backtest(*ETH, window=500, refit_every=100)
    with read(engine) as conn:
        assert store.jobs.get(conn, job.id).params == {"window": 500, "refit_every": 100}


def test_a_refusal_is_a_problem_with_its_type_and_the_id_of_the_log(client: Any, market_id: int) -> None:
    with pytest.raises(Problem) as caught:
        client.predict("NOSUCH", "1h")
    problem = caught.value
    assert (problem.type, problem.status) == ("/problems/not-found", 404)
    assert "NOSUCH" in problem.detail
    assert problem.request_id
    assert problem.request_id in str(problem)


def test_a_refusal_names_the_field(client: Any, market_id: int) -> None:
    with pytest.raises(Problem) as caught:
        client.retrain(*ETH, window=5)
    assert [error.field for error in caught.value.errors] == ["window"]


def test_readiness_is_an_answer_even_where_the_service_is_not_ready(client: Any, app: FastAPI) -> None:
    assert client.readiness().status in ("ok", "degraded")
    app.state.stopping = True
    unready = client.readiness()
    assert unready.status == "unready"
    assert unready.reasons[0].reason == "stopping"


@pytest.fixture
def key(engine: Engine, settings: Settings) -> str:
    """A key that may read and predict."""
    with write(engine) as conn:
        return store.keys.create(conn, "bot", ("read", "predict"), datetime.now(UTC))[1]


class TestWithKeys:
    """Where the service asks for keys."""

    @pytest.fixture
    def settings(self, engine: Engine) -> Settings:
        """Keys are needed on loopback too."""
        return store.settings.load(database={"url": str(engine.url)}, service={"require_keys": True})

    def test_the_key_is_the_argument_or_the_environments_and_is_never_shown(
        self, kind: str, address: str, key: str, champion: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("BARPROP_API_KEY", key)
        for given, right in (
            (None, True),
            (key, True),
            (f"{key}\n", True),
            ("bp_wrong_wrong", False),
            ("", False),
        ):
            client = clients.made(kind, address, given)
            assert key not in repr(client)
            if right:
                assert isinstance(client.predict(*ETH), Prediction)
                with pytest.raises(Problem, match="403") as caught:
                    client.retrain(*ETH)
            else:
                with pytest.raises(Problem, match="401") as caught:
                    client.predict(*ETH)
            chain: list[BaseException | None] = [
                caught.value,
                caught.value.__cause__,
                caught.value.__context__,
            ]
            assert not any(
                secret in f"{error!r} {error}" for error in chain for secret in (key, "bp_wrong_wrong")
            )
            client.close()


@pytest.mark.parametrize("key", ["bp_a b", "bp_ä", "bp_a\nHost: x"])
def test_a_key_that_no_header_holds_is_refused_without_showing_it(kind: str, key: str) -> None:
    with pytest.raises(ValueError, match="API key") as caught:
        clients.made(kind, "http://127.0.0.1:1", key)
    assert key not in str(caught.value)


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://host", "http://", "http://me:secret@host"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="address") as caught:
        Client(url)
    assert "secret" not in str(caught.value)


def test_a_time_without_a_zone_and_a_price_that_is_none_are_refused_before_they_are_sent(client: Any) -> None:
    with pytest.raises(ValueError, match="no zone"):
        client.predict(*ETH, at=datetime(2024, 7, 1))  # noqa: DTZ001
    with pytest.raises(ValueError, match="no number as its high"):
        client.push_bars(*ETH, [Bar(CLOSE, 1.0, float("nan"), 1.0, 1.0, 1.0)])


def test_the_two_clients_offer_the_same() -> None:
    names = [
        {name: list(vars(each)[name].__annotations__) for name in vars(each) if not name.startswith("_")}
        for each in (clients.Client, clients.AsyncClient)
    ]
    assert names[0] == names[1]
    assert len(names[0]) >= 18
