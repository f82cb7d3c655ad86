"""Every table. Times are microseconds since 1970 UTC in a BIGINT: exact, sortable, the same in SQLite and PostgreSQL.

Rows are appended; what changes in place is a job's state, a ledger row's outcome, a schedule, a market's pause and
its counts of bars and changes, a key's last use, and the clock of a demo. An id names one thing for ever: `sqlite_autoincrement`
keeps SQLite from giving a deleted row's id to the next one.
"""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.types import TypeDecorator

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


def micros(moment: datetime) -> int:
    """Microseconds since 1970 UTC."""
    return (moment - EPOCH) // MICROSECOND


class Moment(TypeDecorator[datetime]):
    """An aware datetime, kept as microseconds since 1970 UTC."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        return None if value is None else micros(value)

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:
        return None if value is None else EPOCH + value * MICROSECOND


class Document(TypeDecorator[Any]):
    """A JSON document, kept as text with sorted keys; NaN and infinity are refused."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        return None if value is None else json.dumps(value, sort_keys=True, allow_nan=False)

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        return None if value is None else json.loads(value)


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

markets = Table(
    "markets",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("symbol", String(32), nullable=False),
    Column("timeframe", String(8), nullable=False),
    Column("paused", Boolean, nullable=False, default=False),
    Column("created_at", Moment, nullable=False),
    Column("bars", BigInteger, nullable=False, default=0),  # how many it has, revisions not counted
    # moves with all that may change what is answered: its bars, its promotions, its pause
    Column("changes", BigInteger, nullable=False, default=0, server_default="0"),
    UniqueConstraint("symbol", "timeframe"),
    sqlite_autoincrement=True,
)


def _running(name: str, *columns: str, of: str) -> Index:
    """A unique index over running jobs alone."""
    where = text(f"state = 'running' AND {of}")
    return Index(name, *columns, unique=True, sqlite_where=where, postgresql_where=where)


# A bar that comes again with other values is a further revision; the newest serves, none is changed or removed.
bars = Table(
    "bars",
    metadata,
    Column("market_id", ForeignKey("markets.id"), primary_key=True),
    Column("ts", BigInteger, primary_key=True, autoincrement=False),  # open time, microseconds
    Column("revision", Integer, primary_key=True, autoincrement=False),
    Column("open", Double, nullable=False),
    Column("high", Double, nullable=False),
    Column("low", Double, nullable=False),
    Column("close", Double, nullable=False),
    Column("volume", Double, nullable=False),
    Column("recorded_at", BigInteger, nullable=False),  # microseconds
    sqlite_with_rowid=False,
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("kind", String(32), nullable=False),
    Column("market_id", ForeignKey("markets.id")),
    Column("state", String(16), nullable=False),  # queued, running, succeeded, failed, cancelled
    Column("priority", Integer, nullable=False),  # 0: asked for, 1: scheduled
    Column("params", Document, nullable=False),
    Column("progress", Double, nullable=False),  # 0 to 1
    Column("requested_at", Moment, nullable=False),
    Column("started_at", Moment),
    Column("ended_at", Moment),
    Column("heartbeat_at", Moment),
    Column("lease_until", Moment),
    Column("owner", String(64)),
    Column("cancel_asked", Boolean, nullable=False, default=False),
    Column("error", Text),
    Column("result", Document),
    Index(None, "state", "priority", "id"),
    Index(None, "market_id", "kind", "id"),
    # the database itself refuses that a market's kind runs twice, whatever the code does
    _running("uq_jobs_running_of_market", "market_id", "kind", of="market_id IS NOT NULL"),
    _running("uq_jobs_running_of_none", "kind", of="market_id IS NULL"),
    sqlite_autoincrement=True,
)

schedules = Table(
    "schedules",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("kind", String(32), nullable=False),
    Column("trigger", String(64), nullable=False),  # "every 60s" or a cron line, in UTC
    Column("params", Document, nullable=False),
    Column("enabled", Boolean, nullable=False, default=True),
    Column("updated_at", Moment, nullable=False),
    Column(
        "due_at", Moment
    ),  # when it is to fire next, as its last firing left it; null: nobody has followed it yet
    UniqueConstraint("kind"),
)

