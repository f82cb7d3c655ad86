"""What is asked of the service, how often, and what came of it. Add a kind of request by adding a row to `kinds`."""

import itertools
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import httpx

from benchmarks.soaking.feed import Feed, body

PATIENCE_SECONDS = 30.0  # for one answer
IN_BODY = 768  # bars
PROMOTIONS_SECONDS = RETRAINS_SECONDS = 60.0
LEDGER_PAGES = 20  # and then from the newest again
MOST_TOLD = 5  # failures of a kind

Ask = Callable[[httpx.Client], httpx.Response]


@dataclass(frozen=True)
class Kind:
    """A request, and the seconds from one to the next of it."""

    ask: Ask
    every_seconds: float


@dataclass
class Kept:
    """How long each request of a kind took, and what went wrong."""

    seconds: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


def kinds(minutes: Feed, seconds: Feed, versions: list[int]) -> dict[str, Kind]:
    """Everything that is asked at once: of a market by the minute, whose champion alternates between the versions, and
    of one by the second."""
    by_minute, by_second = minutes.market, seconds.market
    in_body = body(by_minute, Feed(by_minute, 3).closed().tail(IN_BODY))
    turns = itertools.cycle(versions)
    place = "/".join((by_second.symbol, by_second.timeframe))
    return {
        "predict": Kind(_post("/v1/predict", body(by_minute)), 0.03),
        "predict, by the second": Kind(_post("/v1/predict", body(by_second)), 0.1),
        "predict, a pinned version": Kind(
            _post("/v1/predict", body(by_minute) | {"version": versions[0]}), 0.5
        ),
        "predict, bars in the body": Kind(_post("/v1/predict", in_body), 0.5),
        "batch": Kind(_post("/v1/predict/batch", {"markets": [body(by_minute), body(by_second)] * 10}), 0.2),
        "newest Signal": Kind(_get(f"/v1/signals/{place}"), 0.1),
        "push bars, by the minute": Kind(_push(minutes), 0.0),
        "push bars, by the second": Kind(_push(seconds), 0.0),
        "ledger": Kind(_pages("/v1/predictions"), 0.5),
        "bars": Kind(_get("/v1/bars", body(by_second)), 1.0),
        "markets": Kind(_get("/v1/markets"), 1.0),
        "versions": Kind(_get("/v1/versions"), 1.0),
        "jobs": Kind(_get("/v1/jobs"), 1.0),
        "audit": Kind(_get("/v1/audit"), 2.0),
        "readyz": Kind(_get("/readyz"), 2.0),
        "metrics": Kind(_get("/metrics"), 5.0),
        "retrain": Kind(_post("/v1/retrains", body(by_minute)), RETRAINS_SECONDS),
        "promote": Kind(
            lambda client: client.post(f"/v1/versions/{next(turns)}/promote"), PROMOTIONS_SECONDS
        ),
    }


def keep_asking(url: str, kind: Kind, kept: Kept, over: threading.Event) -> None:
    """Asks until it is over; an error and any status that is none of success are failures."""
    with httpx.Client(base_url=url, timeout=PATIENCE_SECONDS) as client:
        while not over.is_set():
            began = time.perf_counter()
            try:
                response = kind.ask(client)
            except httpx.HTTPError as error:
                kept.failures.append(repr(error))
            else:
                kept.seconds.append(response.elapsed.total_seconds())
                if response.status_code >= 400:
                    kept.failures.append(f"{response.status_code} {response.text[:300]}")
            over.wait(max(kind.every_seconds - (time.perf_counter() - began), 0.0))


def _post(path: str, document: Mapping[str, object]) -> Ask:
    return lambda client: client.post(path, json=document)


def _get(path: str, query: Mapping[str, str] | None = None) -> Ask:
    return lambda client: client.get(path, params=query)


def _push(feed: Feed) -> Ask:
    def push(client: httpx.Client) -> httpx.Response:
        time.sleep(feed.wait_seconds())
        return client.post("/v1/bars", json=body(feed.market, feed.closed()))

    return push


def _pages(path: str) -> Ask:
    cursor: int | None = None
    pages = itertools.cycle(range(LEDGER_PAGES))

    def page(client: httpx.Client) -> httpx.Response:
        nonlocal cursor
        cursor = cursor if next(pages) else None
        response = client.get(path, params={"limit": 200} | ({} if cursor is None else {"cursor": cursor}))
        cursor = response.json().get("next") if response.is_success else None
        return response

    return page
