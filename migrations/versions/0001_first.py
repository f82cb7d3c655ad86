"""The first tables, and the schedules that every database starts with."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("prefix", sa.String(length=12), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("scopes", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger()),
        sa.Column("last_used_at", sa.BigInteger()),
        sa.Column("revoked_at", sa.BigInteger()),
        sa.PrimaryKeyConstraint("id", name="pk_api_keys"),
        sa.UniqueConstraint("prefix", name="uq_api_keys_prefix"),
    )
    op.create_table(
        "clock",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("now", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_clock"),
    )
    op.create_table(
        "markets",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("symbol", sa.String(length=32), nullable=False),
        sa.Column("timeframe", sa.String(length=8), nullable=False),
        sa.Column("paused", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("bars", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_markets"),
        sa.UniqueConstraint("symbol", "timeframe", name="uq_markets_symbol_timeframe"),
        sqlite_autoincrement=True,
    )
    schedules = op.create_table(
        "schedules",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("trigger", sa.String(length=64), nullable=False),
        sa.Column("params", sa.Text(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_schedules"),
        sa.UniqueConstraint("kind", name="uq_schedules_kind"),
    )
    defaults = [
        ("score", "every 2s", "{}"),
        ("ingest", "every 10s", "{}"),
        ("retrain", "every 30s", '{"min_new_bars": 100}'),
        ("backtest", "every 300s", '{"last": 5000, "min_new_bars": 1000}'),
    ]
    op.bulk_insert(
        schedules,
        [
            {"kind": kind, "trigger": trigger, "params": params, "enabled": True, "updated_at": 0}
            for kind, trigger, params in defaults
        ],
    )
    op.create_table(
        "bars",
        sa.Column("market_id", sa.Integer(), nullable=False),
        sa.Column("ts", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("revision", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("open", sa.Double(), nullable=False),
        sa.Column("high", sa.Double(), nullable=False),
        sa.Column("low", sa.Double(), nullable=False),
        sa.Column("close", sa.Double(), nullable=False),
        sa.Column("volume", sa.Double(), nullable=False),
        sa.Column("recorded_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["market_id"], ["markets.id"], name="fk_bars_market_id"),
        sa.PrimaryKeyConstraint("market_id", "ts", "revision", name="pk_bars"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "jobs",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("market_id", sa.Integer()),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("params", sa.Text(), nullable=False),
        sa.Column("progress", sa.Double(), nullable=False),
        sa.Column("requested_at", sa.BigInteger(), nullable=False),
        sa.Column("started_at", sa.BigInteger()),
        sa.Column("ended_at", sa.BigInteger()),
        sa.Column("heartbeat_at", sa.BigInteger()),
        sa.Column("lease_until", sa.BigInteger()),
        sa.Column("owner", sa.String(length=64)),
        sa.Column("cancel_asked", sa.Boolean(), nullable=False),
        sa.Column("error", sa.Text()),
        sa.Column("result", sa.Text()),
        sa.ForeignKeyConstraint(["market_id"], ["markets.id"], name="fk_jobs_market_id"),
        sa.PrimaryKeyConstraint("id", name="pk_jobs"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_jobs_market_id_kind_id", "jobs", ["market_id", "kind", "id"])
    running = sa.text("state = 'running' AND market_id IS NOT NULL")
    op.create_index(
        "uq_jobs_running_of_market",
        "jobs",
        ["market_id", "kind"],
        unique=True,
        sqlite_where=running,
        postgresql_where=running,
    )
    unbound = sa.text("state = 'running' AND market_id IS NULL")
    op.create_index(
        "uq_jobs_running_of_none",
        "jobs",
        ["kind"],
        unique=True,
        sqlite_where=unbound,
        postgresql_where=unbound,
    )
    op.create_index("ix_jobs_state_priority_id", "jobs", ["state", "priority", "id"])
    op.create_table(
        "versions",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("market_id", sa.Integer(), nullable=False),
        sa.Column("parent_id", sa.Integer()),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("weights", sa.LargeBinary(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("manifest", sa.Text(), nullable=False),
        sa.Column("manifest_sha256", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(["market_id"], ["markets.id"], name="fk_versions_market_id"),
        sa.ForeignKeyConstraint(["parent_id"], ["versions.id"], name="fk_versions_parent_id"),
        sa.PrimaryKeyConstraint("id", name="pk_versions"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_versions_market_id_id", "versions", ["market_id", "id"])

    op.create_table(
        "backtests",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("job_id", sa.Integer(), nullable=False),
        sa.Column("market_id", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("config", sa.Text(), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("predictions", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_backtests_job_id"),
        sa.ForeignKeyConstraint(["market_id"], ["markets.id"], name="fk_backtests_market_id"),
        sa.PrimaryKeyConstraint("id", name="pk_backtests"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_backtests_market_id_id", "backtests", ["market_id", "id"])

    op.create_table(
        "predictions",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("market_id", sa.Integer(), nullable=False),
        sa.Column("as_of", sa.BigInteger(), nullable=False),
        sa.Column("answer", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("version_id", sa.Integer()),
        sa.Column("reason", sa.String(length=32)),
        sa.Column("detail", sa.Text()),
        sa.Column("horizon", sa.Integer()),
        sa.Column("p_up", sa.Double()),
        sa.Column("expected_return", sa.Double()),
        sa.Column("price", sa.Double()),
        sa.Column("low", sa.Double()),
        sa.Column("high", sa.Double()),
        sa.Column("level", sa.Double()),
        sa.Column("skill", sa.Boolean()),
        sa.Column("weights", sa.String(length=12)),
        sa.Column("base_rate", sa.Double()),
        sa.Column("close", sa.Double()),
        sa.Column("features", sa.LargeBinary()),
        sa.Column("served_at", sa.BigInteger(), nullable=False),
        sa.Column("up", sa.Boolean()),
        sa.Column("return", sa.Double()),
        sa.Column("log_loss", sa.Double()),
        sa.Column("base_log_loss", sa.Double()),
        sa.Column("scored_at", sa.BigInteger()),
        sa.ForeignKeyConstraint(["market_id"], ["markets.id"], name="fk_predictions_market_id"),
        sa.ForeignKeyConstraint(["version_id"], ["versions.id"], name="fk_predictions_version_id"),
        sa.PrimaryKeyConstraint("id", name="pk_predictions"),
        sa.UniqueConstraint("market_id", "as_of", "answer", name="uq_predictions_market_id_as_of_answer"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_predictions_market_id_id", "predictions", ["market_id", "id"])
    op.create_index("ix_predictions_scored_at_kind", "predictions", ["scored_at", "kind"])
    op.create_index("ix_predictions_version_id_scored_at", "predictions", ["version_id", "scored_at"])

    op.create_table(
        "promotions",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("market_id", sa.Integer(), nullable=False),
        sa.Column("version_id", sa.Integer(), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("decided_at", sa.BigInteger(), nullable=False),
        sa.Column("effective_from", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["market_id"], ["markets.id"], name="fk_promotions_market_id"),
        sa.ForeignKeyConstraint(["version_id"], ["versions.id"], name="fk_promotions_version_id"),
        sa.PrimaryKeyConstraint("id", name="pk_promotions"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_promotions_market_id_role_id", "promotions", ["market_id", "role", "id"])
    op.create_index("ix_promotions_version_id_id", "promotions", ["version_id", "id"])

    op.create_table(
        "training_runs",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("job_id", sa.Integer(), nullable=False),
        sa.Column("market_id", sa.Integer(), nullable=False),
        sa.Column("version_id", sa.Integer()),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", sa.BigInteger(), nullable=False),
        sa.Column("bars_until", sa.BigInteger(), nullable=False),
        sa.Column("scores", sa.Text(), nullable=False),
        sa.Column("curve", sa.Text(), nullable=False),
        sa.Column("verdict", sa.String(length=16), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_training_runs_job_id"),
        sa.ForeignKeyConstraint(["market_id"], ["markets.id"], name="fk_training_runs_market_id"),
        sa.ForeignKeyConstraint(["version_id"], ["versions.id"], name="fk_training_runs_version_id"),
        sa.PrimaryKeyConstraint("id", name="pk_training_runs"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_training_runs_market_id_id", "training_runs", ["market_id", "id"])
    op.create_index("ix_training_runs_version_id", "training_runs", ["version_id"])

    op.create_table(
        "gradient_health",
        sa.Column("run_id", sa.Integer(), nullable=False),
        sa.Column("epoch", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("layer", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("name", sa.String(length=32), nullable=False),
        sa.Column("gradient_norm", sa.Double()),
        sa.Column("update_ratio", sa.Double()),
        sa.Column("dead_fraction", sa.Double(), nullable=False),
        sa.Column("saturated_fraction", sa.Double(), nullable=False),
        sa.Column("non_finite", sa.Integer(), nullable=False),
        sa.Column("verdict", sa.String(length=16), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["training_runs.id"], name="fk_gradient_health_run_id"),
        sa.PrimaryKeyConstraint("run_id", "epoch", "layer", name="pk_gradient_health"),
    )


def downgrade() -> None:
    for table in (
        "gradient_health",
        "training_runs",
        "promotions",
        "predictions",
        "backtests",
        "versions",
        "jobs",
        "bars",
        "schedules",
        "markets",
        "clock",
        "api_keys",
    ):
        op.drop_table(table)