# The workers that live; a row's age tells one that died without a word.
workers = Table(
    "workers",
    metadata,
    Column("owner", String(64), primary_key=True),  # as in the rows of its jobs
    Column("seen_at", Moment, nullable=False),
)

versions = Table(
    "versions",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("market_id", ForeignKey("markets.id"), nullable=False),
    Column("parent_id", ForeignKey("versions.id")),
    Column("created_at", Moment, nullable=False),
    Column("weights", LargeBinary, nullable=False),
    Column("sha256", String(64), nullable=False),  # of the arrays alone
    Column("manifest", Text, nullable=False),  # JSON, exactly as digested
    Column("manifest_sha256", String(64), nullable=False),
    Index(None, "market_id", "id"),
    sqlite_autoincrement=True,
)

# Which version plays which role from when on: the newest champion row that is effective answers.
promotions = Table(
    "promotions",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("market_id", ForeignKey("markets.id"), nullable=False),
    Column("version_id", ForeignKey("versions.id"), nullable=False),
    Column("role", String(16), nullable=False),  # champion, challenger, rejected, retired
    Column("reason", Text, nullable=False),
    Column("decided_at", Moment, nullable=False),
    Column("effective_from", Moment, nullable=False),  # the close of the first bar that it may answer for
    Index(None, "market_id", "role", "id"),
    Index(None, "version_id", "id"),
    sqlite_autoincrement=True,
)

training_runs = Table(
    "training_runs",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("job_id", ForeignKey("jobs.id"), nullable=False),
    Column("market_id", ForeignKey("markets.id"), nullable=False),
    Column("version_id", ForeignKey("versions.id")),  # none: nothing fit to be stored came out
    Column("outcome", String(16), nullable=False),  # promoted, challenger, rejected, failed
    Column("reason", Text, nullable=False),
    Column("started_at", Moment, nullable=False),
    Column("ended_at", Moment, nullable=False),
    Column("bars_until", Moment, nullable=False),  # the close of the newest bar that it read
    Column("scores", Document, nullable=False),
    Column("curve", Document, nullable=False),  # [{"epoch", "train_loss", "stop_loss"}]
    Column("verdict", String(16), nullable=False),  # the gradients' health as a whole
    Index(None, "market_id", "id"),
    Index(None, "version_id"),
    sqlite_autoincrement=True,
)

gradient_health = Table(
    "gradient_health",
    metadata,
    Column("run_id", ForeignKey("training_runs.id"), primary_key=True),
    Column("epoch", Integer, primary_key=True, autoincrement=False),
    Column("layer", Integer, primary_key=True, autoincrement=False),  # 0 is next to the features
    Column("name", String(32), nullable=False),
    Column("gradient_norm", Double),  # null where it was not finite
    Column("update_ratio", Double),
    Column("dead_fraction", Double, nullable=False),
    Column("saturated_fraction", Double, nullable=False),
    Column("non_finite", Integer, nullable=False),
    Column("verdict", String(16), nullable=False),
    Column("largest", Double),  # this and the following are null, too, in rows older than these columns
    Column("cosine", Double),
    Column("noise_scale", Double),
)

