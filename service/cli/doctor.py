"""`barprop doctor`: is the mathematics right here, and is this market's training sound?"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from service.cli import opening, options, output
from service.cli.options import AnySymbol, AnyTimeframe, AsJson

if TYPE_CHECKING:
    from model.bars import Market
    from model.config import TrainConfig
    from model.dataset import Dataset


def doctor(symbol: AnySymbol = None, timeframe: AnyTimeframe = None, as_json: AsJson = False) -> None:
    """Examine data, forward pass, gradients, updates and settings.

    \b
    barprop doctor                  (the program itself, on a made-up problem)
    barprop doctor ETHUSDT 1h       (that market's bars and the training that the settings ask for)

    Each finding names where its fault lies (data, forward, backward, update, setting), with evidence and a remedy; the
    verdict is where the first lies. A fault ends with exit code 1.
    """
    market = options.any_market(symbol, timeframe)

    from jobs import retrain
    from model import doctor as examination

    if market is None:
        settings = opening.settings()
        opening.features(settings)
        config = retrain.config_of(settings, {})
        patient = examination.admit(*examination.synthetic(config.seed), config)
    else:
        data, config = _newest(market)
        patient = examination.admit(data.X, data.up, data.target, config, data.closes)
    findings = examination.examine(patient)
    verdict = examination.verdict(findings)
    sound = verdict == examination.HEALTHY
    if as_json:
        output.document(
            {
                "market": None if market is None else asdict(market),
                "sound": sound,
                "verdict": verdict,
                "findings": [examination.document(finding) for finding in findings],
            }
        )
    else:
        for finding in findings:
            output.line(f"{'ok   ' if finding.passed else 'FAULT'} {finding.check}: {finding.evidence}")
            if finding.advice:
                output.line(f"      {finding.kind}: {finding.advice}")
        output.line(f"verdict: {verdict}")
    if not sound:
        raise typer.Exit(1)


def _newest(market: Market) -> tuple[Dataset, TrainConfig]:
    """The rows that the market's next training would see."""
    import model.bars
    import store.bars
    import store.clock
    import store.database
    import store.inputs
    import store.markets
    from jobs import retrain
    from model import dataset, features
    from model.errors import BadBars

    with opening.database() as (settings, engine):
        opening.features(settings)
        config = retrain.config_of(settings, {})
        kept = model.bars.timeframe(market.timeframe)
        with store.database.read(engine) as conn:
            row = store.markets.need(conn, market)
            last = dataset.bars_for(config, kept, config.window)
            bars = store.bars.read(conn, row.id, kept, closed_by=store.clock.now(engine), last=last)
            others = store.inputs.beside(conn, config.feature_set, bars, kept)
    if len(bars) <= features.WARMUP + config.horizon:
        raise BadBars(f"{len(bars)} bars of {market} are too few to examine: ingest more")
    return dataset.from_bars(bars, kept, config, config.window, others), config
