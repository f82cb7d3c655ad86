"""Prometheus figures, all named barprop_*. Add a figure of the domain by adding a row to GAUGES.

Requests are counted where they are answered. What the domain has to say is read from the database at scrape, so that
it is the same whoever is asked and whatever process did the work, and it is kept for 5 s. Where several processes
answer at one address, each counts into files of a folder that PROMETHEUS_MULTIPROC_DIR names (it must be set before
the library is loaded), and whoever is asked adds them up.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client import Gauge as ProcessGauge
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from model.errors import Unreachable
from model.health import VERDICTS
from service.deps import Clock, machine_now
from service.overview import MarketState, Overview, View

SHARED_FOLDER = "PROMETHEUS_MULTIPROC_DIR"

METHODS = frozenset({"GET", "HEAD", "POST", "DELETE", "PUT", "PATCH", "OPTIONS"})
BUCKETS_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True)
class Gauge:
    """A figure of each market: its help, and its value now in seconds since 1970 (None: nothing to say)."""

    about: str
    value: Callable[[MarketState, float], float | None]


GAUGES: dict[str, Gauge] = {
    "barprop_bars_stored": Gauge("Bars that are stored, each counted once.", lambda s, now: s.bars),
    "barprop_last_bar_age_seconds": Gauge(
        "Time since the newest stored bar closed.",
        lambda s, now: None if s.last_close is None else now - s.last_close.timestamp(),
    ),
    "barprop_market_paused": Gauge("1 where the market is paused, else 0.", lambda s, now: s.paused),
    "barprop_champion_version": Gauge("The version that answers.", lambda s, now: s.champion),
    "barprop_champion_age_seconds": Gauge(
        "Time since the champion became effective.",
        lambda s, now: None if s.champion_since is None else max(0.0, now - s.champion_since.timestamp()),
    ),
    "barprop_live_log_loss": Gauge(
        "Mean log loss (nats) of the champion's scored predictions.",
        lambda s, now: s.live.log_loss if s.live else None,
    ),
    "barprop_live_base_rate_log_loss": Gauge(
        "Mean log loss (nats) of the base rate on the same predictions.",
        lambda s, now: s.live.base_log_loss if s.live else None,
    ),
    "barprop_live_scored_predictions": Gauge(
        "The champion's predictions that have been scored.", lambda s, now: s.live.rows if s.live else None
    ),
    "barprop_unscored_predictions": Gauge(
        "Predictions whose outcome is stored but which are not scored yet.", lambda s, now: s.unscored.rows
    ),
    "barprop_backtest_skill": Gauge(
        "Verdict of the last backtest: 1 skill, -1 no skill, 0 too little evidence either way.",
        lambda s, now: None if s.last_backtest is None else SKILL[s.last_backtest["verdict"]["skill"]],
    ),
}
SKILL: dict[bool | None, int] = {True: 1, False: -1, None: 0}


class HttpMetrics:
    """Requests by method, route and status, and how long they took."""

    def __init__(self, registry: CollectorRegistry) -> None:
        own = counted_in(registry)
        self._requests = Counter(
            "barprop_http_requests", "Requests answered.", ["method", "route", "status"], registry=own
        )
        self._durations = Histogram(
            "barprop_http_request_duration_seconds",
            "Time from a request to the end of its answer.",
            ["method", "route"],
            buckets=BUCKETS_SECONDS,
            registry=own,
        )
        # looking a series up by its labels would take longer than counting
        self._series: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """Counts one request; `route` is its template, so that ids do not become series. Status 0: no answer."""
        try:
            requests, durations = self._series[method, route, status]
        except KeyError:
            requests, durations = self._labelled(method, route, status)
        requests.inc()
        durations.observe(seconds)

    def _labelled(self, method: str, route: str, status: int) -> tuple[Counter, Histogram]:
        known = method if method in METHODS else "other"
        series = self._requests.labels(known, route, str(status)), self._durations.labels(known, route)
        if known == method:  # any other is made up by a client, and there is no end to them
            self._series[method, route, status] = series
        return series


class StreamMetrics:
    """Streams that are open, and the events that were sent over them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        own = counted_in(registry)
        self.open = ProcessGauge(
            "barprop_streams_open", "Streams that are open.", registry=own, multiprocess_mode="livesum"
        )
        self.events = Counter(
            "barprop_stream_events", "Events sent over streams, once for each that got it.", registry=own
        )