backtests = Table(
    "backtests",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("job_id", ForeignKey("jobs.id"), nullable=False),
    Column("market_id", ForeignKey("markets.id"), nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("config", Document, nullable=False),
    Column("document", Document, nullable=False),  # what `barprop backtest --json` prints
    Column("predictions", LargeBinary, nullable=False),  # a Parquet file, one row a judged bar
    Index(None, "market_id", "id"),
    sqlite_autoincrement=True,
)

# Every evaluation of a way to train and trade, whatever became of it: what a later claim has to be deflated by.
trials = Table(
    "trials",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("market_id", ForeignKey("markets.id"), nullable=False),
    Column("job_id", ForeignKey("jobs.id"), nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("config", Document, nullable=False),
    Column("rows", Integer, nullable=False),  # that were judged
    Column("log_loss", Double),
    Column(
        "sharpe_bar", Double
    ),  # of the strategy's returns after costs, per bar; null where it did not trade
    Index(None, "market_id", "id"),
    sqlite_autoincrement=True,
)

# What a walk forward has done so far, refit by refit, for as long as it has not come to its end.
backtest_blocks = Table(
    "backtest_blocks",
    metadata,
    Column("walk", String(64), primary_key=True),  # SHA-256 of all that decides it
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("market_id", ForeignKey("markets.id"), nullable=False),
    Column("made_at", Moment, nullable=False),
    Column(
        "weights", LargeBinary, nullable=False
    ),  # an artifact: what was said, and the version where one was made
    Column("sha256", String(64), nullable=False),
    Column("manifest", Text, nullable=False),
    Column("manifest_sha256", String(64), nullable=False),
)

# The ledger. A bar's first Signal stands: `answer` names what was said of it, so that saying it again adds nothing.
predictions = Table(
    "predictions",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("market_id", ForeignKey("markets.id"), nullable=False),
    Column("as_of", Moment, nullable=False),
    Column("answer", String(64), nullable=False),  # "prediction", or "REASON:VERSION" of an abstention
    Column("kind", String(16), nullable=False),  # prediction, abstention
    Column("version_id", ForeignKey("versions.id")),
    Column("reason", String(32)),
    Column("detail", Text),
    Column("horizon", Integer),
    Column("p_up", Double),
    Column("expected_return", Double),
    Column("price", Double),
    Column("low", Double),
    Column("high", Double),
    Column("level", Double),
    Column("skill", Boolean),
    Column("weights", String(12)),
    Column("base_rate", Double),  # what the version's training bars say without any features
    Column("close", Double),  # the close that it stands on
    Column("features", LargeBinary),  # the row as it was served, float32
    Column("log_temperature", Double),  # how far calibration had moved, as model.recalibration has it
    Column("certainty", Double),
    Column("log_width", Double),
    Column("position", Double),  # to hold, as a share of the capital
    Column(
        "pays_up_to_bps", Double
    ),  # the round trip's cost from which on that no longer pays; null: nothing is held
    Column("served_at", Moment, nullable=False),
    Column("up", Boolean),  # the outcome, once known
    Column("return", Double),
    Column("log_loss", Double),
    Column("base_log_loss", Double),
    Column("scored_at", Moment),
    UniqueConstraint("market_id", "as_of", "answer"),
    Index(None, "market_id", "id"),
    Index(None, "version_id", "scored_at"),
    Index(None, "scored_at", "kind"),
    sqlite_autoincrement=True,
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(64), nullable=False),
    Column("prefix", String(12), nullable=False, unique=True),
    Column("hash", String(64), nullable=False),
    Column("scopes", Document, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("expires_at", Moment),
    Column("last_used_at", Moment),
    Column("revoked_at", Moment),
)

# Who changed what. Rows are appended in the transaction of the change itself.
audit = Table(
    "audit",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("at", Moment, nullable=False),
    Column("actor", String(64), nullable=False),  # a key's prefix, "loopback", or "command line"
    Column("action", String(64), nullable=False),
    Column("target", String(128), nullable=False),
    Column("detail", Document, nullable=False),
    Column("request_id", String(64)),
    sqlite_autoincrement=True,
)

# Requests that named themselves: asked again, each is answered by what it was answered before.
idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("actor", String(64), primary_key=True),
    Column("key", String(255), primary_key=True),
    Column("request_sha256", String(64), nullable=False),  # of the method, the path and the body
    Column("created_at", Moment, nullable=False),
    Column("status", Integer),  # null: under way
    Column("headers", Document),
    Column("body", LargeBinary),
    Index(None, "created_at"),
)

# A demo's clock, read by service and worker alike; without a row the time is the machine's.
clock = Table(
    "clock",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("now", Moment, nullable=False),
)
