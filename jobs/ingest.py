"""Files of bars into the store: one that is named, or all that are new in the inbox.

A file in the inbox is called SYMBOL_TIMEFRAME.KIND, e.g. ETHUSDT_1h.parquet. It stays where it is; what was taken
is remembered in the job's result by size and time of change, and taking a file twice is taking it once.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import model.bars
import store.bars
import store.database
import store.jobs
from jobs.sources import files
from jobs.sources.files import Stamp
from model.bars import Market
from model.errors import BadBars, BadInput
from store.bars import IngestReport, Noted
from store.database import Engine
from store.jobs import Job, Keep
from store.settings import Settings

KINDS = (".parquet", ".feather", ".arrow", ".csv", ".txt", ".tsv", ".json", ".jsonl")
# A file that changed this recently may be half written.
SETTLED_AFTER = timedelta(seconds=2)

State = list[int]  # size in bytes, time of change in nanoseconds; a list, as JSON gives it back


def ingest_file(
    engine: Engine,
    path: Path,
    market: Market,
    now: datetime,
    *,
    tz: str = "UTC",
    stamp: Stamp = "open",
    columns: Mapping[str, str] | None = None,
    noted: Noted | None = None,
) -> IngestReport:
    """Keeps the bars of a file that are sound and closed by `now`; see `jobs.sources.files.load` and `store.bars.add` for
    the rest.

    Raises BadBars for a file without one such bar, and for one that says itself that its bars are of another
    market; nothing of it is stored then.
    """
    found = files.load(
        path, timeframe=model.bars.timeframe(market.timeframe), tz=tz, stamp=stamp, columns=columns
    )
    others = [named for named in found.symbols if not files.same_symbol(named, market.symbol)]
    if others:
        raise BadBars(
            f"{path.name}: its own symbol column says {', '.join(others[:3])}, not {market.symbol}; "
            "if these bars are meant, leave that column out with --columns symbol="
        )
    try:
        return store.bars.add(engine, market, found.rows, now, noted)
    except BadBars as error:
        raise BadBars(f"{path.name}: {error}") from error


def waiting(engine: Engine, inbox: Path, now: datetime) -> bool:
    """Whether the inbox holds a file that the last ingest has not taken as it is. `now` is the machine's time."""
    taken = _taken(engine)
    return any(taken.get(path.name) != state for path, state in _settled(inbox, now))


def run(
    engine: Engine,
    job: Job,
    settings: Settings,
    clock: Callable[[], datetime],
    progress: Callable[[float], None],
) -> Keep:
    """Takes every file of the inbox that is new or changed: {"files": [ingest documents], "refused", "taken"}.

    A bad file is named among the refused, with its reason, and keeps none of the others from being taken.
    """
    inbox = settings.jobs.inbox
    if inbox is None:
        return lambda conn: {"files": [], "refused": [], "taken": {}}
    if not inbox.is_dir():
        raise BadInput(f"the inbox {inbox} is no folder")
    before = _taken(engine)
    # a file's time is the machine's, whatever a demo's clock says
    present = _settled(inbox, job.started_at or job.requested_at)
    reports, refused = [], []
    for done, (path, state) in enumerate(present):
        if before.get(path.name) != state:
            try:
                market = _market(path)
                reports.append({"file": path.name, **ingest_file(engine, path, market, clock()).document()})
            except BadInput as error:
                refused.append({"file": path.name, "error": str(error)})
        progress((done + 1) / len(present))
    taken = {path.name: state for path, state in present}
    return lambda conn: {"files": reports, "refused": refused, "taken": taken}


def _settled(inbox: Path, now: datetime) -> list[tuple[Path, State]]:
    """The inbox's files of bars that are not being written, by name, with the state that they are in."""
    if not inbox.is_dir():
        return []
    found = []
    for path in sorted(inbox.iterdir()):
        name = path.name.lower().removesuffix(".gz")
        if name.startswith(".") or not name.endswith(KINDS) or not path.is_file():
            continue
        try:
            status = path.stat()
        except OSError:  # gone since the folder was listed
            continue
        if datetime.fromtimestamp(status.st_mtime, UTC) <= now - SETTLED_AFTER:
            found.append((path, [status.st_size, status.st_mtime_ns]))
    return found


def _market(path: Path) -> Market:
    """The market that a file of the inbox names, SYMBOL_TIMEFRAME.KIND. Raises BadInput."""
    name = path.name
    for suffix in (".gz", *KINDS):
        name = name[: -len(suffix)] if name.lower().endswith(suffix) else name
    symbol, _, timeframe = name.rpartition("_")
    if not symbol:
        raise BadInput(
            f"{path.name}: a file in the inbox is called SYMBOL_TIMEFRAME.KIND, e.g. ETHUSDT_1h.csv"
        )
    try:
        return model.bars.market(symbol, timeframe)
    except BadInput as error:
        raise BadInput(f"{path.name}: {error}") from error


def _taken(engine: Engine) -> dict[str, State]:
    """What the last ingest that ended well had taken."""
    with store.database.read(engine) as conn:
        job = store.jobs.last_succeeded(conn, None, "ingest")
    return {} if job is None or job.result is None else dict(job.result.get("taken", {}))
