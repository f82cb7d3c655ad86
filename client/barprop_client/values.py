"""What the service speaks of, as frozen values. What a newer service says besides is left out, never refused."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from barprop_client.errors import Problem


@dataclass(frozen=True)
class Market:
    """A symbol and a timeframe, e.g. `ETHUSDT` `1h`."""

    symbol: str
    timeframe: str


@dataclass(frozen=True)
class Bar:
    """A closed bar, named by its open time `ts`, which has a zone."""

    ts: datetime
    open: float
    high: float
    low: float
    close: float
    volume: float


@dataclass(frozen=True)
class Prediction:
    """A number, with its probability and its interval, for the `horizon` bars after `as_of`."""

    market: Market
    as_of: datetime  # the close of the bar that it stands on
    version: int
    horizon: int  # bars
    p_up: float  # calibrated probability that the close then is above this close
    expected_return: float  # log return over the horizon, unscaled
    price: float
    interval: tuple[float, float]  # of the price, at `level`
    level: float
    skill: bool | None  # what evidence says so far; None: too little of it
    weights: str  # first 12 digits of the SHA-256
    position: float | None = None  # target of the market's policy: -1 is all short, 1 all long
    pays_up_to_bps: float | None = None  # the round trip's cost from which on that position stops paying
    degraded: bool = False  # answered from memory, since the service's database is away
    in_sample: bool | None = (
        None  # of an answer by `at` or `version`: had the version learned this bar's outcome?
    )


@dataclass(frozen=True)
class Abstention:
    """No number, and why: `reason` is a word of a closed list, such as `stale_bars`, `gap` or `no_model`."""

    market: Market
    as_of: datetime | None
    version: int | None
    reason: str
    detail: str
    degraded: bool = False
    in_sample: bool | None = None


Signal = Prediction | Abstention


@dataclass(frozen=True)
class Refused:
    """A market of a batch that got no Signal."""

    market: Market
    problem: Problem


@dataclass(frozen=True)
class Outcome:
    """What came true, and how good the prediction was."""

    up: bool
    log_return: float
    log_loss: float
    scored_at: datetime


@dataclass(frozen=True)
class Entry:
    """A Signal as it was first served: one row of the ledger. `outcome` is None until it is known."""

    id: int
    signal: Signal
    served_at: datetime
    outcome: Outcome | None = None


@dataclass(frozen=True)
class Rejected:
    """Bars that were refused for one reason; `first` is the open time of the earliest."""

    reason: str
    rows: int
    first: datetime | None


@dataclass(frozen=True)
class Ingested:
    """What became of pushed bars: counts, and the first and last open time of those accepted."""

    market: Market
    added: int
    repeated: int
    corrected: int
    rejected: tuple[Rejected, ...]
    gaps: int
    first: datetime | None
    last: datetime | None


@dataclass(frozen=True)
class MarketState:
    """A market, how many bars it has, when the newest of them closed, and which version answers."""

    market: Market
    paused: bool
    bars: int
    last_close: datetime | None
    champion: int | None


@dataclass(frozen=True)
class Version:
    """A stored version: its role, and what it was made of. `seen_until`: it knows nothing of what came later."""

    id: int
    market: Market
    role: str  # candidate, challenger, champion, retired or rejected
    reason: str | None
    created_at: datetime
    sha256: str
    seen_until: datetime | None
    manifest: Mapping[str, Any]


@dataclass(frozen=True)
class Job:
    """One execution of a kind of work, as it was when asked."""

    id: int
    kind: str
    market: Market | None
    state: str  # queued, running, succeeded, failed or cancelled
    progress: float  # 0 to 1
    error: str | None
    result: Mapping[str, Any] | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing more will come of it."""
        return self.state in ("succeeded", "failed", "cancelled")


@dataclass(frozen=True)
class Doubt:
    """One reason why answers may be missing or get worse."""

    reason: str
    market: Market | None
    detail: str


@dataclass(frozen=True)
class Readiness:
    """`ok`, `degraded` (answers, with doubts), or `unready` (cannot answer)."""

    status: str
    reasons: tuple[Doubt, ...]
