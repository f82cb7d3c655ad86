"""Exchanges on this machine that speak the wire formats of Binance and Kraken, and misbehave when told to."""

import json
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import polars as pl

from model.bars import Bars

Query = dict[str, str]
Row = list[float]  # open time in ms, open, high, low, close, volume


@dataclass(frozen=True)
class Fault:
    """What comes instead of bars: an answer, or with a status of 0 none within the client's time."""

    status: int = 200
    body: str = ""
    headers: dict[str, str] = field(default_factory=dict)


HANGS = Fault(0)


@dataclass
class Exchange:
    """What the exchange knows, and how it behaves; `now` is its own clock."""

    rows: list[Row]
    now: datetime
    most: int = 1_000  # rows of an answer
    reach: int | None = None  # only so many of the newest bars are given at all
    faults: deque[Fault | None] = field(
        default_factory=deque
    )  # of the next requests for bars; None: a good answer
    edit: Callable[[list[Row]], list[Row]] = list  # of an answer's rows
    asked: list[Query] = field(default_factory=list)  # requests for bars
    paths: list[str] = field(default_factory=list)  # all requests
    url: str = ""
    over: threading.Event = field(default_factory=threading.Event)

    def open_rows(self, since: int) -> list[Row]:
        """The bars that have opened by now from `since` (ms) on, an unfinished one last."""
        now = self.now.timestamp() * 1_000
        known = [row for row in self.rows if row[0] <= now]
        if self.reach is not None:
            known = known[-self.reach :]
        return self.edit([row for row in known if row[0] >= since][: self.most])

    def answer(self, path: str, query: Query) -> Any:
        """The document of a request, in the exchange's own form."""
        raise NotImplementedError

    def options(self) -> dict[str, Any]:
        """What ccxt must be told to come here."""
        raise NotImplementedError


class Binance(Exchange):
    """Arrays of arrays, prices as text, times in milliseconds, the oldest bars from a start on."""

    name, symbol, bars_path = "binance", "BTC/USDT", "/api/v3/klines"

    def options(self) -> dict[str, Any]:
        """One host for all, and the spot market alone."""
        return {
            "urls": {"api": {"public": f"{self.url}/api/v3"}},
            "options": {"fetchMarkets": {"types": ["spot"]}},
        }

    def answer(self, path: str, query: Query) -> Any:
        """exchangeInfo, time and klines."""
        if path == "/api/v3/time":
            return {"serverTime": round(self.now.timestamp() * 1_000)}
        if path == "/api/v3/exchangeInfo":
            traded = {"baseAsset": "BTC", "quoteAsset": "USDT", "status": "TRADING", "filters": []}
            traded |= {"symbol": "BTCUSDT", "isSpotTradingAllowed": True, "permissionSets": [["SPOT"]]}
            return {"timezone": "UTC", "symbols": [traded]}
        rows = self.open_rows(int(query["startTime"]))[: int(query["limit"])]
        return [[int(row[0]), *map(str, row[1:]), int(row[0]) + 1, "0", 1, "0", "0", "0"] for row in rows]


class Kraken(Exchange):
    """An envelope with errors, times in seconds, no limit to ask for, and the unfinished bar always last."""

    name, symbol, bars_path = "kraken", "BTC/USD", "/0/public/OHLC"

    def options(self) -> dict[str, Any]:
        """One host for all."""
        return {"urls": {"api": {"public": self.url}}}

    def answer(self, path: str, query: Query) -> Any:
        """Assets, AssetPairs, Time and OHLC."""
        if path == "/0/public/Time":
            result: Any = {"unixtime": int(self.now.timestamp())}
        elif path == "/0/public/Assets":
            result = {
                name: {"aclass": "currency", "altname": short, "decimals": 8, "status": "enabled"}
                for name, short in (("XXBT", "XBT"), ("ZUSD", "USD"))
            }
        elif path == "/0/public/AssetPairs":
            pair = {"altname": "XBTUSD", "wsname": "XBT/USD", "base": "XXBT", "quote": "ZUSD"}
            pair |= {"pair_decimals": 1, "lot_decimals": 8, "status": "online"}  # type: ignore[dict-item]
            result = {"XXBTZUSD": pair}
        else:
            rows = [
                [int(row[0]) // 1_000, *map(str, row[1:5]), "0", str(row[5]), 1]
                for row in self.open_rows(int(query["since"]) * 1_000)
            ]
            result = {"XXBTZUSD": rows, "last": 0}
        return {"error": [], "result": result}


def rows(bars: Bars) -> list[Row]:
    """Bars as an exchange has them."""
    return [list(row) for row in bars.with_columns(pl.col("ts").dt.epoch("ms")).rows()]


@contextmanager
def serving(exchange: Exchange) -> Iterator[Exchange]:
    """The exchange at a port of this machine, while the block runs."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            exchange.paths.append(parts.path)
            fault = None
            if parts.path == exchange.bars_path:
                exchange.asked.append(query)
                fault = exchange.faults.popleft() if exchange.faults else None
            if fault is HANGS:
                exchange.over.wait(60)
                return
            fault = fault or Fault(body=json.dumps(exchange.answer(parts.path, query)))
            content = fault.body.encode()
            self.send_response_only(fault.status)  # without a date, which may be the fault's
            headers = {"Content-Type": "application/json", "Content-Length": str(len(content))}
            for name, value in {**headers, **fault.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            pass  # a client that went away in the midst of an answer

    server = Server(("127.0.0.1", 0), Handler)
    exchange.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield exchange
    finally:
        exchange.over.set()
        server.shutdown()
        server.server_close()
        thread.join()


class Time:
    """A clock that stands until somebody sleeps."""

    def __init__(self, now: datetime) -> None:
        self.now, self.slept = now, list[float]()

    def clock(self) -> datetime:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += timedelta(seconds=seconds)


NOW = datetime(2024, 3, 1, 0, 30, tzinfo=UTC)
