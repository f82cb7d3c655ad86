"""The client that is awaited: `Client` for asyncio, the same calls and the same requests."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import aclosing
from datetime import datetime
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from barprop_client import asking, wire
from barprop_client.asking import Ask
from barprop_client.following import Following
from barprop_client.reading import Page
from barprop_client.retrying import Attempts, Retries
from barprop_client.values import (
    Bar,
    Entry,
    Ingested,
    Job,
    Market,
    MarketState,
    Readiness,
    Refused,
    Signal,
    Version,
)

T = TypeVar("T")
Cursor = int | str | None


class AsyncClient:
    """Asks the Barprop service at `url`.

    The key is `api_key`, else that of the environment variable BARPROP_API_KEY. `timeout_seconds` holds for one
    attempt, `retries` for a call as a whole. Raises the errors of `barprop_client.errors`.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        api_key: str | None = None,
        *,
        timeout_seconds: float = 10.0,
        retries: Retries = Retries(),
    ) -> None:
        self._url = wire.base(url)
        self._timeout = timeout_seconds
        self._retries = retries
        self._kept: wire.Kept = {}
        self._http = httpx.AsyncClient(base_url=self._url, headers=wire.headers(api_key))

    def __repr__(self) -> str:
        return f"AsyncClient({self._url!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def predict(
        self,
        symbol: str,
        timeframe: str,
        *,
        at: datetime | None = None,
        version: int | None = None,
        bars: Iterable[Bar] | None = None,
    ) -> Signal:
        """The market's Signal for its newest closed bar.

        With `at` it is of the bars that had closed by then, with `version` that version's, with `bars` of these bars,
        which the service does not keep. Such answers do not enter the ledger.
        """
        return await self._ask(asking.predict(symbol, timeframe, at, version, bars))

    async def predict_batch(self, markets: Iterable[Market | tuple[str, str]]) -> list[Signal | Refused]:
        """The Signals of many markets in one call, in their order; what cannot be answered is Refused with its problem."""
        return await self._ask(asking.predict_batch(markets))

    async def signal(self, symbol: str, timeframe: str) -> Signal:
        """The market's Signal; where it is still the one that this client got last, it is not sent again."""
        market = (symbol, timeframe)
        etag, _ = self._kept.get(market, (None, None))
        ask = asking.signal(symbol, timeframe, etag)
        response = await self._send(ask)
        return wire.keep(self._kept, market, response, wire.answer(ask, response))

    async def signals(
        self, symbol: str | None = None, timeframe: str | None = None, *, after: int | None = None
    ) -> AsyncIterator[Entry]:
        """Signals as they are made, of one market or of all, for as long as one reads; a lost connection is opened again.

        None is lost in between. With `after`, the id of an Entry, those that came since are given first.
        """
        following = Following(self._url, self._retries, symbol, timeframe, after)
        while True:
            request = self._request(following.ask(), following.timeout(self._timeout))
            try:
                response = await self._http.send(request, stream=True)
                async with aclosing(response):
                    if following.open(response):
                        async for chunk in response.aiter_bytes():
                            for entry in following.feed(chunk):
                                yield entry
                    else:
                        await response.aread()
                broken: wire.Result = response
            except httpx.RequestError as error:
                broken = error
            await asyncio.sleep(following.pause(broken))

    async def push_bars(self, symbol: str, timeframe: str, bars: Iterable[Bar]) -> Ingested:
        """Keeps closed bars, in any order; a first push makes the market, pushing the same again changes nothing."""
        return await self._ask(asking.push_bars(symbol, timeframe, bars))

    def bars(self, symbol: str, timeframe: str) -> AsyncIterator[Bar]:
        """The stored bars, newest first, fetched in pages as one reads on."""
        return self._pages(lambda cursor: asking.bars(symbol, timeframe, cursor))

    async def markets(self) -> list[MarketState]:
        """Every market."""
        return list((await self._ask(asking.markets())).items)

    def versions(self, symbol: str | None = None, timeframe: str | None = None) -> AsyncIterator[Version]:
        """Versions of one market or of all, newest first, fetched in pages."""
        return self._pages(lambda cursor: asking.versions(symbol, timeframe, cursor))

    def predictions(self, symbol: str | None = None, timeframe: str | None = None) -> AsyncIterator[Entry]:
        """The ledger of one market or of all, newest first, fetched in pages."""
        return self._pages(lambda cursor: asking.predictions(symbol, timeframe, cursor))

    async def retrain(
        self,
        symbol: str,
        timeframe: str,
        *,
        window: int | None = None,
        seed: int | None = None,
        warm: bool | None = None,
    ) -> Job:
        """Asks for a training."""
        return await self._work("/v1/retrains", symbol, timeframe, window=window, seed=seed, warm=warm)

    async def backtest(
        self,
        symbol: str,
        timeframe: str,
        *,
        window: int | None = None,
        refit_every: int | None = None,
        first: int | None = None,
        last: int | None = None,
        expanding: bool | None = None,
        by_need: bool | None = None,
        warm: bool | None = None,
        members: int | None = None,
        horizon: int | None = None,
        policy: str | None = None,
    ) -> Job:
        """Asks for a walk-forward backtest; once it succeeded, the job's `result` names it."""
        options = {"window": window, "refit_every": refit_every, "first": first, "last": last}
        switches = {"expanding": expanding, "by_need": by_need, "warm": warm}
        model = {"members": members, "horizon": horizon, "policy": policy}
        return await self._work("/v1/backtests", symbol, timeframe, **options, **switches, **model)

    async def tune(
        self,
        symbol: str,
        timeframe: str,
        *,
        trials: int | None = None,
        only: list[str] | None = None,
        judge: float | None = None,
        timeout: float | None = None,
        last: int | None = None,
        refit_every: int | None = None,
        seed: int | None = None,
    ) -> Job:
        """Asks for a search for better settings; it changes none."""
        options = {"trials": trials, "only": only, "judge": judge, "timeout": timeout}
        span = {"last": last, "refit_every": refit_every, "seed": seed}
        return await self._work("/v1/tunes", symbol, timeframe, **options, **span)

    async def backfill(
        self, symbol: str, timeframe: str, *, since: datetime, until: datetime | None = None
    ) -> Job:
        """Asks for a market's past from its exchange."""
        return await self._ask(asking.backfill(symbol, timeframe, since, until))

    async def job(self, job_id: int) -> Job:
        """A job as it is now."""
        return await self._ask(asking.job(job_id))

    async def wait(self, job: Job, *, seconds: float | None = None, every_seconds: float = 1.0) -> Job:
        """The job once it has ended, however it did. Raises TimeoutError where that takes longer than `seconds`."""
        began = time.monotonic()
        while not (job := await self.job(job.id)).ended:
            if seconds is not None and time.monotonic() - began >= seconds:
                raise TimeoutError(f"job {job.id} is still {job.state} after {seconds:g} s")
            await asyncio.sleep(every_seconds)
        return job

    async def cancel(self, job: Job) -> Job:
        """Cancels a job: a queued one at once, a running one soon; an ended one stays as it is."""
        return await self._ask(asking.cancel(job.id))

    async def readiness(self) -> Readiness:
        """Whether the service can answer, with every doubt."""
        return await self._ask(asking.readiness())

    async def _work(self, path: str, symbol: str, timeframe: str, **options: Any) -> Job:
        return await self._ask(asking.work(path, symbol, timeframe, options))

    async def _pages(self, ask: Callable[[Cursor], Ask[Page[T]]]) -> AsyncIterator[T]:
        page = await self._ask(ask(None))
        for item in page.items:
            yield item
        while page.next is not None:
            page = await self._ask(ask(page.next))
            for item in page.items:
                yield item

    async def _ask(self, ask: Ask[T]) -> T:
        return wire.answer(ask, await self._send(ask))

    async def _send(self, ask: Ask[T]) -> httpx.Response:
        attempts = Attempts(self._retries)
        result = await self._attempt(ask, attempts)
        while (wait := wire.delay(ask, attempts, result)) is not None:
            await asyncio.sleep(wait)
            result = await self._attempt(ask, attempts)
        return wire.response(result, self._url)

    async def _attempt(self, ask: Ask[T], attempts: Attempts) -> wire.Result:
        try:
            return await self._http.send(self._request(ask, httpx.Timeout(attempts.within(self._timeout))))
        except httpx.RequestError as error:
            return error

    def _request(self, ask: Ask[T], timeout: httpx.Timeout) -> httpx.Request:
        return self._http.build_request(
            ask.method, ask.path, params=ask.query, json=ask.body, headers=ask.headers, timeout=timeout
        )
