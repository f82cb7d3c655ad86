"""The service under load, beside a bare FastAPI endpoint and servers of models: `python -m benchmarks.serve [--quick]
[--json] [--mlserver PYTHON] [--bentoml PYTHON]`.

Whoever answers has one core and one thread, whoever asks another core and a process of its own; a PostgreSQL and the
trainings of "a retrain beside" run on that other core too, the trainings at the lowest priority, and the peer beside them
is measured under the same ones. All servers run at once, and take turns at being asked; figures are medians over the turns. The peer of
predict is an endpoint that reads nothing and answers a constant, in the service's own layers or naked. MLServer and
BentoML answer where they are installed: PYTHON is that of an environment with one of them and onnxruntime.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import store.database
from benchmarks import report
from benchmarks.report import Row
from benchmarks.serving import cores, data, load, pushing, running, servers
from benchmarks.serving.load import Answered
from benchmarks.sides import turns
from store.database import Engine

# What is asked of it, as issue and design have it; shares are of the peer's.
LEAST_SHARE, MOST_P99_SHARE = 0.75, 1.5
LEAST_WITH_BARS, MOST_WITH_BARS_MS = 120.0, 10.0
MOST_PUSHED_MS, MOST_BATCH_MS, MOST_START_SECONDS, MOST_MIB = 15.0, 25.0, 5.0, 400.0
MOST_BUSY = 0.9  # of its core, for the process that asks: above it, it might be what is measured

CONNECTIONS = 16
IN_BODY = 768  # bars
PUSHED = "PUSHED"
RETRAINED, RETRAINED_BARS = "RETRAINED", 12_000
UNHEARD = 1e9  # requests a second of a key: counted, and never refused
SETTLED_SECONDS = 4.0  # until a training is well under way
OURS, LAYERS, NAKED = "ours", "bare FastAPI, same layers", "bare FastAPI, naked"


@dataclass(frozen=True)
class Effort:
    """How much is measured."""

    markets: int
    rounds: int
    seconds: float  # of a turn
    pushes: int


FULL, QUICK = Effort(500, 7, 3.0, 200), Effort(100, 2, 0.4, 20)
Sides = Mapping[str, tuple[int, Sequence[bytes]]]  # by name: the port, and what is asked there


@dataclass(frozen=True)
class Place:
    """Where everything runs."""

    folder: Path
    url: str
    engine: Engine
    answers: int | None  # cores
    asks: int | None

    def environment(self, **service: object) -> dict[str, str]:
        """That of a process beside this database."""
        return running.environment(self.url, self.folder, **service)


@contextmanager
def place(markets: int) -> Iterator[Place]:
    """A database with so many markets."""
    answers, asks = cores.two() or (None, None)
    with tempfile.TemporaryDirectory(prefix="barprop-") as name:
        folder = Path(name)
        url = f"sqlite:///{folder / 'barprop.db'}"
        engine = store.database.connect(url)
        store.database.upgrade(engine)
        data.fill(engine, data.names(markets), data.newest(data.BARS, data.full_hour()))
        data.fill(engine, [RETRAINED], data.newest(RETRAINED_BARS, data.full_hour()))
        yield Place(folder, url, engine, answers, asks)
        engine.dispose()


def take_turns(
    sides: Sides, effort: Effort, core: int | None, connections: int = CONNECTIONS
) -> dict[str, Answered]:
    """Medians of what each side does when it is asked alone."""
    found: dict[str, list[Answered]] = {name: [] for name in sides}
    for _ in range(effort.rounds):
        for name, (port, requests) in sides.items():
            found[name].append(load.answered(port, requests, connections, effort.seconds, core))
    return {name: _median(each) for name, each in found.items()}


def _median(found: Sequence[Answered]) -> Answered:
    return Answered(
        **{
            name: statistics.median(getattr(each, name) for each in found)
            for name in Answered.__dataclass_fields__
        }
    )


def beside(case: str, found: Mapping[str, Answered]) -> list[Row]:
    """Rows of requests a second and of the slowest hundredth, each beside every peer; goals are set by the layered one."""
    ours, rows = found[OURS], []
    for peer, theirs in found.items():
        if peer == OURS:
            continue
        share, p99_share = (LEAST_SHARE, MOST_P99_SHARE) if peer == LAYERS else (None, None)
        rows += [
            Row(
                case, 1, ours.per_second, "req/s", peer, theirs.per_second,
                lower_is_better=False, limit_of_peer=share,
            ),
            Row(f"{case}: p99", 1, ours.p99_ms, "ms", peer, theirs.p99_ms, limit_of_peer=p99_share),
        ]  # fmt: skip
    return rows


def ask(symbol: str) -> dict[str, str]:
    """The question for a stored market's Signal."""
    return {"symbol": symbol, "timeframe": data.TIMEFRAME}