class JournalMetrics:
    """Rows of the ledger that wait in the journal, and those of it that the ledger refused."""

    def __init__(self, registry: CollectorRegistry) -> None:
        own = counted_in(registry)
        self._waiting = ProcessGauge(
            "barprop_journal_rows_waiting",
            "Rows of the ledger that wait in the journal for the database.",
            registry=own,
            multiprocess_mode="livesum",
        )
        self._refused = Counter(
            "barprop_journal_rows_refused",
            "Rows of the journal that the ledger refused, which were set aside in a file.",
            registry=own,
        )

    def note(self, waiting: int, refused: int) -> None:
        """So many wait now, and so many more were refused."""
        self._waiting.set(waiting)
        self._refused.inc(refused)


def counted_in(registry: CollectorRegistry) -> CollectorRegistry | None:
    """The registry that a figure counted by this process belongs to; None where it is added up over processes."""
    return None if SHARED_FOLDER in os.environ else registry


def add_up(registry: CollectorRegistry) -> None:
    """Lets a registry tell what all processes counted, where several do."""
    if SHARED_FOLDER in os.environ:
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]


class DomainCollector(Collector):
    """The domain's figures of the newest view, which is kept for 5 s."""

    def __init__(self, overview: Overview, clock: Clock) -> None:
        self._overview = overview
        self._clock = clock

    def describe(self) -> Iterable[Metric]:
        """Nothing, so that registering asks no database."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The figures; where the database does not answer they are empty and barprop_database_reachable is 0."""
        reachable = GaugeMetricFamily("barprop_database_reachable", "1 where the database answers, else 0.")
        try:
            view, now = self._overview.view(), self._clock().timestamp()
        except Unreachable:
            view, now = View([], {}, False, None, {}), 0.0
            reachable.add_metric([], 0)
        else:
            reachable.add_metric([], 1)
        yield reachable
        for name, gauge in GAUGES.items():
            yield _family(name, gauge, view.markets, now)
        yield _health(view.markets)
        yield _jobs(view.jobs)
        yield _retrain_age(view.markets)


def _family(name: str, gauge: Gauge, states: list[MarketState], now: float) -> Metric:
    family = GaugeMetricFamily(name, gauge.about, labels=["symbol", "timeframe"])
    for state in states:
        value = gauge.value(state, now)
        if value is not None:
            family.add_metric([state.market.symbol, state.market.timeframe], float(value))
    return family


def _health(states: list[MarketState]) -> Metric:
    family = GaugeMetricFamily(
        "barprop_gradient_health",
        "1 for the verdict on the gradients of the last training, 0 for the others.",
        labels=["symbol", "timeframe", "verdict"],
    )
    for state in states:
        if state.last_run is not None:
            for verdict in VERDICTS:
                labels = [state.market.symbol, state.market.timeframe, verdict]
                family.add_metric(labels, verdict == state.last_run.verdict)
    return family


def _jobs(counts: dict[tuple[str, str], int]) -> Metric:
    family = GaugeMetricFamily("barprop_jobs", "Jobs by kind and state.", labels=["kind", "state"])
    for (kind, state), rows in sorted(counts.items()):
        family.add_metric([kind, state], rows)
    return family


def _retrain_age(states: list[MarketState]) -> Metric:
    family = GaugeMetricFamily(
        "barprop_last_retrain_age_seconds",
        "Time since the last retrain ended, by the machine's clock.",
        labels=["symbol", "timeframe", "state"],
    )
    for state in states:
        job = state.last_retrain
        if job is not None and job.ended_at is not None:
            labels = [state.market.symbol, state.market.timeframe, job.state]
            family.add_metric(labels, (machine_now() - job.ended_at).total_seconds())
    return family


router = APIRouter(tags=["operations"])


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
def metrics(request: Request) -> Response:
    """Everything that Prometheus may know."""
    return Response(
        generate_latest(request.app.state.registry), headers={"content-type": CONTENT_TYPE_PLAIN_0_0_4}
    )
