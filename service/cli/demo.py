"""`barprop demo`: the whole of it on real bars that ship with the program, in a fresh folder, without a network."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from model.errors import BadInput
from service.cli import opening, output, running, sample
from service.cli.options import AsJson, WrongUsage
from service.cli.serve import bind

if TYPE_CHECKING:
    from model.bars import Bars, Market
    from store.database import Engine
    from store.settings import Settings

HELD_BACK = 0.25  # of the first sample's bars: they come "live"
# Small enough that the preparation stays under a minute on two cores.
BACKTEST = {"window": 1_500, "refit_every": 250, "last": 750}
# How often work happens by itself while the bars come: kind, trigger, params.
SCHEDULES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("retrain", "every 5s", {"min_new_bars": 250}),
    ("backtest", "every 60s", {"min_new_bars": 250, **BACKTEST}),
)
NO_SKILL = (
    "No skill was found, and none was to be expected: whether an index rises from one day to the next is close to a "
    "coin toss. Barprop says so rather than show an edge that is none; what there is to see is the machinery at work."
)


@dataclass(frozen=True)
class Prepared:
    """What the preparation made: the document of `--once`, and the bars still to come."""

    document: dict[str, Any]
    to_come: dict[Market, Bars]


def demo(
    folder: Annotated[
        Path | None,
        typer.Option("--folder", help="A new or empty folder for it.", show_default="a temporary one"),
    ] = None,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Where the page is served.")] = 8000,
    speed: Annotated[
        float, typer.Option("--speed", min=0.1, max=1000, help="Bars of each market a second.")
    ] = 10.0,
    once: Annotated[bool, typer.Option("--once", help="Prepare, predict once, and stop.")] = False,
    as_json: AsJson = False,
) -> None:
    """See it work: real bars, a network, a replay as if live.

    \b
    barprop demo
    barprop demo --speed 50 --port 9000
    barprop demo --once

    It makes a database in a fresh folder, puts in the daily bars that ship with the program, trains, backtests, and
    serves a page while the newest quarter of the bars comes in as if live: predictions, their scores, retrains and
    promotions happen before your eyes. No network is used. Ctrl-C stops it.
    """
    if as_json and not once:
        raise WrongUsage("--json goes with --once: a demo that goes on has no end to print")
    if not once:
        port = _free(port)
    place = _fresh(folder)
    url = f"sqlite:///{place / 'demo.db'}"
    with opening.database(database={"url": url}) as (settings, engine):
        opening.features(settings)
        if not as_json:
            output.note(f"preparing in {place}")
        with output.progress("preparing the demo") as watch:
            prepared = prepare(engine, settings, watch)
        content = {"folder": str(place), **prepared.document}
        if as_json:
            output.document(content)
            return
        _show(content)
        if once:
            return
        from service.cli import demo_replay

        demo_replay.run(engine, url, port, prepared.to_come, speed)


def prepare(engine: Engine, settings: Settings, watch: Callable[[float], None]) -> Prepared:
    """Bars in, clock set, networks trained, one backtest, and a question to each market. `watch` sees 0 to 1."""
    import polars as pl

    import model.bars
    import model.predictions
    import store.bars
    import store.clock
    import store.database
    import store.forecasts
    import store.predictions
    import store.schedules
    from jobs.executors import machine_now

    length = model.bars.timeframe(sample.TIMEFRAME)
    samples = {model.bars.market(name, sample.TIMEFRAME): sample.bars(name) for name in sample.SYMBOLS}
    first = next(iter(samples))
    now = length.close_of(samples[first]["ts"][int(len(samples[first]) * (1 - HELD_BACK)) - 1])
    known = length.closes(pl.col("ts")) <= now
    to_come = {market: later for market, bars in samples.items() if len(later := bars.filter(~known))}

    store.clock.set(engine, now)
    ingested = [store.bars.add(engine, m, bars.filter(known), now).document() for m, bars in samples.items()]
    with store.database.write(engine) as conn:
        for kind, trigger, params in SCHEDULES:
            store.schedules.set(conn, kind, trigger, params, True, machine_now())
    work: list[tuple[str, Market, dict[str, Any]]] = [("retrain", market, {}) for market in to_come]
    work.append(("backtest", first, BACKTEST))
    results = []
    for done, (kind, market, params) in enumerate(work):

        def part(share: float, done: int = done) -> None:
            watch((done + share) / len(work))

        results.append(running.run(engine, settings, kind, market, params, watch=part))
        part(1.0)
    *trained, backtest = results
    terms = store.forecasts.terms(settings)
    answers = {m: store.predictions.answer(engine, m, now, {}, terms) for m in samples}
    document = {
        "market": asdict(first),
        "now": model.bars.iso(now),
        "ingest": ingested,
        "train": trained,
        "backtest": backtest,
        "skill": backtest["verdict"]["skill"],
        "prediction": model.predictions.document(answers[first].signal),
    }
    return Prepared(document, to_come)


def _show(content: dict[str, Any]) -> None:
    from service.cli import backtest, predict

    for report in content["ingest"]:
        market = " ".join(report["market"].values())
        output.line(f"{market}: {report['added']} bars, {report['first'][:10]} to {report['last'][:10]}")
    for result in content["train"]:
        market = " ".join(result["market"].values())
        output.line(f"{market}: version {result['version']} {result['outcome']}: {result['reason']}")
    backtest.show(content["backtest"])
    if content["skill"] is not True:
        output.line(NO_SKILL)
    predict.show(content["prediction"])


def _fresh(folder: Path | None) -> Path:
    if folder is None:
        return Path(tempfile.mkdtemp(prefix="barprop-demo-"))
    folder = folder.expanduser().absolute()
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise BadInput(f"the folder {folder} is not empty: choose a new one, or an empty one, with --folder")
    return folder


def _free(port: int) -> int:
    """`port`, if it is free now; raises BadInput, naming one that is, if not."""
    try:
        with closing(bind("127.0.0.1", port)) as listening:
            return int(listening.getsockname()[1])
    except BadInput as error:
        with closing(socket.socket()) as probe:
            probe.bind(("127.0.0.1", 0))
            raise BadInput(f"{error}, such as --port {probe.getsockname()[1]}") from error