def predicts(at: Place, port: int, effort: Effort) -> list[Row]:
    """A stored market's Signal beside constants; and bars in the body."""
    several = data.names(CONNECTIONS)
    plain = [load.request("/v1/predict", ask(symbol)) for symbol in several]
    bare, layered = running.BARE, (*running.BARE, "--layers")
    key = data.key(at.engine)
    named = [load.request("/v1/predict", ask(symbol), key) for symbol in several]
    guarded = at.environment(require_keys=True, requests_per_second=UNHEARD)
    with ExitStack() as stack:

        def start(command: Sequence[str], env: Mapping[str, str]) -> int:
            return stack.enter_context(running.answering(command, env, at.answers)).port

        ports = {OURS: port, LAYERS: start(layered, at.environment()), NAKED: start(bare, at.environment())}
        found = take_turns({name: (each, plain) for name, each in ports.items()}, effort, at.asks)
        rows = beside("predict, stored market", found)
        rows.append(
            Row(
                "the asking process: share of its core",
                1,
                max(f.busy for f in found.values()),
                "",
                limit=MOST_BUSY,
            )
        )
        with_keys = {OURS: start(running.SERVE, guarded), LAYERS: start(layered, guarded)}
        found = take_turns({name: (each, named) for name, each in with_keys.items()}, effort, at.asks)
        rows += beside("predict, stored market, keys required", found)
        with running.training(RETRAINED, data.TIMEFRAME, at.environment(), at.asks):
            time.sleep(SETTLED_SECONDS)
            found = take_turns({name: (ports[name], plain) for name in (OURS, LAYERS)}, effort, at.asks)
        rows += beside("predict, stored market, a retrain beside", found)
    return rows


def with_bars(at: Place, port: int, effort: Effort) -> list[Row]:
    """The Signal of bars in the body."""
    bars = data.wire(data.newest(IN_BODY, data.full_hour()))
    asked = [load.request("/v1/predict", {**ask(data.names(1)[0]), "bars": bars})]
    many = take_turns({OURS: (port, asked)}, effort, at.asks, 4)[OURS]
    one = take_turns({OURS: (port, asked)}, effort, at.asks, 1)[OURS]
    case = f"predict, {IN_BODY} bars in the body"
    return [
        Row(
            f"{case}, 4 connections",
            1,
            many.per_second,
            "req/s",
            lower_is_better=False,
            limit=LEAST_WITH_BARS,
        ),
        Row(f"{case}, 1 connection: p50", 1, one.p50_ms, "ms", limit=MOST_WITH_BARS_MS),
    ]


def starts(at: Place, began: float, server: running.Running, effort: Effort) -> list[Row]:
    """From the start of the process until all markets were answered together, and what that takes then."""
    running.ready(server.port)
    ready = time.perf_counter() - began
    asked = [
        load.request("/v1/predict/batch", {"markets": [ask(each) for each in data.names(effort.markets)]})
    ]
    connection = load.Connection(server.port, asked)
    connection.ask()
    while not connection.whole():
        pass
    first = time.perf_counter() - connection.began
    connection.socket.close()
    rows = [
        Row(f"start until ready, {effort.markets} markets", 1, ready, "s", limit=MOST_START_SECONDS),
        Row(f"first batch of {effort.markets} markets, into the ledger", 1, first, "s"),
    ]
    memory = cores.peak_mib(server.pid)
    if memory is not None:
        rows.append(Row(f"peak memory, {effort.markets} markets answered", 1, memory, "MiB", limit=MOST_MIB))
    found = take_turns({OURS: (server.port, asked)}, effort, at.asks, 1)[OURS]
    return [*rows, Row(f"batch of {effort.markets} markets: p50", 1, found.p50_ms, "ms", limit=MOST_BATCH_MS)]


