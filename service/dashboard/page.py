"""The page at `/`: read in one view, rendered here, and asked for again by its own script.

Everything that it loads comes from this server; the chart library is served from the installed plotly package.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import plotly
import polars as pl
from fastapi import APIRouter
from fastapi.responses import FileResponse, HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

import model.bars
import store.bars
import store.database
import store.figures
import store.health
import store.jobs
import store.markets
import store.predictions
import store.versions
from model.bars import iso
from model.errors import NotFound
from model.predictions import Prediction
from service import overview, readiness
from service.dashboard import words
from service.deps import AnyMarket, ClockDep, EngineDep, SettingsDep, machine_now
from service.overview import MarketState
from service.readiness import Moment
from store.database import Connection
from store.jobs import Job
from store.markets import MarketRow
from store.predictions import Entry
from store.versions import Version

CLOSES_SHOWN = 300
CARDS_SHOWN = 10  # the others are links
JOBS_SHOWN = 12
REFRESH_SECONDS = 5
REPLAY_REFRESH_SECONDS = 2

HERE = Path(__file__).parent
FILES = {
    "page.css": (HERE / "page.css", "text/css"),
    "page.js": (HERE / "page.js", "text/javascript"),
    "plotly.min.js": (Path(plotly.__file__).parent / "package_data" / "plotly.min.js", "text/javascript"),
}
# plotly writes style attributes and draws with data: images; nothing may come from anywhere else
POLICY = (
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; object-src 'none'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

templates = Environment(
    loader=PackageLoader("service", "dashboard"),
    autoescape=select_autoescape(),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
templates.filters.update(
    price=words.price,
    percent=words.percent,
    change=words.change,
    small=words.small,
    duration=words.duration,
    moment=words.moment,
    iso=iso,
    code=words.code,
)
templates.globals.update(words=words, ahead=words.ahead)


@dataclass(frozen=True)
class Card:
    """What the page shows of one market."""

    state: MarketState
    said: Entry | None  # the newest of the ledger
    behind: timedelta | None  # how much older than the newest bar's close it is; None: it is of that bar
    stale: bool  # the newest bar is too old to answer from
    champion: Version | None
    health: "Health | None"
    chart: dict[str, Any]


@dataclass(frozen=True)
class Layer:
    """A layer's last epoch, and its gradient norm over the epochs as points of a line in a 100 x 24 box."""

    values: dict[str, Any]
    line: str


@dataclass(frozen=True)
class Health:
    """The gradient health of the version that is shown."""

    version: int
    verdict: str
    epochs: int
    layers: list[Layer]


def _card(conn: Connection, state: MarketState, now: datetime) -> Card:
    entries = store.predictions.recent(conn, state.id, CLOSES_SHOWN)
    said = entries[-1] if entries else None
    as_of = None if said is None else said.signal.as_of
    late = (
        None
        if as_of is None or state.last_close is None or as_of >= state.last_close
        else state.last_close - as_of
    )
    version = state.champion
    if version is None and state.last_run is not None:
        version = state.last_run.version_id
    return Card(
        state=state,
        said=said,
        behind=late,
        stale=state.stale_from is not None and now > state.stale_from,
        champion=None if state.champion is None else store.versions.get(conn, state.champion),
        health=None if version is None else _health(conn, version),
        chart=_chart(conn, state, entries, now),
    )


def _health(conn: Connection, version: int) -> Health | None:
    try:
        found = store.health.of_version(conn, version)
    except NotFound:
        return None
    norms = [[layer["gradient_norm"] for layer in epoch["layers"]] for epoch in found["epochs"]]
    layers = [
        Layer(values, line([norm[i] for norm in norms if i < len(norm)]))
        for i, values in enumerate(found["layers"])
    ]
    return Health(version, found["verdict"], len(found["epochs"]), layers)


def line(values: list[float | None]) -> str:
    """Points of an SVG line in a 100 x 24 box, on a logarithmic scale of at least two decades; what is not positive is left out."""
    logs = [(i, math.log10(v)) for i, v in enumerate(values) if v is not None and v > 0]
    if len(logs) < 2:
        return ""
    low, high = min(y for _, y in logs), max(y for _, y in logs)
    # two decades at least, so that the jitter of a healthy layer looks as small as it is
    middle, half = (low + high) / 2, max(high - low, 2) / 2
    last = len(values) - 1
    return " ".join(f"{100 * i / last:.1f},{12 - 10 * (y - middle) / half:.1f}" for i, y in logs)


