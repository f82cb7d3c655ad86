"""Calibration that moves with the market, the trials that backtests are, and walks that can go on where they stopped."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

MOVED = ("log_temperature", "certainty", "log_width")


def upgrade() -> None:
    for name in MOVED:
        op.add_column("predictions", sa.Column(name, sa.Double))
    op.create_table(
        "trials",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("market_id", sa.Integer, nullable=False),
        sa.Column("job_id", sa.Integer, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("config", sa.Text, nullable=False),
        sa.Column("rows", sa.Integer, nullable=False),
        sa.Column("log_loss", sa.Double),
        sa.Column("sharpe_bar", sa.Double),
        sa.PrimaryKeyConstraint("id", name="pk_trials"),
        sa.ForeignKeyConstraint(["market_id"], ["markets.id"], name="fk_trials_market_id"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_trials_job_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_trials_market_id_id", "trials", ["market_id", "id"])
    op.create_table(
        "backtest_blocks",
        sa.Column("walk", sa.String(64), nullable=False),
        sa.Column("number", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("market_id", sa.Integer, nullable=False),
        sa.Column("made_at", sa.BigInteger, nullable=False),
        sa.Column("weights", sa.LargeBinary, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("manifest", sa.Text, nullable=False),
        sa.Column("manifest_sha256", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("walk", "number", name="pk_backtest_blocks"),
        sa.ForeignKeyConstraint(["market_id"], ["markets.id"], name="fk_backtest_blocks_market_id"),
    )


def downgrade() -> None:
    op.drop_table("backtest_blocks")
    op.drop_table("trials")
    for name in MOVED:
        op.drop_column("predictions", name)