def pushes(at: Place, effort: Effort) -> list[Row]:
    """A pushed bar until its Signal is on a stream, by each database."""
    rows = []
    with pushing.postgres(at.asks) as url:
        for name, address in (("SQLite", at.url), ("PostgreSQL", url)):
            if address is None:
                continue
            bars = data.newest(data.BARS + effort.pushes, data.full_hour())
            engine = store.database.connect(address)
            store.database.upgrade(engine)
            data.fill(engine, [PUSHED], bars.head(data.BARS))
            engine.dispose()
            env = running.environment(address, at.folder, stale_after_timeframes=2 * effort.pushes)
            with running.answering(running.SERVE, env, at.answers) as server:
                took = pushing.milliseconds(server.port, PUSHED, bars.tail(effort.pushes), at.asks)
            case = f"pushed bar to its Signal on a stream, {name}"
            rows += [
                Row(f"{case}: p50", 1, statistics.median(took), "ms", limit=MOST_PUSHED_MS),
                Row(f"{case}: p95", 1, statistics.quantiles(took, n=20)[-1], "ms"),
            ]
    return rows


def networks(at: Place, port: int, pythons: Mapping[str, Path], effort: Effort) -> list[Row]:
    """One row of features through the network: the service's Open Inference Protocol beside servers of models."""
    market = f"{data.names(1)[0]}:{data.TIMEFRAME}"
    row = servers.features()
    sides = {OURS: (port, [load.request(f"/v2/models/{market}/infer", servers.protocol(row))])}
    with ExitStack() as stack:
        for name, python in pythons.items():
            server = servers.SERVERS[name]
            env = at.environment()
            made = servers.running(server, python, at.folder / name, env, at.answers)
            sides[server.name] = (stack.enter_context(made).port, [server.ask(row)])
        found = take_turns(sides, effort, at.asks)
    case = "infer, one row of features"
    peers = [name for name in found if name != OURS]
    alone = [Row(case, 1, found[OURS].per_second, "req/s", lower_is_better=False)] if not peers else []
    return alone + beside(case, found)


def measure(effort: Effort, pythons: Mapping[str, Path]) -> list[Row]:
    """Every row."""
    before = Row("cores that others kept busy before", 1, others(), "")
    with place(effort.markets) as at:
        began = time.perf_counter()
        with running.answering(running.SERVE, at.environment(), at.answers) as server:
            rows = starts(at, began, server, effort)
            rows = [
                *predicts(at, server.port, effort),
                *with_bars(at, server.port, effort),
                *rows,
                *networks(at, server.port, pythons, effort),
            ]
        return [*rows, *pushes(at, effort), before]


def others(seconds: float = 1.0) -> float:
    """How many cores are busy now with what others do."""
    all_cores, begun = turns.busy(), time.perf_counter()
    time.sleep(seconds)
    return (turns.busy() - all_cores) / (time.perf_counter() - begun)


def main() -> None:
    """Measures all of it."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="fewer and smaller cases, within 60 s")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of a table")
    for name, server in servers.SERVERS.items():
        parser.add_argument(
            f"--{name}", metavar="PYTHON", help=f"of an environment with {server.name}", type=Path
        )
    asked = parser.parse_args()
    pythons = {name: path for name in servers.SERVERS if (path := getattr(asked, name)) is not None}
    effort = QUICK if asked.quick else FULL
    report.show(f"serve, {data.origin()[0]}", measure(effort, pythons), asked.json)


if __name__ == "__main__":
    main()