def _chart(conn: Connection, state: MarketState, entries: Sequence[Entry], now: datetime) -> dict[str, Any]:
    """The newest closes, and each prediction of their time: on which bar it stood, what it said, what came of it.

    Bars are counted from the first one shown, so that nights and weekends take no room.
    """
    timeframe = model.bars.timeframe(state.market.timeframe)
    bars = store.bars.read(conn, state.id, timeframe, closed_by=now, last=CLOSES_SHOWN)
    times = bars.select(timeframe.closes(pl.col("ts"))).to_series().to_list()
    at = {time: i for i, time in enumerate(times)}
    said = []
    for entry in entries:
        signal = entry.signal
        if isinstance(signal, Prediction) and signal.as_of in at:
            up = entry.outcome.up if entry.outcome else None
            said.append(
                {
                    "from": at[signal.as_of],
                    "to": at[signal.as_of] + signal.horizon,
                    "price": signal.price,
                    "low": signal.interval[0],
                    "high": signal.interval[1],
                    "level": signal.level,
                    "p_up": signal.p_up,
                    "up": up,
                    "right": None if up is None else up == (signal.p_up > 0.5),
                }
            )
    return {"times": [iso(time) for time in times], "closes": bars["close"].to_list(), "said": said}


router = APIRouter(include_in_schema=False)


@router.get("/", response_class=HTMLResponse)
def page(market: AnyMarket, engine: EngineDep, settings: SettingsDep, clock: ClockDep) -> HTMLResponse:
    """The page, of all markets or of one."""
    now, stale_after = clock(), settings.service.stale_after_timeframes
    with store.database.read(engine) as conn:
        replay = store.figures.replay(conn)
        rows = store.markets.all(conn)
        if market is None:
            shown = most_alive(rows, store.figures.newest_opens(conn), now, stale_after)[:CARDS_SHOWN]
        else:
            shown = [store.markets.need(conn, market)]
        states = [overview.market_state(conn, row, stale_after) for row in shown]
        cards = sorted((_card(conn, state, now) for state in states), key=lambda card: card.stale)
        jobs = store.jobs.page(conn, limit=JOBS_SHOWN)
    text = templates.get_template("page.html").render(
        cards=cards,
        others=[row.market for row in rows if row not in shown],
        jobs=jobs,
        doubts=list(readiness.doubts(states, Moment(now, replay is not None))),
        now=now,
        machine_now=machine_now(),
        replay=replay is not None,
        refresh_seconds=REPLAY_REFRESH_SECONDS if replay else REFRESH_SECONDS,
        versions=VERSIONS,
        took=took,
    )
    return HTMLResponse(text, headers={"content-security-policy": POLICY, "cache-control": "no-store"})


def most_alive(
    rows: Sequence[MarketRow], newest_opens: dict[int, datetime], now: datetime, stale_after_timeframes: float
) -> list[MarketRow]:
    """The markets whose next bar is not late first, as they are; then the others, the least late (in bars) first."""

    def late(row: MarketRow) -> float:
        opened = newest_opens.get(row.id)
        if opened is None:
            return math.inf
        timeframe = model.bars.timeframe(row.market.timeframe)
        return max((now - timeframe.close_of(opened)) / timeframe.length - stale_after_timeframes, 0.0)

    return sorted(rows, key=late)


def took(job: Job, now: datetime) -> timedelta | None:
    """How long a job took, or has taken so far."""
    return None if job.started_at is None else (job.ended_at or now) - job.started_at


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:12]


# part of each file's address, so that a browser keeps it until it changes
VERSIONS = {name: _digest(file) for name, (file, _) in FILES.items()}


@router.get("/static/{name}", response_class=FileResponse)
def static(name: str) -> FileResponse:
    """The page's own files."""
    if name not in FILES:
        raise NotFound(f"no file {name!r}")
    file, media_type = FILES[name]
    return FileResponse(
        file, media_type=media_type, headers={"cache-control": "public, max-age=31536000, immutable"}
    )
